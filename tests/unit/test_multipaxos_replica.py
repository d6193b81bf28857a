"""One replica at a time: what it records before it speaks, and what it ignores."""

import pytest

from epaxos.codec import Codec
from epaxos.core.errors import Definite, StorageError
from epaxos.core.replica import EVERYONE, RECORD_TAG_PROTOCOL, Path
from epaxos.core.types import InstanceId, make_ballot
from epaxos.protocols.multipaxos.log import SLOTS_AHEAD_MAX, encoded_size
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
from epaxos.protocols.multipaxos.replica import PROGRESS_DELAY_US, PROGRESS_SLOTS
from epaxos.registry import find_protocol
from epaxos.sim.tunables import tuned
from tests.unit.multipaxos_builders import (
    B1A,
    B1B,
    B1C,
    B2A,
    B2C,
    SECOND,
    A,
    B,
    C,
    D,
    E,
    counts,
    later,
    leading,
    payload_of,
    replica,
    sent,
    started,
)

RTT = 400_000
CODEC = Codec(find_protocol("multipaxos"))
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


def told(made):
    return [m.executed[0] for _, m in sent(made, Heartbeat)]


def heartbeat(ballot, leads, commit, executed=0):
    return Heartbeat(ballot, leads, commit, (executed,), (executed,), (0, 0, 0), 1)


def test_every_message_has_an_example():
    assert [type(example) for example in EXAMPLES] == list(MESSAGES)


def test_tags_are_distinct_and_records_leave_room_for_the_nodes():
    tags = [kind.__struct_config__.tag for kind in MESSAGES]
    assert tags == list(range(1, len(MESSAGES) + 1))
    tags = [kind.__struct_config__.tag for kind in RECORDS]
    assert tags == list(range(RECORD_TAG_PROTOCOL, RECORD_TAG_PROTOCOL + len(RECORDS)))


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


def test_who_speaks_of_what_we_lack_is_asked_when_the_one_asked_is_silent():
    """A is asked, again and again, and dead; C leads by then."""
    made = started(1)
    made.receive(0, CommitIndex(B1A, 5), 10)
    now = 10
    for _ in range(6):
        now = made.deadline()
        made.wake(now)
    made.out.take()
    made.receive(2, CommitIndex(make_ballot(2, 2), 5), now)
    assert sent(made, Fetch) == [(2, Fetch(1, 5))]
    made.receive(2, CommitIndex(make_ballot(2, 2), 5), now + 10)
    assert not sent(made, Fetch)


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


def test_so_many_executed_slots_are_told_at_once():
    made = started()
    made.executed((PROGRESS_SLOTS - 1,), 100)
    assert told(made) == []
    made.executed((PROGRESS_SLOTS,), 100)
    assert told(made) == [PROGRESS_SLOTS]


def test_leadership_is_the_ballot_of_whom_one_follows():
    made = started(B)
    assert made.leadership == 0
    made.receive(A, Accept(B1A, 1, X, 0), 10)
    assert made.leadership == B1A
    assert leading().leadership == B1A


def test_the_last_forgotten_slot_is_not_voted_for():
    made = started(B)
    made.receive(A, Accept(B1A, 1, X, 0), 10)
    made.receive(A, CommitIndex(B1A, 1), 20)
    made.executed((1,), 30)
    for member in (A, C):
        made.receive(member, Heartbeat(B1A, member == A, 1, (1,), (1,), (0, 0, 0), 1), 40)
    assert made.floor == (1,)
    made.out.take()
    made.receive(A, Accept(B1A, 1, X, 1), 50)
    assert made.statistics()["ignored_forgotten"] == 1
    assert not sent(made, AcceptOk)


def test_a_proposal_as_far_ahead_as_may_be_is_voted_for_and_one_further_is_not():
    made = started(B)
    made.receive(A, Accept(B1A, SLOTS_AHEAD_MAX + 1, X, 0), 10)
    assert made.statistics()["ignored_far"] == 1
    assert not sent(made, AcceptOk)
    made.receive(A, Accept(B1A, SLOTS_AHEAD_MAX, X, 0), 20)
    assert made.statistics()["ignored_far"] == 1
    assert sent(made, AcceptOk)


def test_what_ones_own_votes_give_is_not_fetched():
    made = started(B)
    made.receive(A, Accept(B1A, 1, X, 0), 10)
    made.receive(A, CommitIndex(B1A, 1), 20)
    assert made.log.chosen == 1
    assert not sent(made, Fetch)


def test_without_a_leader_one_learns_from_anybody_and_with_one_from_it_alone():
    behind = Heartbeat(B1A, False, 3, (0,), (0,), (0, 0, 0), 1)
    made = started(B)
    made.receive(C, behind, 10)
    assert sent(made, Fetch) == [(C, Fetch(1, 3))]
    made = started(B)
    made.receive(A, Accept(B1A, 1, X, 0), 10)
    made.receive(C, behind, 20)
    assert not sent(made, Fetch)


def test_what_was_executed_is_told_after_a_short_while():
    made = started(rtt=RTT)
    made.executed((1,), 100)
    assert told(made) == []
    assert made.deadline() == 100 + PROGRESS_DELAY_US
    made.wake(100 + PROGRESS_DELAY_US)
    assert told(made) == [1]


def test_nothing_new_is_not_told():
    made = started(rtt=RTT)
    made.executed((1,), 100)
    made.wake(100 + PROGRESS_DELAY_US)
    made.executed((1,), 200 + PROGRESS_DELAY_US)
    assert made.deadline() == 100 + PROGRESS_DELAY_US + RTT * 5 // 4, "the next heartbeat"


def test_who_is_alone_tells_nobody():
    made = started(n=1)
    assert made.deadline() is None
    for number in range(1, PROGRESS_SLOTS + 1):
        made.propose(payload_of(A, number), 50)
    made.out.take()
    made.executed((PROGRESS_SLOTS,), 100)
    assert made.out.take().messages == []
    assert made.deadline() is None


@pytest.mark.parametrize("late", [0, 1])
def test_a_successor_may_have_been_silent_for_just_so_long(late):
    made = leading()
    made.receive(C, heartbeat(B1A, False, 0), 40)
    now = 40 + made.patience.us + late
    if late:
        with pytest.raises(Definite, match="not been heard of lately"):
            made.transfer(C, now)
    else:
        made.transfer(C, now)
        assert sent(made, TakeOver) == [(C, TakeOver(B1A))]


@pytest.mark.parametrize("late", [-1, 0])
def test_a_transfer_is_given_up_after_just_so_long(late):
    made = leading()
    made.receive(C, heartbeat(B1A, False, 0), 40)
    made.transfer(C, 40)
    sent(made)
    made.wake(40 + made.patience.us + late)
    assert len(sent(made, TakeOver)) == (late < 0)
    made.wake(40 + made.patience.us + made.members.wait(0))
    assert not sent(made, TakeOver)


def test_a_slot_is_described_with_its_leader():
    made = started(B)
    made.receive(A, Accept(B1A, 1, X, 0), 10)
    assert made.describe(InstanceId(0, 1))["leader"] == "A"
    later(made, 3 * SECOND)
    assert made.describe(InstanceId(0, 1))["leader"] is None


def test_the_commit_index_of_a_ballot_never_goes_back():
    made = started(B)
    made.receive(A, Accept(B1A, 2, X, 0), 10)
    made.receive(A, CommitIndex(B1A, 2), 20)
    made.receive(A, CommitIndex(B1A, 1), 30)
    assert made.out.take().decided == []
    made.receive(A, Learn(1, [Y]), 40)
    assert [decided.slot for decided in made.out.take().decided] == [1, 2]


def test_a_new_ballot_brings_its_own_commit_index():
    made = started(B)
    made.receive(A, Accept(B1A, 1, X, 0), 10)
    made.receive(A, CommitIndex(B1A, 3), 20)
    assert [decided.slot for decided in made.out.take().decided] == [1]
    made.receive(A, Accept(B2A, 2, Y, 1), 30)
    assert made.out.take().decided == []
    made.receive(A, CommitIndex(B2A, 2), 40)
    assert [decided.slot for decided in made.out.take().decided] == [2]


def test_what_was_voted_for_and_is_not_covered_by_the_commit_index_is_fetched_too():
    made = started(B)
    made.receive(A, Accept(B1A, 2, X, 0), 10)
    made.receive(A, heartbeat(B1A, False, 0), 20)
    sent(made)
    made.receive(C, heartbeat(B1A, False, 5), 30)
    assert sent(made, Fetch) == [(C, Fetch(1, 5))]


def test_who_is_not_answered_waits_longer_and_who_is_answered_does_not():
    made = leading(rtt=RTT)
    wait = made.members.wait(0)
    for payload in (X, Y):
        made.propose(payload, 40)
    sent(made)
    assert {now for now, _, _ in later(made, 3_000_000, Accept)} == {40 + wait, 40 + 3 * wait}
    made.receive(B, AcceptOk(B1A, 1, 1), 3_000_000)
    assert {now for now, _, _ in later(made, 4_000_000, Accept)} == {3_000_000 + wait}


def test_a_repetition_stops_when_it_holds_just_as_much_as_a_message_may():
    made = leading(rtt=RTT)
    wait = made.members.wait(0)
    for payload in (X, Y):
        made.propose(payload, 40)
    later(made, 40 + wait)
    with tuned((("multipaxos.CHUNK_BYTES", 2 * encoded_size(X)),)):
        again = later(made, 40 + 3 * wait, Accept)
    assert [(member, m.slot) for _, member, m in again] == [(B, 1), (C, 1)]


def test_a_leader_with_nothing_open_repeats_nothing():
    made = leading(rtt=RTT)
    made.propose(X, 40)
    made.receive(B, AcceptOk(B1A, 1, 1), 50)
    made.out.take()
    assert later(made, 4_000_000, Accept) == []


def test_a_fetch_that_was_answered_otherwise_is_not_repeated():
    made = started(B)
    made.receive(A, CommitIndex(B1A, 1), 10)
    assert sent(made, Fetch) == [(A, Fetch(1, 1))]
    made.receive(A, Accept(B1A, 1, X, 1), 20)
    assert made.log.chosen == 1
    assert later(made, 500_000, Fetch) == []


def test_who_is_not_answered_asks_only_those_who_know_more():
    made = started(A, 5)
    for member, commit in ((B, 7), (C, 0), (D, 0), (E, 7)):
        made.receive(member, Heartbeat(0, False, commit, (0,), (0,), (0,) * 5, 1), 10)
    assert sent(made, Fetch) == [(B, Fetch(1, 7))]
    again = later(made, 1_000_000, Fetch)
    assert [target for _, target, _ in again[:2]] == [E, B]


def test_of_two_that_know_as_much_the_first_is_asked():
    made = started(A)
    for member in (B, C):
        made.receive(member, heartbeat(0, False, 7), 10)
    assert sent(made, Fetch) == [(B, Fetch(1, 7))]
    ((_, target, _), *_) = later(made, 1_000_000, Fetch)
    assert target == C, "the other one next"


def test_only_a_leader_proposes_and_only_in_new_slots():
    made = leading()
    stage = made.stage
    made.receive(B, Nack(B2C), 40)
    with pytest.raises(AssertionError, match="only a leader proposes"):
        made._start_accept(stage, 1, X, 50)
