"""A replica ends at a chosen line: between append, sync, send and reply, or because its disk did.

The other two go on; what was acknowledged is there after a restart."""

import json
import socket
import time

import pytest
from processes import ProcessCluster

KILL = """
import os, signal
from epaxos.runtime import http
from epaxos.runtime.{module} import {owner}
real = {owner}.{name}
first_request = http._Waiting.__init__
count = None
def arm(self):
    global count
    count = count or 0
    first_request(self)
def die(*arguments):
    global count
    if count is not None:
        count += 1
    if count == {at} and {before}:
        os.kill(os.getpid(), signal.SIGKILL)
    real(*arguments)
    if count == {at}:
        os.kill(os.getpid(), signal.SIGKILL)
http._Waiting.__init__ = arm
{owner}.{name} = die
"""
POINTS = {
    "before append": ("wal", "Wal", "append", True),
    "after append, before sync": ("wal", "Wal", "append", False),
    "after sync, before send": ("wal", "Wal", "sync", False),
    "before send": ("transport", "Transport", "send", True),
    "after send, before reply": ("transport", "Transport", "send", False),
    "before the answer leaves": ("http", "_Waiting", "reply", True),
}

FAIL = """
import os
real = os.{name}
count = 0
def fail(*arguments):
    global count
    count += 1
    if count >= {at}:
        raise OSError({errno}, os.strerror({errno}))
    return real(*arguments)
os.{name} = fail
"""

FULL = """
import os
real = os.pwrite
is_full = False
def write(fd, data, at):
    global is_full
    if is_full:
        raise OSError(28, os.strerror(28))
    if b"does not fit" in bytes(data):
        is_full = True
        return real(fd, data[:{kept}], at)
    return real(fd, data, at)
os.pwrite = write
"""

BUG = """
from epaxos.node.node import Node
real = Node.request
def request(self, *arguments):
    assert len(self.counts) < 0, "planted"
    real(self, *arguments)
Node.request = request
"""


def put_until_ended(replica, limit=400):
    """Write until the replica is gone; returns what it acknowledged."""
    acknowledged = {}
    for number in range(limit):
        key, value = f"k{number}", b"%d" % number
        code = replica.put(key, value)
        if code == 200:
            acknowledged[key] = value
        elif code == 0:
            return acknowledged
    raise AssertionError(f"still there after {limit} writes")


@pytest.mark.parametrize(
    ("point", "protocol"),
    [
        *((point, "epaxos") for point in POINTS),
        ("after append, before sync", "multipaxos"),
        ("after sync, before send", "multipaxos"),
    ],
)
def test_a_crash_at_each_point_loses_nothing_that_was_acknowledged(tmp_path, point, protocol):
    module, owner, name, before = POINTS[point]
    prelude = KILL.format(at=25, module=module, owner=owner, name=name, before=before)
    with ProcessCluster(tmp_path, 3, protocol=protocol, patience_ms=3000) as c:
        c.start(0, prelude=prelude)
        c.start(1, 2)
        for i in range(3):
            c[i].wait_ready()
        acknowledged = put_until_ended(c[0])
        assert c[0].ended()[0] == -9
        limit = time.monotonic() + 20
        while c[1].put("others-go-on", b"x") != 200:
            assert time.monotonic() < limit
        c.start(0).wait_ready()
        wrong = {k: v for k, v in acknowledged.items() if c[0].get(k) != v}
        assert wrong == {}
        assert c[0].put("again", b"x") == 200
        assert c[2].get("again") == b"x"


@pytest.mark.parametrize(
    ("name", "at", "errno", "sentence"),
    [
        ("fdatasync", 12, 5, "cannot sync"),
        ("pwrite", 12, 5, "cannot write"),
        ("pwrite", 12, 28, "No space left on device"),
    ],
)
def test_a_failing_disk_ends_the_replica_with_its_name_and_loses_nothing(
    tmp_path, name, at, errno, sentence
):
    with ProcessCluster(tmp_path, 3) as c:
        c.start(0, prelude=FAIL.format(name=name, at=at, errno=errno))
        c.start(1, 2)
        for i in range(3):
            c[i].wait_ready()
        acknowledged = put_until_ended(c[0])
        code, line = c[0].ended()
        assert code == 3
        assert line.startswith("error: ")
        assert sentence in line
        assert str(tmp_path / "data0" / "wal") in line
        assert c[1].put("others-go-on", b"x") == 200
        c.start(0).wait_ready()
        assert all(c[0].get(k) == v for k, v in acknowledged.items())


@pytest.mark.parametrize(("kept", "found"), [(60, 404), (-1, b"this does not fit")])
def test_a_full_disk_that_keeps_the_first_part_of_a_step_is_an_unknown_outcome(
    tmp_path, kept, found
):
    """Half a record is cut; one that lacks only its padding is whole, and what it says happens."""
    with ProcessCluster(tmp_path, 1) as c:
        c.start(0, prelude=FULL.format(kept=kept)).wait_ready()
        assert c[0].put("before", b"1") == 200
        assert c[0].put("torn", b"this does not fit") in (0, 504), "neither done nor refused"
        code, line = c[0].ended()
        assert code == 3
        assert "No space left on device" in line
        c.start(0).wait_ready()
        assert any("torn tail" in each for each in c[0].log) == (found == 404)
        assert c[0].get("before") == b"1"
        assert c[0].get("torn") == found
        assert c[0].put("torn", b"there is room again") == 200
        assert c[0].stop() == 0
        c.start(0).wait_ready()
        assert c[0].get("torn") == b"there is room again"


def test_a_bug_ends_the_replica_and_nobody_is_answered(tmp_path):
    with ProcessCluster(tmp_path, 1) as c:
        c.start(0, prelude=BUG).wait_ready()
        assert c[0].put("k", b"v") == 0
        code, line = c[0].ended()
        assert code == 70
        assert "planted" in line


def wait_until_linked(replica):
    """Ready is a quorum; a storm over a link that is being made is another test."""
    limit = time.monotonic() + 60
    while not all(p["linked"] for p in json.loads(replica.http("GET", "/v1/status")[2])["peers"]):
        assert time.monotonic() < limit
        time.sleep(0.05)


def test_a_storm_of_silent_connections_leaves_the_links_alone(tmp_path):
    with ProcessCluster(tmp_path, 3, connections=50) as c:
        c.start_all()
        wait_until_linked(c[0])
        held = []
        try:
            for number in range(600):
                sock = socket.socket()
                sock.settimeout(5)
                held.append(sock)
                sock.connect(("127.0.0.1", c.ports[0][number % 3]))
            assert c[1].put("k", b"v") == 200
        finally:
            for sock in held:
                sock.close()
        limit = time.monotonic() + 10
        while c[0].put("again", b"v") != 200:
            assert time.monotonic() < limit
            time.sleep(0.05)
        document = json.loads(c[0].http("GET", "/v1/status")[2])
        assert all(peer["linked"] and not peer["reconnects"] for peer in document["peers"])
        assert len(c[0].log) < 200
        metrics = c[0].http("GET", "/metrics")[2].decode()
        assert "epaxos_live_bytes" in metrics
