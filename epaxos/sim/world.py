"""The deterministic world: one heap of events, one virtual clock, one seeded random.

The very nodes of the runtime, driven by the same five lines: feed inputs (`_feed`), take (`_tick`),
append and sync (`_append`, `_sync`), send and reply (`_release`). While a sync runs, inputs pile
up. A crash may fall before the append, between append and sync, after the sync, or amid the sends.
Every message passes through the codec.

Rules of this file: a run is a pure function of its options; same options, same trace. Owns no
clock, no socket, no thread. Processes read their own clocks; everything else here is world time.
"""

import heapq
import random
from collections.abc import Callable
from typing import Any
from zlib import crc32

from epaxos.core.lineage import NO_LIFE, Life, descends
from epaxos.core.replica import Setup
from epaxos.core.types import Micros, ReplicaId, replica_name
from epaxos.node.node import Node
from epaxos.node.requests import AskTransfer, Limits, NodeReady, Refusal, Reply, Request
from epaxos.node.sampling import Samples
from epaxos.registry import ProtocolSpec, find_protocol
from epaxos.sim.check.checkers import (
    BOUNDED,
    READABLE,
    DecisionChecker,
    ExecutionChecker,
    Violation,
)
from epaxos.sim.check.protocol_invariants import ProtocolWatch
from epaxos.sim.clocks import LocalClock
from epaxos.sim.disk import Corrupt, Disk
from epaxos.sim.incarnation import CrashPoint, DiskFault, Incarnation, NodeFactory, Seen
from epaxos.sim.network import Network, Parcel
from epaxos.sim.options import RunOptions
from epaxos.sim.process import Process
from epaxos.sim.schedule.schedule import (
    Arrival,
    Commands,
    Crash,
    Event,
    HandOver,
    Input,
    Start,
    Step,
)
from epaxos.sim.schedule.words import Story, show
from epaxos.sim.situations import Meter

Action = Callable[..., object]


class World:
    """A cluster, its network and its disks. Clients and faults are added from outside."""

    def __init__(
        self, options: RunOptions, spec: ProtocolSpec | None = None, node: type[Node] = Node
    ) -> None:
        self.options = options
        self.random = random.Random(options.seed)
        self.now: Micros = 0
        self.trace = 0
        """Running checksum of everything that happened."""
        self.story = Story(options.story)
        self.recorded: list[Event] = []
        """The run as a schedule; empty unless the story is kept."""
        self.spec = spec or find_protocol(options.protocol)
        self._factory = NodeFactory(self.spec, node)
        self.decisions = DecisionChecker(options.replicas)
        self.executions = ExecutionChecker()
        self.watch = ProtocolWatch(self.spec, options.deep)
        self.limits = Limits(gate=options.gate, **dict(options.limits))
        self.meter = Meter(options)
        self.calm_at: tuple[Micros, ...] = ()
        """When, by each process's clock, the core healed."""
        self.remembered = [NO_LIFE] * options.replicas
        """Per member the latest life that its peers accepted (R11)."""
        self.on_reply: Callable[[Reply | Refusal], None] = lambda reply: None
        self.on_heal: Callable[[], None] = lambda: None
        self.on_crash: Callable[[ReplicaId], None] = lambda member: None
        self.counts: dict[str, int] = dict.fromkeys(_COUNTERS, 0)
        self._events: list[tuple[Micros, int, Action, tuple[Any, ...]]] = []
        self._order = 0
        self.network = Network(self)
        self.processes = [Process(me, self._draw_clock()) for me in range(options.replicas)]
        self.samples = [Samples(self._clock_of(process)) for process in self.processes]
        """Per member, its latest sampled batches, over all its lives."""

    def _draw_clock(self) -> LocalClock:
        if not self.options.faults.clocks:
            return LocalClock()
        offset = self.random.randint(0, 1 << 32)
        return LocalClock(offset, self.random.randint(900_000, 1_100_000))

    def _clock_of(self, process: Process) -> Callable[[], Micros]:
        return lambda: process.clock.local(self.now)

    # Events ------------------------------------------------------------------------------------

    def at(self, when: Micros, action: Action, *arguments: Any) -> None:
        """Do something at a time; of things at one time the first one asked for first."""
        self._order += 1
        heapq.heappush(self._events, (when, self._order, action, arguments))

    def at_once(self, when: Micros, action: Action, *arguments: Any) -> None:
        """The same, but the last one asked for first, and before what `at` planned."""
        self._order += 1
        heapq.heappush(self._events, (when, -self._order, action, arguments))

    def run(self, until: Micros, done: Callable[[], bool] | None = None) -> bool:
        """Let time pass until `until`, or until `done`, looked at now and then, says so; whether it
        did."""
        events = self._events
        look_at = self.now
        handled = 0
        while events and events[0][0] <= until:
            if done is not None and events[0][0] > look_at:
                if done():
                    self.counts["events"] += handled
                    return True
                look_at = self.now + LOOK_PERIOD_US
            self.now, _, action, arguments = heapq.heappop(events)
            handled += 1
            action(*arguments)
        self.counts["events"] += handled
        self.now = max(self.now, until)
        return done is not None and done()

    def mark(self, *what: object) -> None:
        """Make something part of the trace."""
        self.trace = crc32(repr((self.now, *what)).encode(), self.trace)

    def tell(self, text: str) -> None:
        """A line of the story."""
        self.story.add(self.now, text)

    # Processes ---------------------------------------------------------------------------------

    def start(self, member: ReplicaId) -> None:
        """Start a process from its disk; a disk that is not its own, or that does not remember the
        life that its peers do, is refused."""
        process = self.processes[member]
        if process.life is not None or (process.dead and not process.refused):
            return
        disk = process.disk
        if disk.owner != member:
            self._refuse_start(process, "the directory belongs to another replica")
            return
        life = disk.start(f"{self.now} {member}")
        if not self.accepts(disk, self.remembered[member]):
            self._refuse_start(process, "its peers remember a life that it has not lived")
            return
        try:
            bodies = disk.read()
        except Corrupt as error:
            self._refuse_start(process, str(error))
            return
        process.boot, process.refused, process.dead = disk.boot, False, False
        self.remembered[member] = life
        seed = self.random.getrandbits(64)
        process.life = self._incarnate(process, seed)
        process.inbox, process.syncing, process.armed, process.crash_at = [], False, None, None
        process.deadline, process.disk_fault, process.step = 0, None, None
        self.mark("start", member)
        self.meter.started(member, process.boot)
        if self.story.on:
            self.tell(f"{replica_name(member)} starts (boot {process.boot})")
            self.recorded.append(Start(member, process.clock.local(self.now), seed))
        self._restore(process, process.life, bodies)
        self._schedule(process)

    def accepts(self, disk: Disk, remembered: Life) -> bool:
        """Whether peers that remember this life accept the one that begins from the disk. A disk
        that was refused is marked, and refused for ever."""
        disk.refused = disk.refused or not descends(disk.lives, remembered)
        return not disk.refused

    def _refuse_start(self, process: Process, why: str) -> None:
        self.counts["refused_again"] += process.refused
        if process.refused:
            return
        process.dead = process.refused = True
        self.counts["refused_starts"] += 1
        self.mark("refused", process.me)
        self.tell(f"{replica_name(process.me)} is refused: {why}")

    def told_rtts(self, member: ReplicaId) -> tuple[Micros, ...]:
        """What a replica is told of its round trips."""
        delays, factor = self.options.delays_us, self.options.rtt_error
        return tuple(
            0 if other == member else int((delays[member][other] + delays[other][member]) * factor)
            for other in range(self.options.replicas)
        )

    def _incarnate(self, process: Process, seed: int) -> Incarnation:
        """A new life over the process's disk, nothing replayed yet."""
        me, options = process.me, self.options
        chance = random.Random(seed)
        setup = Setup(me, options.replicas, self.told_rtts(me), chance, options.leader)
        return Incarnation(
            self._factory,
            setup,
            process.boot,
            self.limits,
            None if options.memory else process.disk,
            self.samples[me],
            self.decisions.executed_durably,
        )

    def _restore(self, process: Process, life: Incarnation, bodies: list[bytes]) -> None:
        self.executions.start(process.me)
        life.restore(bodies)
        seen = life.seen()
        self.meter.restored(process.me, len(seen.decided))
        for decided in seen.decided:
            self.decisions.decided(process.me, decided)
            self.executions.decided(process.me, decided)
        for decided in seen.executed:
            self.executions.executed(process.me, decided)
        self.watch.start(process.me, life.node)

    def crash(self, member: ReplicaId, where: str = "now") -> None:
        """End a process at once, between steps or in the middle of a sync."""
        process = self.processes[member]
        if process.life is None:
            return
        self._end(process, where, Crash(member, process.clock.local(self.now)), process.step)

    def _end(
        self,
        process: Process,
        where: str,
        crash: Crash,
        step: Step | None,
        reaches_disk: Callable[[], int] | None = None,
    ) -> None:
        """The process is gone; `step` is what it was in. `reaches_disk` decides how many records of
        the unsynced tail survive; without it, the seed does."""
        member = process.me
        self.counts["crashes"] += 1
        self.mark("crash", member)
        disk = process.disk
        lost = len(disk.tail)
        self.counts["unsynced_at_crash"] += lost > 0
        life = process.life
        assert life is not None, "only what runs crashes"
        statistics = life.node.statistics()
        process.life = None
        process.inbox = []
        process.syncing = False
        running = sum(each.life is not None for each in self.processes)
        self.meter.crashed(statistics, running, self.options.replicas)
        self.tell(f"{replica_name(member)} crashes {where}, {lost} unsynced records at risk")
        process.step = None
        self._record_crash(crash, step)
        if self.options.memory:
            process.dead = True
        else:
            life.check_remembered(self.watch)
            if reaches_disk is not None:
                kept = reaches_disk()
            else:
                kept = disk.crash(self.random, self.options.faults.torn)
                self.counts["torn_tails"] += lost > 0 and self.options.faults.torn
            if self.story.on:
                self.recorded.pop()
                self._record_crash(crash._replace(kept=kept), step)
        self.on_crash(member)

    def _record_crash(self, crash: Crash, step: Step | None) -> None:
        if self.story.on:
            self.recorded.append(crash if step is None else step._replace(crash=crash))

    def request(self, member: ReplicaId, request: Request) -> bool:
        """A client's commands reach a replica; False: nobody is there."""
        process = self.processes[member]
        if process.life is None:
            return False
        self.counts["requests"] += 1
        self.mark("request", member, request.operations, request.keys, request.arguments)
        self.meter.requested(member, request)
        self.executions.requested(member, request.arguments)
        patience = request.deadline - self.now
        local = process.clock.local(self.now)
        process.inbox.append(request._replace(deadline=local + patience))
        self._schedule(process)
        return True

    def deliver(self, parcel: Parcel) -> None:
        """A message reaches a process, if there is one."""
        process = self.processes[parcel.target]
        if process.life is None:
            self.counts["lost"] += 1
            return
        self.trace = crc32(parcel.body, self.trace + self.now & 0xFFFFFFFF)
        process.inbox.append(parcel)
        if not process.ticking and not process.syncing:
            self._tick_soon(process)

    def _tick_soon(self, process: Process) -> None:
        """Take a step at once, unless something else happens at this very moment."""
        events = self._events
        if (
            self.options.lag_us
            or process.paused_until > self.now
            or (events and events[0][0] <= self.now)
        ):
            self._schedule(process)
        else:
            self._tick(process)

    def _schedule(self, process: Process) -> None:
        if process.ticking or process.syncing or process.life is None:
            return
        if process.paused_until > self.now:
            process.ticking = True
            self.at(process.paused_until, self._tick, process)
        elif self.options.lag_us:
            process.ticking = True
            self.at(self.now + self.random.randint(0, self.options.lag_us), self._tick, process)
        else:
            process.ticking = True
            self.at(self.now, self._tick, process)

    def _tick(self, process: Process) -> None:
        """A step, up to the time that its sync takes."""
        process.ticking = False
        life = process.life
        if life is None or process.syncing:
            return
        if process.paused_until > self.now:
            self._schedule(process)
            return
        now = process.clock.local(self.now)
        self._feed(process, life.node, now)
        ready = life.take(now)
        self.watch.stepped(process.me, life.node)
        self._check_bounds(process.me, life.node, ready)
        self._append(process, life, ready)

    def _feed(self, process: Process, node: Node, now: Micros) -> None:
        """Give the node what arrived, and a wake if its deadline has passed."""
        if process.inbox:
            inbox, process.inbox = process.inbox, []
            if self.story.on:
                process.step = Step(process.me, now, tuple(map(_input_of(now), inbox)))
            for item in inbox:
                if isinstance(item, Request):
                    node.request([item], now)
                elif isinstance(item, AskTransfer):
                    node.ask("transfer", item, now)
                else:
                    message = self._factory.codec.decode_message(item.body)
                    if self.story.on:
                        self.story.arrived(self.now, item.source, process.me, message)
                    node.receive(item.source, message, now)
        elif self.story.on:
            process.step = Step(process.me, now)
        deadline = process.deadline
        if deadline is not None and deadline <= now:
            node.wake(now)
        elif process.step is not None:
            process.step = process.step._replace(wake=False)

    def _append(self, process: Process, life: Incarnation, ready: NodeReady) -> None:
        if process.crash_at is CrashPoint.BEFORE_APPEND and ready.log:
            self._crash_in_step(process, appended=False)
            return
        life.append(ready.log)
        if process.disk_fault is DiskFault.FULL and ready.log:
            size = len(ready.log)
            self._fail_in_step(process, lambda: process.disk.crash_full(self.random, size))
            return
        if self.options.memory:
            self._release(process, life, ready)
            return
        if self.story.on:
            for record in ready.log:
                self.tell(f"{replica_name(process.me)}      log {show(record)}")
        if not ready.must_sync:
            if process.stall_us:
                self._sync_later(process, life, ready, 0)
            else:
                self._release(process, life, ready)
            return
        if process.crash_at is CrashPoint.BEFORE_SYNC:
            self._crash_in_step(process)
            return
        low, high = self.options.faults.sync_us
        self._sync_later(process, life, ready, self.random.randint(low, high))

    def _sync_later(
        self, process: Process, life: Incarnation, ready: NodeReady, wait: Micros
    ) -> None:
        process.syncing = True
        wait += process.stall_us
        process.stall_us = 0
        self.at(self.now + wait, self._sync, process, life, ready)

    def _sync(self, process: Process, life: Incarnation, ready: NodeReady) -> None:
        if process.life is not life:
            return
        if process.paused_until > self.now:
            self.at(process.paused_until, self._sync, process, life, ready)
            return
        process.syncing = False
        if ready.must_sync:
            if process.disk_fault is DiskFault.SYNC_FAILS:
                self._fail_in_step(process, process.disk.fail_sync)
                return
            self.counts["syncs"] += 1
            life.sync()
            if process.crash_at is CrashPoint.BEFORE_SEND:
                self._crash_in_step(process, sent=0)
                return
        self._release(process, life, ready)

    def _crash_in_step(
        self, process: Process, appended: bool = True, sent: int | None = None
    ) -> None:
        point = process.crash_at
        process.crash_at = None
        assert point is not None, "a crash in a step has its point"
        crash = Crash(process.me, process.clock.local(self.now), appended, 0, sent)
        self._end(process, point.value, crash, process.step)

    def _fail_in_step(self, process: Process, reaches_disk: Callable[[], int]) -> None:
        """The disk fails, and the process with it."""
        fault, process.disk_fault = process.disk_fault, None
        assert fault is not None, "a disk that fails has its fault"
        self.counts["full_amid_step" if fault is DiskFault.FULL else "failed_syncs"] += 1
        crash = Crash(process.me, process.clock.local(self.now))
        self._end(process, fault.value, crash, process.step, reaches_disk)

    def _release(self, process: Process, life: Incarnation, ready: NodeReady) -> None:
        """Everything of this Ready may leave now: send, then reply."""
        now = process.clock.local(self.now)
        dies = process.crash_at is CrashPoint.AMID_SENDS and bool(ready.messages)
        if self.story.on and process.step is not None and not dies:
            self.recorded.append(process.step._replace(released_at=now))
            process.step = None
        self._observe(process.me, life.release(ready, now))
        if ready.distrusted:
            raise Violation(READABLE, f"{replica_name(process.me)} refused what it was sent")
        if dies:
            sent = self.network.send_some(process.me, ready.messages)
            self._crash_in_step(process, sent=sent)
            return
        for target, message in ready.messages:
            self.network.send(process.me, target, message)
        for reply in ready.replies:
            if isinstance(reply, Refusal):
                self.meter.refused(reply)
                self.on_reply(reply)
            elif isinstance(reply, Reply):
                self.meter.answered(process.me, reply)
                self.on_reply(reply)
        life.answered(ready)
        if process.inbox:
            self._schedule(process)
        self._arm(process, life)

    def _observe(self, me: ReplicaId, seen: Seen) -> None:
        for decided in seen.decided:
            self.trace = crc32(b"%d %d %d" % (me, decided.replica, decided.slot), self.trace)
            self.meter.decided(me, decided)
            self.decisions.decided(me, decided)
            self.executions.decided(me, decided)
        if seen.executed:
            self.meter.executed(me, len(seen.executed))
            for component in seen.components:
                self.meter.component(me, component)
                self.executions.component(me, component)
            for decided in seen.executed:
                self.executions.executed(me, decided)

    def _check_bounds(self, member: ReplicaId, node: Node, ready: NodeReady) -> None:
        """O11: what waits and what is proposed keeps to the bounds in force."""
        limits = node.limits
        if node.queued > limits.queued_commands:
            raise Violation(
                BOUNDED,
                f"{node.queued} commands wait at {replica_name(member)}, where "
                f"{limits.queued_commands} may",
            )
        for flight in ready.flights:
            size = len(flight.payload.batch.keys)
            if size > limits.batch_commands:
                raise Violation(
                    BOUNDED,
                    f"a batch of {size} at {replica_name(member)}, where "
                    f"{limits.batch_commands} may be",
                )

    def _arm(self, process: Process, life: Incarnation) -> None:
        process.deadline = deadline = life.node.deadline()
        if deadline is None:
            return
        when = max(self.now, process.clock.world(deadline))
        if process.armed is None or when < process.armed:
            process.armed = when
            self.at(when, self._ring, process, life, when)

    def wake_later(self, process: Process) -> None:
        """The process's clock was moved: its deadline comes at another time now."""
        if process.life is not None and not process.syncing:
            self._arm(process, process.life)

    def _ring(self, process: Process, life: Incarnation, when: Micros) -> None:
        if process.life is not life or process.armed != when:
            return
        process.armed = None
        if process.syncing or process.ticking:
            return
        deadline = process.deadline
        if deadline is not None and process.clock.world(deadline) <= self.now:
            self._tick_soon(process)
        else:
            self._arm(process, life)

    # What the whole world can be asked ---------------------------------------------------------

    def is_in_core(self, member: ReplicaId) -> bool:
        """Whether a member was not left out when the core healed."""
        return not self.processes[member].outside_core

    def living(self) -> list[Process]:
        """Processes that run and belong to the core."""
        return [
            process
            for process in self.processes
            if process.life is not None and not process.outside_core
        ]

    def transfer(self, target: ReplicaId) -> None:
        """Ask whoever leads to hand leadership over; nothing happens if nobody does."""
        for process in self.processes:
            node = process.node
            if node is not None and node.replica.leader == process.me:
                self.counts["transfers"] += 1
                self.mark("transfer", target)
                process.inbox.append(AskTransfer(target))
                self._schedule(process)
                return


def _input_of(now: Micros) -> Callable[[Parcel | Request | AskTransfer], Input]:
    def convert(item: Parcel | Request | AskTransfer) -> Input:
        if isinstance(item, AskTransfer):
            return HandOver(item.target)
        if isinstance(item, Request):
            return Commands(
                int(str(item.waiter)),
                item.operations,
                tuple(item.keys),
                tuple(item.arguments),
                item.deadline - now,
            )
        return Arrival(item.source, item.label, item.nth)

    return convert


LOOK_PERIOD_US = 20_000
"""How often it is looked whether a run is over."""

_COUNTERS = (
    "events",
    "messages",
    "bytes",
    "lost",
    "duplicated",
    "replayed",
    "late_after_restart",
    "crashes",
    "syncs",
    "requests",
    "refused_starts",
    "refused_again",
    "unsynced_at_crash",
    "torn_tails",
    "full_amid_step",
    "failed_syncs",
    "unsynced_lost",
    "pauses",
    "stalls",
    "spikes",
    "clock_jumps",
    "overtaken",
    "transfers",
)
