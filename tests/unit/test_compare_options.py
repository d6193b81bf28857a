"""What a comparison runs, said before anything is started."""

import pytest

from bench.compare.compare import Options
from bench.compare.summary import title
from epaxos.core.errors import ConfigError
from topology import TopologyError, find


def labels(options):
    return [run.label(options.topology) for run in options.runs()]


def test_one_cluster_per_protocol_and_leader():
    options = Options(find("aws-5-2020"))
    assert labels(options) == ["EPaxos", "MP @CA", "MP @EU"]


def test_a_leader_that_is_best_and_worst_runs_once():
    options = Options(find("equidistant:3,50"))
    assert labels(options) == ["EPaxos", "MP @R1"]


def test_leaders_by_name_title_and_letter():
    options = Options(find("aws-5-2020"), leaders=("JP", "tokyo", "B"))
    assert labels(options) == ["EPaxos", "MP @JP", "MP @CA"]


def test_the_default_takes_less_than_two_minutes():
    assert Options(find("aws-5-2020")).estimate_s() < 120


def test_the_first_line_says_what_is_configured():
    assert title(Options(find("aws-5-2020"), durability="memory", gate=False, seed=7)) == (
        "five regions · aws-5-2020 · n=5 · memory · 50 commands/s per region · open loop · seed 7"
        " · no gate"
    )


def test_more_regions_than_a_cluster_may_have_are_refused_before_anything_starts():
    with pytest.raises(ConfigError, match="10 regions; a cluster has at most 9"):
        Options(find("lan:10"))


@pytest.mark.parametrize(
    ("wrong", "word"),
    [
        ({"rate": 0}, "rate"),
        ({"duration_s": 0.1}, "duration_s"),
        ({"warmup_s": -1}, "warmup_s"),
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
        Options(find("aws-5-2020"), **wrong)


def test_a_leader_must_be_a_region():
    with pytest.raises(TopologyError, match="Mars"):
        Options(find("aws-5-2020"), leaders=("Mars",))
