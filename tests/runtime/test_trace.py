"""Real replicas record, and their traces live again: nothing differs until something is changed."""

import json
import os
import re
import signal
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest
from processes import ProcessCluster
from test_up import get, put, running

from epaxos.cli.exits import ExitCode
from epaxos.cli.sim_replay import replay
from epaxos.core.errors import StorageError
from epaxos.protocols.epaxos.replica import EPaxosReplica
from epaxos.registry import find_protocol

COMMANDS = 48
WITHIN_S = 20


class Forgetful(EPaxosReplica):
    """An acceptor that adds nothing to the deps it was sent."""

    def _acceptor_deps(self, replica, payload, initial):
        return initial


def work(c, indexes, commands=COMMANDS, value=b"value"):
    """Conflicting commands through several replicas at once; how many were answered."""

    def one(number):
        replica = c[indexes[number % len(indexes)]]
        key = "hot" if number % 2 else f"k{number}"
        if number % 6 == 5:
            return replica.get(key) != 0
        return replica.put(key, value) == 200

    with ThreadPoolExecutor(6) as pool:
        return sum(pool.map(one, range(commands)))


def replayed(directory, capsys, instance=None):
    """The exit code and the document of a replay."""
    capsys.readouterr()
    code = replay(directory, instance, json=True)
    return code, json.loads(capsys.readouterr().out)


def recording(tmp_path, n=3, **settings):
    return ProcessCluster(tmp_path, n, record=str(tmp_path / "traces"), **settings)


@pytest.mark.parametrize("protocol", ["epaxos", "multipaxos"])
def test_a_recorded_cluster_replays_without_a_difference(tmp_path, capsys, protocol):
    with recording(tmp_path, protocol=protocol) as c:
        c.start_all()
        assert work(c, (0, 1, 2)) == COMMANDS
        assert c[1].http("GET", "/v1/graph")[0] == 200
        assert c[1].http("GET", "/v1/instances/A.1")[0] in (200, 404)
        assert c[2].status()["region"] == "OR"
        assert [c[i].stop() for i in range(3)] == [0, 0, 0]
    code, document = replayed(tmp_path / "traces", capsys)
    assert (code, document["differing"], document["remarks"]) == (ExitCode.OK, 0, [])
    lives = document["replicas"]
    assert [life["region"] for life in lives] == ["VA", "CA", "OR"]
    assert sum(life["counts"]["commands"] for life in lives) == COMMANDS
    assert all(life["end"] == "closed" and life["differing_steps"] == 0 for life in lives)
    slowest = lives[0]["slowest"][0]["id"]
    code, document = replayed(tmp_path / "traces", capsys, slowest)
    assert code == ExitCode.OK
    told = document["instance"]
    does = {(event["replica"], event["does"]) for event in told["events"]}
    assert {(letter, "executes") for letter in "ABC"} <= does
    assert {what for _, what in does} >= {"takes", "logs", "sends", "hears", "answers"}


def test_a_killed_replica_and_its_second_life(tmp_path, capsys):
    with recording(tmp_path) as c:
        c.start_all()
        assert work(c, (0, 1, 2)) == COMMANDS
        c[2].kill()
        assert work(c, (0, 1), 12) == 12
        c.start(2).wait_ready()
        assert work(c, (2,), 6) == 6
        for i in range(3):
            c[i].stop()
    code, document = replayed(tmp_path / "traces", capsys)
    assert code == ExitCode.OK
    lives = {(life["region"], life["boot"]): life for life in document["replicas"]}
    assert sorted(lives) == [("CA", 1), ("OR", 1), ("OR", 2), ("VA", 1)]
    assert lives["OR", 1]["end"] is None
    assert lives["OR", 2]["counts"]["restored"] > 0
    assert lives["OR", 2]["counts"]["commands"] == 6
    (remark,) = [r for r in document["remarks"] if "OR.1.trace was not closed" in r]
    assert "killed" in remark


DIES_AFTER_PREACCEPT = """
import os, signal
from epaxos.protocols.epaxos.messages import PreAccept
from epaxos.runtime.transport import Transport
real = Transport.send
def send(self, messages):
    real(self, messages)
    if any(isinstance(message, PreAccept) for _, message in messages):
        os.kill(os.getpid(), signal.SIGKILL)
Transport.send = send
"""


def test_the_chart_of_a_recovery_needs_no_trace_of_the_dead(tmp_path, capsys):
    with recording(tmp_path) as c:
        c.start(0, prelude=DIES_AFTER_PREACCEPT)
        c.start(1, 2)
        for i in range(3):
            c[i].wait_ready()
        assert c[0].put("hot", b"of A") == 0
        limit = time.monotonic() + WITHIN_S
        while c[1].put("hot", b"of B") != 200:
            assert time.monotonic() < limit
        for i in (1, 2):
            c[i].stop()
    code, document = replayed(tmp_path / "traces", capsys)
    assert code == ExitCode.OK
    assert any("A.1" in life["recovered"] for life in document["replicas"])
    assert replay(tmp_path / "traces", "A.1", json=False) == ExitCode.OK
    said = capsys.readouterr().out
    assert said.startswith("A.1 · ")
    assert "PUT hot · recovered" in said
    assert "◀── VA  PreAccept A.1" in said
    assert re.search(r"(CA|OR) ──▶ .*Recover ", said)
    assert re.search(r"(CA|OR) decides A\.1.* \(recovered\)", said)


def test_another_rule_differs_and_the_place_is_named(tmp_path, capsys):
    with recording(tmp_path, gate=False) as c:
        c.start_all()
        assert work(c, (0, 1, 2)) == COMMANDS
        for i in range(3):
            c[i].stop()
    changed = replace(find_protocol("epaxos"), replica=Forgetful)
    assert replay(tmp_path / "traces", None, json=False, spec=changed) == ExitCode.FAILED
    said = capsys.readouterr().out
    assert "differs from step " in said
    (first, *_) = [line for line in said.splitlines() if line.startswith("  recorded")]
    assert "PreAccepted " in first
    assert replay(tmp_path / "traces", None, json=False) == ExitCode.OK


def test_a_bad_end_is_cut_and_damage_is_named(tmp_path, capsys):
    with recording(tmp_path, n=1, durability="memory") as c:
        c.start_all(data=None)
        assert work(c, (0,), 20) == 20
        c[0].stop()
    path = tmp_path / "traces" / "VA.1.trace"
    whole = path.read_bytes()
    path.write_bytes(whole[:-30])
    code, document = replayed(tmp_path / "traces", capsys)
    assert code == ExitCode.OK
    assert "VA.1.trace: the frame at byte " in document["replicas"][0]["torn"]
    damaged = bytearray(whole)
    damaged[len(whole) * 2 // 3] ^= 0xFF
    path.write_bytes(damaged)
    with pytest.raises(StorageError, match=r"VA\.1\.trace.* at byte \d+"):
        replay(tmp_path / "traces", None, json=False)
    path.write_bytes(b"\0" * 4096)
    with pytest.raises(StorageError, match=r"VA\.1\.trace: byte 0 does not begin a trace"):
        replay(tmp_path / "traces", None, json=False)


def test_at_the_limit_the_recording_ends_and_the_replica_goes_on(tmp_path, capsys):
    with recording(tmp_path, n=1, record_mib=1) as c:
        c.start_all()
        for number in range(12):
            assert c[0].put(f"k{number}", b"x" * 200_000) == 200
        assert c[0].stop() == 0
        assert any("recording stopped" in line for line in c[0].log)
    assert (tmp_path / "traces" / "VA.1.trace").stat().st_size <= 1 << 20
    code, document = replayed(tmp_path / "traces", capsys)
    assert code == ExitCode.OK
    assert "reached record_mib = 1" in document["remarks"][0]


def test_a_trace_grows_while_the_replica_runs(tmp_path, capsys):
    with recording(tmp_path, n=1, durability="memory") as c:
        c.start_all(data=None)
        assert c[0].put("k", b"v") == 200
        limit = time.monotonic() + WITHIN_S
        while True:
            code, document = replayed(tmp_path / "traces", capsys)
            assert code == ExitCode.OK
            if document["replicas"][0]["counts"].get("answered") == 1:
                break
            assert time.monotonic() < limit, document
            time.sleep(0.1)


def test_a_directory_that_cannot_be_written_ends_the_start(tmp_path):
    (tmp_path / "traces").write_text("")
    with recording(tmp_path, n=1) as c:
        c.start(0)
        code, said = c[0].ended()
    assert code == ExitCode.CONFIG
    assert "record = " in said
    assert "name a directory that can be written" in said


def test_up_records_what_people_do(tmp_path, capsys):
    arguments = ["--data", str(tmp_path / "kept"), "--topology", "lan:3", "--record", "--json"]
    with running(*arguments) as up:
        ready = json.loads(up.wait(lambda line: '"ready"' in line))
        urls = [each["http"] for each in ready["replicas"]]
        for number in range(9):
            assert put(urls[number % 3], "greeting", b"hello") == 200
        assert get(urls[1], "greeting") == b"hello"
        assert up.stop(signal.SIGINT) == ExitCode.OK
    directory = ready["record"]
    assert os.path.dirname(directory) == str(tmp_path / "kept" / "traces")
    code, document = replayed(tmp_path / "kept" / "traces" / os.path.basename(directory), capsys)
    assert (code, document["remarks"]) == (ExitCode.OK, [])
    assert document["regions"] == ["Region 1", "Region 2", "Region 3"]
    assert sum(life["counts"]["commands"] for life in document["replicas"]) == 10


def test_up_says_where_the_traces_are(tmp_path):
    data = str(tmp_path / "kept")
    with running("--topology", "lan:1", "--durability", "memory", "--data", data, "--record") as up:
        line = up.wait(lambda line: line.startswith("recording every input in "))
        assert str(tmp_path / "kept" / "traces") in line
        up.wait(lambda line: line.startswith("then:  epaxos sim replay "))
        assert up.stop() == ExitCode.OK
