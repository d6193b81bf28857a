"""Runs an experiment: what the store has is taken from there, the rest is run and kept there.

results/2026-11-23-1507-conflicts/
  experiment.json   what was asked for, what ran where, what failed, and whether to believe it
  trials/           the finished trials (store.py): links into results/store
  cells.jsonl       a line per configuration and region (cells.py)

An interrupted run leaves no directory, but everything that was finished is in the store: the same
experiment goes on from there. A directory is made anew for every run and never written over.

Rules of this file: it decides what is run and when, keeps it, and judges nothing but failures.
"""

import threading
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Final

import orjson

from bench.progress import ProgressClock, ProgressReport, Watch
from bench.run_directory import make_directory, manifest, write_json
from bench.trials.cells import values_of
from bench.trials.executors import Failed, Here, Job, Stopped, TrialExecutor
from bench.trials.experiment import Experiment
from bench.trials.results import FORMAT, MANIFEST, Results
from bench.trials.store import SUFFIX, TrialStore, code_version, share, trial_key
from bench.trials.trial import Trial
from epaxos.core.errors import StorageError

STORE: Final = "store"
"""The folder of finished trials, below the place for results."""
CELLS: Final = "cells.jsonl"


@dataclass(frozen=True, kw_only=True)
class SweepReport(ProgressReport):
    """Progress of a sweep, with its trials counted."""

    done: int
    """Trials that ended in this run, failed ones included."""
    trials: int
    """Trials that this run has to do."""
    reused: int
    """Trials that were finished before."""
    failed: int


def run_sweep(
    experiment: Experiment,
    out: Path,
    executor: TrialExecutor,
    watch: Watch[SweepReport],
    stop: threading.Event | None = None,
) -> Results:
    """Run what the store below `out` lacks, then write a directory of results. Raises StorageError,
    AddressError; `Stopped` when `stop` is set. Whatever happens, no process is left."""
    begun = datetime.now()
    store = TrialStore(out / STORE)
    trials = experiment.trials()
    ran = finish(trials, store, executor, watch, stop)
    directory = make_directory(out, experiment.name, begun)
    kept = directory / "trials"
    kept.mkdir()
    for key in ran.keys:
        if key is not None:
            share(store.path(key), kept)
    write_json(directory / MANIFEST, _manifest(experiment, ran, executor, begun))
    results = Results(directory)
    lines = [orjson.dumps(each, option=orjson.OPT_APPEND_NEWLINE) for each in results.records()]
    (directory / CELLS).write_bytes(b"".join(lines))
    return results


@dataclass(frozen=True)
class Ran:
    """What became of some trials."""

    keys: list[str | None]
    """Per trial, its name in the store; None: it failed."""
    failures: dict[int, str]
    """By number of the trial, why."""
    files: dict[int, str]
    """Of failed trials that left some: what their clusters wrote."""
    reused: int
    notes: list[str]
    """What else must be said."""


def finish(
    trials: Sequence[Trial],
    store: TrialStore,
    executor: TrialExecutor,
    watch: Watch[SweepReport],
    stop: threading.Event | None = None,
) -> Ran:
    """See that each of these trials is in the store. Raises StorageError, AddressError, Stopped."""
    code = code_version()
    keys = [trial_key(trial, code) for trial in trials]
    notes: list[str] = []
    jobs: dict[str, Job] = {}
    for number, (trial, key) in enumerate(zip(trials, keys)):
        if key not in jobs and not _is_there(store, key, notes):
            jobs[key] = Job(number, asdict(trial), key, code, str(store.work / key))
    reused = sum(key not in jobs for key in keys)
    running = [trials[job.number] for job in jobs.values()]
    progress = _SweepProgress(running, reused, watch, stop)
    failures: dict[str, str] = {}
    # What is simulated first: it is shared out, and disturbs no real processes.
    for simulated in (True, False):
        part = [job for job in jobs.values() if trials[job.number].simulated is simulated]
        crew = executor if simulated else Here()
        if not part:
            continue
        progress.begin(crew.title() if simulated else "real processes, one trial after another")
        for job, answer in crew.run(part, progress.beat):
            if isinstance(answer, Failed):
                failures[job.key] = answer.sentence
            else:
                store.put(job.key, answer)
                store.sweep(job.key)
            progress.ended(trials[job.number], isinstance(answer, Failed))
    failed = [number for number, key in enumerate(keys) if key in failures]
    left = {number: store.work / keys[number] for number in failed}
    return Ran(
        [None if key in failures else key for key in keys],
        {number: failures[keys[number]] for number in failed},
        {number: str(place) for number, place in left.items() if place.exists()},
        reused,
        notes,
    )


def _is_there(store: TrialStore, key: str, notes: list[str]) -> bool:
    """Whether a trial is finished, and whole. A damaged one is put aside, and run again."""
    try:
        return store.get(key) is not None
    except StorageError as error:
        notes.append(f"{error}; it was put aside as {store.put_aside(key).name} and run again")
        return False


class _SweepProgress:
    """Counts trials and reports them; ends the run when somebody wants it."""

    def __init__(
        self,
        trials: list[Trial],
        reused: int,
        watch: Watch[SweepReport],
        stop: threading.Event | None,
    ) -> None:
        self._trials = len(trials)
        self._reused = reused
        self._watch = watch
        self._stop = stop
        self._whole_s = sum(trial.estimate_s for trial in trials)
        self._clock = ProgressClock(self._whole_s, self._report)
        self._done = self._failed = 0
        self._who = ""

    def begin(self, who: str) -> None:
        """Report another executor, at whose pace the rest will go."""
        self._who = who
        self._clock.take_pace_anew()
        self.beat(0.0)

    def ended(self, trial: Trial, failed: bool) -> None:
        """Count one more."""
        self._done += 1
        self._failed += failed
        self._clock.ended(self._who, trial.estimate_s)
        self.beat(0.0)

    def beat(self, share: float) -> None:
        """Report now and then; `share` of the present trial is done. Raises Stopped."""
        if self._stop is not None and self._stop.is_set():
            raise Stopped
        parts = [f"{self._done:,} of {self._trials:,} trials"]
        if self._reused:
            parts.append(f"{self._reused:,} were there")
        if self._failed:
            parts.append(f"{self._failed:,} failed")
        expected_s = self._whole_s / max(self._trials, 1)
        self._clock.tell(self._who, " · ".join(parts), share, expected_s)

    def _report(self, report: ProgressReport) -> None:
        self._watch(
            SweepReport(
                **vars(report),
                done=self._done,
                trials=self._trials,
                reused=self._reused,
                failed=self._failed,
            )
        )


def _manifest(
    experiment: Experiment, ran: Ran, executor: TrialExecutor, begun: datetime
) -> dict[str, Any]:
    trials = experiment.trials()
    # As they stand in the sweep, not as they were run.
    places = {values_of(asdict(each)): at for at, each in enumerate(experiment.configurations)}
    order = sorted(range(len(trials)), key=lambda number: places[values_of(asdict(trials[number]))])
    return {
        "format": FORMAT,
        **experiment.document(),
        "code": code_version(),
        **manifest(begun),
        "executor": executor.title(),
        "reused": ran.reused,
        "notes": ran.notes,
        "trials": [
            f"trials/{ran.keys[number]}{SUFFIX}" for number in order if ran.keys[number] is not None
        ],
        "failed": [
            {"trial": asdict(trials[number]), "why": why, "files": ran.files.get(number)}
            for number, why in ran.failures.items()
        ],
    }
