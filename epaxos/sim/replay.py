"""A recorded life of a replica, replayed: the same node, the same inputs, and what differs.

The node is built from the trace's header, restored from the records that its log held, and fed
the recorded inputs in their steps. What comes out is compared with what came out then. The first
difference is where to look: behind it the two nodes have different pasts, and more differences say
little.

An observer may be asked to note everything that concerns one instance; `epaxos.sim.instance_chart`
draws it. What is noted is what the node did in the replay.

Rules of this file: reads nothing but the trace it is given; a replay is a pure function of trace
and protocol.
"""

import random
from collections import Counter
from collections.abc import Callable
from heapq import heappush, heappushpop
from typing import Any, Final, NamedTuple

import msgspec

from epaxos.core.command import Results
from epaxos.core.errors import CodecError
from epaxos.core.replica import EVERYONE, Path, Setup
from epaxos.core.types import InstanceId, Micros, replica_name
from epaxos.node.node import Node, node_with
from epaxos.node.requests import NodeReady, Reply
from epaxos.registry import ProtocolSpec, find_protocol, find_state_machine
from epaxos.sim.incarnation import NodeFactory, Seen, Watched
from epaxos.sim.instance_chart import Observer
from epaxos.sim.schedule.words import show
from epaxos.trace import (
    Answered,
    Asked,
    Digest,
    Received,
    Refused,
    Requested,
    Said,
    StepOutcome,
    TraceAnswer,
    TraceReader,
    TraceStep,
    decode_said,
    outcome_of,
    question_of,
    request_of,
)

SLOWEST: Final = 5
"""How many of the slowest own instances are remembered."""
LISTED: Final = 5
"""How many recovered or slow instances are listed."""


class Divergence(NamedTuple):
    """Where a replay left its recording."""

    step: int
    """Which step, from 1; 0 is the restore before the first."""
    at: Micros
    """When the step began."""
    part: str
    """What differs: `message 2`, `record 1`, `answer 1`, ..."""
    recorded: str
    """What came out then."""
    replayed: str
    """What comes out now."""


class Slow(NamedTuple):
    """An own instance, by how long its clients waited."""

    answer_us: Micros
    instance: InstanceId
    path: Path


class Replay:
    """One trace, replayed by `run`; afterwards the fields say what happened."""

    def __init__(
        self,
        trace: TraceReader,
        spec: ProtocolSpec | None = None,
        observer: Observer | None = None,
    ) -> None:
        """`spec` instead of the recorded protocol: what would another version have done?"""
        header = self.header = trace.header
        self.trace = trace
        self._spec = spec or find_protocol(header.protocol)
        kind = node_with(find_state_machine(header.state_machine))
        self._factory = NodeFactory(self._spec, kind)
        self._codec = self._factory.codec
        self._observer = observer
        self._watched: Watched
        self.steps = 0
        self.first: Micros | None = None
        """When the first step began; None without steps."""
        self.last: Micros = 0
        """When the last step began."""
        self.divergence: Divergence | None = None
        """The first one."""
        self.differing = 0
        """How many steps differ."""
        self.failure: str | None = None
        """What the replaying node raised; nothing behind it was replayed."""
        self.counts = Counter[str]()
        """Restored records, messages in and out, records, commands, answered commands."""
        self.paths = Counter[Path]()
        """Instances decided here, by path."""
        self.recovered: list[InstanceId] = []
        """The first few that this replica recovered."""
        self.slow_path: list[InstanceId] = []
        """The first few that this replica decided on the slow path."""
        self.slowest: list[Slow] = []
        """The slowest own instances, a heap until `run` ends; then slowest first."""

    def run(self) -> "Replay":
        """Replay the whole life; returns itself."""
        try:
            node = self._restore()
        except Exception as error:
            self._fail(f"the restore raises {error!r}", 0)
            return self
        for step in self.trace.steps():
            self.steps += 1
            self.first = step.now if self.first is None else self.first
            self.last = step.now
            if self.failure is None:
                self._step(node, step)
        self.slowest.sort(reverse=True)
        return self

    def _restore(self) -> Node:
        header = self.header
        setup = Setup(
            header.member,
            len(header.regions),
            tuple(header.rtt_us),
            random.Random(header.seed),
            header.leader,
        )
        node, self._watched = self._factory.build(setup, header.boot, header.limits)
        for body in self.trace.records():
            self.counts["restored"] += 1
            node.restore(self._codec.decode_record(body))
        self._watched.seen()
        return node

    def _step(self, node: Node, step: TraceStep) -> None:
        observer = self._observer
        try:
            for each in step.inputs:
                self._feed(node, each, step.now)
            ready = node.take(step.now)
        except Exception as error:
            self._fail(f"the node raises {error!r}", step.now, recorded_too=step.outcome is None)
            return
        seen = self._watched.seen()
        self._count(ready, step, seen)
        if observer is not None:
            observer.step(self.header.member, step, ready, seen, node.executor)
        outcome = outcome_of(ready, [_number(reply.waiter) for reply in ready.replies], None)
        outcome = msgspec.structs.replace(outcome, deadline=node.deadline())
        if outcome != step.outcome:
            self._differ(step, outcome)

    def _feed(self, node: Node, each: Any, now: Micros) -> None:
        if isinstance(each, Received):
            message = self._codec.decode_message(each.body)
            self.counts["received"] += 1
            if self._observer is not None:
                self._observer.arrived(self.header.member, each.source, message, now)
            node.receive(each.source, message, now)
        elif isinstance(each, Requested):
            self.counts["commands"] += sum(len(request.keys) for request in each.requests)
            node.request([request_of(columns) for columns in each.requests], now)
        elif isinstance(each, Asked):
            node.ask(each.waiter, question_of(each), now)
        else:
            node.wake(now)

    def _count(self, ready: NodeReady, step: TraceStep, seen: Seen) -> None:
        self.counts["sent"] += len(ready.messages)
        self.counts["records"] += len(ready.log)
        for decided in seen.decided:
            self.paths[decided.path] += 1
            instance = InstanceId(decided.replica, decided.slot)
            if decided.path is Path.RECOVERED and len(self.recovered) < LISTED:
                self.recovered.append(instance)
            elif decided.path is Path.SLOW and len(self.slow_path) < LISTED:
                self.slow_path.append(instance)
        at = step.now + (step.took_us or 0)
        answers: dict[InstanceId, Slow] = {}
        for reply in ready.replies:
            if isinstance(reply, Reply):
                self.counts["answered"] += reply.results.count
                instance = InstanceId(reply.results.replica, reply.results.slot)
                slow = Slow(at - reply.arrived, instance, reply.flight.path)
                answers[instance] = max(slow, answers.get(instance, slow))
        for slow in answers.values():
            push: Any = heappush if len(self.slowest) < SLOWEST else heappushpop
            push(self.slowest, slow)

    # Divergence --------------------------------------------------------------------------------

    def _fail(self, why: str, at: Micros, recorded_too: bool = False) -> None:
        self.failure = why
        if not recorded_too:
            self.differing += 1
            if self.divergence is None:
                self.divergence = Divergence(self.steps, at, "the step", "it went on", why)

    def _differ(self, step: TraceStep, outcome: StepOutcome) -> None:
        self.differing += 1
        if self.divergence is not None:
            return
        if step.outcome is None:
            part, then, now = "the step", "the replica failed in it", "it ends in order"
        else:
            part, then, now = self._first_divergence(step.outcome, outcome)
        self.divergence = Divergence(self.steps, step.now, part, then, now)

    def _first_divergence(self, then: StepOutcome, now: StepOutcome) -> tuple[str, str, str]:
        columns: tuple[tuple[str, list[Any], list[Any], Callable[[Any], str]], ...] = (
            ("record", then.records, now.records, lambda each: self._show(each, "record")),
            ("message", then.messages, now.messages, self._show_sent),
            ("answer", then.answers, now.answers, self._show_answer),
            ("decision", then.choices, now.choices, _show_choice),
        )
        for name, before, after, shown in columns:
            for index in range(max(len(before), len(after))):
                old = before[index] if index < len(before) else None
                new = after[index] if index < len(after) else None
                if old != new:
                    told = ["nothing" if each is None else shown(each) for each in (old, new)]
                    return f"{name} {index + 1}", told[0], told[1]
        if then.must_sync != now.must_sync:
            return "the sync", _SYNC[then.must_sync], _SYNC[now.must_sync]
        return "the deadline", _show_deadline(then.deadline), _show_deadline(now.deadline)

    def _show(self, thing: Said, what: str) -> str:
        try:
            known = decode_said(self._codec, thing, what)
        except CodecError as error:
            return f"bytes that do not decode here: {error}"
        return _show_digest(known) if isinstance(known, Digest) else show(known)

    def _show_sent(self, sent: tuple[int, Said]) -> str:
        target, message = sent
        to = "all" if target == EVERYONE else replica_name(target)
        return f"to {to}: {self._show(message, 'message')}"

    def _show_answer(self, answer: TraceAnswer) -> str:
        who = f"to request {answer.waiter}"
        if isinstance(answer, Answered):
            path = Path(answer.path).name.lower()
            return f"{who}, from command {answer.offset}, {path}: {_show_results(answer.results)}"
        if isinstance(answer, Refused):
            return f"{who}, {answer.commands} commands refused ({answer.code}): {answer.detail}"
        if answer.refusal is not None:
            return f"{who}: {answer.refusal}"
        document = answer.document
        return f"{who}: {_show_digest(document) if isinstance(document, Digest) else document!r}"


def _number(waiter: object) -> int:
    assert isinstance(waiter, int)
    return waiter


def _show_results(results: Said) -> str:
    if isinstance(results, Digest):
        return _show_digest(results)
    known = msgspec.msgpack.decode(results, type=Results)
    words = [f"{InstanceId(known.replica, known.slot)}[{known.index}:{known.index + known.count}]"]
    if known.statuses:
        words.append(f"statuses {known.statuses.hex()} values {known.values}")
    return " ".join(words)


def _show_digest(digest: Digest) -> str:
    return f"{digest.kind} of {digest.size:,} bytes, checksum {digest.crc:08x}"


def _show_choice(choice: Any) -> str:
    where = "elsewhere" if choice.instance is None else str(InstanceId(*choice.instance))
    return f"batch {choice.number & 0xFFFFFFFF} in {where}, {Path(choice.path).name.lower()}"


def _show_deadline(at: Micros | None) -> str:
    return "none" if at is None else f"at {at} µs"


_SYNC: Final = {True: "must come before anything leaves", False: "is not needed"}
