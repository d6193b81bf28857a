"""Closed windows against real processes."""

import json
import signal
import subprocess
import sys

import pytest

from bench.clusters.local import ClusterOptions, LocalCluster
from bench.history.judge import judge
from bench.history.reading import read_lines
from bench.throughput.suite import ThroughputOptions, run_suite, summarize
from bench.throughput.window import KEPT_SHARE, WindowSpec, run_window
from topology import find

pytestmark = pytest.mark.timeout(120)


@pytest.fixture(scope="module")
def ports(tmp_path_factory):
    options = ClusterOptions(durability="memory", emulate=False)
    with LocalCluster(find("lan:3"), tmp_path_factory.mktemp("bench"), options) as cluster:
        cluster.start()
        yield [each.client for each in cluster.ports]


@pytest.mark.parametrize(
    ("window", "settings"),
    [(1, {}), (2, {}), (60, {}), (60, {"form": "single"}), (60, {"one_key": True})],
)
async def test_a_window_is_kept_full_and_every_command_is_answered(ports, window, settings):
    label = f"{window}{settings}"
    found = await run_window(
        WindowSpec(
            ports=ports, window=window, label=label, warmup_s=0.1, duration_s=0.3, **settings
        )
    )
    assert found.answered > window
    assert found.refused == found.unanswered == 0
    assert found.commands_per_s > 0
    assert 0 < found.p50_us <= found.p99_us
    assert found.marked > 0


@pytest.mark.parametrize("form", ["columns", "single"])
@pytest.mark.parametrize("one_key", [False, True])
async def test_a_window_keeps_whole_keys(ports, form, one_key, tmp_path):
    path = tmp_path / "load-1.jsonl"
    spec = WindowSpec(
        ports=ports,
        window=120,
        form=form,
        one_key=one_key,
        label=f"kept-{form}{one_key}",
        warmup_s=0.1,
        duration_s=0.3,
        history=str(path),
        initial="absent" if not one_key else "other",
    )
    found = await run_window(spec)
    history = read_lines([path])
    kept = sum(map(len, history.keys.values()))
    assert not history.unfinished
    assert judge(history.keys, history.initial).verdict == "OK"
    if one_key:
        assert kept == found.answered
        assert len(history.keys) == 1
    else:
        numbers = [int(key.rpartition(b"-")[2]) for key in history.keys]
        assert all(number % KEPT_SHARE == 0 for number in numbers)
        assert 0 < kept <= found.answered / KEPT_SHARE + len(ports)
    values = [call.value for calls in history.keys.values() for call in calls]
    assert len(set(values)) == len(values)


def test_the_benchmark_reads_back_what_it_kept(tmp_path):
    options = ThroughputOptions(
        repeats=1, seconds=0.2, windows=(60,), only="EPaxos, 3 replicas, memory", check=True
    )
    runs = run_suite(options, tmp_path)
    document = summarize(options, runs)
    assert document["setup"]["check"]
    assert [row["verdict"] for row in document["histories"]] == ["OK"] * len(runs)
    shares = {row["case"]: row["share"] for row in document["histories"]}
    assert {share for case, share in shares.items() if "one key" in case} == {1}
    assert KEPT_SHARE in shares.values()
    # Written once and read back through each replica, where a key has one write.
    assert all(row["calls"] > row["keys"] for row in document["histories"])


def test_unbatched_means_one_command_per_instance(tmp_path):
    options = ThroughputOptions(
        repeats=2, seconds=0.2, windows=(30,), only="EPaxos, 3 replicas, memory, unbatched"
    )
    heard = []
    runs = run_suite(options, tmp_path, heard.append)
    assert [run.repeat for run in runs] == [0, 1]
    assert {each.what for each in heard} == {
        "repeat 1 of 2",
        "repeat 2 of 2",
    }
    for run in runs:
        assert run.commands_per_instance == pytest.approx(1, rel=0.02)
        assert run.fast_share > 0.9
        assert set(run.cpu_us) == {"client", "A", "B", "C"}
        assert run.syncs_per_command == 0


def epaxos(*arguments):
    return [sys.executable, "-m", "epaxos.cli.main", *arguments]


def test_the_verb_prints_one_document_and_keeps_it(tmp_path):
    arguments = ("bench", "--only", "echo", "--windows", "10", "--seconds", "0.2", "--json")
    done = subprocess.run(
        epaxos(*arguments, "--repeats", "2", "--out", str(tmp_path)),
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    document = json.loads(done.stdout)
    assert [row["window"] for row in document["rows"]] == [10, 10]
    assert all(len(row["repeats"]) == 2 for row in document["rows"])
    (kept,) = tmp_path.glob("*-bench/bench.json")
    assert json.loads(kept.read_text()) == {
        key: value for key, value in document.items() if key != "directory"
    }
    assert not (kept.parent / "replicas").exists()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_an_interruption_leaves_nothing(tmp_path, number):
    process = subprocess.Popen(
        epaxos("bench", "--only", "EPaxos, 3 replicas, memory", "--out", str(tmp_path)),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        assert process.stderr.readline().endswith(" to go\n")
        process.send_signal(number)
        _, said = process.communicate(timeout=30)
    finally:
        process.kill()
        process.wait()
    assert process.returncode == 130, said
    assert "nothing was kept" in said
    assert list(tmp_path.iterdir()) == []
