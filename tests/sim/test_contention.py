"""R12: what the rule for contended keys does, and what happens without it."""

import topology
from epaxos.sim.contention import contend


def test_with_the_rule_every_answer_comes_within_six_round_trips():
    found = contend(topology.find(), True, 100, 30)
    assert found.sent > 14_000
    assert found.p99_us <= 6 * found.rtt_max_us
    assert found.oldest_us <= 6 * found.rtt_max_us


def test_without_the_rule_the_oldest_command_ages_as_long_as_the_load_lasts():
    short = contend(topology.find(), False, 100, 3)
    long = contend(topology.find(), False, 100, 6)
    assert short.oldest_us > 0.9 * 3_000_000
    assert long.oldest_us > 0.9 * 6_000_000
