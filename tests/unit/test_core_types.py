"""The plain words: ids, ballots, dependency vectors."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from epaxos.core.types import (
    BALLOT_REPLICAS,
    REPLICAS_MAX,
    InstanceId,
    ballot_name,
    ballot_replica,
    covers,
    make_ballot,
    merge,
    next_ballot,
    no_deps,
    parse_instance,
    replica_name,
)

vectors = st.lists(st.integers(0, 50), min_size=5, max_size=5).map(tuple)


def test_instance_is_printed_and_read_back():
    assert str(InstanceId(0, 7)) == "A.7"
    assert parse_instance("I.123456789") == InstanceId(8, 123456789)


@pytest.mark.parametrize(
    "text", ["", "A", "A.", ".7", "a.7", "AB.7", "A.-1", "A.x", "A.7.1", "A.７"]
)
def test_what_is_no_instance_is_refused_with_an_example(text):
    with pytest.raises(ValueError, match=r"write for example A\.7"):
        parse_instance(text)


def test_ballots_are_unique_and_ordered_by_round():
    ballots = [make_ballot(number, replica) for number in range(1, 4) for replica in range(9)]
    assert ballots == sorted(set(ballots))
    assert [ballot_replica(make_ballot(5, replica)) for replica in range(9)] == list(range(9))
    assert BALLOT_REPLICAS >= REPLICAS_MAX


@given(st.integers(0, 2**40), st.integers(0, REPLICAS_MAX - 1))
def test_next_ballot_is_mine_and_above(above, replica):
    following = next_ballot(above, replica)
    assert following > above
    assert ballot_replica(following) == replica


def test_names_for_people():
    assert [replica_name(replica) for replica in (0, 4, 8)] == ["A", "E", "I"]
    assert ballot_name(0) == "b0"
    assert ballot_name(make_ballot(3, 2)) == "b3@C"


@given(vectors, vectors, vectors)
def test_merge_is_the_least_vector_that_covers_both(a, b, c):
    union = merge(a, b)
    assert covers(union, a)
    assert covers(union, b)
    assert union == merge(b, a)
    assert merge(union, c) == merge(a, merge(b, c))
    assert merge(a, a) == a
    assert covers(c, union) == (covers(c, a) and covers(c, b))


@given(vectors)
def test_everything_covers_nothing(a):
    assert covers(a, no_deps(5))
    assert merge(a, no_deps(5)) == a
