"""HTTP clients, our own and the one that docs recommend, where a connection is lost: whether a
request happened is for its caller to find out, not for a second request."""

import asyncio
import socket
import threading
from contextlib import contextmanager

import aiohttp
import pytest

from docs.examples.once import once
from epaxos.core.errors import CodecError
from epaxos.http_client import fetch


@contextmanager
def a_server_that_hangs_up():
    """Its port, and the requests that it has read; it answers none."""
    read = []
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve():
            while True:
                wire, _ = listener.accept()
                with wire:
                    octets = wire.recv(65_536)
                    if octets == b"end":
                        return
                    read.append(octets.split(b" ", 1)[0])

        thread = threading.Thread(target=serve)
        thread.start()
        port = listener.getsockname()[1]
        try:
            yield port, read
        finally:
            with socket.create_connection(("127.0.0.1", port)) as wire:
                wire.sendall(b"end")
            thread.join()


async def ask(port, method, middlewares):
    async with (
        aiohttp.ClientSession(middlewares=middlewares) as session,
        session.request(method, f"http://127.0.0.1:{port}/v1/kv/k", data=b"v"),
    ):
        pass


@pytest.mark.parametrize("method", ["GET", "PUT"])
def test_ours_sends_once(method):
    with a_server_that_hangs_up() as (port, read):
        with pytest.raises(CodecError, match="did not answer"):
            fetch(f"http://127.0.0.1:{port}/v1/links", 5.0, {}, method)
        assert read == [method.encode()]


@pytest.mark.parametrize(("middlewares", "times"), [([], 2), ([once], 1)])
def test_aiohttp_sends_twice_unless_told(middlewares, times):
    with a_server_that_hangs_up() as (port, read):
        with pytest.raises(aiohttp.ClientConnectionError):
            asyncio.run(ask(port, "PUT", middlewares))
        assert read == [b"PUT"] * times
