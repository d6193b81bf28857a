"""One EPaxos* replica at a time: paths, duplicates, stale and malformed input, restart,
forgetting."""

import random
from itertools import pairwise

import pytest

from epaxos.codec import Codec, encode
from epaxos.core.command import Batch, Footprint, Payload
from epaxos.core.quorum import quorums
from epaxos.core.replica import EVERYONE, Path, Setup
from epaxos.core.types import InstanceId
from epaxos.protocols.epaxos import invariants
from epaxos.protocols.epaxos.instance import Phase
from epaxos.protocols.epaxos.messages import (
    Accept,
    AcceptOk,
    AcceptShort,
    Commit,
    CommitReq,
    CommitShort,
    Committed,
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
from epaxos.protocols.epaxos.replica import EPaxosReplica
from epaxos.registry import find_protocol

CODEC = Codec(find_protocol("epaxos"))
RTT = 40_000


def payload(number=1, *keys, origin=0):
    names = [key.encode() for key in keys or ("x",)]
    return Payload.of(Batch(origin, number, b"\1" * len(names), names, [b"v"] * len(names)))


def replica(me=0, n=5, rtts=None):
    rtts = rtts or tuple(0 if other == me else RTT for other in range(n))
    made = EPaxosReplica(Setup(me, n, rtts, random.Random(1)))
    made.wake(0)
    made.out.take()
    return made


def sent(made, kind=None):
    """(target, message) of what left, heartbeats left out."""
    ready = made.out.take()
    return [
        (target, message)
        for target, message in ready.messages
        if not isinstance(message, Progress) and (kind is None or isinstance(message, kind))
    ]


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
    made.receive(0, PreAccept(0, 1, payload(1, "x"), (0,) * 5), 0)
    made.receive(0, PreAccept(0, 3, payload(3, "x"), (1, 0, 0, 0, 0)), 0)
    made.receive(2, PreAccept(2, 1, payload(1, "x", origin=2), (0,) * 5), 0)
    made.receive(0, PreAccept(0, 2, payload(2, "x"), (1, 0, 0, 0, 0)), 0)
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
    made.receive(3, PreAccept(3, 1, payload(1, "x", origin=3), (0,) * 5), 0)
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
    made.receive(1, Commit(1, 1, payload(1, "y", origin=1), (0,) * 5), 0)
    made.out.take()
    made.receive(2, CommitReq(0, [1]), 0)
    made.receive(2, CommitReq(1, [1, 2]), 0)
    assert [message for _, message in sent(made)] == [
        InProgress(0, [1]),
        Commit(1, 1, payload(1, "y", origin=1), (0,) * 5),
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
        cluster[0].propose(payload(number, f"k{number}"), now)
        now = settle(cluster, now)
    for _ in range(6):
        now += 100_000
        for made in cluster:
            made.executed(tuple(made.columns.committed), now)
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
    made.propose(payload(1, "x"), 0)
    made.receive(3, PreAccept(3, 4, payload(4, "x", origin=3), (0,) * 5), 0)
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
