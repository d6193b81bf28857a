"""What a comparison runs, said before anything is started."""

from dataclasses import replace

import pytest

from bench.compare.compare import ComparisonOptions
from bench.compare.summary import title
from bench.trials.trial import Trial
from epaxos.core.errors import ConfigError


def compared(topology="aws-5-2020", *, leaders=("best", "worst"), **trial):
    return ComparisonOptions(Trial(topology=topology, **trial), leaders=leaders)


def labels(options):
    return [cluster.label for cluster in options.clusters]


def test_one_cluster_per_protocol_and_leader():
    options = compared()
    assert labels(options) == ["EPaxos", "MP @CA", "MP @EU"]


def test_a_leader_that_is_best_and_worst_runs_once():
    options = compared("equidistant:3,50")
    assert labels(options) == ["EPaxos", "MP @R1"]


def test_leaders_by_name_title_and_letter():
    options = compared(leaders=("JP", "tokyo", "B"))
    assert labels(options) == ["EPaxos", "MP @JP", "MP @CA"]


def test_the_default_takes_less_than_two_minutes():
    assert compared().estimate_s < 120


def test_the_first_line_says_what_is_configured():
    assert title(compared(durability="memory", gate=False, seed=7)) == (
        "five regions · aws-5-2020 · n=5 · memory · 50 commands/s per region · open loop · seed 7"
        " · no gate"
    )


def test_more_regions_than_a_cluster_may_have_are_refused_before_anything_starts():
    with pytest.raises(ConfigError, match="10 regions; a cluster has at most 9"):
        compared("lan:10")


@pytest.mark.parametrize(
    ("wrong", "word"),
    [
        ({"conflicts": ()}, "nothing to compare"),
        ({"conflicts": (0, 0)}, "twice"),
        ({"conflicts": (-1,)}, "conflict"),
        ({"protocols": ("raft",)}, "raft"),
        ({"leaders": ()}, "leader"),
        ({"value_size": -1}, "value_size"),
    ],
)
def test_what_cannot_be_run_is_refused_with_its_name(wrong, word):
    with pytest.raises(ConfigError, match=word):
        ComparisonOptions(Trial(), **wrong)


@pytest.mark.parametrize(
    "wrong", [{"clients": 3, "rate": 0.0}, {"faults": ("crash:JP@1",)}], ids=["closed", "faults"]
)
def test_a_comparison_is_an_open_loop_in_which_nothing_fails(wrong):
    with pytest.raises(ConfigError, match="open loop, and nothing fails"):
        ComparisonOptions(Trial(**wrong))


def test_the_trials_of_a_cluster_differ_in_their_workload_only():
    options = ComparisonOptions(Trial(seed=3, batch_commands=7), conflicts=(0.0, 50.0))
    for cluster in options.clusters:
        first, second = cluster.trials
        assert (first.workload, second.workload) == ("conflict:0", "conflict:50")
        assert replace(first, workload=second.workload) == second
        assert (first.seed, first.batch_commands) == (3, 7)


def test_a_leader_must_be_a_region():
    with pytest.raises(ConfigError, match=r"leader = 'Mars': .* has no region 'Mars'"):
        compared(leaders=("Mars",))
