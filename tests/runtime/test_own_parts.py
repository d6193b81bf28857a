"""A protocol and a state machine from outside, in real processes; what they did can be replayed."""

import os
import urllib.request

from bench.clusters.local import ClusterOptions, LocalCluster
from epaxos.runtime.config import config_hash, load_cluster
from epaxos.sim.replay import Replay
from epaxos.trace import TraceReader
from tests.house.sources import ROOT
from topology import find

EXAMPLES = str(ROOT / "docs" / "examples")


def ask(port, method, key, body=None):
    url = f"http://127.0.0.1:{port}/v1/kv/{key}"
    wanted = urllib.request.Request(url, data=body, method=method)
    with urllib.request.urlopen(wanted, timeout=20) as answer:
        return answer.read()


def test_parts_from_outside_run_in_processes_and_are_replayed(tmp_path, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", EXAMPLES, prepend=os.pathsep)
    monkeypatch.syspath_prepend(EXAMPLES)
    options = ClusterOptions(
        protocol="unanimous:SPEC",
        durability="fsync",
        record=str(tmp_path / "traces"),
        more={"state_machine": "counters:Counters"},
    )
    with LocalCluster(find("equidistant:3,4"), tmp_path, options) as cluster:
        cluster.start()
        ports = [each.http for each in cluster.ports]
        ask(ports[0], "PUT", "visits", b"5")
        ask(ports[1], "PUT", "visits", b"7")
        assert ask(ports[2], "GET", "visits") == b"12"
        cluster.kill(1)
        cluster.restart(1)
        ask(ports[1], "PUT", "visits", b"30")
        assert ask(ports[1], "GET", "visits") == b"42"
    traces = sorted((tmp_path / "traces").iterdir())
    assert len(traces) == 4
    steps = 0
    for path in traces:
        trace = TraceReader(path.name, path.read_bytes())
        assert trace.header.state_machine == "counters:Counters"
        replay = Replay(trace).run()
        assert replay.failure is None
        assert replay.divergence is None
        steps += replay.steps
    assert steps > 10


def test_replicas_with_other_state_machines_are_of_other_clusters(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(EXAMPLES)
    member = "[[replicas]]\nregion = 'A'\npeer_port = 7\nclient_port = 8\nhttp_port = 9\n"
    path = tmp_path / "cluster.toml"
    path.write_text(f"cluster = 'c'\n{member}")
    plain = load_cluster(path, {}, {})
    other = load_cluster(path, {"state_machine": "counters:Counters"}, {})
    assert config_hash(plain) != config_hash(other)
