"""Whatever decodes may arrive: nothing is raised because of what a peer sent."""

import random
from contextlib import suppress

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from epaxos.core.command import Batch, Payload
from epaxos.core.errors import Definite
from epaxos.core.replica import Setup
from epaxos.protocols.epaxos import messages as epaxos
from epaxos.protocols.multipaxos import messages as multipaxos
from epaxos.registry import find_protocol, protocol_names
from tests.property.strategies import structs_of

PAYLOAD = Payload.of(Batch(0, 1, b"\x01", [b"x"], [b"1"]))
N = 3


@pytest.mark.parametrize("name", protocol_names())
def test_nothing_is_raised_because_of_what_a_peer_sent(name):
    protocol = find_protocol(name)
    numbers = st.integers(-1, 3) | st.sampled_from([16, 17, 18, 32, 2**40])
    lengths = st.sampled_from([N, N, N, 0, N - 1, N + 1])
    messages = st.one_of(*(structs_of(kind, numbers, lengths) for kind in protocol.messages))

    @settings(max_examples=300)
    @given(st.lists(st.tuples(st.integers(1, N - 1), messages), max_size=20))
    def check(arrivals):
        replica = protocol.replica(Setup(0, N, (0, 1000, 1000), random.Random(1), 0))
        replica.wake(0)
        with suppress(Definite):
            replica.propose(PAYLOAD, 1)
        replica.out.take()
        for now, (source, message) in enumerate(arrivals, 2):
            replica.receive(source, message, now * 200_000)
            replica.wake(now * 200_000)
            with suppress(Definite):
                replica.propose(PAYLOAD, now * 200_000)
            replica.out.take()
        replica.statistics()

    check()


@pytest.mark.parametrize(
    "message",
    [
        epaxos.RecoverOk(0, 16, [epaxos.Vote(1, 3, 0, None, (16,), None)]),
        epaxos.RecoverOk(0, 16, [epaxos.Vote(1, 3, 0, None, (), None)]),
        epaxos.RecoverOk(0, 16, [epaxos.Vote(1, 1, 0, PAYLOAD, (0,) * N, (0,) * 4)]),
        epaxos.ValidateOk(0, 1, 16, [epaxos.Objection(N, 1, True)]),
        epaxos.PreAcceptOk(N, 1, (0,) * N),
        epaxos.PreAcceptOk(0, 1, (0,) * 4),
        epaxos.Progress((0,) * N, (0,) * N, (0,) * 4, (0,) * N, 0),
    ],
)
def test_columns_and_vectors_of_another_cluster_do_not_fit(message):
    assert not epaxos.fits(message, N)


@pytest.mark.parametrize(
    "message",
    [
        epaxos.RecoverOk(0, 16, [epaxos.Vote(1, 0, 0, None, (), None)]),
        epaxos.RecoverOk(0, 16, [epaxos.Vote(1, 1, 0, PAYLOAD, (0,) * N, (0,) * N)]),
        epaxos.ValidateOk(0, 1, 16, [epaxos.Objection(N - 1, 1, True)]),
        epaxos.PreAcceptOk(N - 1, 1, (0,) * N),
        epaxos.Progress((0,) * N, (0,) * N, (0,) * N, (0,) * N, 0),
    ],
)
def test_columns_and_vectors_of_this_cluster_fit(message):
    assert epaxos.fits(message, N)


def test_a_slot_far_beyond_the_log_costs_nothing():
    protocol = find_protocol("multipaxos")
    replica = protocol.replica(Setup(0, N, (0, 1000, 1000), random.Random(1), 0))
    replica.wake(0)
    replica.receive(1, multipaxos.Accept(17, 1 << 40, PAYLOAD, 0), 1)
    assert replica.log.last == 0
    assert replica.statistics()["ignored_far"] == 1


def test_a_slot_that_a_peer_took_over_too_early_is_left_out():
    """Only a broken peer names a slot before its command leader proposes it."""
    protocol = find_protocol("epaxos")
    replica = protocol.replica(Setup(0, N, (0, 1000, 1000), random.Random(1)))
    replica.wake(0)
    replica.receive(1, epaxos.Recover(0, [1, 2], 17), 1)
    assert replica.propose(PAYLOAD, 2) == (0, 3)
    replica.receive(1, epaxos.PreAcceptOk(0, 3, (0, 1, 0)), 3)
    replica.receive(2, epaxos.PreAcceptOk(0, 3, (0, 0, 1)), 4)
    assert replica.columns.get(0, 3).phase == 2
