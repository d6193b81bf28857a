"""Stages of sampled batches in the comparison: what counts, the typical batch, the figure."""

import pytest

from bench.analysis.stages import Sampled, answered, typical, waterfall
from bench.compare import simulated
from bench.compare.compare import ComparisonOptions
from bench.compare.summary import summarize
from bench.reports.stages import draw_stages
from bench.trials.trial import Trial


def explained(answer_ms, age_ms=100.0, closed_by="B", **stages):
    return {
        "answer_ms": answer_ms,
        "age_ms": age_ms,
        "stages": [
            {"name": name, "start_ms": 0.0, "ms": ms, "closed_by": closed_by * (name == "accept")}
            for name, ms in stages.items()
        ],
    }


def test_only_what_was_answered_in_the_window_counts():
    documents = [
        explained(3.0, sync=1.0, accept=2.0),
        explained(None, sync=1.0),
        explained(4.0, age_ms=2_001.0, sync=4.0),
    ]
    assert answered(documents, 2.0) == (Sampled(3.0, {"sync": 1.0, "accept": 2.0}, "B"),)


def test_the_typical_batch_is_the_mean_of_the_middle_fifth():
    samples = [Sampled(float(i), {"sync": 1.0, "preaccept": i - 1.0}, "C") for i in range(1, 11)]
    assert typical(samples) == {"sync": 1.0, "preaccept": 4.5}
    assert typical([*samples, Sampled(1e6, {"sync": 1e6}, None)]) == {
        "sync": 1.0,
        "preaccept": pytest.approx(4.5, abs=0.5),
    }
    assert list(typical([Sampled(2.0, {"reply": 1.0, "queue": 1.0}, None)])) == ["queue", "reply"]


def test_who_decides_is_counted():
    samples = [Sampled(1.0, {"sync": 1.0}, letter) for letter in ("B", "C", "B", None)]
    found = waterfall("epaxos", "VA", samples, ["VA", "CA", "OR"])
    assert found["samples"] == 4
    assert found["closed_by"] == {"CA": 0.5, "OR": 0.25}


def test_the_figure_stacks_and_names():
    shown = [
        waterfall(
            "epaxos", "VA", [Sampled(100.0, {"sync": 10.0, "preaccept": 90.0}, "B")], ["VA", "CA"]
        ),
        waterfall("multipaxos-CA", "VA", [Sampled(50.0, {"leader": 50.0}, None)], ["VA", "CA"]),
        waterfall("epaxos", "CA", [], ["VA", "CA"]) | {"stages": {}},
    ]
    runs = {"epaxos": (0, "EPaxos"), "multipaxos-CA": (1, "MP @CA")}
    titles = {"VA": "Virginia", "CA": "California"}
    drawn = draw_stages(shown, runs, titles)
    assert "pre-accept 90.0" in drawn
    assert "decided by the answer of California 100%" in drawn
    assert "50.0 MP @CA" in drawn
    assert ">Virginia<" in drawn
    assert ">California<" not in drawn
    assert draw_stages(shown[2:], runs, titles) == ""


def test_the_comparison_in_virtual_time_carries_stages():
    trial = Trial(replicas=3, rate=20.0, duration_s=1.0, warmup_s=0.2, simulated=True)
    options = ComparisonOptions(trial, leaders=("worst",), conflicts=(0.0,))
    document = summarize(options, simulated.compare(options))
    (phase,) = document["phases"]
    found = {(each["run"], each["region"]): each for each in phase["waterfalls"]}
    assert len(found) == 6
    for cell in phase["cells"]:
        mine = found[cell["run"], cell["region"]]
        assert mine["samples"] > 5
        assert sum(mine["stages"].values()) == pytest.approx(cell["answer"]["p50"], abs=0.5)
    ours = found["epaxos", "VA"]["stages"]
    assert ours["preaccept"] > 50
    assert ours["sync"] == ours["commit"] == 0.2
    leader = next(run["leader"] for run in document["runs"] if run["leader"])
    for (run, region), each in found.items():
        if run != "epaxos":
            assert ("accept" if region == leader else "leader") in each["stages"]
