"""One percentile: the same samples through every way out, and nobody else computes one."""

import ast
import csv
import html
import json
import random
import re
import subprocess
import sys
from bisect import bisect_right
from collections import Counter
from functools import partial
from io import StringIO
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from bench import Experiment
from bench.analysis.optimum import optimum
from bench.analysis.statistics import PERCENTS, field_of, interval, stated_percentile
from bench.clusters.counters import Costs, Measured
from bench.compare.compare import ComparedTrial, ComparisonOptions
from bench.compare.summary import summarize
from bench.compare.verdict import judge, key_figures
from bench.figures.over_time import medians
from bench.figures.plan import PooledTrials
from bench.load.samples import Fates, LoadResult, Sample, Spread, spread
from bench.loadtest.counts import LoadCounts, Window
from bench.loadtest.options import places
from bench.loadtest.summary import LoadLimits
from bench.loadtest.summary import summarize as summarize_load
from bench.loadtest.summary import text as load_text
from bench.loadtest.summary import write as write_load
from bench.reports.comparison import render
from bench.reports.experiment import render as render_experiment
from bench.reports.load import render as render_load
from bench.trials.store import StoredTrial, encode
from bench.trials.sweep import run_sweep
from bench.trials.trial import Outcome, Trial
from epaxos.cli.compare import phase_table
from epaxos.cli.load import results_table
from epaxos.percentile import (
    ERROR_MAX,
    bucket,
    bucket_end,
    count_percentile,
    median,
    midpoint,
    percentile,
    rank,
)
from epaxos.runtime.metrics import Distribution
from tests.house.sources import CODE, ROOT, modules, objections, offenders, tree

LOCUSTFILE = ROOT / "bench" / "locustfile.py"
TRIAL = Trial(topology="lan:3", simulated=True, duration_s=100.0, warmup_s=0.0, rate=1.0)
ONE = [73_368]
HALVES = [10_000] * 6 + [200_000] * 6
_RANDOM = random.Random(7)
MANY = [round(_RANDOM.lognormvariate(11, 1)) for _ in range(10_001)]
SAMPLES = {"one": ONE, "halves": HALVES, "many": MANY}


def nearest_rank(samples_us, percent):
    """The definition, by counting: in ms."""
    ordered = sorted(samples_us)
    for us in ordered:
        if 1000 * bisect_right(ordered, us) >= round(percent * 10) * len(ordered):
            return us / 1000
    raise AssertionError


WANTED = {
    name: {p: nearest_rank(samples, p) for p in PERCENTS} for name, samples in SAMPLES.items()
}
three_digits = partial(pytest.approx, rel=ERROR_MAX + 1e-5)
"""What a histogram may be off by, and the µs to which it is rounded."""


def shown(value_ms):
    """Where people read tenths."""
    return pytest.approx(value_ms, rel=ERROR_MAX, abs=0.0501)


def stated(name, percent):
    """Whether there are samples enough."""
    return len(SAMPLES[name]) >= {99: 1000, 99.9: 10_000}.get(percent, 1)


def result_of(samples_us, regions=3):
    return LoadResult(
        samples=[
            Sample(
                region=region,
                start_us=i,
                commit_us=us,
                answer_us=us,
                path=0,
                replica=region,
                slot=i + 1,
                shared=-1,
                measured=True,
            )
            for region in range(regions)
            for i, us in enumerate(samples_us)
        ],
        fates=[Fates(sent=len(samples_us), answered=len(samples_us)) for _ in range(regions)],
        hop_us=[0] * regions,
        start_error=Spread(),
        loop_lag=Spread(),
        cpu_share=0.0,
        wall_s=3.0,
        unreachable=[""] * regions,
        disconnects=[0] * regions,
    )


def outcome_of(samples_us):
    return Outcome(
        load=result_of(samples_us),
        regions=[home.region.name for home in TRIAL.homes],
        sync_us=[0] * 3,
        costs=Costs(1, 1, 1, 1, None),
        machine=None,
        events=[],
        validity="VALID",
        reasons=[],
    )


def numbers(line):
    """The figures of a line of a table; None for a dash."""
    found = re.findall(r"(?<![\w.])(?:[\d,]+\.\d+(?! %)|–)(?![\w])", line)
    return [None if each == "–" else float(each.replace(",", "")) for each in found]


def printed(table, width=200):
    out = StringIO()
    Console(file=out, width=width).print(table)
    return out.getvalue().splitlines()


def wanted_row(name):
    return [shown(WANTED[name][p]) if stated(name, p) else None for p in PERCENTS]


# The definition ----------------------------------------------------------------------------------


def test_a_rank_is_exact():
    assert [rank(p, 100) for p in (0, 1, 7, 29, 55, 57, 99, 99.9, 100)] == [
        *(1, 1, 7, 29, 55, 57, 99, 100, 100)
    ]
    assert rank(99.9, 10_000) == 9990
    assert rank(99.9, 10_001) == 9991


def test_no_samples_have_none():
    assert percentile([], 50) is None
    assert median([]) is None
    assert count_percentile({}, 50) is None
    assert Distribution().percentile(99) is None
    assert spread({}) == Spread()


@pytest.mark.parametrize("us", [0, 1, 2047, 2048, 4095, 4096, 123_456, 9_999_999])
def test_a_bucket_keeps_three_digits(us):
    low, high = bucket(us), bucket_end(bucket(us))
    assert low <= us <= high
    assert bucket(high) == low
    assert bucket(high + 1) == high + 1
    assert abs(midpoint(low) - us) <= us * ERROR_MAX
    assert ERROR_MAX < 0.0005


@pytest.mark.parametrize("name", SAMPLES)
def test_samples_and_their_counts_agree(name):
    samples = SAMPLES[name]
    for percent in (*PERCENTS, 1, 2.5, 97.5, 100):
        wanted = round(nearest_rank(samples, percent) * 1000)
        assert percentile(sorted(samples), percent) == wanted
        counted = count_percentile(Counter(map(bucket, samples)), percent)
        assert abs(counted - wanted) <= wanted * ERROR_MAX


# Every way out -----------------------------------------------------------------------------------


@pytest.fixture(scope="module", params=SAMPLES)
def name(request):
    return request.param


@pytest.fixture(scope="module")
def comparison(name):
    """A summary in which EPaxos has the samples and Multi-Paxos always takes 1 ms."""
    options = ComparisonOptions(TRIAL, conflicts=(0.0,), leaders=("best",))
    measured = {
        None: result_of(SAMPLES[name]),
        0: result_of([1000] * len(SAMPLES[name])),
    }
    document = summarize(
        options,
        [
            ComparedTrial(
                cluster,
                cluster.trials[0],
                Measured(
                    measured[None if cluster.leader is None else 0],
                    (0, 0, 0),
                    Costs(1, 1, 1, 1, None),
                    None,
                ),
            )
            for cluster in options.clusters
        ],
    )
    document["verdict"] = judge(document)
    return document | {"manifest": {"command_line": ""}}


def test_summary(name, comparison):
    for cell in comparison["phases"][0]["cells"][::2]:
        for kind in ("commit", "answer"):
            for p in PERCENTS:
                assert cell[kind][field_of(p)] == (WANTED[name][p] if stated(name, p) else None)
            low, high = cell[kind]["interval"]
            assert {low * 1000, high * 1000} <= {*map(float, SAMPLES[name])}
        shares = [share for ms, share in cell["answer_cdf"] if ms <= WANTED[name][50]]
        assert shares[-1] >= 0.5
        assert [s for ms, s in cell["answer_cdf"] if ms < WANTED[name][50]][-1:] < [0.5]


def test_verdict(name, comparison):
    (first, *_) = key_figures(comparison)
    assert float(first.value.removesuffix(" ms").replace(",", "")) == shown(WANTED[name][50])
    for row in comparison["phases"][0]["comparisons"]:
        assert row["answer"]["median_ms"] == pytest.approx(WANTED[name][50] - 1.0)


def test_table_of_a_comparison(name, comparison):
    lines = printed(phase_table(comparison, comparison["phases"][0], 200))
    (line, *_) = (line for line in lines if "Region 1" in line)
    assert numbers(line)[1:9] == [*wanted_row(name), *wanted_row(name)]


@pytest.mark.parametrize("width", [80, 100])
def test_table_of_a_comparison_fits(name, comparison, width):
    lines = printed(phase_table(comparison, comparison["phases"][0], width), width)
    (line, *_) = (line for line in lines if "Region 1" in line)
    assert not any("…" in line for line in lines)
    assert numbers(line)[-4:] == wanted_row(name)


def test_report_of_a_comparison(name, comparison):
    page = render(comparison)
    (row, *_) = re.findall(r"<tr><td>Region 1</td>.*?</tr>", page, re.S)
    cells = [cell.strip() for cell in re.findall(r"<td[^>]*>(.*?)</td>", row, re.S)]
    assert [None if c == "–" else float(c.replace(",", "")) for c in cells[3:11]] == [
        *wanted_row(name),
        *wanted_row(name),
    ]


@pytest.fixture(scope="module")
def load(name):
    counts, sites = LoadCounts(), places("lan:3")
    counts.windows[0] = Window(1.0, 3, 1_000_000)
    for place in sites:
        commands = counts.at(0, place.title, "PUT")
        for us in SAMPLES[name]:
            commands.answered += 1
            commands.answer[bucket(us)] += 1
            commands.commit[bucket(us)] += 1
        counts.sent[0, place.title] = len(SAMPLES[name])
    document = summarize_load(counts, sites, {"title": "", "loop": "open"}, LoadLimits())
    return document, counts, sites


def test_load(name, load, tmp_path):
    document, counts, sites = load
    row = document["steps"][0]["regions"][0]
    for kind in ("answer", "commit"):
        for p in PERCENTS:
            wanted = three_digits(WANTED[name][p]) if stated(name, p) else None
            assert row[kind][field_of(p)] == wanted
    write_load(tmp_path, document, counts, sites)
    with (tmp_path / "steps.csv").open() as file:
        written = next(csv.DictReader(file))
    for p in PERCENTS:
        text = written[f"answer_{field_of(p)}_ms"]
        assert (float(text) if text else None) == row["answer"][field_of(p)]
    lines = (tmp_path / "Region1-answer.hgrm").read_text().splitlines()
    halves = [line.split() for line in lines if line.split()[1:2] == ["0.500000000000"]]
    if len(SAMPLES[name]) > 1:
        assert float(halves[0][0]) == row["answer"]["p50"]


def test_tables_and_report_of_a_load(name, load):
    document = load[0]
    (line,) = (each for each in load_text(document).splitlines() if each.startswith("Region 1"))
    assert numbers(line)[1:5] == wanted_row(name)
    assert max(map(len, load_text(document).splitlines())) <= 100
    lines = printed(results_table(document), 100)
    (line,) = (each for each in lines if "Region 1" in each)
    assert numbers(line)[1:5] == wanted_row(name)
    (row, *_) = re.findall(r"<tr><td[^>]*>Region 1</td>.*?</tr>", render_load(document), re.S)
    cells = [html.unescape(cell) for cell in re.findall(r"<td[^>]*>(.*?)</td>", row, re.S)]
    found = [None if c == "–" else float(c.replace(",", "")) for c in cells[5:9]]
    assert found == wanted_row(name)


class Answers:
    """An executor whose every trial has these samples."""

    def __init__(self, samples_us):
        self._samples_us = samples_us

    def title(self):
        return "a fake"

    def run(self, jobs, beat):
        for job in jobs:
            outcome, homes = outcome_of(self._samples_us), TRIAL.homes
            stored = StoredTrial(
                key=job.key,
                trial=job.settings,
                leader=None,
                titles={home.region.name: home.region.title for home in homes},
                optimum=[
                    optimum("epaxos", TRIAL.sites, None, outcome.sync_us, home.replica, 0)
                    for home in homes
                ],
                code="x",
                finished="2026-01-01T00:00:00",
                took_s=1.0,
                host="x",
                outcome=outcome,
            )
            yield job, encode(stored)


def test_experiment(name, tmp_path):
    settings = {"topology": "lan:3", "simulated": True, "duration_s": 100.0, "rate": 1.0}
    experiment = Experiment("mine", protocol="epaxos", repeats=1, warmup_s=0.0, **settings)
    results = run_sweep(experiment, tmp_path, Answers(SAMPLES[name]), lambda report: None)
    record = results.records()[0]
    kept = json.loads((results.directory / "cells.jsonl").read_text().splitlines()[0])
    for p in PERCENTS:
        wanted = WANTED[name][p] if stated(name, p) else None
        assert record[f"answer_{field_of(p)}_ms"] == record[f"commit_{field_of(p)}_ms"] == wanted
        assert kept[f"answer_{field_of(p)}_ms"] == wanted
    (line, *_) = (each for each in str(results.table()).splitlines() if "Region 1" in each)
    commit, answer, low, high, *tail = numbers(line)[1:]
    assert [commit, answer, *tail] == [shown(WANTED[name][50]), *wanted_row(name)]
    assert low <= answer <= high
    assert f"{WANTED[name][95]:,.1f}" in render_experiment(results)


def test_figures(name):
    pool = PooledTrials(TRIAL, [outcome_of(SAMPLES[name])])
    for p in PERCENTS:
        wanted = WANTED[name][p] if stated(name, p) else None
        assert stated_percentile(pool.answer_ms("R1"), p) == wanted
    assert medians(pool, "R1", 100.0).values == [WANTED[name][50]]


def test_replicas_and_clients(name):
    values, counts = Distribution(), Counter(map(bucket, SAMPLES[name]))
    for us in SAMPLES[name]:
        values.record(us)
    summary = values.summary()
    assert summary["p50_us"] / 1000 == three_digits(WANTED[name][50])
    assert summary["p99_us"] / 1000 == three_digits(nearest_rank(SAMPLES[name], 99))
    median_us = round(WANTED[name][50] * 1000)
    (below, _), (upto, _), _ = [
        (count, bound)
        for bound, count in values.buckets([bucket(median_us) - 1, bucket_end(bucket(median_us))])
    ]
    assert below < len(SAMPLES[name]) / 2 <= upto
    found = spread(counts)
    assert (found.p50_us / 1000, found.p99_us / 1000) == (
        three_digits(WANTED[name][50]),
        three_digits(nearest_rank(SAMPLES[name], 99)),
    )


LOCUST = """
import json, runpy, sys
sys.argv = ["locust"]
import locust
from locust import stats
runpy.run_path(%r)
entries = stats.RequestStats()
for us in json.load(sys.stdin):
    entries.log_request("PUT", "x", us / 1000, 0)
page = entries.total.to_dict()
writer = stats.StatsCSV.__new__(stats.StatsCSV)
writer.percentiles_to_report = [0.5, 0.95, 0.99, 0.999]
print(json.dumps([page["median_response_time"], page["response_time_percentile_0.95"],
                  writer._percentile_fields(entries.total)]))
"""


def test_locust(name):
    done = subprocess.run(
        [sys.executable, "-c", LOCUST % str(LOCUSTFILE)],
        input=json.dumps(SAMPLES[name]),
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
        cwd=ROOT,
    )
    p50, p95, fields = json.loads(done.stdout.splitlines()[-1])
    assert p50 == three_digits(WANTED[name][50])
    assert p95 == three_digits(WANTED[name][95])
    assert fields == [three_digits(WANTED[name][p]) for p in PERCENTS]


def test_an_interval_redraws_the_same_percentile():
    # Six and six: a redrawn median is one of the two, never 105.
    assert interval([np.array(HALVES) / 1000], 50, 1) == (10.0, 200.0)


# Nobody else -------------------------------------------------------------------------------------

FORBIDDEN = ("percentile", "nanpercentile", "quantile", "nanquantile", "quantiles", "median")


def computed_elsewhere(path):
    """Percentiles that are not those of epaxos.percentile."""
    if path.name == "percentile.py":
        return
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.ImportFrom) and node.module in ("statistics", "numpy"):
            for each in node.names:
                if each.name.startswith(("median", "quantile")):
                    yield node.lineno, f"{node.module}.{each.name}"
        elif isinstance(node, ast.Attribute) and node.attr == "get_value_at_percentile":
            yield node.lineno, "a percentile of hdrh"
        elif (
            isinstance(node, ast.Attribute)
            and node.attr in (*FORBIDDEN, "nanmedian", "median_low", "median_high")
            and isinstance(node.value, ast.Name)
            and node.value.id in ("np", "numpy", "statistics")
        ):
            yield node.lineno, f"{node.value.id}.{node.attr}"
        elif isinstance(node, ast.Subscript) and _is_place(node.slice):
            yield node.lineno, "a place among samples"


def _is_place(place):
    """`[int(… len(x) …)]`, `[ceil(…)]`, `[len(x) * 99 // 100]` and the like."""
    return any(
        (isinstance(node, ast.BinOp) and isinstance(node.op, ast.FloorDiv) and _has_len(node))
        or (
            isinstance(node, ast.Call)
            and isinstance(node.func, ast.Name)
            and node.func.id in ("int", "round", "ceil")
            and _has_len(node)
        )
        for node in ast.walk(place)
        if not isinstance(place, ast.Slice)
    )


def _has_len(node):
    return any(
        isinstance(each, ast.Call) and isinstance(each.func, ast.Name) and each.func.id == "len"
        for each in ast.walk(node)
    )


def test_nobody_else_computes_a_percentile():
    assert offenders(computed_elsewhere, modules(*CODE)) == []
    tests = offenders(computed_elsewhere, modules("tests"))
    # The middle of octets or words is no percentile, and hdrh reads our files.
    others = ("a place among samples", "a percentile of hdrh")
    assert [each for each in tests if not each.endswith(others)] == []


@pytest.mark.parametrize(
    "text",
    [
        "import numpy as np\nx = np.percentile(y, 50)\n",
        "import numpy as np\nx = np.quantile(y, 0.5)\n",
        "from statistics import median\n\n",
        "import statistics\nx = statistics.quantiles(y)\n",
        "# a place\nx = sorted(y)[int(len(y) * 0.99)]\n",
        "# a place\nx = y[min(len(y) - 1, len(y) * 99 // 100)]\n",
        "# hdrh\nx = y.get_value_at_percentile(99)\n",
    ],
)
def test_who_does_is_named(text, tmp_path):
    assert len(objections(computed_elsewhere, tmp_path, text)) == 1


def test_documents_have_no_nan():
    files = [path for path in modules("bench", "epaxos") if "nan" in path.read_text("utf-8")]
    makers = [path for path in files if 'float("nan")' in path.read_text("utf-8")]
    assert {Path(path).name for path in makers} <= {
        "draw.py",  # for matplotlib
        "how_often_do_commands_conflict.py",
    }
