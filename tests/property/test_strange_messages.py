"""Whatever decodes may arrive: nothing is raised because of what a peer sent, in this life or the
next, and nothing is said or written that peers, or a restart, could not read."""

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from epaxos.codec import Codec, encode, encode_frame
from epaxos.core.command import Batch, Payload
from epaxos.core.errors import CodecError
from epaxos.core.replica import Setup
from epaxos.core.types import BALLOT_MAX, LAST_ROUND, SLOT_MAX, InstanceId, make_ballot
from epaxos.node.node import Node
from epaxos.node.requests import AskGraph, AskInstance, AskStatus, Limits, Reply, Request
from epaxos.protocols.epaxos import messages as epaxos
from epaxos.protocols.multipaxos import messages as multipaxos
from epaxos.registry import find_protocol, protocol_names
from tests.property.strategies import structs_of

PAYLOAD = Payload.of(Batch(0, 1, b"\x01", [b"x"], [b"1"]))
N = 3
TAME = st.integers(0, 3) | st.sampled_from([16, 17, 18, 33, 34])
"""Slots and ballots that meet each other."""
HIGH = st.sampled_from([2**32, SLOT_MAX, LAST_ROUND]).flatmap(
    lambda bound: st.integers(bound - 17, min(bound + 17, SLOT_MAX))
)
WILD = st.sampled_from([-1, 2**48, 2**62, 2**63, 2**64 - 15, 2**64 - 1])
LENGTHS = st.sampled_from([N, N, N, N, N, 0, N - 1, N + 1])
TOP = 1000
LENGTHS = st.sampled_from([N, N, N, 0, N - 1, N + 1, 9])


def started(protocol, boot=1, log=()):
    """A node with everything that its log holds."""
    setup = Setup(0, N, (0, 1000, 1000), random.Random(1), 0)
    node = Node(protocol, setup, boot, Limits())
    decode = Codec(protocol).decode_record
    for body in log:
        node.restore(decode(body))
    node.wake(0)
    return node


class Life:
    """A node that is fed, and whose every word and record is read by those who must read it."""

    def __init__(self, protocol, boot=1, log=()):
        self.codec = Codec(protocol)
        self.node = started(protocol, boot, log)
        self.log = list(log)
        self.now = 0
        self.peers = [
            protocol.replica(Setup(peer, N, (1000,) * N, random.Random(1), 0)) for peer in (1, 2)
        ]
        for peer in self.peers:
            peer.wake(0)
            peer.out.take()

    def hear(self, source, message):
        """Whether the message decodes; one that does not closes its link."""
        try:
            read = self.codec.decode_message(encode(message))
        except (CodecError, OverflowError):
            return False
        self.node.receive(source, read, self.now)
        return True

    def step(self, us=200_000):
        self.now += us
        at = self.node.deadline()
        if at is not None and at <= self.now:
            self.node.wake(self.now)
        command = Request(self.now, b"\1\0", [b"x", b"y"], [b"v", b""], self.now + 10**6)
        self.node.request([command], self.now)
        for question in (AskStatus(), AskGraph(), AskInstance(InstanceId(1, 1))):
            self.node.ask(self.now, question, self.now)
        ready = self.node.take(self.now)
        for record in ready.log:
            body = encode(record)
            assert self.codec.decode_record(body) == record
            self.log.append(body)
        for _, message in ready.messages:
            read = self.codec.decode_message(encode_frame(message)[8:])
            for peer in self.peers:
                peer.receive(0, read, self.now)
                assert not peer.out.take().distrusted, f"a peer refuses {message}"
        return ready


@pytest.mark.parametrize("name", protocol_names())
def test_no_message_ends_a_replica_or_makes_it_say_what_nobody_reads(name):
    protocol = find_protocol(name)
    kinds = protocol.messages
    tame = st.one_of(*(structs_of(kind, TAME, st.just(N)) for kind in kinds))
    high = st.one_of(*(structs_of(kind, TAME | TAME | HIGH, LENGTHS) for kind in kinds))
    wild = st.one_of(*(structs_of(kind, TAME | WILD, LENGTHS) for kind in kinds))
    messages = tame | high | wild

    @settings(max_examples=100, deadline=None)
    @given(st.lists(st.tuples(st.integers(1, N - 1), messages), max_size=20))
    def check(arrivals):
        life = Life(protocol)
        for source, message in arrivals:
            life.hear(source, message)
            life.step()
        again = Life(protocol, 2, life.log)
        for _ in range(30):
            again.step(1_000_000)

    check()


@pytest.mark.parametrize(
    "message",
    [
        epaxos.RecoverOk(0, 16, [epaxos.Vote(1, 3, 0, None, (16,), None)]),
        epaxos.RecoverOk(0, 16, [epaxos.Vote(1, 3, 0, None, (0, TOP + 1, 0), None)]),
        epaxos.RecoverOk(0, 16, [epaxos.Vote(1, 3, 0, None, (), None)]),
        epaxos.RecoverOk(0, 16, [epaxos.Vote(1, 1, 0, PAYLOAD, (0,) * N, (0,) * 4)]),
        epaxos.ValidateOk(0, 1, 16, [epaxos.Objection(N, 1, True)]),
        epaxos.PreAcceptOk(N, 1, (0,) * N),
        epaxos.PreAcceptOk(0, 1, (0,) * 4),
        epaxos.Progress((0,) * N, (0,) * N, (0,) * 4, (0,) * N, 0, (0,) * N),
        epaxos.Progress((0,) * N, (TOP + 1,) * N, (0,) * N, (0,) * N, 0, (0,) * N),
        epaxos.ValidateOk(0, 1, 16, [epaxos.Objection(1, TOP + 1, True)]),
        epaxos.Commit(0, TOP + 1, None, (0,) * N),
        epaxos.Commit(0, 1, None, (0, 0, TOP + 1)),
        epaxos.Recover(0, [1, TOP + 1], 17),
        epaxos.Waiting(0, TOP + 1, 1),
    ],
)
def test_columns_and_vectors_of_another_cluster_and_slots_out_of_reach_do_not_fit(message):
    assert not epaxos.fits(message, N, TOP)


@pytest.mark.parametrize(
    "message",
    [
        epaxos.RecoverOk(0, 16, [epaxos.Vote(1, 0, 0, None, (), None)]),
        epaxos.RecoverOk(0, 16, [epaxos.Vote(1, 1, 0, PAYLOAD, (0,) * N, (0,) * N)]),
        epaxos.ValidateOk(0, 1, 16, [epaxos.Objection(N - 1, 1, True)]),
        epaxos.PreAcceptOk(N - 1, 1, (0,) * N),
        epaxos.Progress((0,) * N, (TOP,) * N, (0,) * N, (0,) * N, 0, (0,) * N),
        epaxos.Commit(0, TOP, None, (TOP,) * N),
        epaxos.Recover(0, [1, TOP], 17),
        epaxos.Recover(0, [], 17),
    ],
)
def test_columns_and_vectors_of_this_cluster_fit(message):
    assert epaxos.fits(message, N, TOP)


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


def test_a_column_does_not_grow_because_of_a_slot_that_nobody_can_have():
    life = Life(find_protocol("epaxos"))
    assert life.hear(1, epaxos.Commit(1, 2**40, None, (0, 0, 0)))
    assert list(life.step().distrusted) == [1]
    for _ in range(100):
        assert not life.step().distrusted
    replica = life.node.replica
    assert replica.columns.known[1] == 0
    assert replica.statistics()["ignored_malformed"] == 1
    assert replica.statistics()["recoveries"] <= 20


def test_who_was_cut_off_for_long_takes_what_it_missed_for_true():
    """Two thousand million slots are far from all it knew, and not from what others may hold."""
    life = Life(find_protocol("epaxos"))
    far = 2_000_000_000
    vector = (far, far, far)
    assert life.hear(1, epaxos.Progress(vector, vector, (0, 0, 0), (0, 0, 0), 1, (0, 0, 0)))
    assert life.hear(2, epaxos.Commit(2, 2 * far, None, (2 * far, 0, 0)))
    assert life.hear(2, epaxos.Commit(2, 3 * far, None, (0, 0, 0)))
    assert not life.step().distrusted
    assert life.node.replica.columns.known == [2 * far, far, 3 * far]


def test_a_life_that_begins_high_up_in_its_columns_believes_its_peers():
    codec = Codec(find_protocol("epaxos"))
    high = 2**33
    log = [encode(epaxos.Committed(1, high, None, (0, 0, 0)))]
    assert codec.decode_record(log[0])
    life = Life(find_protocol("epaxos"), 2, log)
    assert life.hear(1, epaxos.Commit(1, high + 1, None, (0, high, 0)))
    assert not life.step().distrusted
    assert life.node.replica.columns.known[1] == high + 1


@pytest.mark.parametrize("slots", [[1], [1, 3]])
def test_an_own_slot_that_was_decided_before_it_was_proposed_is_left_out(slots):
    """Only a broken peer decides it, or one that knows a life whose log was lost."""
    life = Life(find_protocol("epaxos"))
    for slot in slots:
        assert life.hear(1, epaxos.Commit(0, slot, None, (0, 0, 0)))
    replica = life.node.replica
    free = [slot for slot in range(1, 5) if slot not in slots][:2]
    assert [replica.propose(PAYLOAD, 1).slot for _ in range(2)] == free
    assert all(replica.columns.get(0, slot).is_nop for slot in slots)
    life.step()
    again = Life(find_protocol("epaxos"), 2, life.log)
    assert all(again.node.replica.columns.get(0, slot).is_nop for slot in slots)


def test_a_promise_that_nobody_can_go_above_stops_nothing_else():
    life = Life(find_protocol("epaxos"))
    highest = make_ballot(LAST_ROUND // 16, 1)
    assert life.hear(1, epaxos.Recover(1, [2], highest))
    assert life.hear(2, epaxos.Nack(1, [1], highest + 1))
    recovered = set()
    for _ in range(40):
        for _, message in life.step(1_000_000).messages:
            if isinstance(message, epaxos.Recover):
                recovered.update(message.slots)
    assert recovered >= {1}
    assert 2 not in recovered
    assert life.node.replica.statistics()["ignored_exhausted"] > 1


def test_a_ballot_that_nobody_can_go_above_is_not_campaigned_against():
    life = Life(find_protocol("multipaxos"))
    highest = make_ballot(LAST_ROUND // 16, 1)
    assert life.hear(1, multipaxos.Prepare(highest, 1))
    for _ in range(20):
        life.step(1_000_000)
        life.hear(2, multipaxos.ProbeOk(life.now, highest))
    assert life.node.replica.promised == highest
    again = Life(find_protocol("multipaxos"), 2, life.log)
    again.step()
    assert again.node.replica.promised == highest


@pytest.mark.parametrize("promised", [BALLOT_MAX + 1, 2**64 - 15])
def test_a_promise_out_of_range_is_refused_in_a_message_and_in_the_log(promised):
    codec = Codec(find_protocol("epaxos"))
    for message in (epaxos.Nack(1, [1], promised), epaxos.Recover(1, [1], promised)):
        with pytest.raises(CodecError, match="Expected `int` <="):
            codec.decode_message(encode(message))
    with pytest.raises(CodecError, match="Expected `int` <="):
        codec.decode_record(encode(epaxos.Promised(1, [1], promised)))


def test_a_batch_that_says_it_is_ours_and_is_not_answers_nobody():
    life = Life(find_protocol("epaxos"))
    first = life.step()
    (ours,) = [m.payload.batch for _, m in first.messages if isinstance(m, epaxos.PreAccept)]
    forged = Payload.of(Batch(0, ours.number, b"\1", [b"z"], [b"1"]))
    assert life.hear(1, epaxos.Commit(1, 1, forged, (0, 0, 0)))
    ready = life.step()
    assert not [reply for reply in ready.replies if isinstance(reply, Reply)]
    assert life.hear(1, epaxos.Commit(0, 1, Payload.of(ours), (0, 0, 0)))
    (reply,) = [reply for reply in life.step().replies if isinstance(reply, Reply)]
    assert reply.results.count == 2
