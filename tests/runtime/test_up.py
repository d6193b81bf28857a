"""`epaxos up` as people use it: ports that are printed, figures, Ctrl-C."""

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from contextlib import contextmanager

import pytest
from processes import free_ports

from bench.clusters.local import Ports, check_ports
from epaxos.cli.exits import ExitCode
from epaxos.cli.main import run
from epaxos.core.errors import AddressError
from topology import find

WITHIN_S = 30


class Up:
    """A running `epaxos up` and what it printed."""

    def __init__(self, arguments):
        command = [sys.executable, "-m", "epaxos", "up", "--free-ports", *arguments]
        self.process = subprocess.Popen(
            command,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
        )
        self.lines = []
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self):
        for line in self.process.stdout:
            self.lines.append(line)

    def wait(self, condition):
        """The first line that meets a condition; it must be met in time."""
        limit = time.monotonic() + WITHIN_S
        seen = 0
        while True:
            while seen < len(self.lines):
                if condition(self.lines[seen]):
                    return self.lines[seen]
                seen += 1
            assert self.process.poll() is None, self.process.stderr.read()
            assert time.monotonic() < limit, self.lines
            time.sleep(0.02)

    def stop(self, number=signal.SIGINT):
        """Ends it; the exit code."""
        self.process.send_signal(number)
        return self.process.wait(WITHIN_S)


@contextmanager
def running(*arguments):
    up = Up(arguments)
    try:
        yield up
    finally:
        if up.process.poll() is None:
            up.stop(signal.SIGTERM)
        up._reader.join(WITHIN_S)
        up.process.stdout.close()
        up.process.stderr.close()


def lives(pid):
    try:
        os.kill(pid, 0)
    except OSError:
        return False
    return True


def put(url, key, value):
    request = urllib.request.Request(f"{url}/v1/kv/{key}", data=value, method="PUT")
    with urllib.request.urlopen(request, timeout=WITHIN_S) as answer:
        return answer.status


def get(url, key):
    with urllib.request.urlopen(f"{url}/v1/kv/{key}", timeout=WITHIN_S) as answer:
        return answer.read()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_cluster_to_touch_that_stops_in_order(tmp_path, number):
    kept = ["--data", str(tmp_path / "kept"), "--topology", "lan:3", "--json", "--every", "0.2"]
    with running(*kept) as up:
        ready = json.loads(up.wait(lambda line: '"ready"' in line))
        assert [r["region"] for r in ready["replicas"]] == ["R1", "R2", "R3"]
        assert put(ready["replicas"][0]["http"], "greeting", b"hello") == 200
        assert get(ready["replicas"][2]["http"], "greeting") == b"hello"

        def counted(line):
            figures = json.loads(line).get("regions")
            return figures and figures[0].get("commands") == 1 and figures[0]["answer_p50_us"]

        first, *_ = json.loads(up.wait(counted))["regions"]
        assert (first["state"], first["fast_share"]) == ("ready", 1)
        os.kill(ready["replicas"][1]["pid"], signal.SIGKILL)
        up.wait(lambda line: "killed by signal 9" in line)
        assert put(ready["replicas"][0]["http"], "greeting", b"still") == 200
        assert up.stop(number) == ExitCode.OK
        assert not any(lives(replica["pid"]) for replica in ready["replicas"])
    with running(*kept) as up:
        ready = json.loads(up.wait(lambda line: '"ready"' in line))
        assert get(ready["replicas"][1]["http"], "greeting") == b"still"


def test_plain_lines_where_nobody_watches():
    with running("--topology", "lan:3", "--protocol", "multipaxos", "--durability", "memory") as up:
        up.wait(lambda line: "Multi-Paxos · leader" in line)
        up.wait(lambda line: line.startswith("ready · http://127.0.0.1:"))
        up.wait(lambda line: "epaxos kv get greeting --cluster" in line)
        assert "memory" in up.wait(lambda line: line.startswith("Region 3: ready"))
        assert up.stop() == ExitCode.OK


def test_regions_may_be_called_like_numbers_and_letters(tmp_path):
    own = tmp_path / "own.toml"
    own.write_text(
        "[regions.1]\n[regions.2]\n[regions.A]\n[links.1-2]\nrtt_ms = 1\n"
        "[links.1-A]\nrtt_ms = 1\n[links.2-A]\nrtt_ms = 1\n"
    )
    with running("--topology", str(own), "--durability", "memory", "--json") as up:
        ready = json.loads(up.wait(lambda line: '"ready"' in line))
        assert [r["region"] for r in ready["replicas"]] == ["1", "2", "A"]
        for replica in ready["replicas"]:
            with urllib.request.urlopen(f"{replica['http']}/v1/status", timeout=WITHIN_S) as answer:
                assert json.load(answer)["region"] == replica["region"]
        assert up.stop() == ExitCode.OK


@pytest.mark.parametrize(
    ("wrong", "word"),
    [
        (["--protocol", "raft"], "unknown protocol 'raft'"),
        (["--durability", "hope"], "fsync or memory"),
        (["--topology", "nowhere"], "nowhere"),
        (["--protocol", "multipaxos", "--leader", "Mars"], "Mars"),
    ],
)
def test_what_was_asked_wrongly_is_one_line(capfd, wrong, word):
    assert run(["up", "--free-ports", *wrong]) == ExitCode.CONFIG
    said = capfd.readouterr().err
    assert said.startswith("error: ")
    assert said.count("\n") == 1
    assert word in said


def test_a_port_in_use_is_named():
    ports = free_ports(3)
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", ports[1]))
        holder.listen()
        with pytest.raises(AddressError, match=f"port {ports[1]} .client port of Region 1."):
            check_ports(find("lan:1"), [Ports(*ports)])
