"""What load generators count merges exactly, and is judged in sentences."""

import csv
import random

import orjson
import pytest
from hdrh.histogram import HdrHistogram
from hdrh.log import HistogramLogReader

from bench.loadtest.counts import Health, LoadCounts, Window, decode
from bench.loadtest.options import places
from bench.loadtest.summary import LoadLimits, broken, live, summarize, text, write
from epaxos.percentile import bucket, count_percentile

PLACES = places("lan:3")
SETUP = {"title": "lan:3", "loop": "open"}


def counts(seed=1, count=2000, steps=1, wanted=200.0):
    """Some answers per region and step, and what goes with them."""
    rng = random.Random(seed)
    found = LoadCounts()
    for step in range(steps):
        found.windows[step] = Window(wanted, 3, round(count / wanted * 1e6))
        for place in PLACES:
            commands = found.at(step, place.title, "PUT")
            for _ in range(count):
                us = round(rng.lognormvariate(11, 0.3))
                commands.answered += 1
                commands.answer[bucket(us)] += 1
                commands.commit[bucket(us)] += 1
                commands.paths["fast"] += 1
            found.sent[step, place.title] = count
    found.health[str(seed)] = Health(lateness={100: 50}, lateness_max_us=100, wall_us=100)
    return found


def test_reports_of_two_processes_are_those_of_one():
    one, other, both = counts(1), counts(2), LoadCounts()
    for each in (one, other):
        both.add(decode(each.encode()))
    commands = both.of("Region 1")
    assert commands.answered == 4000
    assert sum(commands.answer.values()) == 4000
    assert both.sent_by("Region 1") == 4000
    assert both.windows[0].measured_us == one.windows[0].measured_us
    assert set(both.health) == {"1", "2"}
    assert len(one.of("Region 1").answer) < len(commands.answer)


def test_a_good_run_is_valid_and_keeps_its_criteria():
    document = summarize(counts(), PLACES, SETUP, LoadLimits(p99_ms={"Region 1": 1000}))
    assert document["validity"] == "VALID", document["reasons"]
    assert broken(document) == []
    row = document["steps"][0]["regions"][0]
    assert row["rate"] == 200
    assert row["fast_share"] == 1
    assert row["answer"]["p50"] == pytest.approx(59.9, rel=0.1)
    assert "all criteria are met" in text(document)


def test_each_broken_criterion_is_named_with_its_region():
    bad = counts()
    bad.at(0, "Region 2", "PUT").failures["504 It may have happened"] += 3
    limits = LoadLimits(
        p99_ms={"Region 1": 1.0},
        fail_ratio={"Region 2": 0.0},
        rate={"Region 3": 1000.0, "Region 1": 10.0},
    )
    document = summarize(bad, PLACES, SETUP, limits)
    first, second, third = broken(document)
    assert first.startswith("Region 1: p99 ")
    assert "allowed are 1 ms (max-p99)" in first
    assert second.startswith("Region 2: 0.15 % of the commands failed, allowed are 0 %")
    assert third == "Region 3: 200 answers per second, wanted are 1000 (min-rate)"
    assert document["validity"] == "SUSPECT"


def test_an_unreachable_region_makes_the_run_invalid():
    bad = counts()
    commands = bad.at(0, "Region 3", "PUT")
    commands.failures["cannot connect: connection refused"] = commands.answered
    commands.answered = 0
    commands.answer.clear()
    document = summarize(bad, PLACES, SETUP, LoadLimits())
    assert document["validity"] == "INVALID"
    (reason,) = document["reasons"]
    assert reason.startswith("Region 3: no good answer from http://127.0.0.1:8003: cannot connect")
    assert broken(document) == ["Region 3: no good answer at all (answers)"]


@pytest.mark.parametrize(
    ("health", "level", "said"),
    [
        (
            Health(lateness_max_us=60_000),
            "SUSPECT",
            "generator 1 was 60.0 ms late (suspect above 50)",
        ),
        (Health(start_error={3000: 9}), "SUSPECT", "sent 3.0 ms late at the p99 (suspect above 2)"),
        (
            Health(start_error={30_000: 9}),
            "INVALID",
            "sent 30.0 ms late at the p99 (invalid above 25)",
        ),
        (Health(cpu_us=95, wall_us=100), "SUSPECT", "used 0.95 of a core"),
    ],
)
def test_a_late_generator_is_not_believed(health, level, said):
    late = counts()
    late.health["1"] = health
    document = summarize(late, PLACES, SETUP, LoadLimits())
    assert document["validity"] == level
    assert said in document["reasons"][0]


def test_another_rate_than_the_wanted_one_is_told():
    slow = counts(wanted=400.0)
    for place in PLACES:
        slow.sent[0, place.title] = 1500
    document = summarize(slow, PLACES, SETUP, LoadLimits())
    assert "Region 1: 300.0 commands/s were sent, not 400" in document["reasons"]


def test_steps_say_which_one_was_sustained():
    steps = counts(steps=3)
    for step in range(3):
        steps.windows[step].wanted = 100.0 * (step + 1)
    steps.at(2, "Region 1", "PUT").failures["504"] = 5
    limits = LoadLimits(fail_ratio={"Region 1": 0.0})
    document = summarize(steps, PLACES, {**SETUP, "loop": "closed"}, limits)
    assert document["sustained"] == 200
    assert broken(document)[0].startswith("Region 1 at step 300: ")
    turns: list[int] = []
    assert live(steps, PLACES, "running", lambda: turns.append(0))["step"] == 2
    assert len(turns) == len(PLACES)


def test_files_hold_the_same_figures(tmp_path):
    steps = counts(steps=2)
    document = summarize(steps, PLACES, SETUP, LoadLimits())
    write(tmp_path, document, steps, PLACES)
    assert orjson.loads((tmp_path / "load.json").read_bytes()) == document
    with (tmp_path / "steps.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["region"] for row in rows[:4]] == ["Region 1", "Region 2", "Region 3", "all"]
    reader = HistogramLogReader(
        str(tmp_path / "Region1-answer.hlog"), HdrHistogram(1, 3_600_000_000, 3)
    )
    intervals = list(iter(reader.get_next_interval_histogram, None))
    reader.close()
    assert [each.get_total_count() for each in intervals] == [2000, 2000]
    p50 = intervals[0].get_value_at_percentile(50) / 1000
    assert p50 == pytest.approx(document["steps"][0]["regions"][0]["answer"]["p50"], rel=0.001)
    lines = (tmp_path / "Region1-answer.hgrm").read_text().splitlines()
    (median,) = [line.split() for line in lines if line.split()[1:2] == ["0.500000000000"]]
    expected = count_percentile(steps.of("Region 1").answer, 50) / 1000
    assert float(median[0]) == pytest.approx(expected, abs=0.001)
    (last,) = [line.split() for line in lines if line.split()[1:2] == ["1.000000000000"]]
    assert last[2] == "4000"
