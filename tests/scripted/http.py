"""A client of the HTTP port that says each thing once: one connection, one request, no repeats."""

import asyncio

import orjson


class Lost(Exception):
    """No whole answer came."""


class HttpCall(asyncio.Protocol):
    """One request and its answer."""

    def __init__(self) -> None:
        self.answer: asyncio.Future[tuple[int, dict[str, str], bytes]] = (
            asyncio.get_running_loop().create_future()
        )
        self._data = b""

    def data_received(self, data: bytes) -> None:
        self._data += data
        head, end, body = self._data.partition(b"\r\n\r\n")
        if not end or self.answer.done():
            return
        first, *lines = head.decode("latin-1").split("\r\n")
        headers = {
            name.lower(): value.strip()
            for name, _, value in (line.partition(":") for line in lines)
        }
        if len(body) >= int(headers.get("content-length", "0")):
            self.answer.set_result((int(first.split()[1]), headers, body))

    def connection_lost(self, exc: Exception | None) -> None:
        if not self.answer.done():
            self.answer.set_exception(Lost("the connection was lost"))


async def call(
    port: int, method: str, key: bytes, body: bytes, headers: dict[str, str], seconds: float
) -> tuple[int, dict[str, str], bytes]:
    """Status, headers and body. Raises OSError when nothing was sent, Lost afterwards."""
    loop = asyncio.get_running_loop()
    wire, protocol = await loop.create_connection(HttpCall, "127.0.0.1", port)
    lines = [
        f"{method} /v1/kv/{key.decode()} HTTP/1.1",
        f"Host: 127.0.0.1:{port}",
        *(f"{name}: {value}" for name, value in headers.items()),
        f"Content-Length: {len(body)}",
    ]
    try:
        wire.write("\r\n".join(lines).encode() + b"\r\n\r\n" + body)
        async with asyncio.timeout(seconds):
            return await protocol.answer
    except TimeoutError:
        raise Lost("no answer in time") from None
    finally:
        wire.close()


def is_definite(status: int, body: bytes) -> bool:
    """Whether a status says that nothing happened and nothing will."""
    if status == 504:
        return False
    orjson.loads(body)  # Every refusal is a document.
    return status >= 400
