"""The set of numbers that mostly come in order."""

import random

from epaxos.protocols.leader_based.runs import Runs


def test_runs_agree_with_a_set():
    chance = random.Random(5)
    runs, numbers = Runs(), set()
    for _ in range(3000):
        number = chance.randrange(400)
        assert runs.add(number) == (number not in numbers)
        numbers.add(number)
    assert runs._firsts == [0]
    assert runs._lasts == [399]


def test_numbers_in_order_take_one_run():
    runs = Runs()
    assert all(runs.add(number) for number in range(1 << 40, (1 << 40) + 1000))
    assert len(runs._firsts) == 1
    assert not runs.add((1 << 40) + 500)
