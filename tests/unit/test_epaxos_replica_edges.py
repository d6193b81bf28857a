"""The EPaxos* replica at its bounds: what is told when, what is logged how, what is still hoped
for."""

import random

import pytest

import epaxos.protocols.epaxos.replica as module
from epaxos.core.command import Batch, Payload
from epaxos.core.replica import EVERYONE, Path, Setup
from epaxos.core.stamps import Stamps
from epaxos.core.types import InstanceId, make_ballot
from epaxos.protocols.epaxos.instance import Phase
from epaxos.protocols.epaxos.messages import (
    Accept,
    Accepted,
    AcceptedShort,
    AcceptOk,
    AcceptShort,
    Commit,
    CommitReq,
    CommitShort,
    InProgress,
    Introduced,
    Nack,
    PreAccept,
    PreAccepted,
    PreAcceptOk,
    Recover,
    RecoverOk,
)
from epaxos.protocols.epaxos.replica import EPaxosReplica

A, B, C, D, E = range(5)
ZERO = (0,) * 5
RTT = 40_000
ROUND = make_ballot(1, C)


def payload(number=1, key=b"x", size=1):
    return Payload.of(Batch(A, number, b"\1", [key], [b"v" * size]))


def unstarted(me=A, n=5, rtts=None):
    rtts = rtts or tuple(0 if other == me else RTT for other in range(n))
    return EPaxosReplica(Setup(me, n, rtts, random.Random(1)))


def replica(me=A, n=5, rtts=None):
    made = unstarted(me, n, rtts)
    made.wake(0)
    made.out.take()
    return made


def sent(made, *kinds):
    return [each for each in made.out.take().messages if isinstance(each[1], kinds)]


def logged(made):
    return made.out.take().log


# What is told when -----------------------------------------------------------------------------


def test_a_commit_is_advertised_only_after_the_take_that_holds_its_record():
    made = replica(B)
    made.receive(A, Commit(A, 1, payload(), ZERO), 10)
    made.executed(ZERO, 10)
    assert made.columns.progress(10).committed == ZERO
    made.out.take()
    made.executed(ZERO, 20)
    assert made.columns.progress(20).committed == (1, 0, 0, 0, 0)


def test_who_misses_something_looks_again_within_a_quarter_of_a_round_trip():
    made = replica()
    made.receive(D, PreAccept(D, 4, payload(), ZERO), 0)
    assert made.deadline() == RTT // 4


def test_who_misses_nothing_sleeps_until_its_heartbeat():
    made = replica()
    assert made.deadline() == made.columns.progress_at > RTT


def test_a_progress_that_is_due_before_the_next_look_wakes_the_replica():
    made = replica()
    made.receive(D, PreAccept(D, 4, payload(), ZERO), 0)
    made.columns.progress_at = 5_000
    assert made.deadline() == 5_000


@pytest.mark.parametrize("heard", [1, 2])
def test_ready_with_exactly_a_slow_quorum(heard):
    made = replica()
    for member in range(1, 1 + heard):
        made.columns.heard(member, 20 * RTT)
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


# Which form is logged and sent -----------------------------------------------------------------


def test_a_vote_is_logged_in_short_only_where_the_payload_is_in_the_log():
    made = replica(B)
    made.receive(C, Accept(A, 1, ROUND, payload(), ZERO), 0)
    assert logged(made) == [Accepted(A, 1, ROUND, payload(), ZERO)]
    made.receive(A, PreAccept(A, 2, payload(2), ZERO), 0)
    assert logged(made) == [PreAccepted(A, 2, payload(2), ZERO, ZERO)]
    made.receive(A, AcceptShort(A, 2, ZERO), 0)
    assert logged(made) == [AcceptedShort(A, 2, 0, ZERO)]
    made.receive(A, PreAccept(A, 3, payload(3), ZERO), 0)
    logged(made)
    made.receive(C, Accept(A, 3, ROUND, None, ZERO), 0)
    assert logged(made) == [Accepted(A, 3, ROUND, None, ZERO)]


def test_a_slow_path_is_committed_in_short():
    made = replica(A, 3)
    made.propose(payload(), 0)
    made.receive(B, PreAcceptOk(A, 1, (0, 4, 0)), 2 * RTT)
    made.out.take()
    made.receive(B, AcceptOk(A, 1, 0), 3 * RTT)
    ready = made.out.take()
    assert [d.path for d in ready.decided] == [Path.SLOW]
    assert (EVERYONE, CommitShort(A, 1, (0, 4, 0))) in ready.messages
    assert made.statistics()["recovered"] == made.statistics()["nop"] == 0


def test_what_was_recovered_is_committed_with_its_payload():
    """Who took part in the recovery alone may never have heard the PreAccept."""
    made = replica(C, 3)
    made.receive(A, PreAccept(A, 1, payload(), (0, 0, 0)), 0)
    made.start_recover([InstanceId(A, 1)], 10)
    (_, question) = sent(made, Recover)[0]
    made.receive(B, RecoverOk(A, question.ballot, [accepted_at(question.slots[0])]), 20)
    (_, asked) = sent(made, Accept)[0]
    made.receive(B, AcceptOk(A, 1, asked.ballot), 30)
    ready = made.out.take()
    assert [d.path for d in ready.decided] == [Path.RECOVERED]
    assert (EVERYONE, Commit(A, 1, payload(), (0, 7, 0))) in ready.messages
    assert made.statistics()["recovered"] == 1
    assert made.statistics()["nop"] == 0


def accepted_at(slot):
    """B's vote: it has accepted A's payload in A's own ballot."""
    voter = replica(B, 3)
    voter.receive(A, PreAccept(A, slot, payload(), (0, 0, 0)), 0)
    voter.receive(A, AcceptShort(A, slot, (0, 7, 0)), 0)
    voter.receive(C, Recover(A, [slot], make_ballot(1, C)), 0)
    (_, answer) = sent(voter, RecoverOk)[0]
    return answer.votes[0]


def test_a_nop_and_a_recovery_are_counted():
    made = replica(B)
    made.receive(C, Commit(A, 1, None, ZERO), 0)
    assert made.statistics()["nop"] == 1
    assert made.statistics()["recovered"] == 0


def test_ones_own_instance_decided_by_another_was_recovered():
    made = replica(A)
    made.propose(payload(), 0)
    made.receive(C, Commit(A, 1, payload(), ZERO), 10)
    made.receive(C, Commit(B, 1, payload(2), ZERO), 10)
    assert [d.path for d in made.out.take().decided] == [Path.RECOVERED, Path.LEARNED]


def test_an_answer_goes_on_while_it_holds_no_more_than_its_bound(monkeypatch):
    made = replica(B)
    for slot in (1, 2, 3):
        made.receive(A, Commit(A, slot, payload(slot), ZERO), 0)
    made.out.take()
    monkeypatch.setattr(module, "COMMIT_BYTES_PER_ANSWER", len(payload().encoded))
    made.receive(D, CommitReq(A, [1, 2, 3]), 10)
    assert [message.slot for _, message in sent(made, Commit)] == [1, 2]
    assert made.statistics()["commits_cut"] == 1
    made.receive(D, CommitReq(A, [1, 2]), 20)
    assert made.statistics()["commits_cut"] == 1, "all that was asked for was answered"


# What is still hoped for -----------------------------------------------------------------------


def answered(rtts, now):
    """A's proposal when B and C have answered, each with more than was proposed."""
    made = replica(A, 5, rtts)
    made.propose(payload(), 0)
    made.out.take()
    made.receive(B, PreAcceptOk(A, 1, (0, 1, 0, 0, 0)), now)
    made.receive(C, PreAcceptOk(A, 1, (0, 0, 1, 0, 0)), now)
    return bool(sent(made, AcceptShort))


def test_exactly_as_many_answers_as_are_missing_are_still_hoped_for():
    assert not answered((0, 20_000, 60_000, 70_000, 70_000), 60_000)


def test_the_round_of_accept_is_that_of_the_second_nearest():
    """Of five: the command leader and its two nearest are a slow quorum."""
    assert not answered((0, 20_000, 60_000, 70_000, 75_000), 50_000)
    assert answered((0, 20_000, 30_000, 80_000, 85_000), 50_000)


def test_work_in_progress_on_the_hole_puts_recovery_off_and_on_other_slots_does_not():
    first = {}
    for slots in ([1], [2], []):
        made = replica(B)
        made.receive(D, PreAccept(D, 1, payload(), (1, 0, 0, 0, 0)), 0)
        made.receive(D, Commit(D, 1, payload(), (1, 0, 0, 0, 0)), 0)
        now = 0
        told = False
        while tuple(slots) not in first:
            for member in (A, C, D, E):
                made.columns.heard(member, now)
            made.wake(now)
            ready = [message for _, message in made.out.take().messages]
            if slots and not told and any(isinstance(m, CommitReq) for m in ready):
                told = True
                made.receive(A, InProgress(A, slots), now)
            if any(isinstance(m, Recover) for m in ready):
                first[tuple(slots)] = now
            now += 5_000
    assert first[(2,)] == first[()] < first[(1,)]


def test_the_first_waits_double():
    made = replica()
    made.propose(payload(), 0)
    made.out.take()
    times = []
    for now in range(0, 1_000_000, 1_000):
        for member in range(1, 5):
            made.columns.heard(member, now)
        made.wake(now)
        if sent(made, PreAccept):
            times.append(now // 1000)
    assert times[:3] == [92, 92 + 184, 92 + 184 + 368]


# Restore ---------------------------------------------------------------------------------------


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
    assert made.columns.get(A, 1).payload == payload()
    assert made.columns.get(A, 1).phase == Phase.INITIAL


def test_an_introduction_after_a_vote_for_a_nop_leaves_the_vote():
    made = unstarted(B)
    made.restore(Accepted(A, 1, ROUND, None, ZERO))
    made.restore(Introduced(A, 1, payload(), ZERO))
    known = made.columns.get(A, 1)
    assert known.payload is None
    assert known.initial_payload == payload()
