"""What one Locust process sends, and when."""

from random import Random
from types import SimpleNamespace
from typing import Any

import gevent
import pytest
from gevent.server import StreamServer

import bench.loadtest.generator
from bench.loadtest.generator import (
    _AT_ONCE_MAX,
    CommandReport,
    OpenLoop,
    Plan,
    SendQueue,
    UserState,
)
from bench.loadtest.options import Offer, Place
from epaxos.runtime.alarm import clock
from epaxos.workload import parse_workload


class Generator:
    """Keeps what was begun: by whom, when it was due, and when it began."""

    def __init__(self, fails_at: int = 0) -> None:
        self.queue = SendQueue()
        self.begun: list[tuple[Any, int, int]] = []
        self._fails_at = fails_at

    def begin(self, user: Any, at: int) -> None:
        self.begun.append((user, at, clock()))
        if len(self.begun) == self._fails_at:
            raise ValueError("a workload of one's own")


def plan(rate: float, users: int = 1) -> Plan:
    return Plan(0, rate, {"Tokyo": users}, rate)


def open_loop(generator: Any, name: str = "Tokyo") -> OpenLoop:
    return OpenLoop(generator, SimpleNamespace(random=Random(1)), name)


@pytest.fixture(params=["timerfd", "timer of the loop"])
def kind(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if request.param != "timerfd":
        monkeypatch.setattr(bench.loadtest.generator, "timerfd_create", lambda: -1)


@pytest.mark.usefixtures("kind")
def test_commands_begin_when_they_are_due_and_in_that_order():
    generator = Generator()
    for _ in range(3):
        open_loop(generator).follow(plan(200.0), clock())
    gevent.sleep(0.2)
    generator.queue.close()
    due = [at for _, at, _ in generator.begun]
    assert len(due) > 30
    assert due == sorted(due)
    assert all(began >= at - 2_000 for _, at, began in generator.begun)


@pytest.mark.usefixtures("kind")
def test_a_process_that_was_held_up_catches_up_and_reads_answers_meanwhile():
    generator = Generator()
    open_loop(generator).follow(plan(1e3), clock() - 100_000)
    between: list[int] = []
    gevent.spawn(lambda: between.append(len(generator.begun)))
    generator.queue.run()
    assert len(generator.begun) == _AT_ONCE_MAX
    gevent.sleep(0.05)
    generator.queue.close()
    assert between[0] < len(generator.begun)
    assert len(generator.begun) > 70


def test_what_is_due_is_sent_between_answers():
    """The event loop is not asked: whoever reads many answers looks itself."""
    generator = Generator()
    open_loop(generator).follow(plan(1e3), clock())
    while not generator.begun:
        generator.queue.run()
    generator.queue.close()


def test_the_rate_of_a_region_is_divided_over_its_users():
    generator = Generator()
    one, other = open_loop(generator), open_loop(generator)
    one.follow(plan(1e3, users=1), clock() - 1_000_000)
    alone = _drained(generator, one)
    other.follow(plan(1e3, users=4), clock() - 1_000_000)
    assert 3 < alone / _drained(generator, other) < 5


def test_a_new_plan_counts_from_now_and_replaces_the_old_one():
    generator = Generator()
    each = open_loop(generator)
    each.follow(plan(1e3), clock() - 1_000_000)
    generator.queue.clear()
    now = clock()
    each.follow(plan(10.0), now)
    generator.queue.run()
    assert all(at > now for _, at, _ in generator.begun)
    generator.queue.close()


@pytest.mark.usefixtures("kind")
def test_what_a_workload_raises_reaches_whoever_runs_the_user():
    generator = Generator(fails_at=3)
    each = open_loop(generator)
    each.follow(plan(1e3), clock())
    with pytest.raises(ValueError, match="a workload of one's own"), gevent.Timeout(5):
        each.failed.get()
    gevent.sleep(0.02)
    assert len(generator.begun) == 3
    generator.queue.close()


def test_a_user_that_is_gone_sends_nothing_more():
    generator = Generator()
    each = open_loop(generator)
    each.follow(plan(1e3), clock() - 100_000)
    each.gone = True
    generator.queue.run()
    generator.queue.close()
    assert generator.begun == []


def _drained(generator: Generator, each: OpenLoop) -> int:
    """How many commands were due until now."""
    generator.begun.clear()
    generator.queue.run()
    while generator.queue._due[0][0] <= clock():
        generator.queue.run()
    generator.queue.clear()
    return len(generator.begun)


OK = b"HTTP/1.1 200 OK\r\nX-EPaxos-Path: fast\r\nContent-Length: 0\r\n\r\n"
REFUSED = b"HTTP/1.1 503 No\r\nContent-Length: 26\r\n\r\n" + b'{"title":"It did not happen"}'[:26]


def generate(answer: bytes, report: Any, each: Any, seconds: float = 0.2) -> Any:
    """What a generator counts against a server that always says the same."""

    def handle(wire: Any, address: object) -> None:
        while wire.recv(65_536):
            wire.sendall(answer)

    listener = StreamServer(("127.0.0.1", 0), handle)
    listener.start()
    place = Place("JP", "Tokyo", f"http://127.0.0.1:{listener.server_port}", "Tokyo")
    offer = Offer(rate=200.0, warmup_s=0.0, patience_s=2.0)
    generator = bench.loadtest.generator.Generator(offer, [place], "0", report)
    workload = parse_workload("conflict:0", 1, ["JP"])
    user = gevent.spawn(each, generator, UserState(generator.servers[0], workload, 0, 1))
    gevent.sleep(0.01)
    generator.apply(Plan(0, 200.0, {"Tokyo": 1}, 200.0))
    gevent.sleep(seconds)
    generator.drain()
    user.kill()
    listener.stop()
    return generator.take()


def in_open_loop(generator: Any, user: UserState) -> None:
    generator.open_loop(user, "Tokyo")


def in_closed_loop(generator: Any, user: UserState) -> None:
    while True:
        generator.closed_loop(user)


@pytest.mark.parametrize("each", [in_open_loop, in_closed_loop])
def test_every_command_is_counted_and_told_once_also_to_somebody_slow(each: Any):
    told: list[CommandReport] = []

    def report(one: CommandReport) -> None:
        gevent.sleep(0.002)  # listeners of Locust's may wait, which nothing in its loop may
        told.append(one)

    counted = generate(OK, report, each)
    counts = counted.of("Tokyo", 0)
    assert counts.answered == counted.sent_by("Tokyo", 0) > 10
    assert counts.failed == counted.unfinished == 0
    assert counts.paths == {"fast": counts.answered}
    assert sum(one.step == 0 for one in told) == counts.answered


@pytest.mark.parametrize("each", [in_open_loop, in_closed_loop])
def test_what_fails_is_counted_as_that(each: Any):
    told: list[CommandReport] = []
    counts = generate(REFUSED, told.append, each).of("Tokyo", 0)
    assert counts.answered == 0
    assert sum(counts.failures.values()) == sum(one.step == 0 for one in told) > 0
    assert all(failure.startswith("503") for failure in counts.failures)
    if each is in_closed_loop:
        assert len(told) <= 3, "it waits after a failure"


def test_a_listener_that_fails_does_not_keep_the_others_from_hearing(
    capsys: pytest.CaptureFixture[str],
):
    told: list[CommandReport] = []

    def report(one: CommandReport) -> None:
        told.append(one)
        if len(told) == 3:
            raise ValueError("of a listener")

    counts = generate(OK, report, in_open_loop).of("Tokyo", 0)
    assert len(told) == counts.answered > 10
    assert "of a listener" in capsys.readouterr().err


def test_a_listener_may_end_the_run():
    told: list[CommandReport] = []

    def each(generator: Any, user: UserState) -> None:
        def report(one: CommandReport) -> None:
            told.append(one)
            if len(told) == 3:
                generator.drain()

        generator._report = report
        in_open_loop(generator, user)

    counts = generate(OK, told.append, each).of("Tokyo", 0)
    assert len(told) == counts.answered >= 3
    assert counts.failed == 0
