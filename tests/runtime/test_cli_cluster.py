"""Client and verbs against real replica processes."""

import asyncio
import json

import pytest
from processes import ProcessCluster

from epaxos.cli.exits import ExitCode
from epaxos.cli.main import run
from epaxos.client import Client, EPaxosClient, PreconditionFailed, Unavailable
from epaxos.core.errors import Ambiguous

PROTOCOLS = ["epaxos", "multipaxos"]


def addresses(cluster):
    return [f"127.0.0.1:{client}" for _, client, _ in cluster.ports]


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_verbs_on_a_cluster(tmp_path, capfd, protocol):
    with ProcessCluster(tmp_path, 3, protocol=protocol, topology="aws-5-2020") as c:
        c.start_all()

        def kv(*arguments):
            code = run(["kv", *arguments, "--cluster", str(c.config), "--json"])
            return code, json.loads(capfd.readouterr().out)

        code, written = kv("put", "x", "1", "--via", "VA")
        assert (code, written["replica"]) == (ExitCode.OK, "A")
        code, found = kv("get", "x", "--via", "california")
        assert (code, found["value"], found["replica"]) == (ExitCode.OK, "1", "B")
        assert found["version"] == written["version"]
        assert found["path"] in ("fast", "slow", "leader")
        assert 0 < found["commit_ms"] <= found["execute_ms"]
        code, changed = kv("cas", "x", "2", "--expect-version", found["version"])
        assert code == ExitCode.OK
        code, conflict = kv("cas", "x", "3", "--expect-version", found["version"])
        assert (code, conflict["status"]) == (ExitCode.FAILED, "conflict")
        assert (conflict["value"], conflict["version"]) == ("2", changed["version"])
        assert kv("delete", "x")[0] == ExitCode.OK
        assert kv("get", "x")[0] == ExitCode.FAILED

        assert run(["graph", "--at", c[0].url, "--json"]) == ExitCode.OK
        assert json.loads(capfd.readouterr().out)["replica"] == "A"

        data = str(tmp_path / "data0")
        assert run(["inspect", data, "--json"]) == ExitCode.OK
        assert json.loads(capfd.readouterr().out)["commands"] >= 5
        assert c[0].stop() == 0
        assert run(["inspect", data, "--json"]) == ExitCode.OK
        document = json.loads(capfd.readouterr().out)
        assert (document["protocol"], document["replica"]) == (protocol, "A")
        assert document["stopped_in_order"]
        assert document["damage"] is None


def test_client_survives_kill_9_and_never_lies(tmp_path):
    async def work(cluster):
        written, unknown = {}, 0
        async with EPaxosClient(addresses(cluster), "test", timeout=5) as client:

            async def write(number):
                nonlocal unknown
                key = b"k%d" % number
                try:
                    written[key] = (await client.put(key, key)).version
                except Ambiguous:
                    unknown += 1

            for burst in range(30):
                if burst == 10:
                    cluster[0].process.kill()
                await asyncio.gather(*(write(burst * 20 + i) for i in range(20)))
            assert unknown <= 20
            assert len(written) >= 580
            found = await asyncio.gather(*map(client.get, written))
            assert {kv.key: kv.version for kv in found if kv} == written

    with ProcessCluster(tmp_path, 3) as c:
        c.start_all(data=None, flags=["--durability", "memory"])
        asyncio.run(work(c))


def test_a_write_without_a_quorum_is_ambiguous_and_a_read_unavailable(tmp_path):
    with ProcessCluster(tmp_path, 3) as c:
        c.start_all(data=None, flags=["--durability", "memory"])
        with Client(addresses(c), timeout=1) as client:
            client.put("x", "1")
            c[1].kill()
            c[2].kill()
            with pytest.raises(Ambiguous, match="may have happened"):
                client.put("x", "2")
            with pytest.raises(Unavailable):
                client.get("x")


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_one_of_many_concurrent_creators_wins(tmp_path, protocol):
    async def work(cluster):
        async def create(i):
            async with EPaxosClient(addresses(cluster)[i % 3 :]) as client:
                try:
                    await client.cas("lock", expect=False, value=f"{i}")
                except PreconditionFailed as error:
                    return error.current.value
                return None

        fates = await asyncio.gather(*map(create, range(9)))
        assert fates.count(None) == 1
        winner = b"%d" % fates.index(None)
        assert set(fates) == {None, winner}

    with ProcessCluster(tmp_path, 3, protocol=protocol) as c:
        c.start_all(data=None, flags=["--durability", "memory"])
        asyncio.run(work(c))
