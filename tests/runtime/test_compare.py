"""The comparison with real replicas, short; Ctrl-C and the parent's death leave nothing running."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from bench.clusters.local import ClusterOptions, LocalCluster
from epaxos.cli.exits import ExitCode
from epaxos.cli.main import run
from epaxos.core.errors import EpaxosError
from topology import find

SHORT = ["--topology", "equidistant:3,20", "--duration", "1.5", "--warmup", "0.3", "--rate", "40"]
ENDS_WITHIN_S = 90


def lives(pid):
    """Whether a process runs; one that nobody has waited for is dead."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state != "Z"


def eventually(condition):
    limit = time.monotonic() + ENDS_WITHIN_S
    while not condition():
        assert time.monotonic() < limit, "not in time"
        time.sleep(0.05)


def test_compare_from_end_to_end(tmp_path, capfd):
    out = tmp_path / "results"
    code = run(
        ["compare", *SHORT, "--conflicts", "0,50", "--leader", "R1", "--out", str(out), "--json"]
    )
    document = json.loads(capfd.readouterr().out)
    # A machine that is busy with other things may make the run invalid, and says so.
    assert code in (ExitCode.OK, ExitCode.FAILED)
    assert (code == ExitCode.FAILED) == (document["verdict"]["validity"] == "INVALID")
    assert [r["run"] for r in document["runs"]] == ["epaxos", "multipaxos-R1"]
    for phase in document["phases"]:
        assert len(phase["cells"]) == 6
        for cell in phase["cells"]:
            fates = cell["fates"]
            assert fates["sent"] > 20
            assert fates["answered"] == fates["sent"] == cell["samples"]
            assert sum(cell["paths"].values()) == cell["samples"]
            assert 0 < cell["commit"]["p50"] <= cell["answer"]["p50"]
            # Nothing is faster than the configured links; three digits of a histogram are.
            assert cell["commit"]["p50"] > cell["optimum"]["network_ms"] * 0.97
            assert cell["commit"]["p99"] is None
        assert len(phase["comparisons"]) == 3
        assert all(cost["messages"] > 1 and cost["syncs"] > 0 for cost in phase["costs"])
    first, second = document["phases"]
    assert all(c["fast_share"] == 1 for c in first["cells"] if c["run"] == "epaxos")
    assert first["conflicts"][0]["slow"] == first["conflicts"][0]["unexplained"] == 0
    assert second["conflicts"][0]["slow"] > 0
    assert second["conflicts"][0]["unexplained"] == 0

    [directory] = out.iterdir()
    assert str(directory) == document["directory"]
    written = json.loads((directory / "summary.json").read_text())
    assert written["phases"] == document["phases"]
    manifest = json.loads((directory / "manifest.json").read_text())
    assert manifest["seed"] == 1
    assert manifest["setup"]["quorums"] == {"n": 3, "f": 1, "e": 1, "fast": 2, "slow": 2}
    lines = (directory / "samples.jsonl").read_text().splitlines()
    assert len(lines) == sum(c["samples"] for p in document["phases"] for c in p["cells"])
    assert json.loads(lines[0])["instance"].startswith(("A.", "B.", "C."))
    assert "<html" in (directory / "report.html").read_text()
    assert not list(directory.glob("replicas/*/data-*"))


def test_compare_in_words(tmp_path, capfd):
    code = run(
        [
            *("compare", *SHORT, "--protocols", "epaxos", "--conflicts", "0"),
            *("--durability", "memory", "--out", str(tmp_path)),
        ]
    )
    said = capfd.readouterr().out
    assert code in (ExitCode.OK, ExitCode.FAILED)
    assert said.startswith("three regions · equidistant:3,20 · n=3 · memory · 40 commands/s")
    assert "Region 3" in said
    assert "At 0 % conflicts EPaxos commits" in said
    assert "loop lag p99" in said


def test_compare_in_virtual_time(tmp_path, capfd):
    place = ["--topology", "equidistant:5,80", "--replicas", "3", "--out", str(tmp_path)]
    quick = ["--duration", "2.5", "--warmup", "0.2", "--conflicts", "0,50", "--leader", "R1"]
    arguments = ["compare", "--simulated", *place, *quick, "--clients", "R1,Region 2,R3,R4"]
    assert run([*arguments, "--json"]) == ExitCode.OK
    document = json.loads(capfd.readouterr().out)
    assert document["simulated"] is True
    assert document["verdict"]["validity"] == "VALID"
    first = document["phases"][0]["cells"]
    assert [(c["region"], c["replica"]) for c in first[::2]] == [
        ("R1", "R1"),
        ("R2", "R2"),
        ("R3", "R3"),
        ("R4", "R1"),
    ]
    assert [round(c["commit"]["p50"]) for c in first if c["run"] == "epaxos"] == [81, 81, 81, 161]
    directory = Path(document["directory"])
    names = ["manifest.json", "report.html", "samples.jsonl", "summary.json"]
    assert sorted(path.name for path in directory.iterdir()) == names
    assert json.loads((directory / "manifest.json").read_text())["setup"]["simulated"] is True

    assert run([*arguments, "--sync-ms", "10", "--jitter", "--unsafe-no-gate"]) == ExitCode.OK
    said = capfd.readouterr()
    assert "no gate · virtual time · syncs of 10 ms · jitter · clients in 4 regions" in " ".join(
        said.out.split()
    )
    assert "Region 4 → Region 1" in said.out
    assert "VALID  virtual time" in said.out
    assert "EPaxos · 50 % conflicts · about" in said.err


@pytest.mark.parametrize(
    ("wrong", "word"),
    [
        (["--clients", "R1"], "add --simulated"),
        (["--sync-ms", "1"], "add --simulated"),
        (["--jitter"], "add --simulated"),
        (["--simulated", "--clients", "Mars"], "error: the source of topology"),
        (["--simulated", "--sync-ms", "-1"], "sync_ms"),
        (["--topology", "aws-5-2020", "--replicas", "7"], "name one with more"),
        (["--topology", "nowhere"], "error: there is no topology 'nowhere'"),
        (["--leader", "Mars"], "Mars"),
        (["--conflicts", "2,x"], "--conflicts"),
        (["--conflicts", "2,2"], "twice"),
        (["--protocols", "raft"], "raft"),
        (["--rate", "0"], "rate"),
        (["--durability", "hope"], "fsync or memory"),
    ],
)
def test_what_was_asked_wrongly_is_one_line(tmp_path, capfd, wrong, word):
    assert run(["compare", *SHORT, "--out", str(tmp_path / "out"), *wrong]) == ExitCode.CONFIG
    said = capfd.readouterr()
    assert not said.out
    assert said.err.startswith("error: ")
    assert said.err.count("\n") == 1
    assert word in said.err
    assert not (tmp_path / "out").exists()


def command_of(pid):
    return Path(f"/proc/{pid}/cmdline").read_bytes()


def replica_pids(directory):
    """The replicas whose settings lie below a directory."""
    found = []
    for entry in Path("/proc").iterdir():
        try:
            words = (entry / "cmdline").read_bytes().decode(errors="replace")
        except OSError:
            continue
        if str(directory) in words and ("serve" in words or "bench.load.client" in words):
            found.append(int(entry.name))
    return found


@pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGKILL])
def test_nothing_is_left_behind(tmp_path, number):
    command = [sys.executable, "-m", "epaxos", "compare", *SHORT, "--duration", "60"]
    process = subprocess.Popen(
        [*command, "--out", str(tmp_path)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )
    try:
        eventually(lambda: len([*filter(lives, replica_pids(tmp_path))]) == 4)
        pids = replica_pids(tmp_path)
        process.send_signal(number)
        code = process.wait(ENDS_WITHIN_S)
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()
    eventually(lambda: not any(map(lives, pids)))
    if number != signal.SIGKILL:
        assert code == ExitCode.INTERRUPTED
        assert not list(tmp_path.iterdir())


@pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")
def test_a_replica_that_is_killed_makes_its_trial_invalid_and_no_other(tmp_path):
    """The trial goes on without it, and its history is judged; the next has a new cluster."""
    command = [sys.executable, "-m", "epaxos", "compare", *SHORT, "--conflicts", "0,100", "--check"]
    process = subprocess.Popen(
        [*command, "--duration", "4", "--protocols", "epaxos", "--json", "--out", str(tmp_path)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        said = process.stderr
        while "0 % conflicts" not in (line := said.readline()):
            assert line, "ended before it began"
        replicas = [
            pid for pid in replica_pids(tmp_path) if b"serve" in command_of(pid).split(b"\0")
        ]
        os.kill(max(replicas), signal.SIGKILL)
        out, _ = process.communicate(timeout=ENDS_WITHIN_S)
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()
    assert process.returncode == ExitCode.FAILED
    document = json.loads(out)
    first, second = document["phases"]
    assert [death["last_words"] for death in first["deaths"]] == ["killed by signal 9"]
    assert second["deaths"] == []
    assert any("ended: killed by signal 9" in why for why in document["verdict"]["reasons"])
    assert [row["verdict"] for phase in (first, second) for row in phase["histories"]] == ["OK"] * 2
    assert all(cell["fates"]["lost"] == 0 for cell in second["cells"])


@pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGKILL])
def test_nothing_is_left_behind_in_virtual_time(tmp_path, number):
    command = [sys.executable, "-m", "epaxos", "compare", "--simulated", *SHORT]
    process = subprocess.Popen(
        [*command, "--duration", "3000", "--out", str(tmp_path)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )
    try:
        workers = min(os.cpu_count(), 2)
        eventually(lambda: len(workers_of(process.pid)) == (workers if workers > 1 else 0))
        pids = workers_of(process.pid)
        process.send_signal(number)
        said = process.communicate(timeout=ENDS_WITHIN_S)[1].decode()
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()
    eventually(lambda: not any(map(lives, pids)))
    if number != signal.SIGKILL:
        assert process.returncode == ExitCode.INTERRUPTED
        assert "stopped; nothing was kept" in said
        assert "Traceback" not in said
        assert not list(tmp_path.iterdir())


def workers_of(parent):
    """The processes that simulate for another one."""
    found = []
    for entry in Path("/proc").iterdir():
        try:
            words = (entry / "cmdline").read_bytes().decode(errors="replace")
            state = (entry / "stat").read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if "bench.workers" in words and int(state[1]) == parent:
            found.append(int(entry.name))
    return found


def test_a_replica_that_dies_can_be_started_again(tmp_path):
    with LocalCluster(find("lan:3"), tmp_path, ClusterOptions()) as cluster:
        cluster.start()
        pid = cluster.processes[1].pid
        cluster.kill(1)
        assert not cluster.processes[1].running
        assert cluster.processes[1].code == -signal.SIGKILL
        cluster.restart(1)
        assert cluster.processes[1].status()["boot"] == 2
        assert cluster.processes[1].pid != pid
        pids = [process.pid for process in cluster.processes]
    assert not any(map(lives, pids))


def test_a_replica_that_cannot_start_says_why(tmp_path):
    with LocalCluster(find("lan:3"), tmp_path, ClusterOptions()) as cluster:
        cluster.start()
        other = LocalCluster(find("lan:3"), tmp_path / "other", ClusterOptions(), cluster.ports)
        with pytest.raises(EpaxosError, match=r"R1 did not start: .*port"), other:
            other.start()
        assert all(process.running for process in cluster.processes)
    assert not any(lives(p.pid) for p in cluster.processes if p.pid)
    assert os.path.exists(tmp_path / "R1.log")
