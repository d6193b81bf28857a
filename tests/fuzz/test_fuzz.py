"""Every surface refuses by name what it does not take; found cases stay found."""

import contextlib
import subprocess
import sys
from pathlib import Path

import pytest

from epaxos.node.node import Node
from tests.fuzz import __main__ as fuzzing
from tests.fuzz.__main__ import fuzz
from tests.fuzz.connections import fuzz_connections, fuzz_lies
from tests.fuzz.targets import REFUSALS, TARGETS, Target

ROOT = Path(__file__).parents[2]
CASES = sorted((Path(__file__).parent / "cases").iterdir())


@pytest.mark.parametrize("name", TARGETS)
def test_the_valid_inputs_are_taken(name):
    for data in TARGETS[name].seeds():
        TARGETS[name].run(data)


@pytest.mark.parametrize("name", TARGETS)
def test_mutated_inputs_are_taken_or_refused_by_name(name):
    told, broken = fuzz(name, seed=0, first=0, inputs=200)
    assert not broken
    # Of the liars an input is a seed, and any will do.
    assert told["accepted"] < 200 or name.endswith("-liar")


@pytest.mark.parametrize("case", CASES, ids=lambda path: path.name)
def test_what_once_broke_is_taken_or_refused_by_name(case):
    with contextlib.suppress(*REFUSALS):
        TARGETS[case.name.partition(".")[0]].run(case.read_bytes())


def test_a_replica_outlives_what_strangers_send_to_its_ports(tmp_path):
    told = fuzz_connections(0, 150, tmp_path)
    assert told["http answered"]
    assert told["client answered"]
    assert told["peer answered"]


def test_a_replica_outlives_a_member_that_lies(tmp_path):
    told = fuzz_lies(0, 60, tmp_path)
    assert told["liar answered"] > 30


def _for_ever(data):
    while True:
        pass


def test_an_input_that_takes_too_long_or_too_much_is_found(monkeypatch):
    monkeypatch.setattr(fuzzing, "INPUT_CPU_S", 0.05)
    monkeypatch.setitem(TARGETS, "hangs", Target(lambda: [b"x"], _for_ever))
    told, broken = fuzz("hangs", seed=0, first=0, inputs=1)
    assert told["broken"] == 1
    assert "TimeoutError" in next(iter(broken))


def test_memory_is_bounded_while_inputs_run():
    code = (
        "import sys, tests.fuzz.__main__ as m, tests.fuzz.targets as t\n"
        "t.TARGETS.clear()\n"
        "t.TARGETS['large'] = t.Target(lambda: [b'x'], lambda data: bytes(4 << 30))\n"
        "sys.argv = ['fuzz', '--inputs', '1']\n"
        "sys.exit(m.main())"
    )
    ended = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert ended.returncode == 1, ended.stderr
    assert "MemoryError" in ended.stdout


class Believes(Node):
    """Looks a peer's slot up as if it had to be there."""

    def receive(self, source, message, now):
        slot = getattr(message, "slot", 0)
        assert slot < 4, "no such slot"
        super().receive(source, message, now)


def test_a_node_that_dies_of_a_lie_is_found(monkeypatch):
    monkeypatch.setattr("tests.fuzz.lies.Node", Believes)
    told, broken = fuzz("epaxos-liar", seed=0, first=0, inputs=20)
    assert told["broken"] > 0
    assert "AssertionError" in next(iter(broken))
