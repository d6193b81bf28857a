"""`epaxos kv` as a person uses it, against a store behind the client port."""

import asyncio
import io
import json
import re
import threading
from contextlib import AsyncExitStack, contextmanager

import pytest
from fakereplica import FakeReplica, refuse

from epaxos.cli import kv
from epaxos.cli.exits import ExitCode
from epaxos.cli.main import run
from epaxos.codec import PROTOCOL_VERSION, ServerHello


@contextmanager
def cluster(count=1, react=None):
    """Fake replicas on a thread of their own: the command needs the event loop of this one."""
    ready, done = threading.Event(), asyncio.Event()
    replicas = []

    async def serve():
        async with AsyncExitStack() as stack:
            for i in range(count):
                replica = await stack.enter_async_context(FakeReplica(i).running())
                replica.react = react or replica.execute
                replicas.append(replica)
            ready.set()
            await done.wait()

    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_until_complete, args=(serve(),))
    thread.start()
    assert ready.wait(10)
    try:
        yield replicas
    finally:
        loop.call_soon_threadsafe(done.set)
        thread.join()
        loop.close()


@pytest.fixture
def kv_run(capfd):
    """Runs `epaxos kv ...` against one fake replica; gives code, stdout, stderr."""
    with cluster() as (replica,):

        def call(*arguments):
            code = run(["kv", *arguments, "--at", replica.address])
            return code, *capfd.readouterr()

        yield call


def test_put_get_delete(kv_run):
    code, out, err = kv_run("put", "x", "hello")
    assert (code, out) == (ExitCode.OK, "")
    assert err.startswith("version 0.A.1.0   (A.1 by the fast path at region-0, commit 1.0 ms")
    code, out, err = kv_run("get", "x")
    assert (code, out) == (ExitCode.OK, "hello\n")
    assert "version 0.A.1.0" in err
    code, out, err = kv_run("delete", "x")
    assert (code, out) == (ExitCode.OK, "")
    assert err.startswith("removed version 0.A.1.0")
    for verb in ("get", "delete"):
        code, out, err = kv_run(verb, "x")
        assert (code, out) == (ExitCode.FAILED, "")
        assert err.startswith("x has no value")


def test_cas(kv_run):
    assert kv_run("cas", "x", "1", "--expect-none")[0] == ExitCode.OK
    assert kv_run("cas", "x", "2", "--expect", "1")[0] == ExitCode.OK
    assert kv_run("cas", "x", "3", "--expect-version", "0.A.2.0")[0] == ExitCode.OK
    code, _, err = kv_run("cas", "x", "4", "--expect-none")
    assert code == ExitCode.FAILED
    assert err.startswith("conflict, nothing was changed: x holds '3', version 0.A.3.0")
    assert kv_run("cas", "x", "--remove", "--expect-any")[0] == ExitCode.OK
    code, _, err = kv_run("cas", "x", "4", "--expect-any")
    assert code == ExitCode.FAILED
    assert err.startswith("x has no value")


def test_json(kv_run):
    kv_run("put", "x", "1")
    code, out, err = kv_run("get", "x", "--json")
    assert (code, err) == (ExitCode.OK, "")
    document = json.loads(out)
    assert document.pop("answer_ms") > 0
    assert document == {
        "operation": "get",
        "key": "x",
        "status": "ok",
        "version": "0.A.1.0",
        "value": "1",
        "instance": "A.2",
        "path": "fast",
        "replica": "A",
        "region": "region-0",
        "commit_ms": 1.0,
        "execute_ms": 1.5,
    }
    code, out, _ = kv_run("get", "y", "--json")
    assert code == ExitCode.FAILED
    assert json.loads(out)["status"] == "missing"
    code, out, _ = kv_run("cas", "x", "2", "--expect", "0", "--json")
    assert code == ExitCode.FAILED
    assert (json.loads(out)["status"], json.loads(out)["value"]) == ("conflict", "1")


def test_value_that_is_not_text(capfdbinary, tmp_path, monkeypatch):
    file = tmp_path / "value"
    file.write_bytes(b"\xff\0\n")
    with cluster() as (replica,), file.open() as stdin:
        monkeypatch.setattr("sys.stdin", stdin)
        assert run(["kv", "put", "x", "-", "--at", replica.address]) == ExitCode.OK
        assert run(["kv", "get", "x", "--at", replica.address]) == ExitCode.OK
        assert capfdbinary.readouterr().out == b"\xff\0\n\n"
        assert run(["kv", "get", "x", "--json", "--at", replica.address]) == ExitCode.OK
        assert json.loads(capfdbinary.readouterr().out)["value_base64"] == "/wAK"


def test_default_cluster_and_region(monkeypatch, capfd):
    with cluster(3) as replicas:
        addresses = ["127.0.0.1:1", *(replica.address for replica in replicas)]
        monkeypatch.setattr(kv, "DEFAULT_ADDRESSES", addresses)
        assert run(["kv", "put", "x", "1"]) == ExitCode.OK
        assert run(["kv", "put", "x", "1", "--via", "Region-2"]) == ExitCode.OK
        assert run(["kv", "put", "x", "1", "--via", "b"]) == ExitCode.OK
        assert [len(replica.requests) for replica in replicas] == [1, 1, 1]
        replicas[2].hello = ServerHello(PROTOCOL_VERSION, "fake", 2, "JP")
        assert run(["kv", "put", "x", "1", "--via", "tokyo"]) == ExitCode.OK
        capfd.readouterr()
        assert run(["kv", "put", "x", "1", "--via", "Atlantis"]) == ExitCode.CONFIG
        err = capfd.readouterr().err
        assert "A (region-0), B (region-1), C (JP)" in err
        assert err.count("\n") == 1


def test_cluster_file(tmp_path, capfd):
    with cluster(2) as replicas:
        file = tmp_path / "cluster.toml"
        text = 'cluster = "fake"\ntopology = "lan:2"\n'
        for i, replica in enumerate(replicas):
            port = replica.address.rpartition(":")[2]
            text += f'[[replicas]]\nregion = "R{i + 1}"\npeer_port = {9001 + i}\n'
            text += f"client_port = {port}\nhttp_port = {9101 + i}\n"
        file.write_text(text)
        for extra in ([], ["--via", "Region 2"]):
            assert run(["kv", "put", "x", "1", "--cluster", str(file), *extra]) == ExitCode.OK
        assert [len(replica.requests) for replica in replicas] == [1, 1]
        file.write_text(text.replace("fake", "other"))
        assert run(["kv", "put", "x", "1", "--cluster", str(file)]) == ExitCode.ADDRESS
        assert "belongs to cluster fake, not to other" in capfd.readouterr().err


@pytest.mark.parametrize(
    ("react", "verb", "words"),
    [
        (refuse(False, "outcome-unknown"), "put", "outcome unknown: .* may have happened"),
        (lambda request: "hang up", "put", "outcome unknown: .* may have happened"),
        (lambda request: "hang up", "get", "nothing was changed"),
        (refuse(True, "overloaded"), "put", r"nothing was changed \(overloaded\)"),
    ],
)
def test_what_failed_says_whether_it_may_have_happened(capfd, react, verb, words):
    arguments = ["x", "1"] if verb == "put" else ["x"]
    with cluster(react=react) as (replica,):
        code = run(["kv", verb, *arguments, "--at", replica.address])
    assert code == ExitCode.FAILED
    out, err = capfd.readouterr()
    assert out == ""
    assert err.startswith("error: ")
    assert err.count("\n") == 1
    assert re.search(words, err)


def test_nobody_there(capfd, monkeypatch):
    with cluster() as (replica,):
        address = replica.address
    assert run(["kv", "get", "x", "--at", address]) == ExitCode.ADDRESS
    assert f"{address}: connection refused" in capfd.readouterr().err
    monkeypatch.setattr(kv, "DEFAULT_ADDRESSES", [address])
    assert run(["kv", "get", "x"]) == ExitCode.ADDRESS
    assert "epaxos up" in capfd.readouterr().err


def test_what_a_replica_calls_invalid_was_asked_wrongly(capfd):
    with cluster(react=refuse(True, "invalid")) as (replica,):
        code = run(["kv", "put", "", "1", "--at", replica.address])
        assert (code, capfd.readouterr().err) == (ExitCode.CONFIG, "error: because of invalid\n")


@pytest.mark.parametrize("verb", ["put", "cas"])
def test_a_value_over_the_limit_is_refused_before_anybody_is_asked(verb, capfd, monkeypatch):
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(bytes(40_000_000))))
    with cluster() as (replica,):
        options = ["--expect-none"] if verb == "cas" else []
        code = run(["kv", verb, "big", "-", "--at", replica.address, *options])
        assert not replica.requests
    assert code == ExitCode.CONFIG
    assert "a value may have 33,554,432 bytes" in capfd.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        (["get"], "KEY"),
        (["put", "x"], "VALUE"),
        (["get", "x", "--at", "nowhere"], "host:port"),
        (["get", "x", "--at", "h:1", "--cluster", "f"], "--at or --cluster"),
        (["get", "x", "--cluster", "missing.toml"], "missing.toml"),
        (["get", "x", "--timeout", "0"], "--timeout"),
        (["get", "x", "--timeout", "soon"], "--timeout"),
        (["cas", "x", "1"], "exactly one"),
        (["cas", "x", "1", "--expect-none", "--expect-any"], "exactly one"),
        (["cas", "x", "--expect-none"], "--remove"),
        (["cas", "x", "1", "--remove", "--expect-any"], "--remove"),
        (["cas", "x", "1", "--expect-version", "7"], "0.A.7.0"),
        (["cas", "x", "1", "--expect-version", "0.A." + "9" * 23 + ".0"], "--expect-version"),
        (["cas", "x", "1", "--expect-version", "0.A.+1_0. 0"], "--expect-version"),
        (["cas", "x", "1", "--expect-version", "0.A." + "9" * 5000 + ".0"], "--expect-version"),
        (["get", "e", "--at", "http://127.0.0.1:8001"], "HOST:PORT of the client port"),
        (["get", "e", "--at", "127.0.0.1:" + "9" * 5000], "--at"),
        (["get", "e", "--at", "127.0.0.1:٧١٠١"], "--at"),
    ],
)
def test_wrong_options(capfd, arguments, word):
    assert run(["kv", *arguments]) == ExitCode.CONFIG
    out, err = capfd.readouterr()
    assert (out, err.count("\n")) == ("", 1)
    assert word in err
