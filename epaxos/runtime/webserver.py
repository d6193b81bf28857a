"""aiohttp's low-level server with the limits that it leaves open.

As it comes, aiohttp keeps silent, half-header and idle connections for more than a minute, accepts
any number of them, waits for ever for a client that does not read, copies a whole body per client,
and logs a traceback per malformed request. Here a connection has `HEADER_DEADLINE_S` from its first
byte (or from its opening) to the end of its headers, a client that reads nothing of its answer for
`UNREAD_DEADLINE_S` loses it, there is a cap on connections, and what cannot be parsed is answered
with a problem document and one line.
"""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, Final

import orjson
import structlog
from aiohttp import http_parser, web
from aiohttp.abc import AbstractStreamWriter
from aiohttp.payload import Payload
from aiohttp.web_protocol import RequestHandler

from epaxos.core.errors import ConfigError
from epaxos.runtime.unread import CHUNK_BYTES, UnreadDeadline

HEADER_DEADLINE_S: Final = 10.0
KEEP_ALIVE_S: Final = 75.0

Handler = Callable[[web.BaseRequest], Awaitable[web.StreamResponse]]

log = structlog.get_logger()


def problem(
    status: int,
    code: str,
    title: str,
    detail: str,
    headers: dict[str, str] | None = None,
    **more: Any,
) -> web.Response:
    """An error as RFC 9457 has it. What in its detail is not UTF-8 is escaped: strangers' words."""
    document = {
        "type": f"urn:epaxos:problem:{code}",
        "title": title,
        "status": status,
        "detail": detail.encode("utf-8", "backslashreplace").decode(),
        **more,
    }
    return web.Response(
        status=status,
        body=orjson.dumps(document) + b"\n",
        headers=headers,
        content_type="application/problem+json",
    )


class Value(Payload):
    """A body that is copied only as its client takes it."""

    _autoclose = True

    def __init__(self, value: bytes) -> None:
        super().__init__(value)
        self._size = len(value)

    def decode(self, encoding: str = "utf-8", errors: str = "strict") -> str:
        text: str = self._value.decode(encoding, errors)
        return text

    async def write(self, writer: AbstractStreamWriter) -> None:
        view = memoryview(self._value)
        for start in range(0, len(view), CHUNK_BYTES):
            await writer.write(view[start : start + CHUNK_BYTES])
            await writer.drain()


class _HttpConnection(RequestHandler):
    __slots__ = ("_header_deadline", "_refused", "_unread")

    def __init__(self, manager: "WebServer", **options: Any) -> None:
        super().__init__(manager, **options)
        self._header_deadline: asyncio.TimerHandle | None = None
        self._refused = False
        self._unread = UnreadDeadline(self._not_read)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(self._manager, WebServer)
        if len(self._manager.connections) >= self._manager.connections_max:
            self._refused = True
            assert isinstance(transport, asyncio.WriteTransport)
            transport.write(_TOO_MANY)
            transport.close()
            return
        super().connection_made(transport)
        self._expect_headers()

    def connection_lost(self, exc: BaseException | None) -> None:
        self._cancel_deadline()
        self._unread.cancel()
        if not self._refused:
            super().connection_lost(exc)

    def pause_writing(self) -> None:
        super().pause_writing()
        if self.transport is not None:
            self._unread.begin(self.transport)

    def resume_writing(self) -> None:
        super().resume_writing()
        self._unread.cancel()

    def data_received(self, data: bytes) -> None:
        if self._refused:
            return
        before = self._request_count
        super().data_received(data)
        if self._request_count != before:
            self._cancel_deadline()
        elif not self._request_in_progress and self._header_deadline is None:
            self._expect_headers()

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        if status >= 500:
            log.error("a request failed", path=request.path, error=repr(exc))
            answer = problem(status, "internal", "Internal error", "a bug of this replica; see log")
        else:
            what = (message or "malformed request").splitlines()[0]
            log.info("malformed request", why=what, address=str(self.peername))
            answer = problem(status, "invalid", "Malformed request", what)
        answer.force_close()
        return answer

    def log_exception(self, *args: Any, **kw: Any) -> None:
        log.error("http connection failed", error=repr(kw.get("exc_info", args)))

    def _expect_headers(self) -> None:
        self._header_deadline = self._loop.call_later(HEADER_DEADLINE_S, self._too_slow)

    def _cancel_deadline(self) -> None:
        if self._header_deadline is not None:
            self._header_deadline.cancel()
            self._header_deadline = None

    def _too_slow(self) -> None:
        self._header_deadline = None
        if not self._request_in_progress:
            self.force_close()

    def _not_read(self, why: str) -> None:
        if self.transport is not None:
            self.transport.abort()
            log.warning("http connection closed", why=why, address=str(self.peername))


class WebServer(web.Server):
    """Serves one handler; hands connections beyond the cap a 503."""

    def __init__(self, handler: Handler, connections_max: int) -> None:
        if http_parser.HttpRequestParser is http_parser.HttpRequestParserPy:
            raise ConfigError(
                "aiohttp is installed without its compiled parser, and the other one has known "
                "request-smuggling faults; install aiohttp from a wheel"
            )
        self.connections_max = connections_max
        self._options: dict[str, Any] = {
            "keepalive_timeout": KEEP_ALIVE_S,
            "access_log": None,
            "auto_decompress": False,
        }
        super().__init__(handler)

    def __call__(self) -> RequestHandler:
        return _HttpConnection(self, loop=self._loop, **self._options)


_BODY: Final = orjson.dumps(
    {
        "type": "urn:epaxos:problem:overloaded",
        "title": "Too many connections",
        "status": 503,
        "detail": "this replica holds as many connections as it may; nothing was proposed",
    }
)
_TOO_MANY: Final = (
    b"HTTP/1.1 503 Service Unavailable\r\nContent-Type: application/problem+json\r\n"
    b"Retry-After: 1\r\nConnection: close\r\nContent-Length: %d\r\n\r\n" % len(_BODY)
) + _BODY
