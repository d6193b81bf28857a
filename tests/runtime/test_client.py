import asyncio
import re
import socket
from contextlib import AsyncExitStack
from pathlib import Path as FilePath

import pytest
from fakereplica import FakeReplica, listening, refuse

from epaxos.client import (
    KV,
    Client,
    EPaxosClient,
    InvalidArgument,
    PreconditionFailed,
    Unavailable,
    parse_address,
)
from epaxos.core.command import VALUE_BYTES_MAX
from epaxos.core.errors import Ambiguous, ConfigError
from epaxos.core.replica import Path


def closed_address():
    with socket.create_server(("127.0.0.1", 0)) as server:
        return f"127.0.0.1:{server.getsockname()[1]}"


@pytest.fixture
async def replicas():
    async with AsyncExitStack() as stack:
        yield [await stack.enter_async_context(FakeReplica(i).running()) for i in range(2)]


async def test_the_four_operations(replicas):
    async with EPaxosClient([replicas[0].address]) as client:
        assert await client.get("x") is None
        written = await client.put("x", "1")
        assert written == KV(b"x", b"1", (0, 2, 0))
        assert await client.get(b"x") == written
        changed = await client.cas("x", expect=written.version, value=b"2")
        assert changed is not None
        assert await client.get("x") == changed == KV(b"x", b"2", (0, 4, 0))
        assert await client.cas("x", expect="2", value=None) is None
        assert await client.get("x") is None
        assert await client.delete("x") is None
        again = await client.put("x", "3")
        assert await client.delete("x") == again.version


async def test_failed_precondition_says_what_is_there(replicas):
    async with EPaxosClient([replicas[0].address]) as client:
        with pytest.raises(PreconditionFailed) as missing:
            await client.cas("x", expect=True, value="1")
        assert missing.value.current is None
        written = await client.put("x", "1")
        with pytest.raises(PreconditionFailed, match=r"0\.A\.2\.0") as conflict:
            await client.cas("x", expect=False, value="2")
        assert conflict.value.current == written


async def test_answer_carries_path_and_times(replicas):
    from epaxos.core.command import Operation

    async with EPaxosClient([replicas[1].address]) as client:
        answer = await client.execute(Operation.PUT, b"x", b"1")
    assert (answer.path, answer.commit_us, answer.execute_us) == (Path.FAST, 1000, 1500)
    assert (str(answer.instance), answer.replica, answer.region) == ("B.1", 1, "region-1")


async def test_calls_share_one_connection_and_are_matched_by_number(replicas):
    held = []

    def hold(request):
        held.append(request)
        if len(held) < 50:
            return None
        from epaxos.codec import encode_frame

        return b"".join(encode_frame(replicas[0].execute(r)) for r in reversed(held))

    replicas[0].react = hold
    async with EPaxosClient([replicas[0].address]) as client:
        written = await asyncio.gather(*(client.put(f"k{i}", f"{i}") for i in range(50)))
    assert [kv.value for kv in written] == [b"%d" % i for i in range(50)]
    assert replicas[0].connections == 1
    assert [r.first for r in replicas[0].requests] == list(range(50))
    assert {replicas[0].data[b"k%d" % i][1] for i in range(50)} == {kv.version for kv in written}


async def test_first_address_is_preferred_and_the_next_used_when_nobody_listens(replicas):
    async with EPaxosClient([closed_address(), replicas[0].address]) as client:
        await client.put("x", "1")
    async with EPaxosClient([r.address for r in replicas]) as client:
        await client.put("y", "1")
    assert (len(replicas[0].requests), len(replicas[1].requests)) == (2, 0)


@pytest.mark.parametrize("code", ["overloaded", "not-proposed"])
async def test_definite_refusal_fails_over(replicas, code):
    replicas[0].react = refuse(True, code)
    async with EPaxosClient([r.address for r in replicas]) as client:
        assert (await client.put("x", "1")).version == (1, 1, 0)
    async with EPaxosClient([replicas[0].address]) as client:
        with pytest.raises(Unavailable, match=code) as refused:
            await client.put("x", "1")
    assert refused.value.code == code


async def test_invalid_is_not_tried_elsewhere(replicas):
    replicas[0].react = refuse(True, "invalid")
    async with EPaxosClient([r.address for r in replicas]) as client:
        with pytest.raises(InvalidArgument):
            await client.put("", "1")
    assert not replicas[1].requests


async def test_too_large_a_command_is_refused_before_it_is_sent(replicas):
    async with EPaxosClient([replicas[0].address]) as client:
        with pytest.raises(InvalidArgument, match="a value may have"):
            await client.put("x", bytes(VALUE_BYTES_MAX + 64 * 1024))
        assert not replicas[0].requests
        assert (await client.put("x", "1")).value == b"1"


@pytest.mark.parametrize("react", [refuse(False, "outcome-unknown"), lambda request: "hang up"])
async def test_unknown_fate_of_a_write_stays_unknown(replicas, react):
    replicas[0].react = react
    async with EPaxosClient([r.address for r in replicas]) as client:
        with pytest.raises(Ambiguous, match="may have happened"):
            await client.put("x", "1")
        assert not replicas[1].requests
        with pytest.raises(Ambiguous):
            await asyncio.wait_for(client.cas("x", expect=False, value="1"), 10)


@pytest.mark.parametrize("react", [refuse(False, "outcome-unknown"), lambda request: "hang up"])
async def test_read_is_asked_again_elsewhere(replicas, react):
    replicas[0].react = react
    async with EPaxosClient([r.address for r in replicas]) as client:
        assert await client.get("x") is None
        assert len(replicas[1].requests) == 1
        replicas[1].react = react
        with pytest.raises(Unavailable) as failed:
            await client.get("x")
    assert failed.value.code == "no-answer"


async def test_silence_ends_at_the_deadline(replicas):
    replicas[0].react = lambda request: None
    async with EPaxosClient([r.address for r in replicas], timeout=0.3) as client:
        assert await client.get("x") is None
        assert len(replicas[1].requests) == 1
    async with EPaxosClient([replicas[0].address], timeout=0.2) as client:
        with pytest.raises(Ambiguous, match="no answer within"):
            await client.put("x", "1")
    assert 0 < replicas[0].requests[-1].patience_us < 200_000


async def test_who_would_wait_for_ever_asks_a_replica_for_an_hour(replicas):
    async with EPaxosClient([replicas[0].address], timeout=float("inf")) as client:
        assert await client.get("x") is None
    assert 3_000_000_000 < replicas[0].requests[-1].patience_us <= 3_600_000_000


async def test_reconnects_after_a_loss(replicas):
    async with EPaxosClient([replicas[0].address]) as client:
        await client.put("x", "1")
        replicas[0].react = lambda request: "hang up"
        with pytest.raises(Ambiguous):
            await client.put("x", "2")
        replicas[0].react = replicas[0].execute
        assert await client.get("x") is not None
    assert replicas[0].connections == 2


@pytest.mark.parametrize("reply", [b"HTTP/1.1 400 Bad Request\r\n\r\n", b"\x04\0\0\0\0\0\0\0oops"])
async def test_nonsense_after_the_write_is_ambiguous(replicas, reply):
    replicas[0].react = lambda request: reply
    async with EPaxosClient([replicas[0].address]) as client:
        with pytest.raises(Ambiguous, match="does not speak the client protocol"):
            await client.put("x", "1")


@pytest.mark.parametrize(
    ("fake", "word"),
    [
        (FakeReplica(cluster="other"), "belongs to cluster other, not to mine"),
        (FakeReplica(version=99, cluster="mine"), "speaks version 99"),
    ],
)
async def test_wrong_replica_is_refused_before_anything_is_sent(fake, word):
    async with fake.running(), EPaxosClient([fake.address], "mine") as client:
        with pytest.raises(Unavailable, match=word) as refused:
            await client.put("x", "1")
    assert refused.value.code == "unreachable"
    assert not fake.requests


async def test_port_of_something_else_is_named():
    async def answer_http(reader, writer):
        await reader.read(10)
        writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")

    async with listening(answer_http) as address, EPaxosClient([address]) as client:
        with pytest.raises(Unavailable, match=f"{address}: it does not speak the client protocol"):
            await client.put("x", "1")


async def test_silent_port_does_not_hang():
    async def say_nothing(reader, writer):
        await reader.read()

    async with listening(say_nothing) as address, EPaxosClient([address], timeout=0.2) as client:
        with pytest.raises(Unavailable):
            await client.put("x", "1")


async def test_closing_makes_what_is_under_way_ambiguous(replicas):
    replicas[0].react = lambda request: None
    client = EPaxosClient([replicas[0].address])
    call = asyncio.create_task(client.put("x", "1"))
    await replicas[0].asked.wait()
    await client.close()
    with pytest.raises(Ambiguous):
        await call


async def test_sync_facade(replicas):
    def work(address):
        with Client([address]) as client:
            written = client.put("x", "1")
            assert client.get("x") == written
            assert client.cas("x", expect=True, value="2") == client.get("x")
            assert client.delete("x") is not None
            with pytest.raises(PreconditionFailed):
                client.cas("x", expect=True, value="2")
            client.close()

    await asyncio.to_thread(work, replicas[0].address)


@pytest.mark.parametrize("text", ["", "host", "host:", ":1", "host:0", "host:70000", "host:http"])
def test_address_that_is_none(text):
    with pytest.raises(ConfigError, match="host:port"):
        parse_address(text)


def test_addresses():
    assert parse_address("localhost:7101") == ("localhost", 7101)
    assert parse_address("[::1]:7101") == ("::1", 7101)
    with pytest.raises(ConfigError, match="addresses is empty"):
        EPaxosClient([])


async def test_the_first_minute_of_the_readme_runs(replicas, capsys):
    text = (FilePath(__file__).parents[2] / "README.md").read_text(encoding="utf-8")
    (lines,) = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    for number, replica in enumerate(replicas, 1):
        assert f"127.0.0.1:710{number}" in lines
        lines = lines.replace(f"127.0.0.1:710{number}", replica.address)
    await asyncio.to_thread(exec, lines, {})
    assert capsys.readouterr().out == "b'hi'\n"
