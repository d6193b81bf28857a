"""Agreement of one EPaxos* replica: its two phases as command leader and as acceptor, what is
logged and sent in which form, what is still hoped for, what is asked again."""

from itertools import pairwise

import pytest

import epaxos.protocols.epaxos.agreement as module
from epaxos.codec import Codec
from epaxos.core.command import Batch, Payload
from epaxos.core.quorum import quorums
from epaxos.core.replica import EVERYONE, Path
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
    CommittedShort,
    InProgress,
    Nack,
    PreAccept,
    PreAccepted,
    PreAcceptOk,
    Progress,
    Recover,
    RecoverOk,
    Validate,
)
from epaxos.registry import find_protocol
from tests.unit.builders import RESEND, RTT, hear, known, payload, replica, run, sent

CODEC = Codec(find_protocol("epaxos"))
A, B, C, D, E = range(5)
ZERO = (0,) * 5
ROUND = make_ballot(1, C)
HEARTBEAT = 250_000
"""By then a replica has said how far it is."""


def executed_by_all(made):
    made.receive(B, Commit(A, 1, payload(7), ZERO), 10)
    made.executed((1, 0, 0, 0, 0), 20)
    for peer in (B, C, D, E):
        made.receive(peer, Progress((1, 0, 0, 0, 0), ZERO, (1, 0, 0, 0, 0), ZERO, 30, ZERO), 30)
    assert made.floor == (1, 0, 0, 0, 0)


def taken_over(made):
    made.receive(C, Recover(A, [1], ROUND), 10)


@pytest.mark.parametrize("meddle", [executed_by_all, taken_over])
def test_a_slot_that_broken_peers_used_first_is_left_to_them(meddle):
    made = replica(A)
    meddle(made)
    made.out.take()
    assert made.propose(payload(), 40) == InstanceId(A, 2)
    assert made.propose(payload(2), 40) == InstanceId(A, 3)
    assert [m.slot for _, m in sent(made, PreAccept)] == [2, 3]


@pytest.mark.parametrize("n", range(1, 10))
def test_the_fast_path_needs_a_fast_quorum_of_equal_answers(n):
    made = replica(0, n)
    assert made.propose(payload(), 0) == InstanceId(0, 1)
    needed = quorums(n).fast - 1
    deps = (0,) * n
    for member in range(1, needed):
        made.receive(member, PreAcceptOk(0, 1, deps), 10)
        assert not made.out.take().decided
    if needed:
        made.receive(needed, PreAcceptOk(0, 1, deps), 10)
    ready = made.out.take()
    assert [(d.replica, d.slot, d.path) for d in ready.decided] == [(0, 1, Path.FAST)]
    assert ready.must_sync
    assert isinstance(ready.log[-1], CommittedShort)


def test_equal_answers_of_one_replica_count_once():
    made = replica()
    made.propose(payload(), 0)
    made.out.take()
    for _ in range(3):
        made.receive(1, PreAcceptOk(0, 1, (0,) * 5), 10)
    assert not made.out.take().decided


def test_unequal_answers_take_the_slow_path_with_the_union():
    made = replica(0, 3)
    made.propose(payload(), 0)
    made.out.take()
    made.receive(1, PreAcceptOk(0, 1, (0, 4, 0)), RTT)
    made.wake(2 * RTT)
    assert sent(made, AcceptShort) == [(EVERYONE, AcceptShort(0, 1, (0, 4, 0)))]
    made.receive(2, AcceptOk(0, 1, 0), 2 * RTT)
    ready = made.out.take()
    assert [(d.deps, d.path) for d in ready.decided] == [((0, 4, 0), Path.SLOW)]


def virginia():
    """aws-5-2020 from Virginia: California 60, Oregon 72.5, Ireland 70.5, Tokyo 152.4 ms."""
    return replica(0, 5, (0, 59_900, 72_500, 70_500, 152_400))


def test_a_near_third_answer_is_worth_waiting_for():
    """H7: California is unequal at 60 ms, Ireland equal at 70.5; Oregon's answer at 72.5 can still
    decide, an Accept round would take until 141."""
    made = virginia()
    made.propose(payload(), 0)
    made.out.take()
    made.receive(1, PreAcceptOk(0, 1, (0, 7, 0, 0, 0)), 60_000)
    made.receive(3, PreAcceptOk(0, 1, (0,) * 5), 70_500)
    assert not sent(made, AcceptShort)
    made.receive(2, PreAcceptOk(0, 1, (0,) * 5), 72_500)
    assert [d.path for d in made.out.take().decided] == [Path.FAST]


def test_an_answer_that_does_not_come_in_time_is_given_up():
    made = virginia()
    made.propose(payload(), 0)
    made.out.take()
    made.receive(1, PreAcceptOk(0, 1, (0, 7, 0, 0, 0)), 60_000)
    made.receive(3, PreAcceptOk(0, 1, (0,) * 5), 70_500)
    made.wake(95_000)
    assert sent(made, AcceptShort) == [(EVERYONE, AcceptShort(0, 1, (0, 7, 0, 0, 0)))]
    made.receive(2, PreAcceptOk(0, 1, (0,) * 5), 96_000)
    assert not made.out.take().decided


def test_a_far_third_answer_is_not_waited_for():
    made = virginia()
    made.propose(payload(), 0)
    made.out.take()
    made.receive(1, PreAcceptOk(0, 1, (0, 7, 0, 0, 0)), 60_000)
    made.receive(3, PreAcceptOk(0, 1, (0, 7, 0, 0, 0)), 70_500)
    assert sent(made, AcceptShort)


def test_an_acceptor_adds_what_interferes_here_but_leaves_the_leaders_column():
    made = replica(1)
    made.receive(0, PreAccept(0, 1, payload(1, b"x"), (0,) * 5), 0)
    made.receive(0, PreAccept(0, 3, payload(3, b"x"), (1, 0, 0, 0, 0)), 0)
    made.receive(2, PreAccept(2, 1, payload(1, b"x", origin=2), (0,) * 5), 0)
    made.receive(0, PreAccept(0, 2, payload(2, b"x"), (1, 0, 0, 0, 0)), 0)
    answers = [message.deps for _, message in sent(made, PreAcceptOk)]
    assert answers == [
        (0, 0, 0, 0, 0),
        (1, 0, 0, 0, 0),
        (3, 0, 0, 0, 0),
        (1, 0, 1, 0, 0),
    ]


def test_reads_do_not_depend_on_reads():
    made = replica(1)
    read = Payload.of(Batch(0, 1, b"\0", [b"x"], [b""]))
    again = Payload.of(Batch(2, 1, b"\0", [b"x"], [b""]))
    made.receive(0, PreAccept(0, 1, read, (0,) * 5), 0)
    made.receive(2, PreAccept(2, 1, again, (0,) * 5), 0)
    made.receive(3, PreAccept(3, 1, payload(1, b"x", origin=3), (0,) * 5), 0)
    answers = [message.deps for _, message in sent(made, PreAcceptOk)]
    assert answers == [(0,) * 5, (0,) * 5, (1, 0, 1, 0, 0)]


def test_every_question_is_answered_alike_the_second_time():
    made = replica(1)
    questions = [
        (0, PreAccept(0, 1, payload(), (0,) * 5)),
        (2, Recover(0, [1], 18)),
        (2, Validate(0, 1, 18, payload(), (0,) * 5)),
        (2, Accept(0, 1, 18, payload(), (0,) * 5)),
    ]
    for source, question in questions:
        made.receive(source, question, 0)
        first = made.out.take()
        made.receive(source, question, 0)
        second = made.out.take()
        assert second.messages == first.messages
        assert first.must_sync or isinstance(question, Validate)
        assert not second.log


def test_a_promise_refuses_lower_ballots_by_name():
    made = replica(1)
    made.receive(3, Recover(0, [1], 35), 0)
    made.out.take()
    made.receive(0, PreAccept(0, 1, payload(), (0,) * 5), 0)
    made.receive(2, Recover(0, [1], 18), 0)
    made.receive(2, Accept(0, 1, 18, None, (0,) * 5), 0)
    made.receive(2, Validate(0, 1, 18, payload(), (0,) * 5), 0)
    assert [message for _, message in sent(made)] == [Nack(0, [1], 35)] * 4


def test_a_committed_instance_answers_with_its_commit():
    made = replica(1)
    made.receive(0, Commit(0, 1, payload(), (0,) * 5), 0)
    made.out.take()
    told = Commit(0, 1, payload(), (0,) * 5)
    for source, question in (
        (0, PreAccept(0, 1, payload(), (0,) * 5)),
        (2, Accept(0, 1, 18, None, (0,) * 5)),
        (2, Validate(0, 1, 18, payload(), (0,) * 5)),
    ):
        made.receive(source, question, 0)
        assert sent(made) == [(source, told)]
    made.receive(2, Recover(0, [1], 18), 0)
    [(target, answer)] = sent(made)
    assert target == 2
    assert isinstance(answer, RecoverOk)
    assert answer.votes[0].phase == Phase.COMMITTED


def test_a_short_commit_without_the_payload_is_fetched():
    made = replica(1)
    made.receive(0, CommitShort(0, 1, (0,) * 5), 0)
    ready = made.out.take()
    assert not ready.decided
    assert (0, CommitReq(0, [1])) in ready.messages
    made.receive(0, Commit(0, 1, payload(), (0,) * 5), 0)
    assert [d.slot for d in made.out.take().decided] == [1]


def test_a_short_accept_without_the_payload_is_no_vote():
    made = replica(1)
    made.receive(0, AcceptShort(0, 1, (0,) * 5), 0)
    assert not sent(made)
    made.receive(0, Accept(0, 1, 0, payload(), (0,) * 5), 0)
    assert sent(made) == [(0, AcceptOk(0, 1, 0))]


def test_who_works_on_it_says_so_and_hands_out_commits_only():
    made = replica(0)
    made.propose(payload(), 0)
    made.receive(1, Commit(1, 1, payload(1, b"y", origin=1), (0,) * 5), 0)
    made.out.take()
    made.receive(2, CommitReq(0, [1]), 0)
    made.receive(2, CommitReq(1, [1, 2]), 0)
    assert [message for _, message in sent(made)] == [
        InProgress(0, [1]),
        Commit(1, 1, payload(1, b"y", origin=1), (0,) * 5),
    ]


# Which form is logged and sent --------------------------------------------------------------------


def logged(made):
    return made.out.take().log


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


# What is still hoped for --------------------------------------------------------------------------


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


# What is asked again ------------------------------------------------------------------------------


def test_the_first_waits_double():
    made = replica()
    made.propose(payload(), 0)
    made.out.take()
    times = []
    for now in range(0, 1_000_000, 1_000):
        hear(made, now, B, C, D, E)
        made.wake(now)
        if sent(made, PreAccept):
            times.append(now // 1000)
    assert times[:3] == [92, 92 + 184, 92 + 184 + 368]


def test_a_pre_accept_is_asked_again_of_those_who_did_not_answer():
    made = replica()
    made.propose(payload(), 0)
    made.receive(3, PreAcceptOk(0, 1, ZERO), 40_000)
    made.out.take()
    asked = run(made, RESEND - 1, RESEND + 5000, (PreAccept,), alive=(1, 2, 3, 4))
    assert [target for _, target, _ in asked] == [1, 2, 4]
    assert {message for _, _, message in asked} == {PreAccept(0, 1, payload(), ZERO)}


def test_only_those_are_asked_again_whose_answer_is_lost():
    """Two of four have answered a heartbeat that left after the question."""
    made = replica()
    made.propose(payload(), 10_000)
    made.out.take()
    for member, stamp in ((1, 10_001), (2, 10_000), (3, 10_001), (4, 9_000)):
        now = 10_000 + RESEND
        held = now - stamp - RTT
        made.receive(member, Progress(ZERO, ZERO, ZERO, (stamp,) * 5, now, (held,) * 5), now)
    made.wake(10_000 + RESEND)
    assert [target for target, _ in sent(made, PreAccept)] == [1, 3]


def test_repeated_questions_wait_longer_each_time_and_never_end():
    made = replica()
    made.propose(payload(), 0)
    made.out.take()
    asked = run(made, 0, 12_000_000, (PreAccept,), alive=(1, 2, 3, 4))
    times = sorted({at for at, _, _ in asked})
    waits = [round((later - earlier) / 1000) for earlier, later in pairwise(times)]
    assert waits[0] >= 180
    assert all(later >= earlier - 20 for earlier, later in pairwise(waits))
    assert 1480 <= waits[-1] <= 1540


def test_a_slow_path_is_asked_again_with_its_payload():
    made = replica(0, 3)
    made.propose(payload(), 0)
    made.receive(1, PreAcceptOk(0, 1, (0, 4, 0)), 2 * RTT)
    assert sent(made, AcceptShort) == [(EVERYONE, AcceptShort(0, 1, (0, 4, 0)))]
    again = run(made, 2 * RTT, 2 * RTT + RESEND + 5000, (Accept,), alive=(1, 2))
    assert [(target, message) for _, target, message in again] == [
        (member, Accept(0, 1, 0, payload(), (0, 4, 0))) for member in (1, 2)
    ]


def test_a_member_heard_again_is_asked_everything_again_at_once():
    """A replica that was cut off for long repeats its questions rarely; it must not wait that long
    once somebody is there again."""
    made = replica()
    made.propose(payload(), 0)
    run(made, 0, 20_000_000, (PreAccept,))
    assert made.unready() == "only 1 of 5 replicas are heard; 3 must be there"
    now = 20_000_500
    made.receive(2, Progress(ZERO, ZERO, ZERO, ZERO, 1, ZERO), now)
    assert [target for target, _ in sent(made, PreAccept)] == [2]
    made.receive(2, Progress(ZERO, ZERO, ZERO, ZERO, 2, ZERO), now + 1000)
    made.wake(now + 1000)
    assert not sent(made, PreAccept)
    made.receive(3, Progress(ZERO, ZERO, ZERO, ZERO, 1, ZERO), now + 2000)
    assert [target for target, _ in sent(made, PreAccept)] == [3]
    again = run(made, now + 2000, now + 2000 + RESEND + 1000, (PreAccept,), alive=(2, 3))
    assert {target for _, target, _ in again} == {1, 2, 3, 4}


@pytest.mark.parametrize("n", [7, 9])
def test_dead_members_do_not_hold_up_a_fast_quorum_larger_than_a_slow_one(n):
    """Four equal answers of seven replicas, five of nine, and the rest is dead: Accept."""
    made = replica(0, n)
    made.propose(payload(), 0)
    made.out.take()
    alive = range(1, made.sizes.slow)
    for member in alive:
        made.receive(member, PreAcceptOk(0, 1, (0,) * n), RTT)
    asked = run(made, RTT, 4 * RTT, (AcceptShort,), alive=alive)
    assert len(asked) == 1
    for member in alive:
        made.receive(member, AcceptOk(0, 1, 0), 5 * RTT)
    assert [d.path for d in made.out.take().decided] == [Path.SLOW]


@pytest.mark.parametrize("n", [7, 9])
def test_suspected_members_are_not_hoped_for(n):
    made = replica(0, n)
    alive = range(1, made.sizes.slow)
    run(made, 0, 13 * RTT, (), alive=alive)
    now = 13 * RTT
    made.propose(payload(), now)
    for member in alive:
        made.receive(member, PreAcceptOk(0, 1, (0,) * n), now + 1000)
    assert sent(made, AcceptShort)


def test_who_promised_another_ballot_counts_no_more_answers():
    """H14: ballot 0 is over for a command leader that has promised above it."""
    made = replica()
    made.propose(payload(), 0)
    made.receive(1, PreAcceptOk(0, 1, ZERO), 1000)
    made.receive(3, Recover(0, [1], 19), 2000)
    made.receive(2, PreAcceptOk(0, 1, ZERO), 3000)
    made.receive(4, PreAcceptOk(0, 1, ZERO), 3000)
    assert not made.out.take().decided
    assert known(made) == ("preaccepted", None)
