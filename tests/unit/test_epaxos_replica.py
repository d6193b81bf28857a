"""One EPaxos* replica at a time: paths, duplicates, stale and malformed input, restart,
forgetting; what is told when, what is logged how, what is still hoped for."""

import random
from itertools import pairwise

import pytest

import epaxos.protocols.epaxos.agreement as module
from epaxos.codec import Codec, encode
from epaxos.core.command import Batch, Footprint, Payload
from epaxos.core.quorum import quorums
from epaxos.core.replica import EVERYONE, Path, Setup
from epaxos.core.stamps import Stamps
from epaxos.core.types import InstanceId, make_ballot
from epaxos.protocols.epaxos import invariants
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
    Committed,
    CommittedShort,
    InProgress,
    Introduced,
    Nack,
    Objection,
    PreAccept,
    PreAccepted,
    PreAcceptOk,
    Progress,
    Recover,
    RecoverOk,
    Validate,
    ValidateOk,
    Vote,
)
from epaxos.protocols.epaxos.replica import EPaxosReplica
from epaxos.registry import find_protocol
from tests.unit.builders import RTT, hear, payload, replica, sent, unstarted

CODEC = Codec(find_protocol("epaxos"))
A, B, C, D, E = range(5)
ZERO = (0,) * 5
ROUND = make_ballot(1, C)
HEARTBEAT = 250_000
"""By then a replica has said how far it is."""


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
        (0, Progress((0,), (0,) * 5, (0,) * 5, (0,) * 5, 1)),
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


def test_after_a_restart_own_instances_go_on():
    records = [
        PreAccepted(0, 1, payload(1), (0,) * 5, (0,) * 5),
        PreAccepted(0, 2, payload(2), (1, 0, 0, 0, 0), (1, 0, 0, 0, 0)),
        Committed(0, 1, payload(1), (0,) * 5),
    ]
    made = restored(records)
    made.wake(1)
    ready = made.out.take()
    again = [m for t, m in ready.messages if isinstance(m, PreAccept)]
    assert again == [PreAccept(0, 2, payload(2), (1, 0, 0, 0, 0))]
    assert [d.slot for d in ready.decided] == [1]
    assert made.propose(payload(3), 2) == InstanceId(0, 3)


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
        assert len(made.index) <= 120
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


def logged(made):
    return made.out.take().log


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
