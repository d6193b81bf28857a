"""Calls are shared out over processes: values, reports on the way, and what a death costs."""

import os
import time
from functools import partial

import pytest

from bench import workers
from bench.workers import Died, WorkerPool, cores
from tests.house.sources import ROOT


def halves(number, tell):
    tell(0.5)
    print("this is no answer")
    return number, os.getpid()


def dies(tell):
    os._exit(3)


def raises(tell):
    raise ValueError("a bug")


def sleeps(tell):
    time.sleep(60)


def test_every_call_has_its_value_and_its_reports():
    told = []
    calls = [partial(halves, number) for number in range(5)]
    found = dict(WorkerPool(2).run(calls, tell=lambda number, done: told.append((number, done))))
    assert {number: value for number, (value, _) in found.items()} == {n: n for n in range(5)}
    assert sorted(told) == [(number, 0.5) for number in range(5)]
    pids = {pid for _, pid in found.values()}
    assert len(pids) <= 2
    assert os.getpid() not in pids


def test_a_death_costs_one_call():
    calls = [dies, partial(halves, 1), raises, partial(halves, 3)]
    found = dict(WorkerPool(1).run(calls))
    assert isinstance(found[0], Died)
    assert isinstance(found[2], Died)
    assert (found[1][0], found[3][0]) == (1, 3)


def test_what_a_beat_raises_ends_the_run_and_leaves_nothing(monkeypatch):
    started = []
    genuine = workers.spawn
    monkeypatch.setattr(
        workers,
        "spawn",
        lambda *args, **more: started.append(genuine(*args, **more)) or started[-1],
    )
    beats = iter(range(3))

    def beat():
        if next(beats) == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        list(WorkerPool(2).run([sleeps, sleeps], beat=beat))
    assert len(started) == 2
    assert all(process.poll() is not None for process in started)


def test_the_cores_that_we_may_use_where_the_system_says_it(monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {3}, raising=False)
    monkeypatch.setattr(os, "cpu_count", lambda: 8)
    assert cores() == 1


@pytest.mark.parametrize(("counted", "expected"), [(8, 8), (None, 1)])
def test_all_cores_where_it_does_not_as_on_macos(monkeypatch, counted, expected):
    monkeypatch.delattr(os, "sched_getaffinity", raising=False)
    monkeypatch.setattr(os, "cpu_count", lambda: counted)
    assert cores() == expected


def test_nobody_but_cores_asks_the_system_for_them():
    sources = [*(ROOT / "epaxos").rglob("*.py"), *(ROOT / "bench").rglob("*.py")]
    asking = [path.name for path in sources if "sched_getaffinity" in path.read_text("utf-8")]
    assert asking == ["workers.py"]
