"""The recoverer's three pure decisions, line by line of the paper; and one replica that recovers,
with the last forgotten slot, an equal ballot, a duplicate, the last try."""

import pytest

from epaxos.codec import FRAME_BYTES_MAX, encode_frame
from epaxos.core.command import VALUE_BYTES_MAX, Batch, Payload
from epaxos.core.quorum import quorums
from epaxos.core.replica import EVERYONE, Path
from epaxos.core.types import InstanceId, make_ballot, next_ballot
from epaxos.protocols.epaxos.instance import Phase
from epaxos.protocols.epaxos.messages import (
    Accept,
    AcceptOk,
    Commit,
    CommitReq,
    InProgress,
    Introduced,
    Nack,
    Objection,
    PreAccept,
    PreAccepted,
    Progress,
    Promised,
    Recover,
    RecoverOk,
    Validate,
    ValidateOk,
    Vote,
    Waiting,
)
from epaxos.protocols.epaxos.recovery import (
    VOTE_ENVELOPE_BYTES,
    Action,
    Objector,
    decide,
    judge,
    settle,
)
from epaxos.protocols.epaxos.replica import VALIDATE_RESENDS, WAITING_RESENDS
from epaxos.sim.tunables import tuned
from tests.unit.builders import RESEND, RTT, known, payload, replica, run, sent, unstarted

A, B, C, D, E = range(5)
N = 5
ZERO = (0,) * N
FLOOR = (3, 0, 0, 0, 0)
X = Payload.of(Batch(0, 1, b"\1", [b"x"], [b"v"]))
Y = Payload.of(Batch(0, 2, b"\1", [b"x"], [b"w"]))
D0 = (0, 1, 0, 0, 0)
MORE = (0, 1, 2, 0, 0)


def initial():
    return Vote(1, Phase.INITIAL, 0, None, (), None)


def preaccepted(deps=D0, initial_deps=D0):
    return Vote(1, Phase.PREACCEPTED, 0, X, deps, initial_deps)


def accepted(ballot, payload=X, deps=D0):
    return Vote(1, Phase.ACCEPTED, ballot, payload, deps, None)


def committed(payload=X, deps=D0):
    return Vote(1, Phase.COMMITTED, 17, payload, deps, None)


@pytest.mark.parametrize(
    ("votes", "expected"),
    [
        # 1: committed wins over everything, whatever its ballot and whoever says it
        ({1: accepted(40, Y), 2: committed(), 3: initial()}, (Action.COMMIT, "1", X, D0)),
        ({0: committed(None, ZERO), 1: initial(), 2: initial()}, (Action.COMMIT, "1", None, ZERO)),
        # 2: the accepted value of the highest ballot, also when the command leader answered
        ({1: accepted(17, Y), 2: accepted(33, X), 3: initial()}, (Action.ACCEPT, "2", X, D0)),
        ({0: accepted(0, X), 2: initial(), 3: initial()}, (Action.ACCEPT, "2", X, D0)),
        (
            {1: accepted(17, None, ZERO), 2: preaccepted(), 3: preaccepted()},
            (Action.ACCEPT, "2", None, ZERO),
        ),
        # 3: the command leader answered and has neither accepted nor committed
        ({0: preaccepted(), 1: preaccepted(), 2: preaccepted()}, (Action.ACCEPT, "3", None, ZERO)),
        # 4: enough votes equal the initial deps
        ({1: preaccepted(), 2: initial(), 3: initial()}, (Action.VALIDATE, "4", X, D0)),
        ({1: preaccepted(), 2: preaccepted(MORE), 3: initial()}, (Action.VALIDATE, "4", X, D0)),
        # 5: too few
        (
            {1: preaccepted(MORE), 2: preaccepted(MORE), 3: initial()},
            (Action.ACCEPT, "5", None, ZERO),
        ),
        ({1: initial(), 2: initial(), 3: initial()}, (Action.ACCEPT, "5", None, ZERO)),
    ],
)
def test_decide(votes, expected):
    assert decide(0, votes, quorums(N).e, N)[:4] == expected


def test_decide_counts_matching_pre_accepts_only():
    introduced = Vote(1, Phase.INITIAL, 0, X, (), D0)
    votes = {1: preaccepted(), 2: introduced, 3: preaccepted()}
    assert decide(0, votes, 2, N).matching == 2


def test_decide_needs_two_matching_of_seven():
    """n = 7: |Q| - e = 4 - 2."""
    zero = (0,) * 7
    one = Vote(1, Phase.PREACCEPTED, 0, X, zero, zero)
    votes = {1: one, 2: initial(), 3: initial(), 4: initial()}
    assert decide(0, votes, 2, 7).rule == "5"
    assert decide(0, {**votes, 2: one}, 2, 7).rule == "4"


QUORUM = (1, 2, 3)


@pytest.mark.parametrize(
    ("objections", "matching", "rule"),
    [
        ({}, 1, "V1"),
        ({(2, 4): True}, 3, "V2"),
        ({(2, 4): False, (3, 1): True}, 1, "V2"),
        ({(4, 1): False}, 1, "V3"),
        ({(2, 1): False, (4, 1): False}, 1, "V3"),
        ({(4, 1): False}, 2, "V4"),
        ({(2, 1): False}, 1, "V4"),
    ],
)
def test_judge(objections, matching, rule):
    decision = judge(objections, QUORUM, matching, X, D0, quorums(N).e)
    assert decision.rule == rule
    if rule == "V1":
        assert (decision.action, decision.payload, decision.deps) == (Action.ACCEPT, X, D0)
    elif rule == "V4":
        assert decision.action is Action.WAIT
        assert decision.matching == matching
    else:
        assert (decision.action, decision.payload, decision.deps) == (Action.ACCEPT, None, ZERO)


OPEN = Objector(False, False, 0)
SETTLED = Objector(True, False, 0)
REFUTES = Objector(False, True, 0)


@pytest.mark.parametrize(
    ("objectors", "late", "expected"),
    [
        ([REFUTES, OPEN], {}, (Action.ACCEPT, "W1", None)),
        ([SETTLED, SETTLED], {}, (Action.ACCEPT, "W2", X)),
        ([SETTLED, OPEN], {}, (Action.WAIT, "V4", X)),
        ([Objector(False, False, 1)], {}, (Action.WAIT, "V4", X)),
        ([Objector(False, False, 2)], {}, (Action.ACCEPT, "W3", None)),
        ([OPEN], {4: committed()}, (Action.COMMIT, "W4", X)),
        ([OPEN], {4: accepted(17, Y)}, (Action.ACCEPT, "W4", Y)),
        ([OPEN], {0: preaccepted()}, (Action.ACCEPT, "W4", None)),
        ([OPEN], {4: preaccepted()}, (Action.WAIT, "V4", X)),
        ([REFUTES], {4: committed()}, (Action.COMMIT, "W4", X)),
    ],
)
def test_settle(objectors, late, expected):
    decision = settle(objectors, late, 0, X, D0, quorums(N))
    assert (decision.action, decision.rule, decision.payload) == expected


# One replica that recovers --------------------------------------------------------------------


def forgetful(me=B):
    """All of A.1 to A.3 is executed everywhere, and everybody knows it."""
    made = replica(me)
    for slot in (1, 2, 3):
        made.receive(A, Commit(A, slot, payload(slot), ZERO), 10)
    made.executed(FLOOR, 20)
    for member in range(N):
        if member != me:
            made.receive(member, Progress(FLOOR, FLOOR, FLOOR, ZERO, 1, ZERO), 30)
    made.out.take()
    assert made.floor == FLOOR
    return made


def said(made):
    """What left, heartbeats left out, and what was logged."""
    ready = made.out.take()
    return [m for _, m in ready.messages if not isinstance(m, Progress)], ready.log


def ballot(member, number=1):
    return make_ballot(number, member)


def test_the_last_forgotten_slot_is_not_taken_over():
    made = forgetful()
    made.start_recover([InstanceId(A, 3)], 100)
    assert said(made) == ([], [])
    assert made.describe(InstanceId(A, 3)) == {"id": "A.3", "phase": "forgotten"}


FORGOTTEN = [
    Recover(A, [3], ballot(C)),
    Validate(A, 3, ballot(C), payload(3), ZERO),
    Waiting(A, 3, 1),
    Commit(A, 3, payload(3), ZERO),
    Accept(A, 3, ballot(C), None, ZERO),
]


@pytest.mark.parametrize("message", FORGOTTEN, ids=lambda message: type(message).__name__)
def test_nothing_brings_the_last_forgotten_slot_back(message):
    made = forgetful()
    made.receive(C, message, 100)
    assert said(made) == ([], [])
    assert made.describe(InstanceId(A, 3)) == {"id": "A.3", "phase": "forgotten"}


@pytest.mark.parametrize("message", FORGOTTEN, ids=lambda message: type(message).__name__)
def test_the_first_slot_that_is_not_forgotten_is_heard_of(message):
    made = forgetful()
    fields = {name: getattr(message, name) for name in message.__struct_fields__}
    fields |= {"slots": [4]} if "slots" in fields else {"slot": 4}
    made.receive(C, type(message)(**fields), 100)
    assert made.describe(InstanceId(A, 4)) is not None


def waits(made, objection, replica=C, slot=9, k=2, last=E):
    """Recovers an instance pre-accepted here: A, which pre-accepted it too where k is 2, and `last`
    answer, and `last` objects. The replica then waits, unless it knows better."""
    made.receive(replica, PreAccept(replica, slot, payload(slot), ZERO), 30)
    made.start_recover([InstanceId(replica, slot)], 40)
    [(_, recover)] = sent(made, Recover)
    same = Vote(slot, Phase.PREACCEPTED, 0, payload(slot), ZERO, ZERO)
    blank = Vote(slot, Phase.INITIAL, 0, None, (), None)
    for member, vote in ((A, same if k == 2 else blank), (last, blank)):
        made.receive(member, RecoverOk(replica, recover.ballot, [vote]), 50)
    for member, found in ((A, []), (last, [objection])):
        made.receive(member, ValidateOk(replica, slot, recover.ballot, found), 60)


@pytest.mark.parametrize(("slot", "under_way"), [(3, "accepting"), (4, "waiting")])
def test_an_objection_that_is_forgotten_by_now_is_settled(slot, under_way):
    made = forgetful()
    waits(made, Objection(A, slot, False))
    assert known(made, C, 9)[1] == under_way
    assert made.statistics()["recover_rule_W2"] == (under_way == "accepting")


@pytest.mark.parametrize(("reach", "rule"), [(8, "W1"), (9, "W2"), (10, "W2")])
def test_who_follows_just_so_is_no_obstacle(reach, rule):
    """C.9 waits; an objection is decided after C.9 exactly if its deps reach slot 9."""
    made = replica(B)
    waits(made, Objection(D, 1, False))
    assert known(made, C, 9)[1] == "waiting"
    made.out.take()
    made.receive(D, Commit(D, 1, payload(), (0, 0, reach, 0, 0)), 70)
    [(_, accept)] = sent(made, Accept)
    assert accept.payload == (None if rule == "W1" else payload(9))
    assert made.statistics()[f"recover_rule_{rule}"] == 1


def test_a_cluster_of_one_decides_its_recovery_alone():
    made = replica(A, 1)
    made.start_recover([InstanceId(A, 1)], 100)
    assert [(d.slot, d.payload) for d in made.out.take().decided] == [(1, None)]


def test_in_a_larger_cluster_nobody_decides_a_recovery_alone():
    made = replica(B, 3)
    made.start_recover([InstanceId(A, 1)], 100)
    assert known(made)[1] == "recovering"
    assert not made.out.take().decided


def test_a_recover_that_comes_twice_is_promised_once_and_answered_twice():
    made = replica(B)
    made.receive(C, Recover(A, [1], ballot(C)), 10)
    messages, log = said(made)
    assert log == [Promised(A, [1], ballot(C))]
    made.receive(C, Recover(A, [1], ballot(C)), 20)
    again, more = said(made)
    assert again == messages
    assert more == []


def test_a_promise_to_oneself_survives_ones_own_late_nack():
    """B asked in b0, then took over in b1@B; the answer to b0 names b1@B."""
    made = replica(B)
    made.start_recover([InstanceId(A, 1)], 10)
    [(_, recover)] = sent(made, Recover)
    made.receive(C, Nack(A, [1], recover.ballot), 20)
    assert known(made)[1] == "recovering"
    made.receive(C, Nack(A, [1], recover.ballot + 1), 30)
    assert known(made)[1] is None


def test_the_next_ballot_is_above_the_highest_that_was_named():
    made = replica(B)
    for promised in (ballot(E, 7), ballot(D, 3)):
        made.receive(C, Nack(A, [1], promised), 20)
    made.start_recover([InstanceId(A, 1)], 30)
    (recover,), _ = said(made)
    assert recover.ballot == ballot(B, 8)


def test_one_ballot_above_every_promise_of_the_slots_taken_over():
    made = replica(B)
    made.receive(C, Recover(A, [1], ballot(C, 5)), 10)
    made.receive(D, Recover(A, [2], ballot(D, 2)), 10)
    made.out.take()
    made.start_recover([InstanceId(A, 1), InstanceId(A, 2)], 30)
    (recover,), log = said(made)
    assert recover == Recover(A, [1, 2], ballot(B, 6))
    assert log == [Promised(A, [1, 2], ballot(B, 6))]


def test_a_refusal_names_the_highest_promise():
    made = replica(B)
    made.receive(E, Recover(A, [1], ballot(E, 5)), 10)
    made.receive(D, Recover(A, [2], ballot(D, 3)), 10)
    made.out.take()
    made.receive(C, Recover(A, [1, 2], ballot(C, 1)), 20)
    assert said(made) == ([Nack(A, [1, 2], ballot(E, 5))], [])


@pytest.mark.parametrize("kind", [Recover, Validate])
def test_nobody_recovers_in_the_command_leaders_ballot(kind):
    """b0 is A's by arithmetic; it is no ballot of a recovery."""
    made = replica(B)
    made.receive(A, PreAccept(A, 1, payload(), ZERO), 10)
    made.out.take()
    message = Recover(A, [1], 0) if kind is Recover else Validate(A, 1, 0, payload(), ZERO)
    made.receive(A, message, 20)
    assert said(made) == ([], [])


def test_a_promise_is_on_disk_before_it_is_told():
    made = replica(B)
    made.receive(C, Recover(A, [1], ballot(C)), 10)
    ready = made.out.take()
    assert ready.must_sync
    assert ready.log == [Promised(A, [1], ballot(C))]


def test_what_a_recovery_promises_itself_is_on_disk_before_it_asks():
    made = replica(B)
    made.start_recover([InstanceId(A, 1)], 10)
    assert made.out.take().must_sync


def test_an_introduction_is_on_disk_before_it_is_answered_for():
    made = replica(B)
    made.receive(C, Recover(A, [1], ballot(C)), 10)
    made.out.take()
    made.receive(C, Validate(A, 1, ballot(C), payload(), ZERO), 20)
    ready = made.out.take()
    assert ready.must_sync
    assert ready.log == [Introduced(A, 1, payload(), ZERO)]
    made.receive(C, Validate(A, 1, ballot(C), payload(), ZERO), 30)
    ready = made.out.take()
    assert ready.log == []
    assert [type(message) for _, message in ready.messages] == [ValidateOk]


def objections(made, deps, slot=2, key=b"x"):
    """What B says against A.2 with these deps."""
    made.receive(C, Recover(A, [slot], ballot(C)), 50)
    made.out.take()
    made.receive(C, Validate(A, slot, ballot(C), payload(9, key), deps), 60)
    answers = [m for _, m in made.out.take().messages if isinstance(m, ValidateOk)]
    assert len(answers) == 1
    return [(each.replica, each.slot, each.committed) for each in answers[0].objections]


def test_what_the_deps_cover_does_not_object_and_the_next_one_does():
    made = replica(B)
    for slot in (1, 2, 3):
        made.receive(D, PreAccept(D, slot, payload(slot), ZERO), 10)
    assert objections(made, (0, 0, 0, 2, 0)) == [(D, 3, False)]


def test_in_a_long_gap_what_the_deps_cover_does_not_object_either():
    """D's column is named up to 50, and three of it are known."""
    made = replica(B)
    made.receive(E, Commit(E, 1, payload(1, b"y"), (0, 0, 0, 50, 0)), 10)
    for slot in (1, 2, 3):
        made.receive(D, PreAccept(D, slot, payload(slot), ZERO), 10)
    assert objections(made, (0, 0, 0, 2, 0)) == [(D, 3, False)]


def test_what_a_validate_asked_about_is_known_to_the_next_recovery():
    made = replica(B)
    made.receive(C, Recover(A, [1], ballot(C)), 10)
    made.receive(C, Validate(A, 1, ballot(C), payload(), ZERO), 20)
    made.out.take()
    made.receive(D, Recover(A, [1], ballot(D)), 30)
    [(_, answer)] = sent(made, RecoverOk)
    assert answer.votes == [Vote(1, Phase.INITIAL, 0, payload(), (), ZERO)]


def test_what_follows_the_instance_just_so_does_not_object():
    made = replica(B)
    for slot, reach in ((1, 1), (2, 2), (3, 3)):
        made.receive(D, PreAccept(D, slot, payload(slot), (reach, 0, 0, 0, 0)), 10)
    assert objections(made, ZERO) == [(D, 1, False)]


def test_an_instance_does_not_object_to_itself_but_its_column_may():
    made = replica(B)
    for slot in (1, 2, 3):
        made.receive(A, PreAccept(A, slot, payload(slot), ZERO), 10)
    assert objections(made, ZERO) == [(A, 1, False), (A, 3, False)]


def test_the_same_slot_of_another_column_objects():
    made = replica(B)
    made.receive(D, PreAccept(D, 2, payload(), ZERO), 10)
    assert objections(made, ZERO) == [(D, 2, False)]


def test_what_does_not_interfere_does_not_object():
    made = replica(B)
    made.receive(D, PreAccept(D, 1, payload(), ZERO), 10)
    assert objections(made, ZERO, key=b"other") == []


def test_a_committed_one_objects_by_what_was_decided():
    made = replica(B)
    made.receive(D, PreAccept(D, 1, payload(), ZERO), 10)
    made.receive(D, Commit(D, 1, payload(), (2, 0, 0, 0, 0)), 20)
    made.receive(D, PreAccept(D, 2, payload(2), (2, 0, 0, 0, 0)), 10)
    made.receive(D, Commit(D, 2, payload(2), ZERO), 20)
    made.receive(D, PreAccept(D, 3, payload(3), ZERO), 10)
    made.receive(D, Commit(D, 3, None, ZERO), 20)
    assert objections(made, ZERO) == [(D, 2, True)]


def test_what_is_forgotten_does_not_object():
    """Slots up to the floor are gone; what is left in the table above the deps is above it too."""
    made = forgetful()
    made.receive(A, PreAccept(A, 4, payload(4), ZERO), 40)
    made.receive(C, Recover(D, [1], ballot(C)), 50)
    made.out.take()
    made.receive(C, Validate(D, 1, ballot(C), payload(9), ZERO), 60)
    (answer,) = [m for _, m in made.out.take().messages if isinstance(m, ValidateOk)]
    assert [(each.replica, each.slot) for each in answer.objections] == [(A, 4)]


@pytest.mark.parametrize(("less", "cut"), [(0, [[1, 2], [3, 4]]), (1, [[1], [2], [3], [4]])])
def test_answers_are_cut_before_their_votes_are_over_the_bound(less, cut):
    """One vote with a payload and one without fill an answer just so; with a byte less every vote
    has its own."""
    one = payload()
    made = replica(B)
    for slot in (1, 3):
        made.receive(A, PreAccept(A, slot, one, ZERO), 10)
    made.out.take()
    bound = 2 * VOTE_ENVELOPE_BYTES + len(one.encoded) - less
    with tuned((("epaxos.VOTE_BYTES_PER_ANSWER", bound),)):
        made.receive(C, Recover(A, [1, 2, 3, 4], ballot(C)), 20)
        answers, _ = said(made)
        assert [[vote.slot for vote in answer.votes] for answer in answers] == cut
        assert made.statistics()["votes_cut"] == 1
        made.receive(C, Recover(A, [2], ballot(C)), 30)
        assert made.statistics()["votes_cut"] == 1


def test_a_vote_of_a_forgotten_slot_is_no_answer():
    made = forgetful()
    vote = Vote(3, Phase.COMMITTED, 0, payload(3), ZERO, None)
    made.receive(C, RecoverOk(A, ballot(B), [vote]), 100)
    assert said(made) == ([], [])


def test_a_slow_quorum_of_answers_decides_and_one_less_does_not():
    made = replica(B)
    made.start_recover([InstanceId(A, 1)], 10)
    made.out.take()
    vote = Vote(1, Phase.INITIAL, 0, None, (), None)
    made.receive(C, RecoverOk(A, ballot(B), [vote]), 20)
    made.receive(C, RecoverOk(A, ballot(B), [vote]), 21)
    assert said(made) == ([], [])
    made.receive(D, RecoverOk(A, ballot(B), [vote]), 22)
    (accept,), _ = said(made)
    assert accept == Accept(A, 1, ballot(B), None, ZERO)


def test_a_commit_in_an_answer_is_told_by_who_recovers_only():
    for recovers in (False, True):
        made = replica(B)
        made.receive(A, PreAccept(A, 1, payload(), ZERO), 5)
        if recovers:
            made.start_recover([InstanceId(A, 1)], 10)
            made.out.take()
        vote = Vote(1, Phase.COMMITTED, 0, payload(), ZERO, None)
        made.receive(C, RecoverOk(A, ballot(B), [vote]), 20)
        ready = made.out.take()
        assert [d.path for d in ready.decided] == [Path.RECOVERED]
        assert [m for _, m in ready.messages if isinstance(m, Commit)] == (
            [Commit(A, 1, payload(), ZERO)] if recovers else []
        )


def test_a_restored_promise_is_the_highest():
    made = unstarted(B)
    made.restore(PreAccepted(A, 1, payload(), ZERO, ZERO))
    for number in (2, 4, 3):
        made.restore(Promised(A, [1], ballot(C, number)))
    made.wake(0)
    made.receive(D, Recover(A, [1], ballot(D, 3)), 10)
    assert sent(made, Nack, RecoverOk) == [(D, Nack(A, [1], ballot(C, 4)))]


@pytest.mark.parametrize(("equal", "message"), [(1, Accept), (2, Validate)])
def test_of_seven_two_equal_pre_accepts_are_needed(equal, message):
    """|Q| - e = 4 - 2: with one the batch cannot have been decided by the fast path."""
    made = replica(B, 7)
    zero = (0,) * 7
    made.receive(A, PreAccept(A, 1, payload(), zero), 10)
    made.start_recover([InstanceId(A, 1)], 20)
    made.out.take()
    blank = Vote(1, Phase.INITIAL, 0, None, (), None)
    same = Vote(1, Phase.PREACCEPTED, 0, payload(), zero, zero)
    for member, vote in ((C, same if equal == 2 else blank), (D, blank), (E, blank)):
        made.receive(member, RecoverOk(A, ballot(B), [vote]), 30)
    messages, _ = said(made)
    assert {type(each) for each in messages} == {message}


def test_who_has_accepted_does_not_validate_any_more():
    """H3: a Validate of the same ballot that was overtaken by its Accept."""
    made = replica(B)
    made.receive(C, Accept(A, 1, ballot(C), None, ZERO), 10)
    made.out.take()
    made.receive(C, Validate(A, 1, ballot(C), payload(), ZERO), 20)
    assert said(made) == ([], [])


@pytest.mark.parametrize(
    ("heard", "k", "under_way"),
    [(0, 1, "waiting"), (0, 2, "accepting"), (3, 1, "accepting")],
)
def test_who_waits_counts_its_own_k_too(heard, k, under_way):
    """C.9 waits at B with k votes. B takes D.1 over, which waits for C.9 unless k is too large."""
    made = replica(B)
    if heard:
        made.receive(E, Waiting(C, 9, heard), 10)
    waits(made, Objection(E, 1, False), C, 9, k)
    assert known(made, C, 9)[1] == "waiting"
    assert (EVERYONE, Waiting(C, 9, k)) in sent(made, Waiting)
    waits(made, Objection(C, 9, False), D, 1, last=C)
    assert known(made, D, 1)[1] == under_way
    assert made.statistics()["recover_rule_W3"] == (under_way == "accepting")


# A recovery and time ------------------------------------------------------------------------------


def blank(slot):
    return Vote(slot, Phase.INITIAL, 0, None, (), None)


def recovering(made, slots=(1,), column=0):
    """Takes slots over; returns its ballot."""
    made.start_recover([InstanceId(column, slot) for slot in slots], 0)
    [(_, message)] = sent(made, Recover)
    assert message == Recover(column, list(slots), message.ballot)
    return message.ballot


def test_answers_of_another_ballot_do_not_count():
    """H13."""
    made = replica(1)
    made.receive(0, PreAccept(0, 1, payload(), ZERO), 0)
    old, new = recovering(made), recovering(made)
    for member in (2, 3):
        made.receive(member, RecoverOk(0, old, [Vote(1, 0, 0, None, (), None)]), 1000)
    assert known(made) == ("preaccepted", "recovering")
    for member in (2, 0):
        made.receive(member, RecoverOk(0, new, [Vote(1, 0, 0, None, (), None)]), 1000)
    assert known(made) == ("accepted", "accepting")
    made.receive(2, AcceptOk(0, 1, old), 2000)
    made.receive(3, AcceptOk(0, 1, old), 2000)
    assert not made.out.take().decided


def test_one_recover_covers_many_slots_and_each_is_then_alone():
    made = replica(1)
    ballot = recovering(made, (1, 2, 3))
    for member in (2, 3):
        made.receive(member, RecoverOk(0, ballot, [blank(1), blank(3)]), 1000)
    assert [known(made, 0, slot) for slot in (1, 2, 3)] == [
        ("accepted", "accepting"),
        ("initial", "recovering"),
        ("accepted", "accepting"),
    ]


def test_the_first_answer_of_a_replica_counts():
    """H16."""
    made = replica(1)
    ballot = recovering(made)
    made.receive(2, RecoverOk(0, ballot, [blank(1)]), 1000)
    made.receive(2, RecoverOk(0, ballot, [Vote(1, Phase.ACCEPTED, 0, payload(), ZERO, None)]), 1000)
    made.receive(3, RecoverOk(0, ballot, [blank(1)]), 1000)
    [(_, accept)] = sent(made, Accept)
    assert accept.payload is None


def test_a_committed_answer_is_honoured_at_any_time():
    """H12: while validating, and in a ballot long gone."""
    made = replica(1)
    made.receive(0, PreAccept(0, 1, payload(), ZERO), 0)
    ballot = recovering(made)
    for member in (2, 3):
        made.receive(member, RecoverOk(0, ballot, [blank(1)]), 1000)
    assert sent(made, Validate)
    told = Vote(1, Phase.COMMITTED, 0, payload(), ZERO, ZERO)
    made.receive(4, RecoverOk(0, ballot - 16, [told]), 2000)
    ready = made.out.take()
    assert [d.deps for d in ready.decided] == [ZERO]
    assert (EVERYONE, Commit(0, 1, payload(), ZERO)) in ready.messages


def test_a_nack_ends_the_attempt_and_the_next_ballot_is_above_it():
    made = replica(1)
    ballot = recovering(made)
    made.receive(2, Nack(0, [1], 99), 1000)
    assert known(made) == ("initial", None)
    assert recovering(made) == next_ballot(99, 1) > ballot


def test_a_stale_nack_changes_nothing():
    made = replica(1)
    ballot = recovering(made)
    made.receive(2, Nack(0, [1], ballot - 1), 1000)
    assert known(made) == ("initial", "recovering")


def test_a_recovery_nobody_answers_is_ended_and_begun_again_above():
    made = replica(1)
    made.receive(0, PreAccept(0, 1, payload(), ZERO), 0)
    recovers = run(made, 0, 20_000_000, (Recover,), alive=(0, 2, 3, 4))
    ballots = [message.ballot for _, target, message in recovers if target == EVERYONE]
    assert len(ballots) >= 3
    assert ballots == sorted(set(ballots))
    first = [at for at, _, message in recovers if message.ballot == ballots[0]]
    assert len(set(first)) == 1 + VALIDATE_RESENDS
    counts = made.statistics()
    assert (counts["questions_given_up"], counts["waits_given_up"]) == (len(ballots) - 1, 0)


def test_a_recovery_goes_on_while_the_living_may_still_answer():
    """The command leader and E are dead, and asked again and again; C and D take a second."""
    made = replica(1)
    made.receive(0, PreAccept(0, 1, payload(), ZERO), 0)
    ballot = recovering(made)
    again = []
    with tuned((("epaxos.VALIDATE_RESENDS", 0),)):
        for now in range(0, 1_000_000, 20_000):
            for member in (2, 3):
                made.receive(member, Progress(ZERO, ZERO, ZERO, ZERO, now, ZERO), now)
            made.wake(now)
            again += sent(made, Recover)
        assert {(target, message.ballot) for target, message in again} == {(0, ballot), (4, ballot)}
        later = run(made, 1_000_000, 4_000_000, (Recover,))
        assert max(message.ballot for _, _, message in later) > ballot


def test_a_recovery_just_begun_is_not_given_up_for_a_member_that_comes_back():
    made = replica(1)
    made.receive(0, PreAccept(0, 1, payload(), ZERO), 0)
    now = 10 * RTT + 1
    made.wake(now)  # all were silent for too long
    with tuned((("epaxos.VALIDATE_RESENDS", 0),)):
        made.start_recover([InstanceId(0, 1)], now)
        asked = sent(made, Recover)[-1][1]
        for member in (2, 3):
            made.receive(member, Progress(ZERO, ZERO, ZERO, ZERO, now, ZERO), now)
            assert sent(made, Recover) == [(member, asked)]
        made.wake(now + 1)
        assert known(made) == ("preaccepted", "recovering")


def validating(made, matching_votes=(), quorum=(2, 3)):
    """Is asked for A.1 at B: pre-accepted here, `quorum` answers; returns the ballot."""
    made.receive(0, PreAccept(0, 1, payload(), ZERO), 0)
    ballot = recovering(made)
    for member in quorum:
        vote = (
            Vote(1, Phase.PREACCEPTED, 0, payload(), ZERO, ZERO)
            if member in matching_votes
            else blank(1)
        )
        made.receive(member, RecoverOk(0, ballot, [vote]), 1000)
    return ballot


def test_a_validate_goes_to_the_quorum_and_again_to_who_did_not_answer():
    made = replica(1)
    ballot = validating(made)
    assert [target for target, _ in sent(made, Validate)] == [2, 3]
    made.receive(2, ValidateOk(0, 1, ballot, []), 2000)
    again = run(made, 2000, 1000 + RESEND + 3000, (Validate,), alive=(0, 2, 3, 4))
    assert [target for _, target, _ in again] == [3]
    made.receive(4, ValidateOk(0, 1, ballot, []), 200_000)
    assert not sent(made, Accept)
    made.receive(3, ValidateOk(0, 1, ballot, []), 200_000)
    assert sent(made, Accept) == [(EVERYONE, Accept(0, 1, ballot, payload(), ZERO))]


def test_a_waiting_recovery_says_so_and_asks_those_outside_its_quorum():
    made = replica(1)
    ballot = validating(made, matching_votes=(2,))
    made.out.take()
    made.receive(2, ValidateOk(0, 1, ballot, [Objection(4, 7, False)]), 2000)
    made.receive(3, ValidateOk(0, 1, ballot, []), 2000)
    messages = sent(made, Waiting, Recover)
    assert messages == [
        (EVERYONE, Waiting(0, 1, 2)),
        (0, Recover(0, [1], ballot)),
        (4, Recover(0, [1], ballot)),
    ]
    again = run(made, 2000, 2000 + RESEND + 3000, (Waiting, Recover), alive=(0, 2, 3, 4))
    assert [(target, message) for _, target, message in again] == messages


def test_a_waiting_recovery_ends_after_its_repetitions():
    made = replica(1)
    ballot = validating(made, matching_votes=(2,))
    made.receive(2, ValidateOk(0, 1, ballot, [Objection(4, 7, False)]), 2000)
    made.receive(3, ValidateOk(0, 1, ballot, []), 2000)
    made.out.take()
    said = run(made, 2000, 30_000_000, (Waiting, Recover), alive=(0, 2, 3, 4))
    assert sum(isinstance(message, Waiting) for _, _, message in said) == WAITING_RESENDS
    assert made.statistics()["waits_given_up"] == 1
    assert any(m.ballot > ballot for _, _, m in said if isinstance(m, Recover) and m.slots == [1])


def test_the_largest_waiting_is_kept_until_the_id_is_decided():
    """H5: W3 needs to know that E.7's recovery waits, also if that was said before."""
    made = replica(1)
    made.receive(3, Waiting(4, 7, 2), 0)
    made.receive(2, Waiting(4, 7, 1), 0)
    ballot = validating(made, matching_votes=(2,))
    made.receive(2, ValidateOk(0, 1, ballot, [Objection(4, 7, False)]), 2000)
    made.receive(3, ValidateOk(0, 1, ballot, []), 2000)
    assert made.statistics()["recover_rule_W3"] == 1
    assert known(made) == ("accepted", "accepting")


def test_a_waiting_about_something_decided_here_is_answered_with_it():
    made = replica(1)
    made.receive(4, Commit(4, 7, None, ZERO), 0)
    made.out.take()
    made.receive(3, Waiting(4, 7, 2), 0)
    assert sent(made, Commit) == [(3, Commit(4, 7, None, ZERO))]


def test_a_validate_names_what_does_not_follow_and_nothing_else():
    """Objections: interfering, outside the closed prefix, and not ordered after, as known here."""
    made = replica(2)
    made.receive(1, Recover(0, [5], 17), 0)
    for source, message in (
        (3, PreAccept(3, 1, payload(origin=3), ZERO)),
        (3, PreAccept(3, 2, payload(2, origin=3), (0, 0, 0, 1, 0))),
        (3, PreAccept(3, 3, payload(3, origin=3), (5, 0, 0, 2, 0))),
        (3, PreAccept(3, 4, payload(4, b"y", origin=3), ZERO)),
        (4, Commit(4, 1, payload(origin=4), ZERO)),
        (4, Commit(4, 2, None, ZERO)),
        (4, Commit(4, 3, payload(3, origin=4), (5, 0, 0, 0, 1))),
        (1, Accept(4, 4, 17, payload(4, origin=4), ZERO)),
    ):
        made.receive(source, message, 0)
    made.out.take()
    made.receive(1, Validate(0, 5, 17, payload(5), (0, 0, 0, 1, 0)), 0)
    [(_, answer)] = sent(made, ValidateOk)
    assert answer.objections == [Objection(3, 2, False), Objection(4, 1, True)]


def test_what_an_objection_names_is_swept():
    made = replica(1)
    ballot = validating(made, matching_votes=(2,))
    made.receive(2, ValidateOk(0, 1, ballot, [Objection(4, 1, False)]), 2000)
    made.receive(3, ValidateOk(0, 1, ballot, []), 2000)
    made.out.take()
    asked = run(made, 2000, 200_000, (CommitReq,), alive=(0, 2, 3, 4))
    assert CommitReq(4, [1]) in [message for _, _, message in asked]


def test_large_payloads_are_answered_in_parts_that_fit_a_frame():
    """A dead leader's column may hold more than a frame can: 12 batches of 4 MiB."""
    made = replica(1)
    big = [payload(number, size=4 << 20) for number in range(1, 13)]
    for slot, each in enumerate(big, 1):
        made.receive(0, PreAccept(0, slot, each, (slot - 1, 0, 0, 0, 0)), 0)
    made.out.take()
    made.receive(2, Recover(0, list(range(1, 14)), 18), 0)
    answers = [message for _, message in sent(made, RecoverOk)]
    assert [vote.slot for answer in answers for vote in answer.votes] == list(range(1, 14))
    assert all(len(encode_frame(answer)) < FRAME_BYTES_MAX for answer in answers)


def test_the_largest_payload_behind_others_has_an_answer_of_its_own():
    made = replica(1)
    whole = VALUE_BYTES_MAX
    for slot, size in enumerate((1 << 20, 1 << 20, whole, 1), 1):
        made.receive(0, PreAccept(0, slot, payload(slot, size=size), (slot - 1, 0, 0, 0, 0)), 0)
    made.out.take()
    made.receive(2, Recover(0, [1, 2, 3, 4], 18), 0)
    answers = [message for _, message in sent(made, RecoverOk)]
    assert [[vote.slot for vote in answer.votes] for answer in answers] == [[1, 2], [3], [4]]
    assert all(encode_frame(answer) for answer in answers)


def test_small_payloads_are_answered_at_once():
    made = replica(1)
    for slot in range(1, 100):
        made.receive(0, PreAccept(0, slot, payload(slot), (slot - 1, 0, 0, 0, 0)), 0)
    made.out.take()
    made.receive(2, Recover(0, list(range(1, 100)), 18), 0)
    assert len(sent(made, RecoverOk)) == 1


def test_who_promised_leaves_the_other_recoverer_time():
    """Both B and C would take A's column over; C has promised B just before its own turn."""
    made = replica(2)
    made.receive(0, PreAccept(0, 1, payload(), ZERO), 0)
    turn = run(made, 0, 1_000_000, (Recover,), alive=(1, 3, 4))[0][0]
    made = replica(2)
    made.receive(0, PreAccept(0, 1, payload(), ZERO), 0)
    run(made, 0, turn - 20_000, (Recover,), alive=(1, 3, 4))
    made.receive(1, Recover(0, [1], 17), turn - 20_000)
    later = run(made, turn - 20_000, 1_000_000, (Recover,), alive=(1, 3, 4))
    assert later[0][0] >= turn - 20_000 + 4 * RTT
    assert later[0][2].ballot > 17


def test_work_in_progress_is_said_of_live_attempts_only():
    made = replica(1)
    made.receive(0, PreAccept(0, 1, payload(), ZERO), 0)
    made.out.take()
    made.receive(3, CommitReq(0, [1]), 0)
    assert not sent(made, InProgress)
    recovering(made)
    made.receive(3, CommitReq(0, [1]), 0)
    assert sent(made, InProgress) == [(3, InProgress(0, [1]))]


def test_waiting_is_over_when_somebody_takes_a_higher_ballot():
    made = replica(1)
    ballot = validating(made, matching_votes=(2,))
    made.receive(2, ValidateOk(0, 1, ballot, [Objection(4, 7, False)]), 2000)
    made.receive(3, ValidateOk(0, 1, ballot, []), 2000)
    assert known(made) == ("preaccepted", "waiting")
    made.receive(3, Recover(0, [1], next_ballot(ballot, 3)), 3000)
    made.receive(4, Commit(4, 7, None, ZERO), 4000)
    assert known(made) == ("preaccepted", None)
    assert not sent(made, Accept)
