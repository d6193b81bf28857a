"""The plain words: ids, ballots, dependency vectors."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from epaxos.core.errors import ConfigError
from epaxos.core.quorum import quorums
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
    "text",
    ["", "A", "A.", ".7", "a.7", "AB.7", "A.-1", "A.x", "A.7.1", "A.７", "A." + "9" * 5000, "A.07"],
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


def test_nine_replicas_are_the_most():
    assert quorums(9).n == 9
    with pytest.raises(ConfigError, match="1 to 9"):
        quorums(10)
