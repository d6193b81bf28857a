"""One EPaxos* replica and time: what it asks again, when it gives up, what it answers in parts."""

from itertools import pairwise

import pytest

from epaxos.codec import FRAME_BYTES_MAX, encode_frame
from epaxos.core.replica import EVERYONE, Path
from epaxos.core.types import InstanceId, next_ballot
from epaxos.protocols.epaxos.instance import Phase
from epaxos.protocols.epaxos.messages import (
    Accept,
    AcceptOk,
    AcceptShort,
    Commit,
    CommitReq,
    InProgress,
    Nack,
    Objection,
    PreAccept,
    PreAcceptOk,
    Progress,
    Recover,
    RecoverOk,
    Validate,
    ValidateOk,
    Vote,
    Waiting,
)
from epaxos.protocols.epaxos.recovery import VALIDATE_RESENDS, WAITING_RESENDS
from tests.unit.builders import RTT, hear, known, payload, replica, sent

RESEND = 92_000
ZERO = (0,) * 5


def run(made, start, stop, kinds, alive=()):
    """[(time, target, message)] of some kinds, waking the replica as its deadline says while some
    members stay alive."""
    found = []
    now = start
    while now <= stop:
        hear(made, now, *alive)
        made.wake(now)
        found += [(now, target, message) for target, message in sent(made, *kinds)]
        now = max(now + 1000, min(made.deadline(), now + 20_000))
    return found


# Agreement -------------------------------------------------------------------------------------


def test_a_pre_accept_is_asked_again_of_those_who_did_not_answer():
    made = replica()
    made.propose(payload(), 0)
    made.receive(3, PreAcceptOk(0, 1, ZERO), 40_000)
    made.out.take()
    asked = run(made, RESEND - 1, RESEND + 5000, (PreAccept,), alive=(1, 2, 3, 4))
    assert [target for _, target, _ in asked] == [1, 2, 4]
    assert {message for _, _, message in asked} == {PreAccept(0, 1, payload(), ZERO)}


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
    made.receive(2, Progress(ZERO, ZERO, ZERO, ZERO, 1), now)
    assert made.deadline() <= now
    made.wake(now)
    assert {target for target, _ in sent(made, PreAccept)} == {1, 2, 3, 4}
    made.receive(2, Progress(ZERO, ZERO, ZERO, ZERO, 2), now + 1000)
    made.wake(now + 1000)
    assert not sent(made, PreAccept)


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


# Recovery --------------------------------------------------------------------------------------


def blank(slot):
    return Vote(slot, Phase.INITIAL, 0, None, (), None)


def recovering(made, slots=(1,), column=0):
    """Takes slots over; returns its ballot."""
    made.start_recover([InstanceId(column, slot) for slot in slots], 0)
    [(_, message)] = sent(made, Recover)
    assert message == Recover(column, list(slots), message.ballot)
    return message.ballot


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
