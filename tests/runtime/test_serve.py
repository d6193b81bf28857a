"""`epaxos serve` as people run it: processes, disks, signals, and what goes wrong at a start."""

import json
import shutil
import signal
import threading
import time

import pytest
from processes import ProcessCluster

PROTOCOLS = ["epaxos", "multipaxos"]


def eventually(condition, within=20):
    limit = time.monotonic() + within
    while not (value := condition()):
        assert time.monotonic() < limit, f"not within {within} s: {condition}"
        time.sleep(0.02)
    return value


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_three_replicas_serve_one_store(tmp_path, protocol):
    with ProcessCluster(tmp_path, 3, protocol=protocol) as c:
        ready = c.start_all()
        assert [line["replica"] for line in ready] == ["A", "B", "C"]
        assert ready[0]["region"] == "VA"
        assert ready[0]["http"] == c[0].url
        status, headers, body = c[0].http("PUT", "/v1/kv/greeting", b"hello")
        assert status == 200
        document = json.loads(body)
        assert headers["ETag"] == f'"{document["version"]}"'
        assert headers["X-EPaxos-Path"] in ("fast", "slow", "leader")
        assert [c[i].get("greeting") for i in range(3)] == [b"hello"] * 3
        for i in range(3):
            assert c[i].http("GET", "/readyz")[0] == 200
            document = c[i].status()
            assert document["ready"]
            assert document["replica"] == "ABC"[i]
            eventually(lambda i=i: all(peer["linked"] for peer in c[i].status()["peers"]))
        metrics = c[0].http("GET", "/metrics")[2].decode()
        for name in ("epaxos_commits_total", "epaxos_commit_latency_seconds_bucket", "process_cpu"):
            assert name in metrics
        assert [c[i].stop() for i in range(3)] == [0, 0, 0]


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_five_regions_are_as_far_apart_as_the_topology_says(tmp_path, protocol):
    settings = {"topology": "aws-5-2020", "emulate": True, "protocol": protocol, "leader": "CA"}
    with ProcessCluster(tmp_path, 5, **settings) as c:
        c.start_all(data=None, flags=["--durability", "memory"])
        assert c[0].put("k", b"v") == 200
        before = time.monotonic()
        assert c[0].put("other", b"v") == 200
        assert time.monotonic() - before >= 0.055
        assert c[3].get("k") == b"v"
        document = c[0].status()
        assert document["link_error"]["count"] > 0
        assert len(document["links"]) == 4


class Writers:
    """Write distinct keys at some replicas until told to stop; remember what was acknowledged."""

    def __init__(self, replicas):
        self.acknowledged = {}
        self.codes = set()
        self._replicas = replicas
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._write, args=(i,)) for i in range(3)]
        for thread in self._threads:
            thread.start()

    def _write(self, index):
        number = 0
        while not self._stop.is_set():
            replicas = self._replicas()
            if not replicas:
                time.sleep(0.01)
                continue
            key, value = f"w{index}-{number}", b"%d" % number
            code = replicas[number % len(replicas)].put(key, value)
            self.codes.add(code)
            if code == 200:
                self.acknowledged[key] = value
            number += 1
            time.sleep(0.002)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._stop.set()
        for thread in self._threads:
            thread.join(60)


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_nothing_acknowledged_is_lost_by_kill_9(tmp_path, protocol):
    with ProcessCluster(tmp_path, 3, protocol=protocol, patience_ms=2000) as c:
        c.start_all()
        alive = list(range(3))
        with Writers(lambda: [c[i] for i in alive]) as writers:
            for victim in (2, 0, 1):
                time.sleep(0.4)
                alive.remove(victim)
                c[victim].kill()
                time.sleep(0.3)
                c.start(victim).wait_ready()
                alive.append(victim)
            time.sleep(0.3)
            alive.clear()
            for i in range(3):
                c[i].kill()
        c.start_all()
        assert len(writers.acknowledged) > 20
        assert writers.codes <= {0, 200, 503, 504}
        for i in range(3):
            eventually(lambda i=i: c[i].put(f"last{i}", b"x") == 200)
        wrong = {
            key: (i % 3, value)
            for i, (key, value) in enumerate(writers.acknowledged.items())
            if c[i % 3].get(key) != value
        }
        assert wrong == {}


def test_a_replica_that_stops_answers_what_is_in_flight_and_exits_0(tmp_path):
    with ProcessCluster(tmp_path, 3) as c:
        c.start_all()
        with Writers(lambda: [c[0]]) as writers:
            time.sleep(0.3)
            assert c[0].stop() == 0
        assert writers.acknowledged
        assert writers.codes <= {0, 200, 503}
        c.start(0).wait_ready()
        assert all(c[0].get(k) == v for k, v in writers.acknowledged.items())


def test_without_a_quorum_nothing_is_claimed_and_with_it_all_goes_on(tmp_path):
    with ProcessCluster(tmp_path, 3, patience_ms=500) as c:
        c.start_all()
        assert c[0].put("k", b"1") == 200
        c[1].kill()
        c[2].kill()
        eventually(lambda: c[0].http("GET", "/readyz")[0] == 503)
        status, _, body = c[0].http("PUT", "/v1/kv/k", b"2")
        assert status in (503, 504)
        assert json.loads(body)["status"] == status
        c.start(1).wait_ready()
        eventually(lambda: c[0].put("k", b"3") == 200)
        assert c[1].get("k") == b"3"


def test_a_cut_region_comes_back(tmp_path):
    settings = {"topology": "aws-5-2020", "emulate": True, "patience_ms": 1000}
    with ProcessCluster(tmp_path, 3, **settings) as c:
        c.start_all()
        json_type = {"Content-Type": "application/json"}
        for i, change in ((0, "CA"), (2, "CA"), (1, "*")):
            body = json.dumps({"from": change, "cut": True}).encode()
            assert c[i].http("PUT", "/v1/links", body, json_type)[0] == 200
        assert c[0].put("k", b"1") == 200
        assert c[1].http("PUT", "/v1/kv/k", b"2")[0] in (503, 504)
        for i in range(3):
            assert c[i].http("PUT", "/v1/links", b'{"cut": false}', json_type)[0] == 200
        eventually(lambda: c[1].put("other", b"3") == 200)
        assert c[1].get("k") in (b"1", b"2")


def last_error(replica, code):
    found, line = replica.ended()
    assert (found, line[:7]) == (code, "error: "), "".join(replica.log[-5:])
    return line


def test_the_wrong_directory_is_refused(tmp_path):
    with ProcessCluster(tmp_path, 3) as c:
        c.start_all()
        line = last_error(c.start(1, data=tmp_path / "data0"), 3)
        assert "is in use by process" in line
        c[0].stop()
        line = last_error(c.start(1, data=tmp_path / "data0"), 3)
        assert "belongs to cluster test, replica A; this is replica B of cluster test" in line
        c.write(cluster="another")
        line = last_error(c.start(0), 3)
        assert "belongs to cluster test, replica A; this is replica A of cluster another" in line
        (tmp_path / "pictures").mkdir()
        (tmp_path / "pictures" / "cat.png").write_bytes(b"")
        line = last_error(c.start(0, data=tmp_path / "pictures"), 3)
        assert "is not a data directory: it holds 'cat.png'" in line


def test_a_port_in_use_is_named(tmp_path):
    with ProcessCluster(tmp_path, 1) as c:
        c.start_all()
        port = c.ports[0][0]
        line = last_error(c.start(0, data=tmp_path / "other"), 4)
        assert f"127.0.0.1:{port} (peer_port) is in use" in line


@pytest.mark.parametrize(
    ("settings", "options", "sentence"),
    [
        ({"protocol": "raft"}, {}, "unknown protocol 'raft'"),
        ({"sead": 1}, {}, "sead is not a setting; did you mean seed?"),
        ({}, {"data": None}, "add --data DIR"),
        ({}, {"environment": {"EPAXOS_SEED": "x"}}, "environment variable EPAXOS_SEED"),
        ({"topology": "nowhere-9"}, {}, "nowhere-9"),
    ],
)
def test_a_wrong_setting_is_named(tmp_path, settings, options, sentence):
    with ProcessCluster(tmp_path, 1, **settings) as c:
        assert sentence in last_error(c.start(0, **options), 2)


def test_a_replica_that_lost_its_disk_is_refused_by_the_others(tmp_path):
    with ProcessCluster(tmp_path, 3) as c:
        c.start_all()
        assert c[2].put("k", b"v") == 200
        c[2].kill()
        c.start(2).wait_ready()
        c[2].kill()
        shutil.rmtree(tmp_path / "data2")
        line = last_error(c.start(2), 3)
        assert "refuses this replica" in line
        assert c[0].put("k", b"w") == 200


def test_an_old_copy_of_the_disk_is_refused_by_the_others(tmp_path):
    with ProcessCluster(tmp_path, 3) as c:
        c.start_all()
        assert c[2].stop() == 0
        shutil.copytree(tmp_path / "data2", tmp_path / "copy")
        c.start(2).wait_ready()
        assert c[2].put("k", b"v") == 200
        assert c[2].stop() == 0
        line = last_error(c.start(2, data=tmp_path / "copy"), 3)
        assert "is another process" in line


def test_an_emptied_directory_is_never_accepted_however_often_it_is_started(tmp_path):
    """The write was decided by A and C. A is down, C has forgotten: together with B, who never
    heard of it, C could decide otherwise."""
    with ProcessCluster(tmp_path, 3) as c:
        c.start_all()
        assert c[1].stop() == 0
        assert c[0].put("x", b"1") == 200
        c[0].kill()
        c[2].kill()
        shutil.rmtree(tmp_path / "data2")
        c.start(1)
        for number in range(5):
            code, line = c.start(2).ended()
            assert code == 3
            assert ("refused before" in line) == (number > 0)
        assert json.loads((tmp_path / "data2" / "identity.json").read_bytes())["boot"] == 1
        c.start(0).wait_ready()
        assert c[1].http("PUT", "/v1/kv/x", b"2", {"If-None-Match": "*"})[0] == 412
        assert [c[index].get("x") for index in (0, 1)] == [b"1", b"1"]


def test_a_lost_log_is_refused_by_its_own_directory(tmp_path):
    with ProcessCluster(tmp_path, 1) as c:
        c.start_all()
        assert c[0].stop() == 0
        shutil.rmtree(tmp_path / "data0" / "wal")
        assert "replaced by an old copy" in last_error(c.start(0), 3)


def test_a_flipped_bit_in_the_log_is_refused_with_file_and_offset(tmp_path):
    with ProcessCluster(tmp_path, 1) as c:
        c.start_all()
        assert c[0].put("k", b"v") == 200
        assert c[0].stop() == 0
        path = tmp_path / "data0" / "wal" / "0000000001.wal"
        data = bytearray(path.read_bytes())
        data[300] ^= 4
        path.write_bytes(data)
        line = last_error(c.start(0), 3)
        assert f"{path} is corrupt at byte 2" in line


def test_in_memory_a_replica_starts_once(tmp_path):
    with ProcessCluster(tmp_path, 3, durability="memory") as c:
        c.start_all(data=None)
        assert c[0].put("k", b"v") == 200
        c[1].kill()
        assert "starts once" in last_error(c.start(1, data=None), 3)
        assert c[2].get("k") == b"v"


def test_replicas_with_other_settings_do_not_talk(tmp_path):
    with ProcessCluster(tmp_path, 3) as c:
        c.start(0, 1)
        c.start(2, flags=["--seed", "9"])
        c[0].wait_ready()
        eventually(lambda: any("settings hash differs" in line for line in c[2].log))
        assert c[2].http("GET", "/readyz")[0] == 503
        c[2].signal(signal.SIGINT)
        assert c[2].ended()[0] == 0


def test_a_paused_replica_catches_up(tmp_path):
    with ProcessCluster(tmp_path, 3) as c:
        c.start_all()
        c[2].signal(signal.SIGSTOP)
        for i in range(30):
            assert c[i % 2].put(f"k{i}", b"v%d" % i) == 200
        time.sleep(1)
        c[2].signal(signal.SIGCONT)
        assert all(c[2].get(f"k{i}") == b"v%d" % i for i in range(30))
