"""Every surface refuses by name what it does not take; found cases stay found."""

from pathlib import Path

import pytest

from tests.fuzz.__main__ import fuzz
from tests.fuzz.connections import fuzz_connections
from tests.fuzz.targets import REFUSALS, TARGETS

CASES = sorted((Path(__file__).parent / "cases").iterdir())


@pytest.mark.parametrize("name", TARGETS)
def test_the_valid_inputs_are_taken(name):
    for data in TARGETS[name].seeds():
        TARGETS[name].run(data)


@pytest.mark.parametrize("name", TARGETS)
def test_mutated_inputs_are_taken_or_refused_by_name(name):
    told, broken = fuzz(name, seed=0, first=0, inputs=200)
    assert not broken
    assert told["accepted"] < 200


@pytest.mark.parametrize("case", CASES, ids=lambda path: path.name)
def test_what_once_broke_is_refused_by_name(case):
    with pytest.raises(REFUSALS):
        TARGETS[case.name.partition(".")[0]].run(case.read_bytes())


def test_a_replica_outlives_what_strangers_send_to_its_ports(tmp_path):
    told = fuzz_connections(0, 150, tmp_path)
    assert told["http answered"]
    assert told["client answered"]
    assert told["peer answered"]
