"""Progress is counted and estimated in one place, and shown in one way."""

import ast
from io import StringIO
from pathlib import Path

import pytest
from rich.console import Console

from bench import progress
from bench.progress import ProgressClock, ProgressReport
from epaxos.cli.progress import line, say_lines, show_bar

ROOT = Path(__file__).parents[2]


@pytest.fixture
def clock_s(monkeypatch):
    """The monotonic clock, which stands until a test moves it."""
    now = [100.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    return now


def test_what_was_expected_holds_until_there_is_something_to_judge_it_by(clock_s):
    told = []
    clock = ProgressClock(100.0, told.append)
    clock.tell("A", "starting", 0.5, 2.0)
    assert told[-1] == ProgressReport(
        what="A", activity="starting", share=0.5, total=0.01, left_s=99.0
    )
    clock_s[0] += 20
    clock.ended("A", 2.0)
    clock.tell("A", "load", 0.5, 16.0)
    # Ten of a hundred took twenty: the other ninety take a hundred and eighty.
    assert (told[-1].total, told[-1].left_s) == (0.1, 180.0)


def test_parts_that_run_at_once_add_up(clock_s):
    told = []
    clock = ProgressClock(4.0, told.append)
    clock.tell("A", "x", 0.5, 1.0)
    clock.tell("B", "x", 0.5, 1.0)
    clock.tell("A", "x", 0.75, 1.0)
    assert [report.total for report in told] == [0.125, 0.25, 0.3125]
    clock.ended("A", 1.0)
    clock.tell("B", "x", 2.0, 1.0)
    assert (told[-1].share, told[-1].total) == (1.0, 0.5)


def test_a_slow_start_is_no_pace(clock_s):
    told = []
    clock = ProgressClock(12.0, told.append, at_once=2)
    clock_s[0] += 5  # two processes are started, which takes longer than the work
    clock.tell("A", "x", 0.0, 6.0)
    assert told[-1].left_s == 6.0  # two at once take half as long
    clock_s[0] += 0.2
    clock.tell("A", "x", 0.05, 6.0)
    assert told[-1].left_s == pytest.approx(5.85)
    clock.tell("B", "x", 0.0, 6.0)
    clock_s[0] += 1.0
    clock.tell("A", "x", 0.25, 6.0)
    clock.tell("B", "x", 0.2, 6.0)
    # 2.7 of 12 took 1.2 s: the other 9.3 take 4.1.
    assert told[-1].left_s == pytest.approx(9.3 * 1.2 / 2.7)


def test_the_pace_of_other_machinery_is_forgotten(clock_s):
    told = []
    clock = ProgressClock(10.0, told.append)
    clock.tell("two processes", "", 1.0, 5.0)
    clock_s[0] += 50
    clock.take_pace_anew()
    clock.tell("real", "")
    assert told[-1].left_s == 5.0
    clock.ended("two processes", 5.0)
    clock_s[0] += 1
    clock.tell("real", "", 1.0, 1.0)
    assert told[-1].left_s == pytest.approx(4.0)


def report(total, activity="2 % conflicts", left_s=42.0):
    return ProgressReport(what="MP @CA", activity=activity, total=total, left_s=left_s)


def test_a_line_says_what_a_bar_shows():
    assert line(report(0.5)) == "MP @CA · 2 % conflicts · about 42 s to go"
    assert line(report(0.5, left_s=240.0)) == "MP @CA · 2 % conflicts · about 4 min to go"


def test_where_nobody_watches_there_are_few_lines():
    out = StringIO()
    tell = say_lines(Console(file=out, width=200), line)
    for step in range(1001):
        tell(report(step / 1000, "0 %" if step < 430 else "2 %"))
    lines = out.getvalue().splitlines()
    assert len(lines) == 11
    assert [each for each in lines if " 2 %" in each]
    out.truncate(0)
    for step in range(1001):
        tell(report(step / 1000, f"activity {step}"))
    assert len(out.getvalue().splitlines()) <= 21


def test_on_a_terminal_a_bar_is_drawn_and_gone():
    out = StringIO()
    with show_bar(Console(file=out, force_terminal=True, width=100)) as watch:
        watch(report(0.25))
    assert "MP @CA · 2 % conflicts" in out.getvalue()
    assert "25%" in out.getvalue()
    assert "\n\n" not in out.getvalue()


def test_no_column_of_a_bar_reads_markup():
    """What a column shows may be a name that a person chose."""
    for path in [*(ROOT / "epaxos").rglob("*.py"), *(ROOT / "bench").rglob("*.py")]:
        for call in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(call, ast.Call) and getattr(call.func, "id", "") == "TextColumn":
                said = {keyword.arg: keyword.value for keyword in call.keywords}
                assert ast.unparse(said["markup"]) == "False", path
