"""From studies to files: run what the store lacks, draw, write.

results/2026-11-23-1507-figures/
  report.html      all figures, with captions and the numbers behind them; needs no network
  figures.json     the same numbers, validity, and what is needed to repeat it
  pdf/ svg/ png/   each figure

Rules of this file: a directory is made anew for every run and never written over; what was run
before is taken from the store (store.py).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import chain
from pathlib import Path
from typing import Any, Final

from bench.drawing import style
from bench.figures.plan import Picture, Scale, Study, StudyResults, validity
from bench.progress import Watch
from bench.run_directory import manifest, write_json
from bench.trials.executors import TrialExecutor
from bench.trials.store import TrialStore, code_version
from bench.trials.sweep import Ran, SweepReport, finish
from bench.trials.trial import Outcome, Trial
from epaxos.core.errors import EpaxosError

FORMAT: Final = 1
"""Changes whenever a reader of figures.json could misread it."""


@dataclass(frozen=True)
class Drawn:
    """A study that was run and drawn."""

    study: Study
    pictures: list[Picture]
    validity: str
    """VALID, SUSPECT or INVALID: the worst of its trials."""
    reasons: list[str]
    trials: int


def needed(studies: Sequence[Study], scale: Scale) -> list[Trial]:
    """All trials with their repeats, each once. Repeats are the outer loop, so that what a machine
    does meanwhile meets all alike."""
    bare = list(dict.fromkeys(chain.from_iterable(study.trials(scale) for study in studies)))
    repeated = [scale.repeated(trial) for trial in bare]
    most = max(scale.repeats, scale.real_repeats)
    return [each[number] for number in range(most) for each in repeated if number < len(each)]


def run(
    studies: Sequence[Study],
    scale: Scale,
    store: TrialStore,
    executor: TrialExecutor,
    watch: Watch[SweepReport],
) -> tuple[dict[Trial, Outcome], Ran]:
    """Every outcome, from the store or made now. Raises EpaxosError: a figure with holes is not
    drawn."""
    trials = needed(studies, scale)
    ran = finish(trials, store, executor, watch)
    for number, why in ran.failures.items():
        trial = trials[number]
        raise EpaxosError(
            f"{len(ran.failures)} of {len(trials)} trials failed; the first, {trial.protocol} on "
            f"{trial.topology} with {trial.workload}: {why}"
        )
    outcomes: dict[Trial, Outcome] = {}
    for trial, key in zip(trials, ran.keys):
        stored = store.get(key) if key else None
        if stored is None:
            raise EpaxosError("a finished trial has left the store meanwhile; run it again")
        outcomes[trial] = stored.outcome
    return outcomes, ran


def draw(studies: Sequence[Study], scale: Scale, outcomes: dict[Trial, Outcome]) -> list[Drawn]:
    """All pictures."""
    results = StudyResults(scale, outcomes)
    found = []
    for study in studies:
        trials = study.trials(scale)
        level, reasons = validity(trials, results)
        with style.styled():
            pictures = study.draw(results)
        found.append(Drawn(study, pictures, level, reasons, len(needed([study], scale))))
    return found


def write(
    directory: Path, drawn: Sequence[Drawn], scale: Scale, ran: Ran, begun: datetime
) -> dict[str, Any]:
    """The files of each picture and figures.json; returns what that says."""
    for form in style.FORMATS:
        (directory / form).mkdir()
    with style.styled():
        for each in drawn:
            for picture in each.pictures:
                stem = file_stem(each.study, picture)
                for form in style.FORMATS:
                    style.save(picture.figure, directory / form / stem, (form,))
    document = {
        "format": FORMAT,
        "scale": {
            "repeats": scale.repeats,
            "real_repeats": scale.real_repeats,
            "simulated_s": scale.simulated_s,
            "real_s": scale.real_s,
            "seed": scale.seed,
        },
        "figures": [_describe(each) for each in drawn],
        "trials": len(ran.keys),
        "reused": ran.reused,
        "notes": ran.notes,
        "manifest": {"code": code_version(), **manifest(begun)},
    }
    write_json(directory / "figures.json", document)
    return document


def file_stem(study: Study, picture: Picture) -> str:
    """The name of a picture's files."""
    return f"{study.name}-{picture.name}"


def _describe(each: Drawn) -> dict[str, Any]:
    return {
        "name": each.study.name,
        "question": each.study.question,
        "source": each.study.source,
        "validity": each.validity,
        "reasons": each.reasons,
        "trials": each.trials,
        "pictures": [
            {
                "name": picture.name,
                "title": picture.title,
                "file": file_stem(each.study, picture),
                "caption": picture.caption,
                "conditions": picture.conditions,
                "rows": picture.rows,
            }
            for picture in each.pictures
        ],
    }
