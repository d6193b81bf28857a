"""The connections of a load generator: each request is answered once, whatever the server does."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import gevent
import pytest
from gevent.server import StreamServer
from geventhttpclient._parser import HTTPParseError

import bench.loadtest.http
from bench.loadtest.http import HttpAnswer, HttpPool
from bench.loadtest.targets import HttpRequest

GET = HttpRequest("GET", "GET", b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
OK = b"HTTP/1.1 200 OK\r\nX-EPaxos-Path: fast\r\nContent-Length: 5\r\n\r\nhello"
PATIENCE_S = 0.2


class Server:
    """Does as it is told with each request of a connection."""

    def __init__(self, act: Callable[[Any], bool]) -> None:
        self.opened = 0
        self.received = 0
        self._act = act

    def handle(self, wire: Any, address: object) -> None:
        self.opened += 1
        while octets := wire.recv(65_536):
            self.received += len(octets)
            if not self._act(wire):
                break
        wire.close()


@contextmanager
def serving(act: Callable[[Any], bool]) -> Iterator[tuple[HttpPool, Server]]:
    server = Server(act)
    listener = StreamServer(("127.0.0.1", 0), server.handle)
    listener.start()
    pool = HttpPool(("127.0.0.1", listener.server_port), PATIENCE_S, lambda: None)
    try:
        yield pool, server
    finally:
        pool.close()
        listener.stop()


def answers(*parts: bytes) -> Callable[[Any], bool]:
    def act(wire: Any) -> bool:
        for part in parts:
            wire.sendall(part)
            gevent.sleep(0.005)
        return True

    return act


def ask(pool: HttpPool, request: HttpRequest = GET) -> HttpAnswer | Exception:
    """The outcome of one exchange; there must be exactly one."""
    found: list[HttpAnswer | Exception] = []
    pool.exchange(request, found.append)
    for _ in range(200):
        if found:
            break
        pool.expire()
        gevent.sleep(0.005)
    (outcome,) = found
    gevent.sleep(0.01)
    assert len(found) == 1
    return outcome


def test_an_answer_has_its_code_headers_and_body():
    with serving(answers(OK)) as (pool, _):
        answer = ask(pool)
        assert isinstance(answer, HttpAnswer)
        assert (answer.get_code(), answer.body) == (200, b"hello")
        assert answer.header("x-epaxos-path") == "fast"
        assert answer.header("etag") is None


@pytest.mark.parametrize("at", range(1, len(OK)))
def test_an_answer_may_come_in_parts(at: int):
    answer = HttpAnswer()
    answer.feed(OK[:at])
    assert not answer.complete
    answer.feed(OK[at:])
    assert answer.complete
    assert answer.body == b"hello"
    assert answer.header("x-epaxos-path") == "fast"


def test_an_answer_before_the_answer_does_not_count():
    answer = HttpAnswer()
    answer.feed(b"HTTP/1.1 100 Continue\r\nX-EPaxos-Path: slow\r\n\r\n" + OK)
    assert (answer.get_code(), answer.header("x-epaxos-path")) == (200, "fast")


def test_a_connection_is_used_again_and_more_are_opened_where_all_are_busy():
    with serving(answers(OK)) as (pool, server):
        for _ in range(3):
            assert isinstance(ask(pool), HttpAnswer)
        assert server.opened == 1
        found: list[HttpAnswer | Exception] = []
        for _ in range(3):
            pool.exchange(GET, found.append)
        gevent.sleep(0.1)
        assert server.opened == 3
        assert all(isinstance(answer, HttpAnswer) for answer in found)
        assert len(found) == 3


def test_a_connection_that_was_idle_for_long_is_not_used_again(monkeypatch: pytest.MonkeyPatch):
    with serving(answers(OK)) as (pool, server):
        ask(pool)
        monkeypatch.setattr(bench.loadtest.http, "_IDLE_S", 0.0)
        ask(pool)
        assert server.opened == 2


def test_a_connection_that_the_server_closed_while_idle_is_not_used_again():
    def act(wire: Any) -> bool:
        wire.sendall(OK)
        return False

    with serving(act) as (pool, server):
        for _ in range(3):
            assert isinstance(ask(pool), HttpAnswer)
            gevent.sleep(0.02)
        assert server.opened == 3


def test_an_answer_that_asks_to_close_is_heeded():
    with serving(answers(OK.replace(b"\r\n", b"\r\nConnection: close\r\n", 1))) as (pool, server):
        ask(pool)
        ask(pool)
        assert server.opened == 2


def test_a_server_that_hangs_up_is_a_failure():
    def act(wire: Any) -> bool:
        wire.sendall(OK[:30])
        return False

    with serving(act) as (pool, _):
        assert isinstance(ask(pool), ConnectionResetError)


def test_what_is_no_http_is_a_failure():
    with serving(answers(b"SSH-2.0-OpenSSH\r\n")) as (pool, server):
        assert isinstance(ask(pool), HTTPParseError)
        ask(pool)
        assert server.opened == 2, "nothing more is sent on that connection"


def test_a_server_that_is_silent_is_given_up_and_those_that_wait_for_less_long_are_not():
    with serving(lambda wire: True) as (pool, _):
        found: list[HttpAnswer | Exception] = []
        pool.exchange(GET, found.append)
        gevent.sleep(PATIENCE_S * 0.6)
        pool.exchange(GET, found.append)
        gevent.sleep(PATIENCE_S * 0.6)
        pool.expire()
        assert [type(outcome) for outcome in found] == [TimeoutError]
        gevent.sleep(PATIENCE_S * 0.6)
        pool.expire()
        assert [type(outcome) for outcome in found] == [TimeoutError] * 2


def test_nobody_there_is_a_failure():
    listener = StreamServer(("127.0.0.1", 0), lambda wire, address: None)
    listener.start()
    port = listener.server_port
    listener.stop()
    assert isinstance(ask(HttpPool(("127.0.0.1", port), PATIENCE_S, lambda: None)), OSError)


def test_a_request_larger_than_the_kernels_buffers_is_sent_whole():
    size = 16 * 1024 * 1024
    head = b"PUT / HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % size
    request = HttpRequest("PUT", "PUT", head + bytes(size))
    server: Server

    def act(wire: Any) -> bool:
        if server.received == len(request.octets):
            wire.sendall(OK)
        return True

    with serving(act) as (pool, server):
        assert isinstance(ask(pool, request), HttpAnswer)


def test_no_name_of_a_host_is_a_failure():
    outcome = ask(HttpPool(("a..b", 80), PATIENCE_S, lambda: None))
    assert isinstance(outcome, OSError)
    assert "'a..b' is no name of a host" in str(outcome)


def test_a_connection_that_opens_after_all_is_closed_is_not_used():
    with serving(answers(OK)) as (pool, server):
        found: list[HttpAnswer | Exception] = []
        pool.exchange(GET, found.append)
        pool.close()
        gevent.sleep(0.05)
        assert found == []
        assert server.received == 0


def test_a_caller_that_fails_leaves_the_connection_usable(capsys: pytest.CaptureFixture[str]):
    def fail(outcome: HttpAnswer | Exception) -> None:
        raise ValueError("of the caller")

    with serving(answers(OK)) as (pool, server):
        pool.exchange(GET, fail)
        gevent.sleep(0.05)
        assert isinstance(ask(pool), HttpAnswer)
        assert server.opened == 1
    assert "of the caller" in capsys.readouterr().err


def test_what_is_under_way_when_all_is_closed_is_not_called_back():
    with serving(lambda wire: True) as (pool, _):
        found: list[HttpAnswer | Exception] = []
        pool.exchange(GET, found.append)
        gevent.sleep(0.02)
        pool.close()
        gevent.sleep(PATIENCE_S * 1.5)
        pool.expire()
        assert found == []


def test_what_is_due_meanwhile_goes_before_the_answer_is_looked_at():
    with serving(answers(OK)) as (pool, _):
        order: list[str] = []
        pool.meanwhile = lambda: order.append("due")
        pool.exchange(GET, lambda outcome: order.append("done"))
        gevent.sleep(0.05)
        assert order == ["due", "done"]
