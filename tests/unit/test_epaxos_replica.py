"""One EPaxos* replica: malformed input, restart, forgetting, what is told when, what is shown."""

import random
from itertools import pairwise

import pytest

from epaxos.codec import Codec, encode
from epaxos.core.command import Footprint
from epaxos.core.replica import EVERYONE, Path, Setup
from epaxos.core.stamps import Stamps
from epaxos.core.types import InstanceId, make_ballot
from epaxos.protocols.epaxos import invariants
from epaxos.protocols.epaxos.columns import PROGRESS_DELAY_US
from epaxos.protocols.epaxos.instance import Phase
from epaxos.protocols.epaxos.messages import (
    Accept,
    Accepted,
    AcceptOk,
    Commit,
    CommitReq,
    Committed,
    InProgress,
    Introduced,
    Nack,
    Objection,
    PreAccept,
    PreAccepted,
    PreAcceptOk,
    Progress,
    Promised,
    Recover,
    RecoverOk,
    Validate,
    ValidateOk,
    Vote,
)
from epaxos.protocols.epaxos.replica import EPaxosReplica
from epaxos.registry import find_protocol
from tests.unit.builders import RTT, hear, known, payload, replica, sent, unstarted

CODEC = Codec(find_protocol("epaxos"))
A, B, C, D, E = range(5)
ZERO = (0,) * 5
ROUND = make_ballot(1, C)
HEARTBEAT = 250_000
"""By then a replica has said how far it is."""


def test_malformed_messages_change_nothing():
    made = replica(1)
    before = invariants.snapshot(made)
    for source, message in (
        (0, PreAccept(0, 1, payload(), (0,) * 4)),
        (0, PreAccept(9, 1, payload(), (0,) * 5)),
        (2, PreAccept(0, 1, payload(), (0,) * 5)),
        (2, Accept(0, 1, 19, payload(), (0,) * 5)),
        (2, Recover(0, [1], 0)),
        (2, Recover(0, [1], 17)),
        (0, Progress((0,), (0,) * 5, (0,) * 5, (0,) * 5, 1, (0,) * 5)),
    ):
        made.receive(source, message, 0)
        assert not sent(made)
    assert invariants.snapshot(made) == before


def restored(made_from, me=0, n=5):
    made = EPaxosReplica(
        Setup(me, n, tuple(0 if o == me else RTT for o in range(n)), random.Random(2))
    )
    for record in made_from:
        made.restore(CODEC.decode_record(encode(record)))
    return made


@pytest.mark.parametrize("me", [A, B])
def test_after_a_restart_own_instances_go_on(me):
    first = (1, 0, 0, 0, 0) if me == A else (0, 1, 0, 0, 0)
    records = [
        PreAccepted(me, 1, payload(1), ZERO, ZERO),
        PreAccepted(me, 2, payload(2), first, first),
        Committed(me, 1, payload(1), ZERO),
    ]
    made = restored(records, me)
    made.wake(1)
    ready = made.out.take()
    again = [m for t, m in ready.messages if isinstance(m, PreAccept)]
    assert again == [PreAccept(me, 2, payload(2), first)]
    assert [d.slot for d in ready.decided] == [1]
    assert made.propose(payload(3), 2) == InstanceId(me, 3)


def test_after_a_restart_an_accepted_instance_is_asked_again_in_its_ballot():
    made = replica(0)
    made.propose(payload(), 0)
    made.receive(1, PreAcceptOk(0, 1, (0, 1, 0, 0, 0)), RTT)
    made.receive(2, PreAcceptOk(0, 1, (0, 1, 0, 0, 0)), RTT)
    log = made.out.take().log
    made.wake(2 * RTT)
    log += made.out.take().log
    assert len(log) == 2
    again = restored(log)
    again.wake(1)
    assert (EVERYONE, Accept(0, 1, 0, payload(), (0, 1, 0, 0, 0))) in sent(again)


@pytest.mark.parametrize("recoverer", [B, C])
def test_after_a_restart_a_recovery_goes_on_where_it_proposed(recoverer):
    ballot = make_ballot(1, recoverer)
    made = restored([Promised(A, [1], ballot), Accepted(A, 1, ballot, None, ZERO)], B)
    made.wake(1)
    asked = [(EVERYONE, Accept(A, 1, ballot, None, ZERO))]
    assert sent(made, Accept) == (asked if recoverer == B else [])


def test_a_restart_from_any_prefix_keeps_the_invariants():
    made = replica(1)
    records = []
    steps = [
        (0, PreAccept(0, 1, payload(), (0,) * 5)),
        (2, Recover(0, [1, 2], 18)),
        (2, Validate(0, 1, 18, payload(), (0,) * 5)),
        (2, Accept(0, 1, 18, None, (0,) * 5)),
        (3, Recover(0, [1], 35)),
        (3, Commit(0, 1, None, (0,) * 5)),
    ]
    for source, message in steps:
        made.receive(source, message, 0)
        records += made.out.take().log
    states = [invariants.snapshot(restored(records[:end], 1)) for end in range(len(records) + 1)]
    for end, (before, _) in enumerate(pairwise(states)):
        after = restored(records[: end + 1], 1)
        invariants.check(after)
        invariants.check_step(before, after)


def test_what_everybody_has_executed_is_forgotten():
    cluster = [replica(member, 3) for member in range(3)]
    now = 0
    for number in range(1, 60):
        cluster[0].propose(payload(number, b"k%d" % number), now)
        now = settle(cluster, now)
    for _ in range(6):
        now += 100_000
        for made in cluster:
            made.executed((59, 0, 0), now)
            made.wake(now)
        now = settle(cluster, now)
    for made in cluster:
        assert made.floor == (59, 0, 0)
        assert made.live_bytes == 0
        assert made.describe(InstanceId(0, 3)) == {"id": "A.3", "phase": "forgotten"}
        assert made.statistics()["conflict_index"] <= 120
        assert made.slowest_member() is None


def settle(cluster, now):
    """Deliver everything; nothing is executed here."""
    for _ in range(100):
        moved = False
        for source, made in enumerate(cluster):
            for target, message in made.out.take().messages:
                moved = True
                for member, other in enumerate(cluster):
                    if member != source and target in (EVERYONE, member):
                        other.receive(source, CODEC.decode_message(encode(message)), now)
        if not moved:
            return now
        now += 100
    raise AssertionError("messages never end")


def test_dependencies_name_the_latest_interfering_ids():
    made = replica(0)
    made.propose(payload(1, b"x"), 0)
    made.receive(3, PreAccept(3, 4, payload(4, b"x", origin=3), (0,) * 5), 0)
    assert made.dependencies(Footprint([b"x"], [])) == (1, 0, 0, 4, 0)
    assert made.dependencies(Footprint([b"y"], [])) == (0,) * 5


def test_too_few_members_are_said():
    made = replica(0)
    assert made.unready() is None
    made.wake(20 * RTT)
    assert "only 1 of 5" in made.unready()


def test_invariants_bite():
    made = replica(1)
    made.receive(0, PreAccept(0, 1, payload(), (0,) * 5), 0)
    before = invariants.snapshot(made)
    known = made.columns.get(0, 1)
    known.voted = 5
    with pytest.raises(AssertionError, match="EP1"):
        invariants.check(made)
    known.voted = 0
    known.initial_deps = (0, 1, 0, 0, 0)
    with pytest.raises(AssertionError, match="EP8"):
        invariants.check_step(before, made)


# What is told when -----------------------------------------------------------------------------


def test_a_commit_is_advertised_only_after_the_take_that_holds_its_record():
    made = replica(B)
    made.receive(A, Commit(A, 1, payload(), ZERO), 10)
    made.executed(ZERO, 10)
    made.wake(HEARTBEAT)
    assert [m.committed for _, m in sent(made, Progress)] == [ZERO]
    made.executed(ZERO, HEARTBEAT)
    made.wake(2 * HEARTBEAT)
    assert [m.committed for _, m in sent(made, Progress)] == [(1, 0, 0, 0, 0)]


def test_who_misses_something_looks_again_within_a_quarter_of_a_round_trip():
    made = replica()
    made.receive(D, PreAccept(D, 4, payload(), ZERO), 0)
    assert made.deadline() == RTT // 4


def test_who_misses_nothing_sleeps_until_its_heartbeat():
    made = replica()
    heartbeat = made.deadline()
    assert heartbeat > RTT
    made.wake(heartbeat - 1)
    assert not sent(made, Progress)
    made.wake(heartbeat)
    assert len(sent(made, Progress)) == 1


def test_a_progress_that_is_due_before_the_next_look_wakes_the_replica():
    made = replica()
    heartbeat = made.deadline()
    now = heartbeat - 1_000
    made.receive(D, PreAccept(D, 4, payload(), ZERO), now)
    assert heartbeat < now + RTT // 4
    assert made.deadline() == heartbeat


def test_what_was_executed_is_told_before_the_next_look():
    made = replica(B, rtts=(400_000, 0, 400_000, 400_000, 400_000))
    made.receive(A, Commit(A, 1, payload(), ZERO), 0)
    made.out.take()
    made.executed((1, 0, 0, 0, 0), 10)
    due = 10 + PROGRESS_DELAY_US
    assert made.deadline() == due
    made.wake(due - 1)
    assert not sent(made, Progress)
    made.wake(due)
    assert [m.executed for _, m in sent(made, Progress)] == [(1, 0, 0, 0, 0)]


@pytest.mark.parametrize("heard", [1, 2])
def test_ready_with_exactly_a_slow_quorum(heard):
    made = replica()
    hear(made, 20 * RTT, *range(1, 1 + heard))
    made.wake(20 * RTT)
    if heard == 2:
        assert made.unready() is None
    else:
        assert made.unready() == "only 2 of 5 replicas are heard; 3 must be there"


def test_who_answers_about_a_sampled_instance_is_written_down():
    made = replica()
    instance = made.propose(payload(), 0)
    stamps = Stamps(0, 0, 0, 1, [])
    made.observe(instance, stamps)
    made.receive(B, PreAcceptOk(A, 1, ZERO), 40_000)
    assert [(answer.member, answer.at) for answer in stamps.answers] == [(B, 40_000)]


# What is shown ---------------------------------------------------------------------------------


def test_what_is_no_instance_is_not_described():
    made = replica()
    made.propose(payload(), 0)
    assert made.describe(InstanceId(5, 1)) is None
    assert made.describe(InstanceId(B, 1)) is None
    assert made.describe(InstanceId(B, 0)) is None


def test_the_last_forgotten_instance_is_described_as_forgotten():
    made = replica(A, 1)
    made.propose(payload(), 0)
    made.executed((1,), 10)
    assert made.describe(InstanceId(A, 1)) == {"id": "A.1", "phase": "forgotten"}
    assert made.describe(InstanceId(A, 2)) is None
    assert made.describe(InstanceId(A, 0)) is None


def test_an_instance_under_way_is_described():
    made = replica()
    made.propose(payload(), 0)
    shown = made.describe(InstanceId(A, 1))
    assert shown["phase"] == "preaccepted"
    assert shown["nop"] is False
    assert shown["commands"] == 1
    assert shown["initial_deps"] == [0] * 5
    assert shown["attempt"] == "preaccepting"


def test_a_nop_is_described_as_one():
    made = replica(B)
    made.receive(C, Accept(A, 1, ROUND, None, ZERO), 0)
    shown = made.describe(InstanceId(A, 1))
    assert shown["phase"] == "accepted"
    assert shown["nop"] is True
    assert shown["commands"] is None
    assert shown["initial_deps"] is None
    assert shown["attempt"] is None


def test_an_instance_of_which_only_a_promise_is_known_is_no_nop():
    made = replica(B)
    made.receive(C, Recover(A, [1], ROUND), 0)
    shown = made.describe(InstanceId(A, 1))
    assert (shown["phase"], shown["nop"], shown["commands"]) == ("initial", False, None)


def test_work_in_progress_on_the_hole_puts_recovery_off_and_on_other_slots_does_not():
    first = {}
    for slots in ([1], [2], []):
        made = replica(B)
        made.receive(D, PreAccept(D, 1, payload(), (1, 0, 0, 0, 0)), 0)
        made.receive(D, Commit(D, 1, payload(), (1, 0, 0, 0, 0)), 0)
        now = 0
        told = False
        while tuple(slots) not in first:
            hear(made, now, A, C, D, E)
            made.wake(now)
            ready = [message for _, message in made.out.take().messages]
            if slots and not told and any(isinstance(m, CommitReq) for m in ready):
                told = True
                made.receive(A, InProgress(A, slots), now)
            if any(isinstance(m, Recover) for m in ready):
                first[tuple(slots)] = now
            now += 5_000
    assert first[(2,)] == first[()] < first[(1,)]


# Restore ---------------------------------------------------------------------------------------


def test_a_log_with_a_vote_below_a_promise_is_restored_and_nothing_is_resumed():
    made = unstarted(A)
    made.restore(Promised(A, [1], ROUND))
    made.restore(PreAccepted(A, 1, payload(), ZERO, ZERO))
    made.wake(0)
    assert not sent(made)
    assert known(made) == ("preaccepted", None)
    assert made.propose(payload(2), 0) == InstanceId(A, 2)


def test_a_restored_vote_is_a_promise():
    made = unstarted(B)
    made.restore(Accepted(A, 1, ROUND, payload(), ZERO))
    made.wake(0)
    made.out.take()
    made.receive(A, Accept(A, 1, 0, payload(), ZERO), 10)
    assert sent(made, Nack, AcceptOk) == [(A, Nack(A, [1], ROUND))]


def test_an_introduction_alone_is_what_a_recovery_hears_of():
    made = unstarted(B)
    made.restore(Introduced(A, 1, payload(), ZERO))
    made.wake(0)
    made.receive(C, Recover(A, [1], ROUND), 10)
    [(_, answer)] = sent(made, RecoverOk)
    assert answer.votes == [Vote(1, Phase.INITIAL, 0, payload(), (), ZERO)]


def test_an_introduction_after_a_vote_for_a_nop_leaves_the_vote():
    made = unstarted(B)
    made.restore(Accepted(A, 1, ROUND, None, ZERO))
    made.restore(Introduced(A, 1, payload(), ZERO))
    made.wake(0)
    made.receive(C, Recover(A, [1], ROUND), 10)
    [(_, answer)] = sent(made, RecoverOk)
    assert answer.votes == [Vote(1, Phase.ACCEPTED, ROUND, None, ZERO, ZERO)]
    # Asked what speaks against another batch, it objects in the name of the first proposal.
    made.receive(C, Recover(D, [1], ROUND), 20)
    made.receive(C, Validate(D, 1, ROUND, payload(2), ZERO), 30)
    [(_, answer)] = sent(made, ValidateOk)
    assert answer.objections == [Objection(A, 1, False)]


def test_a_replica_that_contradicts_itself_stops():
    """Whatever peers send, handlers do not come here: these are mistakes of its own."""
    made = replica()
    instance = made.columns.obtain(1, 1)
    instance.promised = 17
    with pytest.raises(AssertionError, match="below its promise"):
        made._vote_accepted(instance, 0, payload(), (0,) * 5)
    with pytest.raises(AssertionError, match="only the owner of a ballot"):
        made._start_accept(instance, 17, payload(), (0,) * 5, 0)
    with pytest.raises(AssertionError, match="a vote is no decision"):
        made._send_commit(2, instance)
    made._commit(instance, payload(), (0,) * 5, Path.LEARNED, 0)
    with pytest.raises(AssertionError, match="decided once"):
        made._commit(instance, payload(), (0,) * 5, Path.LEARNED, 0)
    with pytest.raises(AssertionError, match="before the first wake"):
        made.restore(PreAccepted(0, 1, payload(), (0,) * 5, (0,) * 5))
