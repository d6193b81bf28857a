"""The loop around a node: five lines that keep the law of durability (`Driver._step`).

    feed inputs                                             (a bounded number of messages, fairly)
    ready = node.take(now)
    append ready.log; one sync if ready.must_sync           (in this thread: measured, it is faster)
    send ready.messages
    give ready.replies

One callback of the event loop per tick, scheduled when something arrived; what arrives while a sync
runs is the next tick's: that is group commit. An alarm stands for the node's deadline.

Rules of this file: fail-stop. Whatever a step raises ends the process; after it no byte leaves. The
one exception is the last line: what a waiter raises ends that waiter's connection. The only call of
`sync` in the running system is here.
"""

import asyncio
from collections.abc import Callable, Iterable
from contextlib import suppress
from typing import Any, Final, Protocol, cast

from epaxos.core.replica import Message, Path, Record
from epaxos.core.types import Micros, ReplicaId
from epaxos.node.requests import NodeReady, Question, QuestionReply, Refusal, Reply, Request, commit
from epaxos.node.sampling import Samples
from epaxos.runtime.alarm import Alarm, clock
from epaxos.runtime.backlog import Backlog
from epaxos.runtime.metrics import Distribution

STEP_MESSAGES_MAX: Final = 1024
"""Messages per tick, for fairness towards clients and timers."""
LAG_PERIOD_US: Final = 20_000
"""How often the loop's lag is measured: a p99 of seconds wants hundreds of samples."""


class Waiter(Protocol):
    """Whoever waits for an answer. The node carries it and never looks inside."""

    def reply(self, reply: Reply, now: Micros) -> None:
        """A run of commands was executed."""
        ...

    def refuse(self, refusal: Refusal) -> None:
        """A run of commands did not succeed."""
        ...

    def give_up(self, error: Exception) -> None:
        """`reply` or `refuse` raised: who waits learns no more."""
        ...


class Source(Protocol):
    """A port through which requests come."""

    def collect(self, now: Micros) -> list[Request]:
        """Requests that arrived since the last tick."""
        ...

    def flush(self) -> None:
        """The tick's answers were given: write them."""
        ...


class Log(Protocol):
    """Where records go."""

    def append(self, records: list[Record]) -> None: ...
    def sync(self) -> None: ...


class DrivenNode(Protocol):
    """What the driver uses of `epaxos.node.node.Node`."""

    def request(self, requests: list[Request], now: Micros) -> None: ...
    def ask(self, waiter: Any, question: Question, now: Micros) -> None: ...
    def receive(self, source: ReplicaId, message: Message, now: Micros) -> None: ...
    def wake(self, now: Micros) -> None: ...
    def deadline(self) -> Micros | None: ...
    def take(self, now: Micros) -> NodeReady: ...


class Driver:
    """Runs one node in the present event loop. Without a log (memory mode) nothing is durable."""

    def __init__(
        self,
        node: DrivenNode,
        log: Log | None,
        send: Callable[[Iterable[tuple[ReplicaId, Message]]], None],
        fail: Callable[[BaseException], None],
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self._node = node
        self._log = log
        self._send = send
        self._fail = fail
        self._requests: list[Request] = []
        self._questions: list[tuple[asyncio.Future[QuestionReply], Question]] = []
        self._sources: list[Source] = []
        self._scheduled = False
        self._stopped = True
        self._deadline: Micros | None = 0
        self._armed: Micros | None = None
        self._alarm = Alarm(self._loop, self._ring)
        self._lag_due: Micros = 0
        self._lag_alarm = Alarm(self._loop, self._measure_lag)

        self.distrust: Callable[[ReplicaId], None] = lambda peer: None
        """Called with a peer that sent what no correct one sends."""
        self.backlog = Backlog()
        """What peers sent and the node was not told yet."""
        self.ticks = 0
        self.commits: dict[Path, int] = dict.fromkeys(Path, 0)
        """Own batches decided, by path."""
        self.commands = 0
        """Commands executed for clients of this replica."""
        self.refusals: dict[str, int] = {}
        """Commands refused, by code."""
        self.faults = 0
        """Answers that could not be given to whoever waits: that connection is closed."""
        self.commit_latency = Distribution()
        self.execute_latency = Distribution()
        self.sync_latency = Distribution()
        self.samples = Samples(clock)
        """The latest sampled batches of this replica."""
        self.lag = Distribution()
        """How late the event loop calls back, in µs."""

    def start(self) -> None:
        """Begin: the first wake ends the node's restore."""
        self._stopped = False
        self._lag_due = clock() + LAG_PERIOD_US
        self._lag_alarm.set(self._lag_due)
        self._tick()

    def stop(self) -> None:
        """Do nothing more. Questions that wait are cancelled."""
        self._stopped = True
        self._alarm.close()
        self._lag_alarm.close()
        for waiter, _ in self._questions:
            waiter.cancel()

    def count_refusal(self, code: str, count: int) -> None:
        """So many commands were refused."""
        self.refusals[code] = self.refusals.get(code, 0) + count

    def add_source(self, source: Source) -> None:
        """A port whose requests are collected at the start of each tick."""
        self._sources.append(source)

    def submit(self, request: Request) -> None:
        """One request; its waiter is a `Waiter`."""
        self._requests.append(request)
        self.schedule()

    async def ask(self, question: Question) -> QuestionReply:
        """The node's answer, as of a moment when everything behind it is durable (R10)."""
        waiter: asyncio.Future[QuestionReply] = self._loop.create_future()
        self._questions.append((waiter, question))
        self.schedule()
        return await waiter

    def deliver(self, source: ReplicaId, messages: list[Message], size: int) -> None:
        """Messages from a peer, `size` bytes together."""
        self.backlog.add(source, messages, size)
        if not self._scheduled:
            self.schedule()

    def schedule(self) -> None:
        """Something arrived: tick soon."""
        if not self._scheduled and not self._stopped:
            self._scheduled = True
            self._loop.call_soon(self._tick)

    def _tick(self) -> None:
        self._scheduled = False
        if self._stopped:
            return
        self.ticks += 1
        try:
            self._step(clock())
        except BaseException as error:
            # Fail-stop: what the node would say after a half-done step is not to be trusted.
            self._stopped = True
            self._fail(error)
            return
        if self.backlog.total:
            # In the turn after next: what arrived during this step is read before, so that whoever
            # was heard meanwhile is not taken for silent.
            self._loop.call_soon(self.schedule)
        self._arm()

    def _step(self, now: Micros) -> None:
        self._feed(now)
        ready = self._node.take(now)
        self._append(ready)
        for source in ready.distrusted:
            self.distrust(source)
        if ready.messages:
            self._send(ready.messages)
        self._answer(ready)

    def _feed(self, now: Micros) -> None:
        node = self._node
        if self.backlog.total:
            for source, group in self.backlog.take(STEP_MESSAGES_MAX):
                for message in group:
                    node.receive(source, message, now)
        requests, self._requests = self._requests, []
        for port in self._sources:
            requests += port.collect(now)
        if requests:
            node.request(requests, now)
        if self._questions:
            questions, self._questions = self._questions, []
            for waiter, question in questions:
                node.ask(waiter, question, now)
        deadline = self._deadline
        if deadline is not None and deadline <= now:
            node.wake(now)

    def _append(self, ready: NodeReady) -> None:
        """Append, and sync if it must be: everything of this Ready may leave now."""
        self.samples.taken(ready.sampled)
        log = self._log
        if log is not None and ready.log:
            log.append(ready.log)
            if ready.must_sync:
                before = clock()
                log.sync()
                self.sync_latency.record(clock() - before)
        if ready.flights:
            commit(ready.flights, clock())
            for flight in ready.flights:
                self.commits[flight.path] += 1
        self.samples.released(ready.sampled)

    def _answer(self, ready: NodeReady) -> None:
        if ready.replies:
            self._reply(ready.replies)
        self.samples.answered(ready.sampled)

    def _reply(self, replies: list[Reply | Refusal | QuestionReply]) -> None:
        now = clock()
        for reply in replies:
            # Everything behind an answer is done and durable: what goes wrong with giving it is the
            # misfortune of one client, and no reason to end a replica.
            try:
                self._give(reply, now)
            except Exception as error:
                self.faults += 1
                with suppress(Exception):
                    cast("Waiter", reply.waiter).give_up(error)
        for port in self._sources:
            port.flush()

    def _give(self, reply: Reply | Refusal | QuestionReply, now: Micros) -> None:
        if isinstance(reply, Reply):
            count = reply.results.count
            self.commands += count
            committed = reply.flight.committed_at or now
            self.commit_latency.record(committed - reply.arrived, count)
            self.execute_latency.record(now - reply.arrived, count)
            cast("Waiter", reply.waiter).reply(reply, now)
        elif isinstance(reply, Refusal):
            self.count_refusal(reply.code, reply.count)
            cast("Waiter", reply.waiter).refuse(reply)
        else:
            waiter = cast("asyncio.Future[QuestionReply]", reply.waiter)
            if not waiter.done():
                waiter.set_result(reply)

    def _arm(self) -> None:
        """Have the alarm ring no later than the node's deadline. One that is set earlier stays."""
        deadline = self._deadline = self._node.deadline()
        if deadline is not None and (self._armed is None or deadline < self._armed):
            self._armed = deadline
            self._alarm.set(deadline)

    def _ring(self) -> None:
        self._armed = None
        if self._stopped:
            return
        if self._deadline is not None and self._deadline <= clock():
            self.schedule()
        else:
            self._arm()

    def _measure_lag(self) -> None:
        now = clock()
        self.lag.record(now - self._lag_due)
        self._lag_due = now + LAG_PERIOD_US
        self._lag_alarm.set(self._lag_due)
