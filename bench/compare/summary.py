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
      histories     per run whose calls were kept: whether they are linearizable
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
from bench.compare.compare import ComparedCluster, ComparedTrial, ComparisonOptions
from bench.load.samples import Sample
from epaxos.core.quorum import quorums
from epaxos.core.replica import Path
from epaxos.registry import find_protocol
from epaxos.workload import Workload
from topology import Topology

FORMAT: Final = 1
"""Changes whenever a reader of summary.json could misread it."""
_WORDS: Final = ("no", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")


def summarize(options: ComparisonOptions, trials: Sequence[ComparedTrial]) -> dict[str, Any]:
    """The document without its verdict."""
    return {
        "format": FORMAT,
        "simulated": options.trial.simulated,
        "title": title(options),
        "setup": setup(options),
        "runs": [_run(options.trial.sites, cluster) for cluster in options.clusters],
        "phases": [
            _workload(options, workload, [each for each in trials if each.trial.drawn == workload])
            for workload in _drawn(options)
        ],
    }


def _drawn(options: ComparisonOptions) -> list[Workload]:
    """The workloads: those of any cluster."""
    return [trial.drawn for trial in options.clusters[0].trials]


def title(options: ComparisonOptions) -> str:
    """What was configured, in one line."""
    topology = options.trial.sites
    n = topology.n
    count = _WORDS[n] if n < len(_WORDS) else str(n)
    parts = [
        f"{count} region{'s' if n != 1 else ''}",
        topology.name,
        f"n={n}",
        options.trial.durability,
        f"{options.trial.rate:g} commands/s per region",
        "open loop",
        f"seed {options.trial.seed}",
    ]
    if options.workload:
        parts.append(_drawn(options)[0].title)
    if not options.trial.gate:
        parts.append("no gate")
    if options.trial.simulated:
        parts.append("virtual time")
        if options.trial.durability == "fsync":
            parts.append(f"syncs of {options.trial.sync_ms:g} ms")
        parts.append("jitter" if options.trial.jitter else "no jitter")
    if options.trial.check:
        parts.append("history checked")
    if options.trial.client_regions:
        places = len(options.trial.client_regions)
        parts.append(f"clients in {places} region{'s' if places != 1 else ''}")
    return " · ".join(parts)


def setup(options: ComparisonOptions) -> dict[str, Any]:
    """Everything that was configured."""
    topology = options.trial.sites
    n = topology.n
    # Those with a replica first, in the order of the replicas.
    regions = dict.fromkeys((*topology.regions, *(home.region for home in options.trial.homes)))
    notes = list(topology.notes)
    for home in options.trial.homes:
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
            for home in options.trial.homes
        ],
        "replicas": n,
        "quorums": quorums(n)._asdict(),
        "durability": options.trial.durability,
        "protocols": list(options.protocols),
        "leaders": list(options.leaders),
        "conflicts": [] if options.workload else list(options.conflicts),
        "workloads": [str(workload) for workload in _drawn(options)],
        "rate": options.trial.rate,
        "loop": "open (Poisson)",
        "warmup_s": options.trial.warmup_s,
        "duration_s": options.trial.duration_s,
        "cooldown_s": COOLDOWN_S,
        "value_size": options.value_size,
        "put_share": options.put_share,
        "shared_keys": options.shared_keys,
        "gate": options.trial.gate,
        "seed": options.trial.seed,
        "patience_s": options.trial.patience_s,
        "check": options.trial.check,
        "simulated": options.trial.simulated,
        "sync_ms": options.trial.sync_ms if options.trial.simulated else None,
        "jitter": options.trial.jitter or not options.trial.simulated,
    }


def _run(sites: Topology, cluster: ComparedCluster) -> dict[str, Any]:
    leader = None if cluster.leader is None else sites.regions[cluster.leader]
    spec = find_protocol(cluster.protocol)
    return {
        "run": cluster.name,
        "protocol": cluster.protocol,
        "leader": leader.name if leader else None,
        "placement": cluster.placement or None,
        "label": cluster.label,
        "title": f"{spec.title} led from {leader.title}" if leader else spec.title,
    }


def _workload(
    options: ComparisonOptions, workload: Workload, trials: Sequence[ComparedTrial]
) -> dict[str, Any]:
    rate, regions = workload.conflict_rate, options.trial.sites.regions
    return {
        "workload": str(workload),
        "conflict": rate,
        "title": workload.title,
        "label": str(workload) if rate is None else f"{rate:g} %",
        "cells": [
            _cell(options, compared, number)
            for number in range(len(options.trial.homes))
            for compared in trials
        ],
        "waterfalls": [
            waterfall(compared.cluster.name, region, samples, [each.name for each in regions])
            for compared in trials
            for region, samples in zip((each.name for each in regions), compared.measured.sampled)
        ],
        "comparisons": _comparisons(options, trials),
        "costs": [_costs(compared) for compared in trials],
        "conflicts": [_conflicts(options.trial.sites, compared) for compared in trials],
        "histories": [
            {
                "run": compared.cluster.name,
                "sentence": compared.measured.checked.sentence(),
                **to_builtins(compared.measured.checked),
            }
            for compared in trials
            if compared.measured.checked is not None
        ],
        "deaths": [
            {"run": compared.cluster.name, "region": regions[i].name, "last_words": last_words}
            for compared in trials
            for i, last_words in compared.deaths.items()
        ],
        "health": [
            {"run": compared.cluster.name, **health(compared.measured, compared.measured.machine)}
            for compared in trials
            if compared.measured.machine is not None
        ],
    }


def _measured(compared: ComparedTrial, region: int) -> list[Sample]:
    return [s for s in compared.measured.load.samples if s.measured and s.region == region]


def _cell(options: ComparisonOptions, compared: ComparedTrial, region: int) -> dict[str, Any]:
    home = options.trial.homes[region]
    samples = _measured(compared, region)
    commits = [s.commit_us for s in samples]
    answers = [s.answer_us for s in samples]
    paths = Counter(Path(s.path).name.lower() for s in samples)
    best = optimum(
        compared.cluster.protocol,
        options.trial.sites,
        compared.cluster.leader,
        compared.measured.sync_us,
        home.replica,
        compared.measured.load.hop_us[region],
    )
    commit = statistics.percentiles(commits)
    fates = compared.measured.load.fates[region]
    return {
        "run": compared.cluster.name,
        "region": home.region.name,
        "replica": options.trial.sites.regions[home.replica].name,
        "samples": len(samples),
        "optimum": to_builtins(best),
        "commit": commit | {"interval": _interval(commits, region)},
        "answer": statistics.percentiles(answers) | {"interval": _interval(answers, region)},
        "ratio": None
        if commit["p50"] is None or best.fast_ms is None
        else round(commit["p50"] / best.fast_ms, 4),
        "paths": dict(sorted(paths.items())),
        "fast_share": paths["fast"] / len(samples)
        if samples and compared.cluster.leader is None
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


def _comparisons(
    options: ComparisonOptions, trials: Sequence[ComparedTrial]
) -> list[dict[str, Any]]:
    ours = next((compared for compared in trials if compared.cluster.leader is None), None)
    found: list[dict[str, Any]] = []
    if ours is None:
        return found
    for compared in trials:
        if compared is ours:
            continue
        for i, home in enumerate(options.trial.homes):
            a, b = _measured(ours, i), _measured(compared, i)
            found.append(
                {
                    "run": ours.cluster.name,
                    "against": compared.cluster.name,
                    "region": home.region.name,
                    "commit": _difference(
                        [s.commit_us for s in a], [s.commit_us for s in b], options.trial.seed
                    ),
                    "answer": _difference(
                        [s.answer_us for s in a], [s.answer_us for s in b], options.trial.seed
                    ),
                }
            )
    return found


def _interval(values_us: Sequence[int], seed: int) -> tuple[float | None, ...] | None:
    """95 % interval of a median, in ms; None for no samples."""
    found = statistics.interval([statistics.ascending(values_us)], 50, seed)
    return None if found is None else tuple(map(statistics.ms_of, found))


def _difference(
    a_us: Sequence[int], b_us: Sequence[int], seed: int
) -> dict[str, float | bool | None] | None:
    """How much larger the median of `a` is than that of `b`; None where one has no samples."""
    a, b = statistics.ascending(a_us), statistics.ascending(b_us)
    found = statistics.difference([a], [b], 50, seed)
    if found is None:
        return None
    return {
        "median_ms": statistics.ms_of(found.value),
        "low_ms": statistics.ms_of(found.low),
        "high_ms": statistics.ms_of(found.high),
        "significant": found.significant,
    }


def _costs(compared: ComparedTrial) -> dict[str, Any]:
    costs = compared.measured.costs
    per = 1 / costs.commands if costs.commands else 0.0
    return {
        "run": compared.cluster.name,
        "commands": costs.commands,
        "messages": round(costs.messages * per, 2),
        "bytes": round(costs.octets * per, 1),
        "syncs": round(costs.syncs * per, 2),
        "cpu_ms": None if costs.cpu_s is None else round(costs.cpu_s * 1000 * per, 3),
    }


def _conflicts(topology: Topology, compared: ComparedTrial) -> dict[str, Any]:
    found = realised(compared.measured.load.samples, topology.longest_one_way_us)
    commands, batches = max(1, found.commands), max(1, found.batches)
    leaderless = compared.cluster.leader is None
    return {
        "run": compared.cluster.name,
        "configured": compared.trial.drawn.conflict_rate,
        "shared_share": round(found.shared / commands, 4),
        "realised_share": round(found.met / commands, 4),
        "batches": found.batches,
        "realised_batch_share": round(found.batches_met / batches, 4),
        "slow": found.slow if leaderless else None,
        "unexplained": found.unexplained if leaderless else None,
    }
