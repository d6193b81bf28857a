"""Lives of a replica: which of them a peer lets in."""

import pytest

from epaxos.core.lineage import NO_LIFE, Life, descends, judge_life


@pytest.mark.parametrize(
    ("remembered", "is_own"),
    [
        (NO_LIFE, True),
        (Life(1, "a"), True),
        (Life(3, "c"), True),
        (Life(2, "c"), False),
        (Life(3, "x"), False),
        (Life(4, "d"), False),
        (Life(2, ""), True),
        (Life(3, ""), False),
        (Life(4, ""), False),
    ],
)
def test_a_life_descends_from_those_that_its_directory_lived(remembered, is_own):
    assert descends(["a", "b", "c"], remembered) == is_own


@pytest.mark.parametrize(
    ("said", "shown", "verdict"),
    [
        (Life(3, "c"), "", "known"),
        (Life(3, "x"), "c", "twin"),
        (Life(2, "b"), "c", "regressed"),
        (Life(4, "d"), "c", "newer"),
        (Life(4, "d"), "", "stranger"),
        (Life(99, "d"), "b", "stranger"),
    ],
)
def test_a_later_life_is_let_in_with_the_nonce_that_is_remembered(said, shown, verdict):
    assert judge_life(Life(3, "c"), said, shown) == verdict


def test_whom_nobody_met_is_let_in():
    assert judge_life(NO_LIFE, Life(7, "g"), "") == "newer"


def test_however_often_an_emptied_directory_starts_it_does_not_descend():
    lives = [f"empty {boot}" for boot in range(1, 100)]
    assert not any(descends(lives[:boot], Life(3, "c")) for boot in range(1, 100))
