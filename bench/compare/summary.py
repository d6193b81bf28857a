"""From what a comparison measured to one document: `summary.json`.

    setup       what was configured; the matrix, quorums, rates
    runs        the clusters: protocol, leader, the label that people read
    phases      per workload: a conflict rate, or another kind
      cells         per run and region: optimum, commit and answer percentiles, CDFs, paths, fates
      waterfalls    per run and region: the stages of the typical batch, from what replicas sampled
      comparisons   per region: EPaxos's median minus the other run's, with its interval
      costs         per run: messages, bytes, syncs and CPU per command (null in virtual time)
      conflicts     per run: configured and realised conflicts, per command and per batch; slow
                    paths and unexplained ones
      health        per run: lags, errors, CPU; empty in virtual time

The optimum is that of optimum.py, with medians of syncs (measured; in virtual time configured);
null where a protocol has no closed form. The fast path is what physics allows; a command that must
take the slow path has `slow_ms` as its optimum.

Rules of this file: milliseconds, names of regions; the same samples give the same document.
"""

from collections import Counter
from collections.abc import Sequence
from typing import Any, Final

from msgspec import to_builtins

from bench.analysis import statistics
from bench.analysis.conflicts import realised
from bench.analysis.optimum import optimum
from bench.analysis.stages import waterfall
from bench.clusters.counters import COOLDOWN_S, health
from bench.compare.compare import Options, Phase, Run
from bench.load.samples import Sample
from epaxos.core.quorum import quorums
from epaxos.core.replica import Path
from epaxos.registry import find_protocol
from epaxos.workload import Workload
from topology import Topology

FORMAT: Final = 1
"""Changes whenever a reader of summary.json could misread it."""
_WORDS: Final = ("no", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")


def summarize(options: Options, phases: Sequence[Phase]) -> dict[str, Any]:
    """The document without its verdict."""
    return {
        "format": FORMAT,
        "simulated": options.simulated,
        "title": title(options),
        "setup": setup(options),
        "runs": [_run(options, run) for run in options.runs()],
        "phases": [
            _workload(options, workload, [p for p in phases if p.workload == workload])
            for workload in options.workloads()
        ],
    }


def title(options: Options) -> str:
    """What was configured, in one line."""
    topology = options.topology
    n = topology.n
    count = _WORDS[n] if n < len(_WORDS) else str(n)
    parts = [
        f"{count} region{'s' if n != 1 else ''}",
        topology.name,
        f"n={n}",
        options.durability,
        f"{options.rate:g} commands/s per region",
        "open loop",
        f"seed {options.seed}",
    ]
    if options.workload:
        parts.append(options.workloads()[0].title)
    if not options.gate:
        parts.append("no gate")
    if options.simulated:
        parts.append("virtual time")
        if options.durability == "fsync":
            parts.append(f"syncs of {options.sync_ms:g} ms")
        parts.append("jitter" if options.jitter else "no jitter")
    if options.clients:
        places = len(options.clients)
        parts.append(f"clients in {places} region{'s' if places != 1 else ''}")
    return " · ".join(parts)


def setup(options: Options) -> dict[str, Any]:
    """Everything that was configured."""
    topology = options.topology
    n = topology.n
    # Those with a replica first, in the order of the replicas.
    regions = dict.fromkeys((*topology.regions, *(home.region for home in options.homes)))
    notes = list(topology.notes)
    for home in options.homes:
        notes += home.notes
    return {
        "topology": {
            "name": topology.name,
            "title": topology.title,
            "source": topology.source,
            "date": topology.date,
            "notes": notes,
            "regions": [
                {
                    "name": region.name,
                    "title": region.title,
                    "city": region.city,
                    "lat": region.lat,
                    "lon": region.lon,
                }
                for region in regions
            ],
            "rtt_ms": [list(row) for row in topology.rtt],
        },
        "clients": [
            {
                "region": home.region.name,
                "replica": topology.regions[home.replica].name,
                "hop_ms": home.hop_ms,
            }
            for home in options.homes
        ],
        "replicas": n,
        "quorums": quorums(n)._asdict(),
        "durability": options.durability,
        "protocols": list(options.protocols),
        "leaders": list(options.leaders),
        "conflicts": [] if options.workload else list(options.conflicts),
        "workloads": [str(workload) for workload in options.workloads()],
        "rate": options.rate,
        "loop": "open (Poisson)",
        "warmup_s": options.warmup_s,
        "duration_s": options.duration_s,
        "cooldown_s": COOLDOWN_S,
        "value_size": options.value_size,
        "put_share": options.put_share,
        "shared_keys": options.shared_keys,
        "gate": options.gate,
        "seed": options.seed,
        "patience_s": options.patience_s,
        "simulated": options.simulated,
        "sync_ms": options.sync_ms if options.simulated else None,
        "jitter": options.jitter or not options.simulated,
    }


def _run(options: Options, run: Run) -> dict[str, Any]:
    leader = None if run.leader is None else options.topology.regions[run.leader]
    spec = find_protocol(run.protocol)
    return {
        "run": run.name,
        "protocol": run.protocol,
        "leader": leader.name if leader else None,
        "placement": run.placement or None,
        "label": run.label(options.topology),
        "title": f"{spec.title} led from {leader.title}" if leader else spec.title,
    }


def _workload(options: Options, workload: Workload, phases: Sequence[Phase]) -> dict[str, Any]:
    rate, regions = workload.conflict_rate, options.topology.regions
    return {
        "workload": str(workload),
        "conflict": rate,
        "title": workload.title,
        "label": str(workload) if rate is None else f"{rate:g} %",
        "cells": [
            _cell(options, phase, number)
            for number in range(len(options.homes))
            for phase in phases
        ],
        "waterfalls": [
            waterfall(phase.run.name, region, samples, [each.name for each in regions])
            for phase in phases
            for region, samples in zip((each.name for each in regions), phase.measured.sampled)
        ],
        "comparisons": _comparisons(options, phases),
        "costs": [_costs(phase) for phase in phases],
        "conflicts": [_conflicts(options.topology, phase) for phase in phases],
        "health": [
            {"run": phase.run.name, **health(phase.measured, phase.machine)}
            for phase in phases
            if phase.machine is not None
        ],
    }


def _measured(phase: Phase, region: int) -> list[Sample]:
    return [s for s in phase.load.samples if s.measured and s.region == region]


def _cell(options: Options, phase: Phase, region: int) -> dict[str, Any]:
    home = options.homes[region]
    samples = _measured(phase, region)
    commits = [s.commit_us for s in samples]
    answers = [s.answer_us for s in samples]
    paths = Counter(Path(s.path).name.lower() for s in samples)
    best = optimum(
        phase.run.protocol,
        options.topology,
        phase.run.leader,
        phase.sync_us,
        home.replica,
        phase.load.hop_us[region],
    )
    commit = statistics.percentiles(commits)
    fates = phase.load.fates[region]
    return {
        "run": phase.run.name,
        "region": home.region.name,
        "replica": options.topology.regions[home.replica].name,
        "samples": len(samples),
        "optimum": to_builtins(best),
        "commit": commit | {"interval": statistics.median_interval(commits, region)},
        "answer": statistics.percentiles(answers)
        | {"interval": statistics.median_interval(answers, region)},
        "ratio": None
        if commit["p50"] is None or best.fast_ms is None
        else round(commit["p50"] / best.fast_ms, 4),
        "paths": dict(sorted(paths.items())),
        "fast_share": paths["fast"] / len(samples)
        if samples and phase.run.leader is None
        else None,
        "fates": {
            "sent": fates.sent,
            "answered": fates.answered,
            "refused": fates.refused,
            "ambiguous": fates.ambiguous,
            "lost": fates.lost,
            "codes": fates.codes,
        },
        "commit_cdf": statistics.cdf(commits),
        "answer_cdf": statistics.cdf(answers),
    }


def _comparisons(options: Options, phases: Sequence[Phase]) -> list[dict[str, Any]]:
    ours = next((phase for phase in phases if phase.run.leader is None), None)
    found: list[dict[str, Any]] = []
    if ours is None:
        return found
    for phase in phases:
        if phase is ours:
            continue
        for i, home in enumerate(options.homes):
            a, b = _measured(ours, i), _measured(phase, i)
            found.append(
                {
                    "run": ours.run.name,
                    "against": phase.run.name,
                    "region": home.region.name,
                    "commit": statistics.median_difference(
                        [s.commit_us for s in a], [s.commit_us for s in b], options.seed
                    ),
                    "answer": statistics.median_difference(
                        [s.answer_us for s in a], [s.answer_us for s in b], options.seed
                    ),
                }
            )
    return found


def _costs(phase: Phase) -> dict[str, Any]:
    costs = phase.costs
    per = 1 / costs.commands if costs.commands else 0.0
    return {
        "run": phase.run.name,
        "commands": costs.commands,
        "messages": round(costs.messages * per, 2),
        "bytes": round(costs.octets * per, 1),
        "syncs": round(costs.syncs * per, 2),
        "cpu_ms": None if costs.cpu_s is None else round(costs.cpu_s * 1000 * per, 3),
    }


def _conflicts(topology: Topology, phase: Phase) -> dict[str, Any]:
    spread_us = max(
        topology.mean_one_way_us(i, j) for i in range(topology.n) for j in range(topology.n)
    )
    found = realised(phase.load.samples, spread_us)
    commands, batches = max(1, found.commands), max(1, found.batches)
    leaderless = phase.run.leader is None
    return {
        "run": phase.run.name,
        "configured": phase.workload.conflict_rate,
        "shared_share": round(found.shared / commands, 4),
        "realised_share": round(found.met / commands, 4),
        "batches": found.batches,
        "realised_batch_share": round(found.batches_met / batches, 4),
        "slow": found.slow if leaderless else None,
        "unexplained": found.unexplained if leaderless else None,
    }
