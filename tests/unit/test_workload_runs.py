"""Workloads reach the replicas as they are written, in open and closed loops of virtual time."""

import json
import shutil

import pytest

from bench.compare.compare import ComparisonOptions
from bench.compare.simulated import compare
from bench.compare.summary import summarize, title
from bench.trials.trial import Trial, run_trial
from epaxos.cli.main import run
from epaxos.core.command import Operation
from epaxos.core.errors import ConfigError

QUICK = {"duration_s": 1.0, "warmup_s": 0.1, "rate": 30.0, "simulated": True}
OWN = '''
from dataclasses import dataclass

from epaxos.workload import Workload, bounded


@dataclass(frozen=True, kw_only=True)
class Carts(Workload):
    """A PUT into one of some carts, then a GET of the same."""

    carts: int = bounded(1000, 1, 1_000_000)

    def draw(self, client):
        while True:
            number = client.random.randrange(self.carts)
            key = f"cart-{number}".encode()
            yield client.put(key, number)
            yield client.get(key, number)
'''


def operations(tmp_path, **settings):
    trial = Trial(topology="equidistant:3,20", duration_s=2.0, simulated=True, **settings)
    samples = run_trial(trial, tmp_path).load.samples
    return {Operation(sample.operation) for sample in samples}


def test_a_read_modify_write_is_a_cas_where_clients_wait(tmp_path):
    found = operations(tmp_path, workload="ycsb-f", rate=0, clients=3)
    assert found == {Operation.GET, Operation.CAS}


def test_and_a_put_where_they_do_not(tmp_path):
    found = operations(tmp_path, workload="ycsb-f", rate=50)
    assert found == {Operation.GET, Operation.PUT}


def test_a_trial_refuses_a_wrong_workload():
    with pytest.raises(ConfigError, match="theta = 3"):
        Trial(workload="zipf:theta=3")


@pytest.mark.parametrize("workload", ["zipf:theta=0.99,keys=20,puts=0.3", "hot:puts=0.5"])
def test_slow_paths_of_reads_and_writes_are_explained(workload):
    options = ComparisonOptions(Trial(**QUICK), protocols=("epaxos",), workload=workload)
    document = summarize(options, compare(options))
    [phase] = document["phases"]
    [row] = phase["conflicts"]
    assert row["slow"] > 0
    assert row["unexplained"] == 0
    assert row["configured"] is None
    assert row["shared_share"] == 1
    assert 0 < row["realised_share"] <= 1
    assert 0 < row["realised_batch_share"] <= 1
    assert 0 < row["batches"] <= sum(cell["samples"] for cell in phase["cells"])


def test_reads_alone_never_conflict():
    options = ComparisonOptions(Trial(**QUICK), protocols=("epaxos",), workload="ycsb-c")
    document = summarize(options, compare(options))
    [row] = document["phases"][0]["conflicts"]
    assert (row["slow"], row["realised_share"], row["realised_batch_share"]) == (0, 0, 0)


def test_the_first_line_names_a_workload():
    options = ComparisonOptions(Trial(), workload="zipf:theta=0.9,keys=1000000")
    assert title(options).endswith("seed 1 · zipf:theta=0.9")
    assert options.estimate_s == pytest.approx(ComparisonOptions(Trial()).estimate_s / 3, 0.5)


@pytest.mark.parametrize(
    ("wrong", "said"),
    [("golf", "unknown workload"), ("local:remote=x", "remote = 'x'")],
)
def test_a_comparison_refuses_a_wrong_workload(wrong, said):
    with pytest.raises(ConfigError, match=said):
        ComparisonOptions(Trial(), workload=wrong)


def test_a_workload_of_ones_own_is_compared(tmp_path, monkeypatch, capsys):
    (tmp_path / "shop_of_ones_own.py").write_text(OWN, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    words = "--simulated --topology equidistant:3,50 --protocols epaxos --duration 1 --rate 20"
    code = run(
        ["compare", *words.split(), "--workload", "shop_of_ones_own:Carts,carts=5", "--json"]
    )
    document = json.loads(capsys.readouterr().out)
    [phase] = document["phases"]
    assert code == 0 or document["verdict"]["validity"] == "INVALID"
    assert phase["workload"] == phase["title"] == "shop_of_ones_own:Carts,carts=5"
    assert phase["conflicts"][0]["unexplained"] == 0
    lines = (tmp_path / document["directory"] / "samples.jsonl").read_text().splitlines()
    samples = [json.loads(line) for line in lines]
    assert {sample["shared_key"] for sample in samples} == set(range(5))
    assert {sample["operation"] for sample in samples} == {"put", "get"}
    assert {sample["workload"] for sample in samples} == {"shop_of_ones_own:Carts,carts=5"}
    page = (tmp_path / document["directory"] / "report.html").read_text(encoding="utf-8")
    assert "<h2>shop_of_ones_own:Carts,carts=5</h2>" in page
    shutil.rmtree(tmp_path / "results")


def test_a_workload_says_everything_itself(capsys):
    assert run(["compare", "--workload", "hot", "--puts", "0.5"]) == 2
    assert "--workload says everything itself" in capsys.readouterr().err
