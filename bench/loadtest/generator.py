"""The load of one Locust process: open and closed loops, and how late it itself was.

A generator that is busy is late, so commands go over connections of their own (http.py) instead of
through Locust's client, and Locust hears of them afterwards, a few at a time. Open loops wait on a
timer of the kernel, because an event loop rounds its timers to milliseconds. Nothing is sent in an
open loop before all users are there: the rate is divided over the users of all processes.

Rules of this file: gevent, but no Locust. All times are µs of `clock`. An answer counts where its
intended start lies in the measured window of a step; what begins outside is sent and not counted.
"""

import gc
import logging
import os
import resource
import sys
import time
from collections import deque
from collections.abc import Callable, Sequence
from heapq import heappop, heappush
from itertools import count
from random import Random
from typing import Any, Final, NamedTuple

import gevent
import msgspec
from gevent.event import AsyncResult

from bench.loadtest.counts import Health, LoadCounts, Window
from bench.loadtest.http import HttpAnswer, HttpPool
from bench.loadtest.kept import KeptCalls
from bench.loadtest.options import Offer, Place
from bench.loadtest.targets import HttpRequest, Meaning, make_target
from epaxos.core.types import Micros
from epaxos.percentile import bucket
from epaxos.runtime.alarm import LATENESS_US, clock, timerfd_create, timerfd_settime
from epaxos.workload import OWN_KEY, Command, Workload

log = logging.getLogger("epaxos")

BEFORE: Final = -1
"""Instead of the number of a step, before the first."""
_BACK_OFF_S: Final = 0.1
"""A closed loop's pause after a failure: a refused connection takes no time."""
_LATENESS_PERIOD_S: Final = 0.01
_EXPIRY_PERIOD_S: Final = 0.05
_AT_ONCE_MAX: Final = 32
"""So many commands that are due may begin before answers are read."""
_TELL_PERIOD_S: Final = 0.02
_TOLD_AT_ONCE: Final = 8
"""Of so many commands Locust hears before answers are read."""


class Plan(msgspec.Struct, frozen=True):
    """What all processes are told when all users are there, and at each step."""

    step: int
    rate: float
    """Per region; 0 in a closed loop."""
    users: dict[str, int]
    """User class -> users in all processes."""
    wanted: float
    """What the step is about: the rate, or users per region."""


class CommandReport(NamedTuple):
    """One command, for Locust's own statistics."""

    request: HttpRequest
    meaning: Meaning
    place: Place
    answer_ms: float
    length: int
    step: int


class SendQueue:
    """Commands to begin, in the order of their moments, with one timer of the kernel where it has
    timers that are exact to some ten microseconds."""

    def __init__(self) -> None:
        self._due: list[tuple[int, int, OpenLoop]] = []
        self._numbers = count()
        self._hub = gevent.get_hub()
        self._fd = timerfd_create()
        self._watcher: Any = self._hub.loop.io(self._fd, 1) if self._fd >= 0 else None
        if self._watcher is not None:
            self._watcher.start(self._ring)

    def add(self, each: "OpenLoop", at: int) -> None:
        """`each` begins a command at `at`."""
        heappush(self._due, (at, next(self._numbers), each))
        if self._due[0][0] == at:
            self._set(at)

    def run(self) -> None:
        """Begin what is due."""
        if self._due and self._due[0][0] <= clock() + LATENESS_US:
            self._ring()

    def _ring(self) -> None:
        """A process that was held up catches up; but answers are read now and then."""
        due = self._due
        budget = _AT_ONCE_MAX
        while due and budget > 0 and due[0][0] <= clock() + LATENESS_US:
            at, _, each = heappop(due)
            following = each.begin(at)
            if following is not None:
                heappush(due, (following, next(self._numbers), each))
            budget -= 1
        self._set(due[0][0] if due else None)

    def clear(self) -> None:
        self._due.clear()
        self._set(None)

    def close(self) -> None:
        """Give the timer back."""
        self._due.clear()
        if self._watcher is not None:
            self._watcher.close()
            self._watcher = None
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def _set(self, at: int | None) -> None:
        if self._fd >= 0:
            timerfd_settime(self._fd, at or 0)
            return
        if self._watcher is not None:
            self._watcher.close()
            self._watcher = None
        if at is not None:
            self._watcher = self._hub.loop.timer(max(0, at - clock()) / 1e6)
            self._watcher.start(self._ring)


class RegionServer:
    """The server of one region, in this process."""

    def __init__(self, place: Place, offer: Offer, meanwhile: Callable[[], None]) -> None:
        self.place = place
        host, port = place.address
        self.target = make_target(offer.target, f"{host}:{port}")
        self.pool = HttpPool((host, port), offer.patience_s, meanwhile)


class UserState:
    """One user's commands and arrivals, and what its last GET found."""

    def __init__(self, server: RegionServer, workload: Workload, number: int, seed: int) -> None:
        self.server = server
        self.random = Random(f"{seed} arrivals {server.place.name} {number}")
        self.found: str | None = None
        """Closed loop: for the second half of a read-modify-write."""
        self._start_us = 0
        self._commands = workload.commands(server.place.name, number, iter(self._start, None))

    def _start(self) -> int:
        return self._start_us

    def next(self, start_us: int) -> Command:
        """The next command; it begins `start_us` after the load."""
        self._start_us = start_us
        return next(self._commands)


class OpenLoop:
    """A user that sends at Poisson moments. They have no memory: a new rate counts from now."""

    def __init__(self, generator: "Generator", user: UserState, name: str) -> None:
        self.failed: AsyncResult[None] = AsyncResult()
        """Holds what its workload raised."""
        self.gone = False
        self._generator = generator
        self._user = user
        self._name = name
        self._gap_us = 0.0
        self._at = 0.0

    def follow(self, plan: Plan, now: int) -> None:
        """Send as a plan says, from now on."""
        self._gap_us = 1e6 * max(1, plan.users.get(self._name, 1)) / plan.rate
        self._at = float(now)
        self._generator.queue.add(self, self._next())

    def begin(self, at: int) -> int | None:
        """The command that is due at `at`. When the following one is; None: there is none."""
        if self.gone:
            return None
        try:
            self._generator.begin(self._user, at)
        except Exception as error:
            # This is the event loop; whoever runs the user is to hear of it.
            self.failed.set_exception(error)
            return None
        return self._next()

    def _next(self) -> int:
        self._at += self._user.random.expovariate(1.0) * self._gap_us
        return round(self._at)


class Generator:
    """Everything that one process sends, and what it counts."""

    def __init__(
        self,
        offer: Offer,
        places: Sequence[Place],
        process: str,
        report: Callable[[CommandReport], None],
    ) -> None:
        self.offer = offer
        self.queue = SendQueue()
        self.servers = [RegionServer(place, offer, self.queue.run) for place in places]
        self.pending = LoadCounts()
        """What was counted since the last `take`."""
        self.plan = Plan(BEFORE, 0.0, {}, 0.0)
        self.stopping = False
        self.outstanding = 0
        """Commands without an answer until now."""
        self._process = process
        self._report = report
        self._kept: KeptCalls | None = None
        if offer.history:
            self._kept = KeptCalls(offer.history, process, offer.initial)
        self._first = 0
        """From when on starts count."""
        self._zero = clock()
        """The start of the load."""
        self._loops: list[OpenLoop] = []
        self._untold: deque[CommandReport] = deque()
        """What Locust is to hear of open loops, which wait for nothing."""
        self._drained = False
        self._cpu_us = _cpu_us()
        self._wall_us = clock()
        self._watch = gevent.spawn(self._measure_lateness)
        self._teller = gevent.spawn(self._tell)
        self._expirer = gevent.spawn(self._expire)
        gc.collect()
        gc.freeze()
        gc.set_threshold(100_000, 50, 50)

    def apply(self, plan: Plan) -> None:
        """All users are there, or the next step begins."""
        self._close_window()
        self.plan = plan
        self._first = clock() + round(self.offer.warmup_s * 1e6)
        self.queue.clear()
        if plan.rate and not self.stopping:
            for each in self._loops:
                each.follow(plan, clock())

    def _close_window(self) -> None:
        step = self.plan.step
        if step == BEFORE or self.stopping:
            return
        measured_us = max(0, clock() - self._first)
        users = sum(self.plan.users.values())
        self.pending.windows[step] = Window(self.plan.wanted, users, measured_us)

    def take(self) -> LoadCounts:
        """What was counted since the last time."""
        self._close_window()
        health = self._health()
        now, cpu_us = clock(), _cpu_us()
        health.wall_us, self._wall_us = now - self._wall_us, now
        health.cpu_us, self._cpu_us = cpu_us - self._cpu_us, cpu_us
        taken, self.pending = self.pending, LoadCounts()
        return taken

    def drain(self) -> None:
        """Send nothing more, and wait for what is under way as long as users are patient."""
        if self.stopping:
            return
        self._close_window()
        self.stopping = True
        self.queue.close()
        # From here on Locust is busy with its own end.
        self._watch.kill()
        # So that whatever waits for longer has been given up, and is a failure like any other.
        patience_us = round((self.offer.patience_s + 2 * _EXPIRY_PERIOD_S) * 1e6)
        limit = clock() + patience_us
        while self.outstanding and clock() < limit:
            gevent.sleep(0.01)
        self.pending.unfinished += self.outstanding
        for server in self.servers:
            server.pool.close()
        if self._kept is not None:
            self._kept.close()
            self._kept = None
        self._expirer.kill()
        self._drained = True
        if gevent.getcurrent() is self._teller:  # a listener ended the run
            limit = clock() + patience_us
            while self._untold and clock() < limit:
                self._tell_next()
        else:
            self._teller.join(self.offer.patience_s)
            self._teller.kill()
        if self._untold:
            log.warning(
                "a listener took too long: Locust's own tables lack %d commands", len(self._untold)
            )
            self._untold.clear()

    def closed_loop(self, user: UserState) -> None:
        """One command of a user that waits for its answer."""
        if self.stopping:
            gevent.sleep(0.1)  # until Locust ends this user
            return
        now = clock()
        step = self._counted(user.server, self.plan.step, now)
        outcome: AsyncResult[CommandReport] = AsyncResult()
        command = user.next(now - self._zero)
        self._send(user, command, now, step, outcome.set, user.found)
        report = outcome.get()
        self._report(report)
        meaning = report.meaning
        user.found = None if meaning.failure else meaning.found
        if meaning.failure:
            gevent.sleep(_BACK_OFF_S)

    def open_loop(self, user: UserState, name: str) -> None:
        """The commands of a user that sends at Poisson moments, until the run is over. `name` is
        that of its user class. Raises what its workload raises."""
        each = OpenLoop(self, user, name)
        self._loops.append(each)
        try:
            if self.plan.step != BEFORE and not self.stopping:
                each.follow(self.plan, clock())
            each.failed.get()
        finally:
            self._loops.remove(each)
            each.gone = True

    def begin(self, user: UserState, intended: int) -> None:
        """Send a command that was to begin at `intended`, and do not wait for its answer."""
        step = self._counted(user.server, self.plan.step, intended)
        if step != BEFORE:
            self._health().start_error[bucket(max(0, clock() - intended))] += 1
        command = user.next(intended - self._zero)
        self._send(user, command, intended, step, self._untold.append)

    def _counted(self, server: RegionServer, step: int, start: int) -> int:
        """The step, if a command that begins then counts; and count it as sent."""
        if step == BEFORE or start < self._first or self.stopping:
            return BEFORE
        key = (step, server.place.title)
        sent = self.pending.sent
        sent[key] = sent.get(key, 0) + 1
        return step

    def _send(
        self,
        user: UserState,
        command: Command,
        intended: Micros,
        step: int,
        tell: Callable[[CommandReport], None],
        found: str | None = None,
    ) -> None:
        server, kept = user.server, self._kept
        if kept is not None:
            command = kept.made_unlike(user, server.place.name, command)
        request = server.target.request(command, found)
        began = clock()
        call = None if kept is None else kept.begin(user, command, server.target, found, began)

        def done(answer: HttpAnswer | Exception) -> None:
            self.outstanding -= 1
            if isinstance(answer, HttpAnswer):
                now, body = answer.arrived, answer.body
                meaning = server.target.meaning(request, answer.get_code(), answer.header, body)
            else:
                now, body = clock(), b""
                meaning = Meaning(request.operation, _why(answer))
            if kept is not None and call is not None:
                kept.end(call, server.target, request, answer, meaning)
            if step != BEFORE:
                self._count(server, step, meaning, command, now - intended, now - began)
            second = self.pending.second(int(time.time()), server.place.title)
            if meaning.failure:
                second.failed += 1
            else:
                second.answer[bucket(now - intended)] += 1
            answer_ms = (now - intended) / 1000
            tell(CommandReport(request, meaning, server.place, answer_ms, len(body), step))

        self.outstanding += 1
        server.pool.exchange(request, done)

    def _count(
        self,
        server: RegionServer,
        step: int,
        meaning: Meaning,
        command: Command,
        answer_us: int,
        own_us: int,
    ) -> None:
        commands = self.pending.at(step, server.place.title, meaning.operation)
        if meaning.failure:
            commands.failures[meaning.failure] += 1
            return
        commands.answered += 1
        commands.shared += command.shared != OWN_KEY
        commands.answer[bucket(answer_us)] += 1
        commands.service[bucket(own_us)] += 1
        if meaning.path:
            commands.paths[meaning.path] += 1
        if meaning.waited_us >= 0:
            commands.commit[bucket(max(0, answer_us - meaning.waited_us))] += 1
            commands.wait[bucket(meaning.waited_us)] += 1

    def _health(self) -> Health:
        health = self.pending.health.get(self._process)
        if health is None:
            health = self.pending.health[self._process] = Health()
        return health

    def _measure_lateness(self) -> None:
        """How late a greenlet is that wants to run every 10 ms, while commands count."""
        period_us = round(_LATENESS_PERIOD_S * 1e6)
        while True:
            due = clock() + period_us
            gevent.sleep(_LATENESS_PERIOD_S)
            now = clock()
            late_us = max(0, now - due)
            if self.plan.step == BEFORE or now < self._first:
                continue
            health = self._health()
            health.lateness[bucket(late_us)] += 1
            health.lateness_max_us = max(health.lateness_max_us, late_us)

    def _tell(self) -> None:
        """Tell Locust what became of commands. Whoever listens there may take its time."""
        untold = self._untold
        while untold or not self._drained:
            gevent.sleep(_TELL_PERIOD_S)
            while untold:
                for _ in range(_TOLD_AT_ONCE):
                    if untold:  # a listener that ends the run has them all told
                        self._tell_next()
                        self.queue.run()
                gevent.sleep(0)

    def _tell_next(self) -> None:
        try:
            self._report(self._untold.popleft())
        except Exception:
            # Locust lets some through, with which listeners end a user; here there is none.
            gevent.get_hub().handle_error(self._teller, *sys.exc_info())

    def _expire(self) -> None:
        while True:
            gevent.sleep(_EXPIRY_PERIOD_S)
            for server in self.servers:
                server.pool.expire()


def _cpu_us() -> int:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return round((used.ru_utime + used.ru_stime) * 1e6)


def _why(error: Exception) -> str:
    """In words that many failures share."""
    if isinstance(error, TimeoutError):
        return "no answer in time"
    if isinstance(error, ConnectionRefusedError):
        return "cannot connect: connection refused"
    if isinstance(error, OSError) and error.strerror:
        return f"connection lost: {error.strerror.lower()}"
    return f"connection lost: {error}" if isinstance(error, OSError) else f"no HTTP: {error}"
