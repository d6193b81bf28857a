"""A node: replica + executor + store + those who wait for answers. Still no I/O.

Floor 3. Drivers (the runtime's and the simulator's) know only this class and keep the law of
durability for it:

    feed inputs (`request`, `ask`, `receive`, `wake`)
    ready = node.take()
    append ready.log; sync once if ready.must_sync
    commit(ready.flights, clock())      # the law's moment of commit
    send ready.messages; give ready.replies

`take` is called again only when the previous Ready was appended, synced if it must, and sent: so at
`take` the node knows without a callback what is durable.
"""

import heapq
from collections.abc import Hashable, Iterable
from operator import gt
from typing import Any, ClassVar

from epaxos.core.command import BATCH_ENVELOPE_BYTES, Footprint, Payload, Results
from epaxos.core.errors import Ambiguous, Definite, RequestError
from epaxos.core.replica import Decided, Executed, Message, Path, Record, Setup, Tables
from epaxos.core.types import Deps, InstanceId, Micros, ReplicaId, Slot, replica_name
from epaxos.execution.store import StateMachine, Store
from epaxos.node.admission import HotQueue, Wanted, contended_keys, divide, fill_batches
from epaxos.node.inspection import graph_document, instance_document, status_document
from epaxos.node.requests import (
    AskGraph,
    AskInstance,
    AskKeys,
    AskTransfer,
    Flight,
    Limits,
    NodeReady,
    Question,
    QuestionReply,
    Refusal,
    Reply,
    Request,
    Run,
)
from epaxos.node.runs import batch_of, fault_of, oversize_in, slice_of
from epaxos.node.sampling import Sampler
from epaxos.registry import ProtocolSpec


class Node:
    """One member of a cluster: what drivers and the simulator run."""

    state_machine: ClassVar[type[StateMachine]] = Store
    """What executes commands; `node_with` makes nodes with another one."""

    def __init__(self, protocol: ProtocolSpec, setup: Setup, boot: int, limits: Limits) -> None:
        assert 0 <= setup.me < setup.n == len(setup.rtt_us), "a member, with a distance to each"
        self.me = setup.me
        self.protocol = protocol
        self.replica = protocol.replica(setup)
        self.executor = protocol.executor(setup.n)
        self.store: StateMachine = self.state_machine()
        self.limits = limits
        self._started = False
        self._restoring = True
        """Whether what the log left to be executed was not looked at yet."""
        self._number = boot << _BOOT_SHIFT
        self._fresh: list[Run] = []
        """Commands that arrived since the last take."""
        self._hot: HotQueue[Run] = HotQueue()
        self._queued = 0
        """Commands in `_hot`."""
        self._queued_bytes = 0
        self._flying: dict[int, Flight] = {}
        """Own batches that are not answered, by number."""
        self._forwarded_bytes = 0
        """Bytes of those that a leader elsewhere has: no instance is known that counts them."""
        self._by_instance: dict[tuple[ReplicaId, Slot], Flight] = {}
        """Own batches whose instance is known and not decided."""
        self._leadership = 0
        """The last leadership that the replica followed (leader protocols)."""
        self._replies: list[Reply | Refusal | QuestionReply] = []
        self._deadlines: dict[int, dict[Run, None]] = {}
        """Runs without an answer, by the period in which their deadline lies."""
        self._periods: list[int] = []
        """The keys of `_deadlines` as a heap, and some that are no longer keys."""
        self._executed_noted: Deps = tuple(self.executor.executed)
        """The executed vector as of the log handed over at the last take."""
        self._executed_durable: Deps = self._executed_noted
        self._log_synced = False
        """Whether the last Ready was synced."""
        self._sync_at: Micros | None = None
        """When an executed vector that is not durable must become so (R3)."""
        self._sampler = Sampler(limits.sampled_per_s, self.replica)
        self.counts = dict.fromkeys(_COUNTERS, 0)

    # Inputs ------------------------------------------------------------------------------------

    def request(self, requests: list[Request], now: Micros) -> None:
        """Commands from clients. Malformed operands are refused (`invalid`), nothing is raised."""
        if max(self.replica.live_bytes, self._forwarded_bytes) > self.limits.live_bytes:
            for request in requests:
                self._refuse_request(request, self._overloaded(), "overloaded")
            return
        payload_bytes = self.limits.payload_bytes
        for waiter, operations, keys, arguments, deadline in requests:
            run = Run(waiter, 0, operations, keys, arguments, now, deadline)
            fault = fault_of(operations, keys, arguments)
            if fault is None and run.size > payload_bytes - BATCH_ENVELOPE_BYTES:
                fault = oversize_in(run, payload_bytes)
            if fault is None:
                self._fresh.append(run)
                self._watch(run)
            else:
                self._refuse(run, Definite(fault), "invalid")

    def ask(self, waiter: Hashable, question: Question, now: Micros) -> None:
        """A question about the node's state; answered by a `QuestionReply` in the next Ready."""
        try:
            document = self._answer_question(question, now)
        except RequestError as error:
            self._replies.append(QuestionReply(waiter, None, error))
        else:
            self._replies.append(QuestionReply(waiter, document, None))

    def receive(self, source: ReplicaId, message: Message, now: Micros) -> None:
        """A message from another member."""
        self.replica.receive(source, message, now)

    def wake(self, now: Micros) -> None:
        """Some deadline has passed. The first wake ends restore."""
        if not self._started:
            self._started = True
            self._executed_noted = self._executed_durable = tuple(self.executor.executed)
            self.replica.wake(now)
            self.replica.executed(self._executed_durable, now)
            return
        at = self.replica.deadline()
        if at is not None and at <= now:
            self.replica.wake(now)
        while self._periods and (self._periods[0] + 1) * _PERIOD_US <= now:
            self._expire(self._deadlines.pop(heapq.heappop(self._periods), {}))

    def deadline(self) -> Micros | None:
        """When to be woken next."""
        at = self.replica.deadline()
        periods = self._periods
        while periods and periods[0] not in self._deadlines:
            heapq.heappop(periods)
        if periods:
            late = (periods[0] + 1) * _PERIOD_US
            at = late if at is None else min(at, late)
        if self._sync_at is not None:
            at = self._sync_at if at is None else min(at, self._sync_at)
        return at

    def restore(self, record: Record) -> None:
        """Replay one record of the own log, front to back, before the first wake.

        Raises StorageError if the log says that something was executed that it does not hold."""
        assert not self._started, "the first wake ends restore"
        if not isinstance(record, Executed):
            self.replica.restore(record)
            for decided in self.replica.out.take().decided:
                self.executor.commit(decided)
            return
        ids = [InstanceId(replica, slot) for replica, slot in zip(record.replicas, record.slots)]
        for decided in self.executor.replay(ids):
            self.store.apply(decided)

    def _answer_question(self, question: Question, now: Micros) -> dict[str, Any] | None:
        if isinstance(question, AskInstance):
            return instance_document(self.replica, self.executor, question.instance)
        if isinstance(question, AskGraph):
            return graph_document(self.me, self.replica, self.executor, question.limit)
        if isinstance(question, AskKeys):
            return {"keys": len(self.store), "digest": self.store.digest()}
        if isinstance(question, AskTransfer):
            if not self.protocol.has_leader:
                raise Definite(f"{self.protocol.title} has no leader to move")
            self.replica.transfer(question.target, now)
            return {"leader": replica_name(question.target), "asked": True}
        return {
            **status_document(self.replica, self.executor, self.protocol.has_leader),
            "keys": len(self.store),
            "unready": self.unready(),
        }

    # Take --------------------------------------------------------------------------------------

    @property
    def queued(self) -> int:
        """How many commands on contended keys wait unproposed."""
        return self._queued

    def take(self, now: Micros) -> NodeReady:
        """Propose what may leave, execute what may execute, and hand over what is to be done."""
        assert self._started, "the first wake comes before the first take"
        if self._log_synced and self._executed_noted != self._executed_durable:
            self._executed_durable = self._executed_noted
            self._sync_at = None
            self.replica.executed(self._executed_durable, now)
        leadership = self.replica.leadership
        if leadership and leadership != self._leadership:
            self._leadership = leadership
            self._shorten_forwarded(now)
        log: list[Record] = []
        messages: list[tuple[ReplicaId, Message]] = []
        flights: list[Flight] = []
        distrusted: list[ReplicaId] = []
        executed: list[Decided] = self._execute() if self._restoring else []
        self._restoring = False
        must_sync = False
        while True:
            self._propose(now)
            ready = self.replica.out.take()
            log += ready.log
            messages += ready.messages
            must_sync = must_sync or ready.must_sync
            distrusted += ready.distrusted
            for number in ready.returned:
                flight = self._flying.get(number)
                if flight is not None and flight.instance is None:
                    self._resubmit(flight, Path.LEADER, now)
            if not ready.decided and not ready.returned:
                break
            for decided in ready.decided:
                self._on_decided(decided, flights, now)
            executed += self._execute()
        if executed:
            log.append(
                Executed(
                    bytes([decided.replica for decided in executed]),
                    [decided.slot for decided in executed],
                )
            )
            vector = tuple(self.executor.executed)
            # In tuple order: sees the first column that differs. To check all costs too much.
            assert vector >= self._executed_noted, "what is executed stays executed"
            self._executed_noted = vector
        must_sync = self._sync_if_due(log, must_sync, now)
        self._log_synced = must_sync
        replies, self._replies = self._replies, []
        sampler = self._sampler
        sampled = sampler.take(self.executor, now) if sampler.moving else ()
        return NodeReady(log, must_sync, messages, replies, flights, distrusted, sampled)

    def _shorten_forwarded(self, now: Micros) -> None:
        """Who forwarded to a leader that has a successor now does not wait as long as its client
        would: what the old leader had proposed is decided soon, the rest never."""
        period = (now + _SUCCESSION_US) // _PERIOD_US
        for flight in self._flying.values():
            if flight.instance is None:
                for run in flight.runs:
                    if not run.done and run.period > period:
                        self._unwatch(run)
                        self._watch(run, period)

    def _sync_if_due(self, log: list[Record], must_sync: bool, now: Micros) -> bool:
        """R3: what was executed becomes durable within 100 ms, so that idle vectors move."""
        if self._executed_noted == self._executed_durable or must_sync:
            return must_sync
        if self._sync_at is None:
            self._sync_at = now + _SYNC_DELAY_US
        elif self._sync_at <= now:
            log.append(Executed(b"", []))
            return True
        return False

    def _propose(self, now: Micros) -> None:
        if self._fresh:
            fresh, self._fresh = self._fresh, []
            cold = self._set_hot_aside(fresh) if self.limits.gate else fresh
            for runs in self._batches(cold):
                self._launch(runs, now)
        if not self._hot:
            return
        leaving = self._hot.leave()
        self._dequeue(leaving)
        for runs in self._batches(leaving):
            flight = self._launch(runs, now)
            if flight is not None and flight.instance is not None:
                writes = flight.payload.footprint.write_set
                self._hot.hold(flight.instance.slot, writes)

    def _launch(self, runs: list[Run], now: Micros) -> Flight | None:
        """Make a batch of some runs and propose it."""
        self._number += 1
        payload = Payload.of(batch_of(self.me, self._number, runs))
        flight = Flight(self._number, payload, runs, now)
        try:
            instance = self.replica.propose(payload, now)
        except Definite as error:
            for run in runs:
                self._refuse(run, error, "not-proposed")
            return None
        for run in runs:
            run.drop_columns()
            run.flight = flight
        assert flight.number not in self._flying, "a batch's number is its own"
        self._flying[flight.number] = flight
        if instance is not None:
            flight.instance = instance
            self._by_instance[instance] = flight
        else:
            self._forwarded_bytes += len(payload.encoded)
        if now >= self._sampler.due:
            self._sampler.launched(flight, now)
        self.counts["batches"] += 1
        self.counts["commands"] += len(payload.batch.keys)
        return flight

    def _batches(self, runs: list[Run]) -> list[list[Run]]:
        limits = self.limits
        bytes_max = min(limits.batch_bytes, limits.payload_bytes)
        made, cut = fill_batches(runs, limits.batch_commands, bytes_max)
        if cut:
            for run in runs:
                if run.done:
                    self._unwatch(run)
            for part in cut:
                self._watch(part)
        return made

    # Contended keys ----------------------------------------------------------------------------

    def _set_hot_aside(self, fresh: list[Run]) -> list[Run]:
        """Queue commands on contended keys; return the others (R12)."""
        hot = contended_keys(fresh, self._hot, self._is_contended)
        if not hot:
            return fresh
        cold: list[Run] = []
        for run in fresh:
            if hot.isdisjoint(run.keys):
                cold.append(run)
                continue
            parts = divide(run, hot)
            self._unwatch(run)
            for part, key, reads in parts:
                if key is not None:
                    self._queue(part, reads, key)
                else:
                    self._watch(part)
                    cold.append(part)
        return cold

    def _is_contended(self, footprint: Footprint) -> bool:
        deps = self.replica.dependencies(footprint)
        if not any(map(gt, deps, self.executor.executed)):
            return False
        is_executed = self.executor.is_executed
        return any(slot and not is_executed(column, slot) for column, slot in enumerate(deps))

    def _queue(self, run: Run, reads: bool, key: bytes) -> None:
        limits = self.limits
        if (
            self._queued + run.count > limits.queued_commands
            or self._queued_bytes + run.size > limits.queued_bytes
        ):
            error = Definite(
                f"{self._queued} commands on contended keys, of {self._queued_bytes >> 20} MiB, "
                "wait already; try again later"
            )
            self._refuse(run, error, "overloaded")
            return
        self._queued += run.count
        self._queued_bytes += run.size
        self.counts["queued"] += run.count
        self._watch(run)
        if not self._hot.names((key,)):
            own = self.replica.dependencies(Footprint((), (key,)))[self.me]
            if own and not self.executor.is_executed(self.me, own):
                self._hot.hold(own, (key,))
        keys = (key,)
        self._hot.add(Wanted((), keys, run) if reads else Wanted(keys, (), run))

    def _dequeue(self, runs: list[Run]) -> None:
        """These runs have left `_hot`."""
        self._queued -= sum(run.count for run in runs)
        self._queued_bytes -= sum(run.size for run in runs)
        assert self._queued >= 0 <= self._queued_bytes, "what leaves was queued"

    # Decided and executed ----------------------------------------------------------------------

    def _on_decided(self, decided: Decided, flights: list[Flight], now: Micros) -> None:
        self.executor.commit(decided)
        replica, slot, _, payload, path = decided
        flight = self._flight_of(payload)
        proposed = self._by_instance.pop((replica, slot), None)
        if proposed is not None and proposed is not flight:
            self._resubmit(proposed, path, now)
        if flight is not None:
            flight.path = path
            flights.append(flight)
            if flight.stamps is not None:
                self._sampler.decided(flight.stamps, decided, now)

    def _flight_of(self, payload: Payload | None) -> Flight | None:
        """The own batch in flight that this payload is. Who only says that it was made here, under
        a number of ours, has another one."""
        if payload is None or payload.batch.origin != self.me:
            return None
        flight = self._flying.get(payload.batch.number)
        if flight is None or not (flight.payload is payload or flight.payload == payload):
            return None
        return flight

    def _resubmit(self, flight: Flight, path: Path, now: Micros) -> None:
        """R13: the commands of this batch did not and will not happen, and are proposed anew.

        Either its id is decided without it: a batch is proposed under one id only, and goes into no
        other by recovery or elections. Or the only one who could propose it says it never will."""
        self._land(flight)
        if flight.stamps is not None:
            self._sampler.lost(flight.stamps, path, now)
        batch = flight.payload.batch
        start = 0
        for run in flight.runs:
            stop = start + run.count
            if not run.done and run.deadline > now:
                run.operations = batch.operations[start:stop]
                run.keys = batch.keys[start:stop]
                run.arguments = batch.arguments[start:stop]
                self._unwatch(run)
                self._watch(run)  # its client's own deadline holds again
                self._fresh.append(run)
                self.counts["resubmitted"] += run.count
            start = stop

    def _execute(self) -> list[Decided]:
        executed: list[Decided] = []
        store, me = self.store, self.me
        for component in self.executor.ready():
            for decided in component:
                payload = decided.payload
                flight = self._flight_of(payload)
                if flight is not None:
                    self._land(flight)
                    self._answer(flight, store.answer(decided))
                elif payload is not None:
                    store.apply(decided)
                if decided.replica == me:
                    self._hot.release(decided.slot)
            executed += component
        return executed

    def _answer(self, flight: Flight, results: Results) -> None:
        """Give every run its part of the batch's results."""
        assert results.count == len(flight.payload.batch.keys), "one result per command"
        replies = self._replies
        start = 0
        for run in flight.runs:
            if not run.done:
                run.done = True
                part = results
                if len(flight.runs) > 1:
                    part = slice_of(results, start, run.count)
                replies.append(Reply(run.waiter, run.offset, part, run.arrived, flight))
                self._unwatch(run)
                run.waiter = run.flight = None
            start += run.count

    # Refusals ----------------------------------------------------------------------------------

    def _watch(self, run: Run, period: int | None = None) -> None:
        if period is None:
            period = run.deadline // _PERIOD_US
        run.period = period
        runs = self._deadlines.get(period)
        if runs is not None:
            runs[run] = None
            return
        self._deadlines[period] = {run: None}
        if len(self._periods) > 2 * len(self._deadlines) + _STALE_PERIODS:
            self._periods = list(self._deadlines)
            heapq.heapify(self._periods)
        else:
            heapq.heappush(self._periods, period)

    def _unwatch(self, run: Run) -> None:
        """Nobody waits for this run any more: nothing of it is kept until its deadline."""
        runs = self._deadlines.get(run.period)
        if runs is not None:
            runs.pop(run, None)
            if not runs:
                del self._deadlines[run.period]

    def _expire(self, runs: Iterable[Run]) -> None:
        """Deadlines have passed. Queued commands were never proposed; others may still happen."""
        queued = False
        for run in runs:
            if run.done:
                continue
            if run.keys:
                queued = True
                self.counts["expired_queued"] += run.count
                why = "the key was contended for as long as the client waited"
                self._refuse(run, Definite(why), "not-proposed")
            else:
                self.counts["expired"] += run.count
                run.done = True
                self._abandon(run.flight)
                why = "not decided and executed in time; the command may still take effect"
                self._refuse(run, Ambiguous(why), "outcome-unknown")
        if queued:
            self._dequeue(self._hot.drop(lambda run: run.done))
            self._fresh = [run for run in self._fresh if not run.done]

    def _abandon(self, flight: Flight | None) -> None:
        """Nobody waits any more for a batch that a leader elsewhere may never propose."""
        if flight is None or flight.instance is not None or flight.number not in self._flying:
            return
        if all(run.done for run in flight.runs):
            self._land(flight)

    def _land(self, flight: Flight) -> None:
        """A batch is executed, proposed anew, or given up."""
        del self._flying[flight.number]
        if flight.instance is None:
            self._forwarded_bytes -= len(flight.payload.encoded)
        else:
            # A peer that lies may have it decided under another id than its own.
            self._by_instance.pop(flight.instance, None)

    def _refuse(self, run: Run, error: RequestError, code: str) -> None:
        run.done = True
        self._replies.append(Refusal(run.waiter, run.offset, run.count, error, code))
        self._unwatch(run)
        run.waiter = run.flight = None  # a batch in flight keeps its runs until it is executed

    def _refuse_request(self, request: Request, error: RequestError, code: str) -> None:
        self._replies.append(Refusal(request.waiter, 0, len(request.keys), error, code))

    def _overloaded(self) -> Definite:
        if self.replica.live_bytes <= self.limits.live_bytes:
            return Definite(
                f"live batches that wait for a leader elsewhere take {self._forwarded_bytes >> 20} "
                f"MiB of {self.limits.live_bytes >> 20}"
            )
        slowest = self.replica.slowest_member()
        who = "" if slowest is None else f"; {replica_name(slowest)} holds them back"
        return Definite(
            f"live instances take {self.replica.live_bytes >> 20} MiB of "
            f"{self.limits.live_bytes >> 20}{who}"
        )

    # What others ask ---------------------------------------------------------------------------

    def unready(self) -> str | None:
        """Why `/readyz` should say no; None if it should say yes."""
        if not self._started:
            return "the log is being replayed"
        if self.replica.live_bytes > self.limits.live_bytes:
            return str(self._overloaded())
        return self.replica.unready()

    def statistics(self) -> dict[str, int]:
        """Counters of replica, executor and node."""
        return {
            **self.replica.statistics(),
            **self.executor.statistics(),
            **self.counts,
            "in_flight": len(self._flying),
            "waiting_hot": self._queued,
        }

    def held(self) -> Tables:
        """Its tables, with those of replica and executor; batches that nobody has decided are left
        out. Of "answered" it never holds any."""
        runs = [run for runs in self._deadlines.values() for run in runs]
        ids = [flight.instance for flight in self._flying.values()] + [*self._by_instance]
        done = self.executor.is_executed
        held = self.replica.held()
        mine = {
            "answered": sum(run.done for run in runs),
            "unanswered": len(runs) + len(self._fresh),
            "batches": sum(each is None or done(*each) for each in ids) + self._forwarded_bytes,
            "contended": self._hot.held() + self._queued + self._queued_bytes,
        }
        return held._replace(until_executed=held.until_executed | self.executor.held() | mine)


def node_with(state_machine: type[StateMachine], node: type[Node] = Node) -> type[Node]:
    """Nodes of this kind whose commands are executed by this state machine."""
    if node.state_machine is state_machine:
        return node
    return type(node.__name__, (node,), {"state_machine": state_machine})


_BOOT_SHIFT = 40
"""A batch's number is the boot counter above so many bits of a counter."""
_PERIOD_US = 10_000
"""Deadlines of clients are kept to this, never early."""
_STALE_PERIODS = 64
"""So many entries of the heap of periods may be stale before it is made anew."""
_SYNC_DELAY_US = 100_000
"""How long what was executed may stay without a sync (R3)."""
_SUCCESSION_US = 1_000_000
"""How long a batch that was forwarded to a leader may stay undecided once it has a successor."""
_COUNTERS = ("batches", "commands", "queued", "resubmitted", "expired", "expired_queued")
