"""HTTP connections to one server, for a process that must not be late: one callback per answer.

There is no greenlet per command and no timer per read: a connection is watched as long as it is
open, and one look at all connections, now and then, ends those that wait for too long.

Rules of this file: gevent, but no Locust. What is called back is called in the event loop: it must
not block.
"""

import os
import sys
import time
from collections.abc import Callable
from typing import Any, Final

import gevent
import gevent.socket
from geventhttpclient._parser import HTTPParseError, HTTPResponseParser

from bench.loadtest.targets import HttpRequest
from epaxos.core.types import Micros
from epaxos.runtime.alarm import clock

_IDLE_S: Final = 15.0
"""A connection that was idle for longer is not used again: the server may be closing it."""
_BLOCK: Final = 16_384
_READ, _WRITE = 1, 2


class HttpAnswer(HTTPResponseParser):
    """An answer as it arrives. Keeps headers as they come: of eight, three are looked at."""

    def __init__(self) -> None:
        super().__init__()
        self.arrived: Micros = 0
        """When the last of it came."""
        self._on_message_begin()

    def header(self, name: str) -> str | None:
        """The value of a header, whose name is asked for in small letters; the first of several."""
        for known, value in zip(self._names, self._values, strict=False):
            if known.lower() == name:
                return value
        return None

    # What the parser calls; a name or a value may come in parts.

    def _on_message_begin(self) -> None:
        self.complete = False
        self.body = b""
        self._parts: list[bytes] = []
        self._names: list[str] = []
        self._values: list[str] = []

    def _on_status(self, text: str) -> None:
        pass

    def _on_header_field(self, text: str) -> None:
        if len(self._names) == len(self._values):
            self._names.append(text)
        else:
            self._names[-1] += text

    def _on_header_value(self, text: str) -> None:
        if len(self._values) < len(self._names):
            self._values.append(text)
        else:
            self._values[-1] += text

    def _on_headers_complete(self) -> bool:
        return False  # a body follows, if they say so: no HEAD is sent

    def _on_body(self, octets: bytearray) -> None:
        self._parts.append(bytes(octets))

    def _on_message_complete(self) -> None:
        self.complete = True
        self.body = b"".join(self._parts)


Done = Callable[[HttpAnswer | Exception], None]
"""Takes an answer, or an OSError or HTTPParseError."""


class HttpPool:
    """Connections to one address, opened as they are needed and used again, the last one first.

    `meanwhile` is called before an answer is looked at, which takes its time."""

    def __init__(
        self, address: tuple[str, int], patience_s: float, meanwhile: Callable[[], None]
    ) -> None:
        self.meanwhile = meanwhile
        self._address = address
        self._patience_s = patience_s
        self._closed = False
        self._idle: list[_HttpConnection] = []
        self._busy: dict[_HttpConnection, None] = {}
        """In the order in which they began to wait."""

    def exchange(self, request: HttpRequest, done: Done) -> None:
        """Send a request; `done` is called once, maybe before this returns."""
        if self._idle:
            connection = self._idle.pop()
            if time.monotonic() - connection.since < _IDLE_S:
                self._ask(connection, request, done)
                return
            connection.close()
            self._close_idle()  # the others were idle for longer
        gevent.spawn_raw(self._open, request, done)

    def expire(self) -> None:
        """Give up on answers that do not come."""
        limit = time.monotonic() - self._patience_s
        while self._busy:
            connection = next(iter(self._busy))
            if connection.since > limit:
                return
            connection.fail(TimeoutError("no answer in time"))

    def close(self) -> None:
        """Close all connections; what is under way is not called back."""
        self._closed = True
        self._close_idle()
        for connection in self._busy:
            connection.close()
        self._busy.clear()

    def release(self, connection: "_HttpConnection", usable: bool) -> None:
        """An exchange is over."""
        self._busy.pop(connection, None)
        if usable:
            connection.since = time.monotonic()
            self._idle.append(connection)
        else:
            connection.close()

    def forget(self, connection: "_HttpConnection") -> None:
        """An idle connection was closed by the server."""
        self._idle.remove(connection)
        connection.close()

    def _ask(self, connection: "_HttpConnection", request: HttpRequest, done: Done) -> None:
        connection.since = time.monotonic()
        self._busy[connection] = None
        connection.ask(request, done)

    def _open(self, request: HttpRequest, done: Done) -> None:
        """In a greenlet of its own, since a name may have to be looked up."""
        try:
            wire = gevent.socket.create_connection(self._address, timeout=self._patience_s)
            wire.setsockopt(gevent.socket.IPPROTO_TCP, gevent.socket.TCP_NODELAY, 1)
        except OSError as error:
            done(error)
            return
        except UnicodeError:
            done(OSError(f"{self._address[0]!r} is no name of a host"))
            return
        if self._closed:
            wire.close()
        else:
            self._ask(_HttpConnection(self, wire.detach()), request, done)

    def _close_idle(self) -> None:
        for connection in self._idle:
            connection.close()
        self._idle.clear()


class _HttpConnection:
    """One connection, which carries one exchange at a time."""

    def __init__(self, pool: HttpPool, fd: int) -> None:
        self.since = 0.0
        """When the present exchange began; while there is none: when the last one ended."""
        self._pool = pool
        self._fd = fd
        self._unsent = memoryview(b"")
        self._exchange: tuple[HttpAnswer, Done] | None = None
        loop = gevent.get_hub().loop
        self._writable: Any = loop.io(fd, _WRITE)
        self._readable: Any = loop.io(fd, _READ)
        self._readable.start(self._read)

    def ask(self, request: HttpRequest, done: Done) -> None:
        self._exchange = HttpAnswer(), done
        self._write(memoryview(request.octets))

    def fail(self, error: Exception) -> None:
        """The present exchange comes to nothing."""
        self._finish(error, usable=False)

    def close(self) -> None:
        self._readable.close()
        self._writable.close()
        os.close(self._fd)

    def _write(self, octets: memoryview) -> None:
        try:
            sent = os.write(self._fd, octets)
        except BlockingIOError:
            sent = 0
        except OSError as error:
            self.fail(error)
            return
        self._unsent = octets[sent:]
        if self._unsent:
            self._writable.start(self._write_more)

    def _write_more(self) -> None:
        self._writable.stop()
        self._write(self._unsent)

    def _read(self) -> None:
        try:
            octets = os.read(self._fd, _BLOCK)
        except BlockingIOError:
            return
        except OSError as error:
            octets, lost = b"", error
        else:
            lost = ConnectionResetError("the server closed the connection")
        if self._exchange is None:
            self._pool.forget(self)  # closed, or something that nobody asked for
            return
        if not octets:
            self.fail(lost)
            return
        answer, _ = self._exchange
        answer.arrived = clock()
        self._pool.meanwhile()
        try:
            answer.feed(octets)
        except HTTPParseError as error:
            self.fail(error)
            return
        if answer.complete:
            self._finish(answer, usable=answer.should_keep_alive() and not self._unsent)

    def _finish(self, outcome: HttpAnswer | Exception, *, usable: bool) -> None:
        assert self._exchange is not None
        (_, done), self._exchange = self._exchange, None
        self._pool.release(self, usable)
        try:
            done(outcome)
        except Exception:
            # Else the event loop would no longer watch a connection that is idle again, and whoever
            # gives up on connections would end with this one.
            gevent.get_hub().handle_error(done, *sys.exc_info())
