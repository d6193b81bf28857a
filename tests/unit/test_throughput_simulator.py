"""The simulator's own benchmark says what it measured; how fast that was is no test's business."""

import random

import pytest

from bench.throughput.simulator import (
    Judged,
    Schedules,
    Speed,
    Virtual,
    make_history,
    measure,
    measure_judging,
    measure_schedules,
    measure_virtual,
)
from epaxos.core.errors import ConfigError
from epaxos.sim.check.checkers import Violation
from epaxos.sim.check.linearizability import Verdict, check


def test_measure_gives_all_figures_and_what_they_are_of():
    speed = measure(schedules=2, virtual_s=1.5, operations=200, keys=3)
    assert speed.schedules.count == 2
    assert speed.schedules.violations == 0
    assert speed.schedules.commands > 0
    assert [virtual.per_request for virtual in speed.loads] == [1, 10, 100]
    for virtual in speed.loads:
        assert 800 < virtual.sent < 2_500
        assert 0 < virtual.answered <= virtual.sent
    assert speed.judged == Judged(200, 3, Verdict.OK, speed.judged.cpu_s)
    assert speed.schedules.per_minute > 0
    assert speed.loads[0].ratio > 0


def test_rows_name_figure_and_target():
    speed = Speed(
        Schedules("epaxos", 100, 0, 6_000, 3.0),
        (
            Virtual("epaxos", "aws-5-2020", 1_000, 1, 10, 10_012, 9_900, 5.0),
            Virtual("epaxos", "aws-5-2020", 1_000, 10, 10, 10_012, 9_900, 0.5),
            Virtual("epaxos", "aws-5-2020", 1_000, 100, 10, 10_012, 9_900, 0.1),
        ),
        Judged(100_000, 100, Verdict.OK, 2.34),
    )
    names, figures, targets = zip(*speed.rows())
    assert figures == ("2,000", "2.0", "20.0", "100.0", "2.3")
    assert targets == ("≥ 600", "≥ 10", "≥ 10", "≥ 10", "≤ 10")
    assert "9,900 of 10,012 answered" in names[1]
    assert "100,000 operations over 100 keys (linearizable)" in names[4]
    assert "VIOLATED" not in names[0]


def test_a_violation_is_counted_and_said(monkeypatch):
    def fail(options):
        raise Violation("a sentence", f"seed {options.seed}")

    monkeypatch.setattr("bench.throughput.simulator.simulate", fail)
    found = measure_schedules("epaxos", 3)
    assert (found.count, found.violations) == (3, 3)
    virtual = Virtual("epaxos", "aws-5-2020", 1_000, 1, 10, 1, 1, 1.0)
    rows = Speed(found, (virtual,), Judged(1, 1, Verdict.OK, 1.0)).rows()
    assert "3 VIOLATED" in rows[0][0]


def test_the_same_seed_is_the_same_load():
    first, second = (measure_virtual("multipaxos", 0.2, seed=3) for _ in range(2))
    assert (first.sent, first.answered) == (second.sent, second.answered)


def test_nothing_to_measure_is_refused():
    with pytest.raises(ConfigError):
        measure_schedules("epaxos", 0)
    with pytest.raises(ConfigError):
        measure_virtual("epaxos", 0)
    with pytest.raises(ConfigError):
        measure_judging(10, 0)


def test_histories_are_true_and_hold_every_kind():
    ops = make_history(random.Random(1), 400)
    assert len(ops) == 400
    assert {op.kind for op in ops} == {"get", "put", "delete", "cas"}
    assert any(op.returned is None for op in ops)
    assert check(ops) is Verdict.OK
