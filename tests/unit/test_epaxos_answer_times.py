"""What members lately took to answer, and what a command leader makes of it (H7)."""

import pytest

from epaxos.core.replica import Path
from epaxos.protocols.epaxos.answer_times import LEAST_GROWTH_US, WINDOW_US, AnswerTimes
from epaxos.protocols.epaxos.messages import AcceptShort, PreAcceptOk
from tests.unit.builders import hear, payload, replica, sent

ZERO = (0,) * 7
EQUAL_RTTS = (0, *(10_000,) * 6)
HALF_LATE = 15_000


def test_what_was_never_answered_is_what_was_told():
    times = AnswerTimes(3)
    assert times.least(1, 700) == times.most(1, 700) == 700


def test_extremes_are_of_each_member_alone():
    times = AnswerTimes(3)
    for took in (30, 20, 40):
        times.learn(1, took)
    assert (times.least(1, 700), times.most(1, 700)) == (20, 40)
    assert (times.least(2, 700), times.most(2, 700)) == (700, 700)


def test_answer_times_are_forgotten_after_one_to_two_windows():
    times = AnswerTimes(2)
    times.turn(0)
    times.learn(1, 9_000)
    times.turn(WINDOW_US - 1)
    assert times.most(1, 700) == 9_000
    times.turn(WINDOW_US)
    times.learn(1, 2_000)
    assert (times.least(1, 700), times.most(1, 700)) == (2_000, 9_000)
    times.turn(2 * WINDOW_US)
    assert times.most(1, 700) == 2_000, "the load has gone"
    times.turn(3 * WINDOW_US)
    assert times.most(1, 700) == 700


def test_one_late_copy_says_little_and_a_few_late_answers_say_all():
    times = AnswerTimes(2)
    times.learn(1, 1_000)
    times.learn(1, 3_000_000)
    assert times.most(1, 0) == 1_000 + LEAST_GROWTH_US
    for _ in range(8):
        times.learn(1, 3_000_000)
    assert times.most(1, 0) == 3_000_000


def test_a_clock_that_went_back_teaches_nothing():
    times = AnswerTimes(2)
    times.learn(1, -5)
    assert times.most(1, 700) == 700


# A command leader of seven: 4 answers are a slow quorum, 5 equal ones a fast one ------------------


def proposed(slot, now, made):
    made.propose(payload(slot, b"key%d" % slot), now)
    made.out.take()


def answer(made, slot, now, *members, deps=ZERO):
    for member in members:
        made.receive(member, PreAcceptOk(0, slot, deps), now)


def gave_up(made, now):
    """Whether an Accept leaves when time has come to `now` while all members are heard."""
    hear(made, now, *range(1, made.n))
    made.wake(now)
    return bool(sent(made, AcceptShort))


def test_a_member_that_is_late_against_itself_is_given_up():
    made = replica(0, 7, EQUAL_RTTS)
    proposed(1, 0, made)
    answer(made, 1, 10_000, 1, 2, 3)
    assert not gave_up(made, 13_900)
    assert gave_up(made, 14_100)


def test_nobody_is_given_up_while_one_that_is_not_late_suffices():
    """Of three silent members two are late by what they usually take, the third is far."""
    made = replica(0, 7, (0, 10_000, 10_000, 10_000, 10_000, 10_000, 18_000))
    proposed(1, 0, made)
    answer(made, 1, 10_000, 1, 2, 3)
    assert not gave_up(made, 20_000)
    answer(made, 1, 20_500, 6)
    assert [each.path for each in made.out.take().decided] == [Path.FAST]


def test_where_all_are_slower_nobody_is_given_up():
    """Load rises tenfold between two commands: the slow quorum itself is late."""
    made = replica(0, 7, EQUAL_RTTS)
    proposed(1, 0, made)
    answer(made, 1, 100_000, 1, 2, 3)
    assert not gave_up(made, 250_000)
    answer(made, 1, 260_000, 4)
    assert [each.path for each in made.out.take().decided] == [Path.FAST]


def test_answers_that_differ_get_no_such_extra():
    made = replica(0, 7, EQUAL_RTTS)
    proposed(1, 0, made)
    answer(made, 1, 100_000, 1, deps=(0, 4, 0, 0, 0, 0, 0))
    answer(made, 1, 100_000, 2, 3)
    assert sent(made, AcceptShort)


@pytest.mark.parametrize("how", ["accepting", "committed"])
def test_answers_to_an_attempt_that_ended_still_teach(how):
    made = replica(0, 7, EQUAL_RTTS)
    proposed(1, 0, made)
    answer(made, 1, 10_000, 1, 2, 3)
    if how == "accepting":
        assert gave_up(made, HALF_LATE)
    else:
        answer(made, 1, 10_000, 4)
    answer(made, 1, 30_000, 4, 5, 6)
    later = 1_000_000
    proposed(2, later, made)
    answer(made, 2, later + 10_000, 1, 2, 3)
    assert not gave_up(made, later + 37_000), "36 ms and a grace of 2 are what 5 and 6 may take"
    assert gave_up(made, later + 38_100)


def test_a_second_answer_of_a_running_attempt_teaches_nothing():
    made = replica(0, 7, EQUAL_RTTS)
    proposed(1, 0, made)
    answer(made, 1, 10_000, 1)
    answer(made, 1, 40_000, 1)
    assert made.answers.most(1, 0) == 10_000


def test_patience_goes_when_the_load_goes():
    made = replica(0, 7, EQUAL_RTTS)
    proposed(1, 0, made)
    answer(made, 1, 10_000, 1, 2, 3, 4)
    answer(made, 1, 90_000, 5, 6)
    later = 0
    for slot in range(2, 20):
        later = slot * WINDOW_US // 5
        hear(made, later, *range(1, 7))
        made.wake(later)
        proposed(slot, later, made)
        answer(made, slot, later + 10_000, 1, 2, 3, 4, 5, 6)
    proposed(20, later + 50_000, made)
    answer(made, 20, later + 60_000, 1, 2, 3)
    assert gave_up(made, later + 50_000 + 14_100)


def test_the_time_that_this_replica_stood_still_does_not_count():
    """It stood for 50 ms while it waited: the others may have stood as well, on one disk or one
    machine. It is not forgiven twice."""
    made = replica(0, 7, EQUAL_RTTS)
    proposed(1, 0, made)
    answer(made, 1, 10_000, 1, 2, 3)
    assert not gave_up(made, 64_000)
    assert not gave_up(made, 113_900)
    assert gave_up(made, 114_200)


def test_a_suspected_member_is_not_waited_for():
    made = replica(0, 7, EQUAL_RTTS)
    for now in range(0, 1_000_000, 50_000):
        hear(made, now, 1, 2, 3)
        made.wake(now)
    proposed(1, 1_000_000, made)
    answer(made, 1, 1_010_000, 1, 2, 3)
    assert sent(made, AcceptShort)


def test_who_is_farther_away_than_the_accept_round_takes_is_not_waited_for():
    made = replica(0, 7, (0, 10_000, 10_000, 10_000, 20_000, 30_000, 40_000))
    proposed(1, 0, made)
    answer(made, 1, 10_000, 1, 2, 3)
    assert sent(made, AcceptShort)


def test_who_was_once_near_is_near_under_any_load():
    """The distance of a member is its shortest answer: load makes nobody far."""
    made = replica(0, 7, (0, 10_000, 10_000, 10_000, 20_000, 30_000, 40_000))
    proposed(1, 0, made)
    answer(made, 1, 5_000, 4)
    answer(made, 1, 10_000, 1, 2, 3)
    proposed(2, 100_000, made)
    answer(made, 2, 135_000, 4)
    proposed(3, 200_000, made)
    answer(made, 3, 210_000, 1, 2, 3)
    assert not gave_up(made, 240_000)


def test_nobody_is_waited_for_longer_than_t1():
    """What was lost never comes, however long answers lately took."""
    made = replica(0, 7, EQUAL_RTTS)
    proposed(1, 0, made)
    answer(made, 1, 3_000_000, 1, 2, 3)
    t1 = made.columns.patience_us
    assert not gave_up(made, 3_000_000 + t1 - 100)
    assert gave_up(made, 3_000_000 + t1 + 100)


def test_whoever_stood_still_for_long_does_not_wait_as_long_again():
    """It stood for a minute while it waited, and what was still to come got lost meanwhile."""
    made = replica(0, 7, EQUAL_RTTS)
    proposed(1, 0, made)
    answer(made, 1, 10_000, 1, 2, 3)
    stood = 60_000_000
    assert not gave_up(made, stood)
    assert gave_up(made, stood + 2 * made.columns.patience_us)
