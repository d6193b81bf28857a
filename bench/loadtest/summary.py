"""What a Locust run says: figures per step and region, criteria, whether it may be believed, files.

A percentile is stated of good answers alone; what failed is counted beside it. The commit latency
of an answer is its latency less what the server says it waited between commit and execution.

Rules of this file: pure, but for the files that it writes; every threshold stands here.
"""

import csv
from collections.abc import Callable, Iterator, Sequence
from itertools import accumulate
from math import floor, log2, sqrt
from pathlib import Path
from typing import Any, Final

import msgspec
from hdrh.histogram import HdrHistogram
from hdrh.log import HistogramLogWriter

from bench.analysis.statistics import (
    PERCENTS,
    WHY_NONE,
    counted_percentiles,
    field_of,
    merged_counts,
)
from bench.analysis.statistics import ms_of as _ms
from bench.analysis.units import ms
from bench.analysis.validity import Findings
from bench.loadtest.counts import KINDS, CommandCounts, LoadCounts
from bench.loadtest.options import Place
from bench.run_directory import write_json
from epaxos.percentile import Counts, count_percentile, count_percentiles, midpoint

Document = dict[str, Any]

LATENESS_MS: Final = (50.0, 500.0)
"""At most, of the 10 ms greenlet of a generator: suspect above, invalid above."""
START_ERROR_MS: Final = (2.0, 25.0)
"""Open loop: error p99 of the intended starts."""
FAILED: Final = (0.0, 0.01)
"""Share of commands without a good answer."""
GENERATOR_CPU: Final = (0.9, 2.0)
"""Of one core: what a generator's process takes, which has but one."""
OFFERED_SHARE: Final = 0.05
"""So far from the wanted rate, and four deviations of a Poisson process, is another rate."""
_LIVE: Final = (50, 95, 99)
_US_MAX: Final = 3_600_000_000
_TICKS: Final = 5
"""Lines of a distribution per halving of what lies above."""


class LoadLimits(msgspec.Struct, frozen=True, kw_only=True):
    """What a run must keep, for its exit code to be 0; per region."""

    p99_ms: dict[str, float] = {}
    """Of answers, from their intended start."""
    fail_ratio: dict[str, float] = {}
    """Share of commands without a good answer."""
    rate: dict[str, float] = {}
    """Good answers per second, at least."""


def summarize(
    totals: LoadCounts, places: Sequence[Place], setup: Document, limits: LoadLimits
) -> Document:
    """Everything that was counted, judged."""
    steps = sorted(totals.windows) or [0]
    document: Document = {
        "setup": setup,
        "steps": [_step(totals, step, places) for step in steps],
        "operations": _operations(totals),
        "generators": [_generator(process, totals) for process in sorted(totals.health)],
        "unfinished": totals.unfinished,
    }
    document["criteria"] = criteria(document, limits)
    document["sustained"] = _sustained(document)
    findings = validity(document)
    return document | {"validity": findings.validity, "reasons": findings.reasons}


def _step(totals: LoadCounts, step: int, places: Sequence[Place]) -> Document:
    window = totals.windows.get(step)
    measured_s = window.measured_us / 1e6 if window else 0.0
    rows = []
    for place in places:
        row = _row(totals.of(place.title, step), totals.sent_by(place.title, step), measured_s)
        rows.append({"region": place.title, "replica": place.replica, "url": place.url} | row)
    return {
        "step": step,
        "wanted": window.wanted if window else 0.0,
        "users": window.users if window else 0,
        "measured_s": round(measured_s, 3),
        "regions": rows,
        "total": _row(totals.of(step=step), totals.sent_by(step=step), measured_s),
    }


def _row(commands: CommandCounts, sent: int, measured_s: float) -> Document:
    good = commands.answered
    decided = {path: count for path, count in commands.paths.items() if path != "leader"}
    return {
        "sent": sent,
        "answered": good,
        "failed": commands.failed,
        "failures": dict(commands.failures),
        "rate": round(good / measured_s, 2) if measured_s else 0.0,
        "sent_rate": round(sent / measured_s, 2) if measured_s else 0.0,
        "shared_share": round(commands.shared / good, 4) if good else None,
        "paths": dict(commands.paths),
        "fast_share": round(decided.get("fast", 0) / sum(decided.values()), 4) if decided else None,
        **{kind: percentiles(getattr(commands, kind)) for kind in KINDS},
    }


def percentiles(counts: Counts) -> Document:
    """In ms, with `samples`. `p99_found` is for criteria, which take what there is."""
    return {
        "samples": sum(counts.values()),
        **counted_percentiles(counts),
        "p99_found": _ms(count_percentile(counts, 99)),
    }


def _operations(totals: LoadCounts) -> list[Document]:
    found = []
    for key in sorted(totals.by_key, key=lambda key: (key.step, key.region, key.operation)):
        commands = totals.by_key[key]
        where = {"step": key.step, "region": key.region, "operation": key.operation}
        counted = {"answered": commands.answered, "failed": commands.failed}
        found.append(where | counted | {"answer": percentiles(commands.answer)})
    return found


def _generator(process: str, totals: LoadCounts) -> Document:
    health = totals.health[process]
    return {
        "process": process,
        "lateness_p99_ms": _ms(count_percentile(health.lateness, 99)),
        "lateness_max_ms": _ms(health.lateness_max_us),
        "start_error_p99_ms": _ms(count_percentile(health.start_error, 99)),
        "start_error_max_ms": _ms(count_percentile(health.start_error, 100)),
        "cpu_share": round(health.cpu_us / health.wall_us, 3) if health.wall_us else 0.0,
    }


def criteria(document: Document, limits: LoadLimits) -> list[Document]:
    """Each limit against each region and step."""
    found = []
    for step in document["steps"]:
        for row in step["regions"]:
            where = {"step": step["step"], "wanted": step["wanted"], "region": row["region"]}
            tried = row["answered"] + row["failed"]
            for name, wanted, value, most in (
                ("max-p99", limits.p99_ms, row["answer"]["p99_found"], True),
                ("max-fail-ratio", limits.fail_ratio, row["failed"] / max(1, tried), True),
                ("min-rate", limits.rate, row["rate"], False),
            ):
                limit = wanted.get(row["region"])
                if limit is None:
                    continue
                met = value is not None and (value <= limit if most else value >= limit)
                found.append(
                    {"criterion": name, **where, "limit": limit, "found": value, "met": met}
                )
            if not row["answered"]:
                found.append(
                    {"criterion": "answers", **where, "limit": 1, "found": 0, "met": False}
                )
    return found


def broken(document: Document) -> list[str]:
    """A sentence for each criterion that was not met."""
    several = len(document["steps"]) > 1
    found = []
    for each in document["criteria"]:
        if each["met"]:
            continue
        at = f" at step {each['wanted']:g}" if several else ""
        value, limit = each["found"], each["limit"]
        said = {
            "max-p99": f"p99 {_shown(value, ' ms')}, allowed are {limit:g} ms",
            "max-fail-ratio": f"{_percent(value)} of the commands failed, allowed are "
            f"{_percent(limit)}",
            "min-rate": f"{_shown(value, '')} answers per second, wanted are {limit:g}",
            "answers": "no good answer at all",
        }[each["criterion"]]
        found.append(f"{each['region']}{at}: {said} ({each['criterion']})")
    return found


def _shown(value: float | None, unit: str) -> str:
    return "unknown" if value is None else f"{value:.4g}{unit}"


def _percent(share: float | None) -> str:
    return "unknown" if share is None else f"{share * 100:.3g} %"


def _sustained(document: Document) -> float | None:
    """The last step up to which all criteria were met; None: not even the first, or no steps."""
    found = None
    for step in document["steps"]:
        if any(not each["met"] for each in document["criteria"] if each["step"] == step["step"]):
            break
        found = step["wanted"]
    return found


def validity(document: Document) -> Findings:
    """What is to be held against the figures."""
    findings = Findings()
    several = len(document["steps"]) > 1
    for step in document["steps"]:
        at = f" at step {step['wanted']:g}" if several else ""
        for row in step["regions"]:
            _look_at_row(findings, f"{row['region']}{at}: ", document, step, row)
    for each in document["generators"]:
        who = f"generator {each['process']}"
        late_ms, error_ms = each["lateness_max_ms"] or 0.0, each["start_error_p99_ms"] or 0.0
        share = each["cpu_share"]
        findings.hold(late_ms, LATENESS_MS, f"{who} was {late_ms:.1f} ms late")
        findings.hold(error_ms, START_ERROR_MS, f"{who} sent {error_ms:.1f} ms late at the p99")
        findings.hold(share, GENERATOR_CPU, f"{who} used {share:.2f} of a core")
    if document["unfinished"]:
        left = f"{document['unfinished']:,} commands had no answer when the run was over"
        findings.add("SUSPECT", left)
    return findings


def _look_at_row(
    findings: Findings, at: str, document: Document, step: Document, row: Document
) -> None:
    tried = row["answered"] + row["failed"]
    if not row["answered"]:
        why = max(row["failures"], key=lambda each: row["failures"][each], default="nothing sent")
        findings.add("INVALID", f"{at}no good answer from {row['url']}: {why}")
        return
    findings.look_at_samples(at, row["answered"])
    findings.hold(row["failed"] / tried, FAILED, f"{at}{row['failed']:,} of {tried:,} failed")
    if document["setup"]["loop"] == "open" and step["measured_s"]:
        expected = step["wanted"] * step["measured_s"]
        off = abs(row["sent"] - expected)
        if off > OFFERED_SHARE * expected and off > 4 * sqrt(expected):
            sent = f"{row['sent_rate']:.1f} commands/s were sent, not {step['wanted']:g}"
            findings.add("SUSPECT", f"{at}{sent}")


def text(document: Document) -> str:
    """For a terminal: a table of regions and steps, the generators, validity and criteria."""
    setup = document["setup"]
    what = "rate" if setup["loop"] == "open" else "users"
    lines = [
        f"{setup['title']}",
        "",
        f"{'region':<14}{what:>6}{'sent':>8}{'ok/s':>8}{'failed':>7}"
        f"{'answer p50':>11}{'p95':>8}{'p99':>8}{'p99.9':>8}{'commit p50':>11}{'fast':>6}",
    ]
    for step in document["steps"]:
        lines += [_line(row["region"], step["wanted"], row) for row in step["regions"]]
        if len(step["regions"]) > 1:
            lines.append(_line("all", step["wanted"], step["total"]))
    lines += [
        "times in ms from the intended start; commit as the replicas say it; all else in load.json",
        WHY_NONE,
        "",
    ]
    for each in document["generators"]:
        error, late_ms = each["start_error_p99_ms"], each["lateness_max_ms"] or 0.0
        sent = "" if error is None else f" · starts {error:.2f} ms late at the p99"
        lines.append(
            f"generator {each['process']}: its 10 ms greenlet late by "
            f"{each['lateness_p99_ms'] or 0:.1f} ms at the p99, {late_ms:.1f} at most{sent} · "
            f"{each['cpu_share'] * 100:.0f} % CPU"
        )
    lines.append(f"{document['validity']}" + "".join(f"\n  {r}" for r in document["reasons"]))
    if document["criteria"] and not broken(document):
        lines.append("all criteria are met")
    lines += [f"not met: {each}" for each in broken(document)]
    return "\n".join(lines)


def _line(name: str, wanted: float, row: Document) -> str:
    answer, commit = row["answer"], row["commit"]
    fast = "–" if row["fast_share"] is None else f"{row['fast_share'] * 100:.0f} %"
    return (
        f"{name[:13]:<14}{wanted:>6g}{row['sent']:>8,}{row['rate']:>8,.1f}{row['failed']:>7,}"
        f"{ms(answer['p50']):>11}{ms(answer['p95']):>8}{ms(answer['p99']):>8}"
        f"{ms(answer['p99_9']):>8}{ms(commit['p50']):>11}{fast:>6}"
    )


def live(
    totals: LoadCounts, places: Sequence[Place], state: str, meanwhile: Callable[[], None]
) -> Document:
    """The little that is looked at while it runs. A region takes a millisecond, and what is due
    `meanwhile` is done before each."""
    step = max(totals.windows, default=0)
    window = totals.windows.get(step)
    rows = []
    for place in places:
        meanwhile()
        found = [c for k, c in totals.by_key.items() if (k.step, k.region) == (step, place.title)]
        counts = (
            found[0].answer if len(found) == 1 else merged_counts(each.answer for each in found)
        )
        failures: dict[str, int] = {}
        for each in found:
            for why, count in each.failures.items():
                failures[why] = failures.get(why, 0) + count
        rows.append(
            {
                "region": place.title,
                "sent": totals.sent.get((step, place.title), 0),
                "answered": sum(each.answered for each in found),
                "failures": failures,
                **{f"p{p}": _ms(us) for p, us in zip(_LIVE, count_percentiles(counts, _LIVE))},
            }
        )
    return {
        "state": state,
        "step": step,
        "wanted": window.wanted if window else 0.0,
        "measured_s": window.measured_us / 1e6 if window else 0.0,
        "regions": rows,
    }


def write(directory: Path, document: Document, totals: LoadCounts, places: Sequence[Place]) -> None:
    """load.json, steps.csv, and per region histograms of all processes: `.hlog` with an interval
    per step, `.hgrm` of all together. Raises OSError."""
    directory.mkdir(parents=True, exist_ok=True)
    write_json(directory / "load.json", document)
    _write_steps(directory / "steps.csv", document)
    for place in places:
        for kind in ("answer", "commit"):
            _write_histograms(directory / f"{place.class_name}-{kind}", totals, place, kind)


def _write_steps(path: Path, document: Document) -> None:
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        kinds = [(kind, p) for kind in KINDS for p in map(field_of, PERCENTS)]
        plain = ("sent", "answered", "failed", "rate")
        heads = [f"{kind}_{p}_ms" for kind, p in kinds]
        writer.writerow(["step", "wanted", "users", "measured_s", "region", *plain, *heads])
        for step in document["steps"]:
            for row in [*step["regions"], {"region": "all"} | step["total"]]:
                writer.writerow(
                    [step["step"], step["wanted"], step["users"], step["measured_s"]]
                    + [row["region"], *(row[name] for name in plain)]
                    + [row[kind][p] for kind, p in kinds]
                )


def _write_histograms(stem: Path, totals: LoadCounts, place: Place, kind: str) -> None:
    """Nothing where there was nothing to count, like commits at etcd."""
    total: Counts = getattr(totals.of(place.title), kind)
    if not total:
        return
    with stem.with_suffix(".hlog").open("w", encoding="utf-8") as file:
        log = HistogramLogWriter(file)
        log.output_comment(f"[{place.title}: {kind} latency in microseconds, an interval per step]")
        log.output_log_format_version()
        log.output_legend()
        begin_s = 0.0
        for step in sorted(totals.windows):
            histogram = HdrHistogram(1, _US_MAX, 3)
            for us, count in getattr(totals.of(place.title, step), kind).items():
                histogram.record_value(min(max(us, 1), _US_MAX), count)
            end_s = begin_s + totals.windows[step].measured_us / 1e6
            if histogram.total_count:
                log.output_interval_histogram(histogram, begin_s or 1e-6, end_s, 1000.0)
            begin_s = end_s
    stem.with_suffix(".hgrm").write_text(_distribution(total), encoding="ascii")


def _distribution(counts: Counts) -> str:
    """What HdrHistogram tools plot: values in ms at percentiles that grow denser towards 100. The
    library's own writer takes seconds."""
    values = sorted(counts)
    sums = dict(zip(map(midpoint, values), accumulate(counts[us] for us in values)))
    longest, total = midpoint(values[-1]), sum(counts.values())
    shares = list(_denser(total))
    lines = ["       Value     Percentile TotalCount 1/(1-Percentile)", ""]
    found = count_percentiles(counts, [share * 100 for share in shares])
    for share, us in zip(shares, found):
        if us is None or us == longest:
            break
        lines.append(f"{us / 1000:12.3f} {share:2.12f} {sums[us]:10d} {1 / (1 - share):14.2f}")
    lines.append(f"{longest / 1000:12.3f} {1.0:2.12f} {total:10d}")
    mean = sum(midpoint(us) * counts[us] for us in values) / total
    deviation = sqrt(sum((midpoint(us) - mean) ** 2 * counts[us] for us in values) / total)
    lines += [
        f"#[Mean    = {mean / 1000:12.3f}, StdDeviation   = {deviation / 1000:12.3f}]",
        f"#[Max     = {longest / 1000:12.3f}, Total count    = {total:12d}]",
    ]
    return "\n".join(lines) + "\n"


def _denser(total: int) -> Iterator[float]:
    """Shares from 0 upwards, until less than one of so many samples lies above."""
    share = 0.0
    while (1 - share) * total >= 1:
        yield share
        share += 1 / (_TICKS * 2.0 ** (floor(log2(1 / (1 - share))) + 1))
