"""Writes a comparison down: summary.json, manifest.json, samples.jsonl.

Rules of this file: figures are made in summary.py and judged in verdict.py; here they are written.
"""

from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

import orjson

from bench.compare.compare import ComparedTrial, ComparisonOptions
from bench.compare.summary import summarize
from bench.compare.verdict import judge
from bench.run_directory import manifest, write_json
from epaxos.core.command import Operation
from epaxos.core.replica import Path as CommitPath


def write_results(
    directory: Path,
    options: ComparisonOptions,
    trials: Sequence[ComparedTrial],
    begun: datetime,
) -> dict[str, Any]:
    """Everything of a comparison but the report; returns what `summary.json` says."""
    document = summarize(options, trials)
    document["verdict"] = judge(document)
    document["manifest"] = manifest(begun) | {"seed": options.trial.seed}
    write_json(directory / "summary.json", document)
    write_json(directory / "manifest.json", document["manifest"] | {"setup": document["setup"]})
    names = [home.region.name for home in options.trial.homes]
    write_samples(directory / "samples.jsonl", trials, names)
    return document


def write_samples(path: Path, trials: Sequence[ComparedTrial], regions: Sequence[str]) -> None:
    """One JSON object per measured command, in order of run, workload and answer."""
    with path.open("wb") as file:
        for compared in trials:
            for sample in compared.measured.load.samples:
                if not sample.measured:
                    continue
                line = {
                    "run": compared.cluster.name,
                    "workload": str(compared.trial.drawn),
                    "conflict": compared.trial.drawn.conflict_rate,
                    "region": regions[sample.region],
                    "start_s": sample.start_us / 1e6,
                    "commit_ms": sample.commit_us / 1000,
                    "answer_ms": sample.answer_us / 1000,
                    "operation": Operation(sample.operation).name.lower(),
                    "path": CommitPath(sample.path).name.lower(),
                    "instance": sample.instance,
                    "shared_key": sample.shared if sample.shared >= 0 else None,
                }
                file.write(orjson.dumps(line, option=orjson.OPT_APPEND_NEWLINE))
