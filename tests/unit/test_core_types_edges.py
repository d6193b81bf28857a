"""The words of every protocol at their bounds."""

import pytest

from epaxos.core.errors import ConfigError
from epaxos.core.quorum import quorums
from epaxos.core.types import (
    InstanceId,
    ballot_name,
    ballot_replica,
    covers,
    make_ballot,
    merge,
    next_ballot,
    parse_instance,
)


def test_nine_replicas_are_the_most():
    assert quorums(9).n == 9
    with pytest.raises(ConfigError, match="1 to 9"):
        quorums(10)


@pytest.mark.parametrize("text", ["A.0", "A.1", "P.9"])
def test_columns_are_named_a_to_p(text):
    assert str(parse_instance(text)) == text


@pytest.mark.parametrize("text", ["@.1", "Q.1", "AA.1", ".1", "A", "A.", "A.-1", "A.²"])
def test_other_names_are_refused(text):
    with pytest.raises(ValueError, match="not an instance"):
        parse_instance(text)


def test_a_ballot_is_its_round_times_sixteen_and_its_replica():
    assert make_ballot(3, 2) == 50
    assert ballot_replica(50) == 2
    assert ballot_name(50) == "b3@C"
    assert ballot_name(0) == "b0"
    assert ballot_name(1) == "b0@B"


@pytest.mark.parametrize(("above", "expected"), [(0, 17), (15, 17), (16, 33), (31, 33), (32, 49)])
def test_the_next_ballot_is_in_the_next_round(above, expected):
    assert next_ballot(above, 1) == expected


def test_union_and_cover_are_by_column():
    assert merge((1, 5), (4, 2)) == (4, 5)
    assert covers((4, 5), (4, 5))
    assert covers((4, 5), (3, 5))
    assert not covers((4, 5), (4, 6))
    assert InstanceId(1, 2) == (1, 2)
