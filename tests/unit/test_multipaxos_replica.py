"""One replica at a time: what it records before it speaks, and what it ignores."""

import random

import pytest

from epaxos.codec import encode
from epaxos.core.errors import Definite, StorageError
from epaxos.core.quorum import quorums
from epaxos.core.replica import EVERYONE, RECORD_TAG_PROTOCOL, Path, Setup
from epaxos.core.types import InstanceId, make_ballot
from epaxos.protocols.multipaxos.messages import (
    MESSAGES,
    RECORDS,
    Accept,
    AcceptOk,
    Chosen,
    CommitIndex,
    Fetch,
    Forward,
    Heartbeat,
    Learn,
    Learned,
    Nack,
    Prepare,
    Probe,
    ProbeOk,
    Promise,
    Promised,
    Returned,
    TakeOver,
    Vote,
    Voted,
)
from epaxos.protocols.multipaxos.replica import MultiPaxosReplica
from tests.multipaxos_world import CODEC, SECOND, payload_of

B1A = make_ballot(1, 0)
B1B = make_ballot(1, 1)
B1C = make_ballot(1, 2)
B2A = make_ballot(2, 0)
X = payload_of(0, 1)
Y = payload_of(1, 1)
Z = payload_of(2, 1)

EXAMPLES = [
    Probe(1),
    ProbeOk(1, B1A),
    Prepare(B1A, 1),
    Promise(B1A, 1, 0, 0, [Vote(1, B1A, X), Vote(2, B1A, None)]),
    Accept(B1A, 1, X, 0),
    AcceptOk(B1A, 1, 1),
    CommitIndex(B1A, 1),
    Nack(B1A),
    Fetch(1, 2),
    Learn(1, [X, None]),
    Forward(B1A, X),
    TakeOver(B1A),
    Heartbeat(B1A, True, 1, (1,), (1,), (0, 0, 0), 1),
    Returned(B1A, 1),
]


def replica(me=0, n=3, leader=None, records=()):
    rtt = tuple(0 if q == me else 40_000 for q in range(n))
    made = MultiPaxosReplica(Setup(me, n, rtt, random.Random(1), leader))
    for record in records:
        made.restore(record)
    made.out.take()
    return made


def started(me=0, n=3, leader=None, records=()):
    made = replica(me, n, leader, records)
    made.wake(1)
    made.out.take()
    return made


def leading(n=3):
    """A, elected with the promise of B (and C, where two are needed)."""
    made = started(0, n)
    made._start_probe(10)
    for member in range(1, n // 2 + 1):
        made.receive(member, ProbeOk(10, 0), 20)
    ballot = made.promised
    for member in range(1, n // 2 + 1):
        made.receive(member, Promise(ballot, 1, 0, 0, []), 30)
    made.out.take()
    return made


def counts(made):
    return {name: count for name, count in made.statistics().items() if count}


def test_every_message_has_a_handler_and_an_example():
    made = replica()
    assert set(made._handlers) == set(MESSAGES)
    assert [type(example) for example in EXAMPLES] == list(MESSAGES)


def test_tags_are_distinct_and_records_leave_room_for_the_nodes():
    tags = [kind.__struct_config__.tag for kind in MESSAGES]
    assert tags == list(range(1, len(MESSAGES) + 1))
    tags = [kind.__struct_config__.tag for kind in RECORDS]
    assert tags == list(range(RECORD_TAG_PROTOCOL, RECORD_TAG_PROTOCOL + len(RECORDS)))


@pytest.mark.parametrize("message", EXAMPLES, ids=lambda m: type(m).__name__)
def test_messages_survive_the_codec(message):
    assert CODEC.decode_message(encode(message)) == message


@pytest.mark.parametrize(
    "record", [Promised(B1A), Voted(B1A, 1, X), Voted(B1A, 1, None), Learned(1, [X]), Chosen(1)]
)
def test_records_survive_the_codec(record):
    assert CODEC.decode_record(encode(record)) == record


@pytest.mark.parametrize("n", range(1, 10))
def test_majority_is_more_than_half(n):
    assert quorums(n).slow == n // 2 + 1
    assert replica(0, n).majority == n // 2 + 1


@pytest.mark.parametrize(
    ("rtt", "patience"), [(10, SECOND), (40_000, SECOND), (300_000, 3 * SECOND)]
)
def test_patience_is_ten_round_trips_and_at_least_a_second(rtt, patience):
    made = MultiPaxosReplica(Setup(0, 3, (0, 5, rtt), random.Random(1)))
    assert made.patience.us == patience


def test_a_new_replica_wants_to_be_woken_at_once():
    assert replica().deadline() == 0
    assert started().deadline() > 1


def test_one_replica_commits_in_the_same_ready():
    made = replica(n=1)
    made.wake(1)
    assert made.leader == 0
    made.out.take()
    assert made.propose(X, 2) == InstanceId(0, 1)
    ready = made.out.take()
    assert ready.log == [Voted(B1A, 1, X), Chosen(1)]
    assert ready.must_sync
    assert [(d.slot, d.deps, d.payload, d.path) for d in ready.decided] == [(1, (), X, Path.LEADER)]
    assert ready.messages == []


def test_one_replica_forgets_what_it_executed():
    made = replica(n=1)
    made.wake(1)
    made.propose(X, 2)
    made.out.take()
    made.executed((1,), 3)
    assert made.floor == (1,)
    assert made.live_bytes == 0
    assert made.slowest_member() is None


def test_a_candidate_records_its_ballot_before_it_asks():
    made = started()
    made._start_probe(10)
    assert made.out.take().messages == [(EVERYONE, Probe(10))]
    made.receive(1, ProbeOk(10, make_ballot(4, 1)), 20)
    ready = made.out.take()
    ballot = make_ballot(5, 0)
    assert ready.log == [Promised(ballot)]
    assert ready.must_sync
    assert ready.messages == [(EVERYONE, Prepare(ballot, 1))]


def test_a_promise_is_recorded_before_it_is_said():
    made = started(1)
    made.receive(0, Prepare(B1A, 1), 10)
    ready = made.out.take()
    assert ready.log == [Promised(B1A)]
    assert ready.must_sync
    assert ready.messages == [(0, Promise(B1A, 1, 0, 0, []))]
    made.receive(0, Prepare(B1A, 1), 20)
    assert made.out.take().log == []


def test_votes_are_recorded_and_acknowledged_as_runs():
    made = started(1)
    for slot in (1, 2, 3, 5):
        made.receive(0, Accept(B1A, slot, X, 0), 10)
    ready = made.out.take()
    assert ready.log == [Promised(B1A), *(Voted(B1A, slot, X) for slot in (1, 2, 3, 5))]
    assert ready.must_sync
    assert ready.messages == [(0, AcceptOk(B1A, 1, 3)), (0, AcceptOk(B1A, 5, 5))]
    assert made.leader == 0


def test_a_repeated_accept_is_acknowledged_and_not_recorded():
    made = started(1)
    made.receive(0, Accept(B1A, 1, X, 0), 10)
    made.out.take()
    made.receive(0, Accept(B1A, 1, X, 0), 20)
    ready = made.out.take()
    assert ready.log == []
    assert ready.messages == [(0, AcceptOk(B1A, 1, 1))]


def test_the_commit_index_leaves_when_a_slot_is_chosen():
    made = leading()
    made.propose(X, 40)
    made.propose(Y, 40)
    ballot = made.promised
    assert made.out.take().messages == [
        (EVERYONE, Accept(ballot, 1, X, 0)),
        (EVERYONE, Accept(ballot, 2, Y, 0)),
    ]
    made.receive(1, AcceptOk(ballot, 1, 2), 50)
    ready = made.out.take()
    assert [d.slot for d in ready.decided] == [1, 2]
    assert ready.log == [Chosen(2)]
    assert not ready.must_sync
    assert ready.messages == [(EVERYONE, CommitIndex(ballot, 2))]


def test_the_commit_index_rides_on_an_accept_of_the_same_tick():
    made = leading()
    made.propose(X, 40)
    made.out.take()
    made.receive(1, AcceptOk(made.promised, 1, 1), 50)
    made.propose(Y, 50)
    assert made.out.take().messages == [(EVERYONE, Accept(made.promised, 2, Y, 1))]


def test_slots_are_decided_in_any_order_and_the_index_has_no_gap():
    made = leading()
    made.propose(X, 40)
    made.propose(Y, 40)
    made.out.take()
    made.receive(1, AcceptOk(made.promised, 2, 2), 50)
    ready = made.out.take()
    assert [d.slot for d in ready.decided] == [2]
    assert ready.messages == []
    made.receive(2, AcceptOk(made.promised, 1, 2), 60)
    ready = made.out.take()
    assert [d.slot for d in ready.decided] == [1]
    assert ready.messages == [(EVERYONE, CommitIndex(made.promised, 2))]


def test_a_replica_counts_once_however_often_it_answers():
    made = leading(5)
    made.propose(X, 40)
    for _ in range(5):
        made.receive(1, AcceptOk(made.promised, 1, 1), 50)
    assert made.out.take().decided == []
    made.receive(4, AcceptOk(made.promised, 1, 1), 60)
    assert len(made.out.take().decided) == 1


def test_a_follower_believes_the_index_where_it_voted_in_that_ballot():
    made = started(1)
    made.receive(0, Accept(B1A, 1, X, 0), 10)
    made.receive(0, Accept(B1A, 2, Y, 1), 20)
    assert [d.slot for d in made.out.take().decided] == [1]
    made.receive(0, CommitIndex(B1A, 2), 30)
    ready = made.out.take()
    assert [d.slot for d in ready.decided] == [2]
    assert ready.log == [Chosen(2)]


def test_a_follower_fetches_where_it_voted_in_another_ballot():
    made = started(1)
    made.receive(0, Accept(B1A, 1, X, 0), 10)
    made.receive(2, Heartbeat(B1C, True, 1, (0,), (0,), (0, 0, 0), 1), 20)
    ready = made.out.take()
    assert ready.decided == []
    assert (2, Fetch(1, 1)) in ready.messages
    made.receive(2, Learn(1, [None]), 30)
    ready = made.out.take()
    assert [(d.slot, d.payload) for d in ready.decided] == [(1, None)]
    assert ready.log == [Learned(1, [None]), Chosen(1)]


def test_only_one_fetch_is_outstanding():
    made = started(1)
    for commit in range(5, 50):
        made.receive(0, CommitIndex(B1A, commit), 10)
    fetches = [m for _, m in made.out.take().messages if isinstance(m, Fetch)]
    assert fetches == [Fetch(1, 5)]
    made.receive(0, Learn(1, [X, None]), 20)
    assert [m for _, m in made.out.take().messages] == [Fetch(3, 49)]


def test_a_fetch_ends_where_the_votes_are_good_again():
    made = started(1)
    for slot in (1, 4, 5):
        made.receive(0, Accept(B1A, slot, X, 0), 10)
    made.out.take()
    made.receive(0, CommitIndex(B1A, 5), 20)
    ready = made.out.take()
    assert [d.slot for d in ready.decided] == [1]
    assert ready.messages == [(0, Fetch(2, 3))]
    made.receive(0, Learn(2, [None, None]), 30)
    assert [d.slot for d in made.out.take().decided] == [2, 3, 4, 5]


def test_the_last_words_of_an_old_leader_are_true_of_votes_in_its_ballot_only():
    made = started(1)
    made.receive(0, Accept(B1A, 1, X, 0), 10)
    made.receive(0, Accept(B1A, 2, Y, 0), 10)
    made.receive(2, Prepare(B1C, 1), 20)
    made.receive(2, Accept(B1C, 2, None, 0), 30)
    made.out.take()
    made.receive(0, CommitIndex(B1A, 2), 40)
    ready = made.out.take()
    assert [d.slot for d in ready.decided] == [1]
    assert ready.messages == []


def test_a_lower_ballot_is_refused_and_a_refused_leader_steps_down():
    made = started(1)
    made.receive(2, Prepare(B1C, 1), 10)
    made.out.take()
    for message in (Prepare(B1A, 1), Accept(B1A, 1, X, 0)):
        made.receive(0, message, 20)
        ready = made.out.take()
        assert ready.messages == [(0, Nack(B1C))]
        assert ready.log == []
    leader = leading()
    leader.receive(1, Nack(B1C), 40)
    assert leader.leader is None
    with pytest.raises(Definite, match="no leader"):
        leader.propose(X, 50)


def test_a_follower_forwards_once_and_names_the_ballot():
    made = started(1)
    with pytest.raises(Definite, match="no leader is known"):
        made.propose(Y, 5)
    made.receive(0, Accept(B1A, 1, X, 0), 10)
    made.out.take()
    assert made.propose(Y, 20) is None
    assert made.out.take().messages == [(0, Forward(B1A, Y))]
    made.wake(5 * SECOND)
    assert not any(isinstance(m, Forward) for _, m in made.out.take().messages)


def test_a_leader_takes_a_forward_of_its_ballot_once():
    made = leading()
    ballot = made.promised
    made.receive(1, Forward(ballot, Y), 40)
    made.receive(1, Forward(ballot, Y), 50)
    made.receive(1, Forward(make_ballot(9, 0), payload_of(1, 2)), 50)
    made.receive(2, Forward(ballot, payload_of(1, 3)), 50)
    assert made.out.take().messages == [(EVERYONE, Accept(ballot, 1, Y, 0))]
    ignored = {name: n for name, n in counts(made).items() if name.startswith("ignored")}
    assert ignored == {"ignored_repeated": 1, "ignored_misdirected": 1, "ignored_foreign": 1}


def test_a_former_leader_returns_once_what_it_has_not_seen():
    made = leading()
    ballot = made.promised
    made.receive(1, Forward(ballot, Y), 40)
    made.receive(1, Accept(make_ballot(9, 1), 1, X, 0), 50)
    made.out.take()
    made.receive(1, Forward(ballot, Y), 60)
    made.receive(2, Forward(ballot, Y), 60)
    made.receive(2, Forward(ballot, Z), 60)
    made.receive(2, Forward(ballot, Z), 70)
    made.receive(2, Forward(make_ballot(8, 0), payload_of(2, 2)), 70)
    assert made.out.take().messages == [(2, Returned(ballot, 1))]
    ignored = {name: n for name, n in counts(made).items() if name.startswith("ignored")}
    assert ignored == {"ignored_repeated": 2, "ignored_misdirected": 1, "ignored_foreign": 1}


def test_what_was_returned_is_given_back_when_another_leads():
    made = started(1)
    made.receive(0, Accept(B1A, 1, X, 0), 10)
    made.propose(Y, 20)
    made.out.take()
    made.receive(2, Returned(B1A, 7), 30)
    made.receive(0, Returned(B1A, 1), 30)
    assert made.out.take().returned == []
    made.receive(2, Prepare(B1C, 1), 40)
    assert made.out.take().returned == []
    made.receive(2, Accept(B1C, 1, X, 0), 50)
    assert made.out.take().returned == [1]
    assert made.out.take().returned == []
    assert (counts(made)["returned"], counts(made)["ignored_foreign"]) == (1, 1)


def test_a_forward_to_a_follower_is_dropped():
    made = started(1)
    made.receive(2, Forward(B1B, Z), 10)
    ready = made.out.take()
    assert (ready.log, ready.messages) == ([], [])


@pytest.mark.parametrize(
    ("message", "reason"),
    [
        (ProbeOk(99, 0), "stale_probe"),
        (Promise(B1A, 1, 0, 0, []), "stale_promise"),
        (AcceptOk(B1A, 1, 5), "stale_vote"),
        (Prepare(B1C, 1), "foreign"),
        (Prepare(B1B, 0), "foreign"),
        (Accept(B1C, 1, X, 0), "foreign"),
        (CommitIndex(B1C, 7), "foreign"),
        (Nack(0), "stale_nack"),
        (Fetch(1, 10), "unknown"),
        (Fetch(0, 10), "forgotten"),
        (Fetch(5, 1), "unknown"),
        (Learn(7, [X]), "stale_learn"),
        (Learn(1, []), "stale_learn"),
        (TakeOver(B1B), "stale_take_over"),
        (Heartbeat(B1B, False, 0, (), (), (), 1), "malformed"),
        (Heartbeat(B1B, False, 0, (1, 2), (0,), (0, 0, 0), 1), "malformed"),
        (Forward(B1A, Y), "misdirected"),
        (Returned(B1A, 1), "foreign"),
    ],
    ids=lambda value: value if isinstance(value, str) else type(value).__name__,
)
def test_what_makes_no_sense_is_ignored_by_name(message, reason):
    made = started(0)
    made.receive(1, message, 10)
    assert counts(made) == {f"ignored_{reason}": 1}
    ready = made.out.take()
    assert (ready.log, ready.messages, ready.decided) == ([], [], [])


def test_an_acknowledgement_of_slots_never_proposed_changes_nothing():
    made = leading()
    made.propose(X, 40)
    made.out.take()
    made.receive(1, AcceptOk(made.promised, -5, 1 << 60), 50)
    assert [d.slot for d in made.out.take().decided] == [1]


def test_another_value_for_a_chosen_slot_is_ignored():
    made = started(1)
    made.receive(0, Accept(B1A, 1, X, 0), 10)
    made.receive(0, CommitIndex(B1A, 1), 10)
    made.out.take()
    made.receive(2, Accept(B1C, 1, Y, 0), 20)
    assert made.statistics()["ignored_contradiction"] == 1
    assert made.log.entries[1].payload == X


def test_a_probe_is_not_answered_while_a_leader_is_heard():
    made = started(1)
    made.receive(0, Accept(B1A, 1, X, 0), 10)
    made.out.take()
    made.receive(2, Probe(7), 20)
    assert made.out.take().messages == []
    made.receive(0, Probe(8), 30)
    assert made.out.take().messages == [(0, ProbeOk(8, B1A))]
    made.receive(2, Probe(9), 10 + made.patience.us)
    assert made.out.take().messages == [(2, ProbeOk(9, B1A))]


def test_a_probe_is_not_answered_by_leader_and_candidate():
    made = leading()
    made.receive(1, Probe(7), 40)
    assert made.out.take().messages == []
    made = started(0)
    made._campaign(10, None)
    made.out.take()
    made.receive(1, Probe(7), 20)
    assert made.out.take().messages == []


def test_a_leader_that_leads_no_longer_is_believed():
    made = started(1)
    made.receive(0, Accept(B1A, 1, X, 0), 10)
    assert made.unready() is None
    made.receive(0, Heartbeat(B1A, False, 0, (0,), (0,), (0, 0, 0), 1), 20)
    assert made.leader is None
    assert made.unready() == "no leader is known"


LOG = (
    Promised(B1A),
    Voted(B1A, 1, X),
    Voted(B1A, 2, Y),
    Chosen(1),
    Promised(B1C),
    Learned(2, [None, Z]),
    Voted(B2A, 5, X),
)


def test_restore_gives_back_promises_votes_and_what_is_chosen():
    made = replica(1)
    for record in LOG:
        made.restore(record)
    ready = made.out.take()
    assert [(d.slot, d.payload) for d in ready.decided] == [(1, X), (2, None), (3, Z)]
    assert (ready.log, ready.messages) == ([], [])
    assert made.promised == B2A
    assert made.log.chosen == 3
    assert made.log.votes(1) == ([Vote(5, B2A, X)], 0)
    assert made.live_bytes > 0
    assert made.deadline() == 0


def test_restore_refuses_a_log_that_lost_a_value():
    made = replica(1)
    with pytest.raises(StorageError, match="slot 1 is chosen but not as what"):
        made.restore(Chosen(1))


def test_a_restarted_leader_follows_until_it_is_elected_again():
    made = started(0, leader=0, records=[Promised(B1A), Voted(B1A, 1, X)])
    assert made.leader is None
    assert made.stage is None
    with pytest.raises(Definite):
        made.propose(X, 10)
    made._campaign(20, None)
    assert made.promised == B2A


def test_describe_says_what_is_known_of_a_slot():
    made = started(1)
    made.receive(0, Accept(B1A, 1, X, 0), 10)
    made.receive(0, Accept(B1A, 2, None, 1), 10)
    first = made.describe(InstanceId(0, 1))
    assert first["status"] == "chosen"
    assert first["voted"] == "b1@A"
    assert first["origin"] == "A"
    assert first["commands"] == [{"operation": "put", "key": "0:1"}]
    assert made.describe(InstanceId(0, 2))["nop"]
    assert made.describe(InstanceId(0, 3)) is None
    assert made.describe(InstanceId(1, 1)) is None


def test_slowest_member_names_who_executed_least():
    made = leading()
    made.propose(X, 40)
    made.receive(1, AcceptOk(made.promised, 1, 1), 50)
    assert made.slowest_member() is None
    made.executed((1,), 60)
    made.receive(1, Heartbeat(made.promised, False, 1, (1,), (0,), (0, 0, 0), 1), 60)
    assert made.slowest_member() == 2
    assert made.floor == (0,)


@pytest.mark.parametrize(
    ("target", "reason"), [(1, "not the leader, A is"), (0, "not the leader, A is")]
)
def test_only_the_leader_hands_over(target, reason):
    made = started(1)
    made.receive(0, Accept(B1A, 1, X, 0), 10)
    with pytest.raises(Definite, match=reason):
        made.transfer(target, 20)


def test_leadership_is_not_handed_to_nobody():
    made = leading()
    with pytest.raises(Definite, match="no replica 3"):
        made.transfer(3, 40)
    with pytest.raises(Definite, match="C has not been heard"):
        made.transfer(2, 40)
    made.transfer(0, 40)
    assert made.out.take().messages == []
    made.transfer(1, 40)
    assert made.out.take().messages == [(1, TakeOver(made.promised))]


def test_slots_are_never_contended():
    assert replica().dependencies(X.footprint) == ()
