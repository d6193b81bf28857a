"""Bugs about commands on contended keys, and about what ended as Nop."""

import random
from collections.abc import Callable

import topology
from epaxos.core.replica import Message, Path, Setup
from epaxos.core.types import Micros, ReplicaId, Slot
from epaxos.node import node
from epaxos.node.admission import HotQueue
from epaxos.node.node import Node
from epaxos.node.requests import Limits, Run
from epaxos.protocols.epaxos.instance import Phase
from epaxos.protocols.epaxos.replica import EPaxosReplica
from epaxos.registry import ProtocolSpec
from epaxos.sim.check.checkers import EXECUTES, ONCE, READABLE, Violation
from epaxos.sim.clients import Clients
from epaxos.sim.museum.exhibit import (
    Directed,
    Exhibit,
    Load,
    Swarm,
    in_node,
    in_place_of,
    must_be_answered,
)
from epaxos.sim.open_loop import healthy, run_open_loop, write_hot_key
from epaxos.sim.planted import Planted
from epaxos.sim.schedule.recipes import ask
from epaxos.sim.schedule.stage import Stage
from epaxos.sim.world import World

PER_SECOND = 40
"""Writes of the one key, per region."""
LOAD_US: Micros = 3_000_000
"""How long the load lasts."""
PATIENCE_RTTS = 8
"""A command waits no longer than so many of the longest round trips."""


def _one_hot_key(planted: Planted, seed: int) -> None:
    """Five regions write one key, without faults; nobody may wait long."""
    sites = topology.find("aws-5-2020")
    options = healthy(sites, LOAD_US, seed=seed, keys=1)
    world = World(options, planted.spec, planted.node)
    clients = Clients(world, options.keys, options.patience_us)
    rng = random.Random(f"hot key {seed}")
    run_open_loop(world, clients, rng, PER_SECOND, write_hot_key)
    oldest = max((LOAD_US - c.called for c in clients.calls if c.returned is None), default=0)
    rtt = sites.longest_rtt_us
    if oldest > PATIENCE_RTTS * rtt:
        answered = sum(call.returned is not None for call in clients.calls)
        raise Violation(
            EXECUTES,
            f"After {LOAD_US / 1e6:g} s of {PER_SECOND} writes/s per region on one key "
            f"{answered} of {len(clients.calls)} are answered, and one has waited "
            f"{oldest / 1000:.0f} ms, {oldest / rtt:.1f} of the longest round trips.",
        )


class _WithoutGate(Node):
    def __init__(self, protocol: ProtocolSpec, setup: Setup, boot: int, limits: Limits) -> None:
        super().__init__(protocol, setup, boot, limits)
        self.limits = Limits(gate=False)


class _OneByOne(HotQueue[Run]):
    def leave(self) -> list[Run]:
        held = self._held.keys()
        for place, wanted in enumerate(self._queue):
            if held.isdisjoint(wanted.keys):
                del self._queue[place]
                self._forget(wanted.keys)
                return [wanted.item]
        return []


class _LeavesOneByOne(Node):
    def __init__(self, protocol: ProtocolSpec, setup: Setup, boot: int, limits: Limits) -> None:
        super().__init__(protocol, setup, boot, limits)
        self._hot = _OneByOne()


class _KeepsSlotsOfNops(HotQueue[Run]):
    def __init__(self, replica: EPaxosReplica) -> None:
        super().__init__()
        self._replica = replica

    def release(self, slot: Slot) -> None:
        known = self._replica.columns.get(self._replica.me, slot)
        if known is None or known.payload is not None:
            super().release(slot)


class _NopKeepsItsKeys(Node):
    def __init__(self, protocol: ProtocolSpec, setup: Setup, boot: int, limits: Limits) -> None:
        super().__init__(protocol, setup, boot, limits)
        if isinstance(self.replica, EPaxosReplica):
            self._hot = _KeepsSlotsOfNops(self.replica)


def _nop_before_a_queue(stage: Stage) -> None:
    """A's batch reaches nobody, and a second command on its key waits for it at A. C takes the
    first over with A: Nop."""
    stage.put("A", "x")
    stage.drop_all()
    stage.put("A", "x")
    ask(stage, "C", "A.1", "A")
    stage.deliver_all()
    must_be_answered(stage, "A", 2)


def _accepted_nop(stage: Stage) -> None:
    """A's batch is pre-accepted at B and D. E recovers it with C and A: the command leader is in
    the quorum, so Nop; only A accepts it, and E dies. D recovers it with B and C, in a higher
    ballot: two votes equal the initial deps and nothing objects, so the batch is decided after
    all."""
    stage.put("A", "x")
    stage.deliver("A>B", "PreAccept")
    stage.deliver("A>D", "PreAccept")
    stage.drop_all()
    ask(stage, "E", "A.1", "C", "A")
    stage.deliver("E>A", "Accept", "A.1")
    stage.drop("E>", "Accept")
    stage.drop("A>E", "AcceptOk")
    stage.crash("E")
    stage.recover("D", "A.1")
    stage.drop("D>", "Recover")
    ask(stage, "D", "A.1", "B", "C")
    stage.deliver_all("ABCD")


class _SubmitsAgainTooEarly(Node):
    def receive(self, source: ReplicaId, message: Message, now: Micros) -> None:
        super().receive(source, message, now)
        if not isinstance(self.replica, EPaxosReplica):
            return
        for key, flight in list(self._by_instance.items()):
            known = self.replica.columns.get(*key)
            if known is not None and known.phase == Phase.ACCEPTED and known.payload is None:
                del self._by_instance[key]
                self._resubmit(flight, Path.SLOW, now)


def _takes_any_size(true: Callable[..., str | None], run: Run, payload_bytes: int) -> str | None:
    return None


EXHIBITS = (
    Exhibit(
        name="no-gate",
        title="Commands on a contended key are proposed as they come",
        source="EPaxos Revisited, NSDI 2021; PlatformLab's `inffix`; protocol.md 2.10 and R12",
        story="Every region writes one key. Each write, before it is decided, comes to depend on "
        "a newer one, so that there is always one more to wait for. Commits go on at full speed "
        "and nothing executes until the load stops. Nothing is wrong by the letter of the "
        "protocol, and no client has an answer.",
        plant=in_node(_WithoutGate),
        properties=(EXECUTES,),
        search=Load(_one_hot_key),
    ),
    Exhibit(
        name="one-at-a-time",
        title="Of the commands that wait for a key one leaves at a time",
        source="protocol.md R12",
        story="A contended key is held until the batch that writes it has run. If only one of the "
        "commands that waited goes next, the key serves one command per round trip, and the queue "
        "grows with the load. All that may leave must leave together.",
        plant=in_node(_LeavesOneByOne),
        properties=(EXECUTES,),
        search=Load(_one_hot_key),
    ),
    Exhibit(
        name="nop-keeps-its-keys",
        title="A key is not given back when the batch that held it became Nop",
        source="protocol.md R12",
        story="A batch that writes a contended key holds it until it has run. One that a recovery "
        "turned into Nop never runs. If its keys are not given back, every command on them waits "
        "at this replica until its client gives up.",
        plant=in_node(_NopKeepsItsKeys),
        properties=(EXECUTES,),
        search=Directed(3, _nop_before_a_queue, gate=True),
    ),
    Exhibit(
        name="submits-again-too-early",
        title="A batch is submitted again as soon as a Nop is accepted for its instance",
        source="protocol.md R13",
        story="A command leader sees that a recovery makes its instance Nop, and proposes the "
        "batch again at once. But the Nop was accepted, not decided: another recovery, in a "
        "higher ballot, decides the batch itself. It runs twice.",
        plant=in_node(_SubmitsAgainTooEarly),
        properties=(ONCE,),
        search=Directed(5, _accepted_nop),
    ),
    Exhibit(
        name="poison",
        title="A command may be larger than what a message or a record holds",
        source="this project, fixed in 3681d6c",
        story="A client sends the largest frame that it may. The batch that is made of it, and the "
        "record and the messages that carry the batch, are a few bytes larger. Peers close the "
        "link at each repetition, and the next start refuses the log: the record that was acted "
        "on is over the limit of what is read.",
        plant=in_place_of(node, "oversize_in", _takes_any_size),
        properties=(READABLE,),
        search=Swarm((3,), options={"limits": (("payload_bytes", 800),)}),
        budget=10,
    ),
)
