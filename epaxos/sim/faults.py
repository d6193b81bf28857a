"""What goes wrong, and when: planned from the seed before the run starts.

Rules of this file: a budget, a minority or as few as the protocol survives, is never exceeded: dead
for good, refused disks and who is left out of the core count together. Everything else heals when
the safety phase ends. In memory mode nobody comes back, so of the crashes only `dead` happens.
"""

import random
from collections.abc import Callable

from epaxos.core.quorum import quorums
from epaxos.core.types import Micros, ReplicaId, replica_name
from epaxos.node.requests import Limits
from epaxos.sim.disk import Disk
from epaxos.sim.incarnation import CrashPoint, DiskFault
from epaxos.sim.network import Network
from epaxos.sim.world import World

Pairs = list[tuple[ReplicaId, ReplicaId]]


class FaultPlan:
    """Puts a run's faults on the world's clock."""

    def __init__(self, world: World, rng: random.Random) -> None:
        self._world = world
        self._rng = rng
        self._n = world.options.replicas
        self._end = world.options.active_us
        self._survived = min(quorums(self._n).f, world.spec.survives(self._n))
        """How many replicas may be lost for good."""
        self._spare = self._survived
        """How many more may be."""
        self._backups: dict[ReplicaId, Disk] = {}

    def plan(self) -> None:
        """All of them, and the healing."""
        world, rng, faults = self._world, self._rng, self._world.options.faults
        self._plan_network()
        for _ in range(0 if world.options.memory else faults.crashes):
            point = rng.choice((None, *CrashPoint))
            self._crash_and_restart(self._moment(), self._member(), point)
        self._plan_disks()
        for _ in range(min(faults.dead, self._spare)):
            self._spare -= 1
            world.at(self._moment(), self._kill, self._member())
        for _ in range(faults.pauses):
            length = rng.randint(50_000, 1_500_000)
            world.at(self._moment(), self._pause, self._member(), length)
        for _ in range(faults.stalls):
            world.at(self._moment(), self._stall, self._member(), rng.randint(20_000, 500_000))
        if faults.clocks:
            for _ in range(rng.randint(0, 4)):
                jump = rng.choice((10_000, 1_000_000, 60_000_000))
                world.at(self._moment(), self._jump, self._member(), jump)
        if world.spec.has_leader:
            for _ in range(world.options.transfers):
                world.at(self._moment(), world.transfer, self._member())
        world.at(self._end, self._heal, rng.sample(range(self._n), self._n), rng.random() < 0.5)

    def _moment(self) -> Micros:
        return self._rng.randrange(self._end)

    def _member(self) -> ReplicaId:
        return self._rng.randrange(self._n)

    # Network -----------------------------------------------------------------------------------

    def _plan_network(self) -> None:
        world, rng, faults = self._world, self._rng, self._world.options.faults
        network = world.network
        if self._n == 1:
            return
        for _ in range(faults.partitions):
            start = self._moment()
            self._cut_between(start, start + rng.randint(50_000, 1_000_000), draw_cut(rng, self._n))
        for _ in range(faults.flaps):
            a, b = rng.sample(range(self._n), 2)
            at = self._moment()
            for _ in range(rng.randint(3, 8)):
                down = rng.randint(20_000, 300_000)
                self._cut_between(at, at + down, [(a, b), (b, a)])
                at += 2 * down
        for _ in range(faults.spikes):
            start, member = self._moment(), self._member()
            factor = rng.choice((3, 10, 30))
            world.at(start, self._slow, member, factor)
            world.at(start + rng.randint(100_000, 1_500_000), network.slow.pop, member, None)
        for _ in range(faults.replays):
            world.at(rng.randrange(self._end * 2), network.replay)
        if network.order == "priorities":
            for at in sorted({0, *(self._moment() for _ in range(rng.randint(0, 4)))}):
                world.at(at, self._shuffle, network)
        network.starved = self._member()

    def _slow(self, member: ReplicaId, factor: int) -> None:
        self._world.counts["spikes"] += 1
        self._world.network.slow[member] = factor

    def _cut_between(self, start: Micros, end: Micros, pairs: Pairs) -> None:
        self._world.at(start, self._cut, pairs)
        self._world.at(min(end, self._end), self._mend, pairs)

    def _cut(self, pairs: Pairs) -> None:
        world = self._world
        if world.now >= self._end:
            return
        if world.story.on:
            world.tell(
                "links cut: " + " ".join(replica_name(a) + replica_name(b) for a, b in pairs)
            )
        world.mark("cut", pairs)
        world.network.sever(pairs)

    def _mend(self, pairs: Pairs) -> None:
        self._world.mark("mend", pairs)
        self._world.network.mend(pairs)

    def _shuffle(self, network: Network) -> None:
        """New priorities of all links: hardly any delay at one end, seconds at the other."""
        rng = self._world.random
        for a in range(self._n):
            for b in range(self._n):
                network.factors[a, b] = rng.choice((0.02, 0.2, 1.0, 5.0, 20.0))

    # Processes ---------------------------------------------------------------------------------

    def _crash_and_restart(self, at: Micros, member: ReplicaId, point: CrashPoint | None) -> None:
        self._world.at(at, self._crash, member, point)
        self._world.at(at + self._rng.randint(10_000, 1_500_000), self._world.start, member)

    def _crash(self, member: ReplicaId, point: CrashPoint | None) -> None:
        if point is None:
            self._world.crash(member)
        else:
            self._world.processes[member].crash_at = point

    def _kill(self, member: ReplicaId) -> None:
        process = self._world.processes[member]
        if not process.dead:
            self._world.crash(member, "for good")
            process.dead = True

    def _pause(self, member: ReplicaId, length: Micros) -> None:
        world = self._world
        process = world.processes[member]
        world.counts["pauses"] += process.node is not None
        world.tell(f"{replica_name(member)} stands still for {length / 1000:.0f} ms")
        process.paused_until = max(process.paused_until, world.now + length)

    def _stall(self, member: ReplicaId, length: Micros) -> None:
        self._world.counts["stalls"] += 1
        self._world.processes[member].stall_us = length

    def _jump(self, member: ReplicaId, forward: Micros) -> None:
        world = self._world
        world.tell(f"{replica_name(member)}'s clock jumps {forward / 1000:.0f} ms ahead")
        process = world.processes[member]
        world.counts["clock_jumps"] += 1
        process.clock.jump(world.now, forward)
        if process.armed is not None:
            process.armed = None
            world.wake_later(process)

    # Disks -------------------------------------------------------------------------------------

    def _plan_disks(self) -> None:
        world, rng, faults = self._world, self._rng, self._world.options.faults
        if world.options.memory:
            return
        for _ in range(faults.sync_stalls):
            world.at(self._moment(), self._stall, self._member(), rng.randint(500_000, 3_000_000))
        # Both end the process as the durable log does: at the append, and at the sync.
        for _ in range(faults.full):
            self._crash_and_restart(self._moment(), self._member(), CrashPoint.BEFORE_APPEND)
        for _ in range(faults.sync_errors):
            self._crash_and_restart(self._moment(), self._member(), CrashPoint.BEFORE_SYNC)
        for _ in range(faults.full_amid_step):
            self._fail_disk(DiskFault.FULL)
        for _ in range(faults.sync_errors_readable):
            self._fail_disk(DiskFault.SYNC_FAILS)
        if self._n == 1:
            return
        for _ in range(min(faults.bit_rot, self._spare)):
            self._spare -= 1
            self._ruin(self._rot)
        for _ in range(min(faults.swapped, self._spare)):
            self._spare -= 1
            self._insist(self._ruin(self._swap))

    def _fail_disk(self, fault: DiskFault) -> None:
        """The disk fails a step, and its process starts again, now and then with a loss of power in
        between."""
        world, rng, at, member = self._world, self._rng, self._moment(), self._member()
        again = at + rng.randint(10_000, 1_500_000)
        world.at(at, self._arm, member, fault)
        if rng.random() < 0.5:
            world.at(again, self._lose_power, member)
        world.at(again, world.start, member)

    def _arm(self, member: ReplicaId, fault: DiskFault) -> None:
        self._world.processes[member].disk_fault = fault

    def _lose_power(self, member: ReplicaId) -> None:
        process = self._world.processes[member]
        if process.life is None and (lost := process.disk.lose_power()):
            self._world.counts["unsynced_lost"] += 1
            self._world.tell(f"{replica_name(member)} loses power, and {lost} unsynced records")

    def _ruin(self, how: Callable[[ReplicaId, str], None]) -> ReplicaId:
        member, at = self._member(), self._moment()
        kind = self._rng.choice(("empty", "older", "foreign"))
        self._world.at(at // 2, self._back_up, member)
        self._world.at(at, self._world.crash, member)
        self._world.at(at, how, member, kind)
        self._world.at(at + self._rng.randint(10_000, 500_000), self._world.start, member)
        return member

    def _insist(self, member: ReplicaId) -> None:
        """Somebody starts a refused replica again and again."""
        world = self._world
        rng = random.Random(f"insistent {world.options.seed} {member}")
        for _ in range(rng.randint(0, world.options.faults.insistent)):
            again = rng.choice((None, None, None, "empty", "older"))
            world.at(rng.randrange(self._end // 3, self._end), self._start_again, member, again)

    def _start_again(self, member: ReplicaId, kind: str | None) -> None:
        if not self._world.processes[member].refused:
            return
        if kind is not None:
            self._swap(member, kind)
        self._world.start(member)

    def _back_up(self, member: ReplicaId) -> None:
        self._backups[member] = self._world.processes[member].disk.copy()

    def _rot(self, member: ReplicaId, kind: str) -> None:
        process = self._world.processes[member]
        if process.node is None and process.disk.rot(self._world.random):
            self._world.tell(f"a bit flips in the log of {replica_name(member)}")

    def _swap(self, member: ReplicaId, kind: str) -> None:
        process = self._world.processes[member]
        if process.node is not None:
            return
        if kind == "older" and member in self._backups:
            process.disk = self._backups[member].copy()
            # A backup of before its last start, or of that very life.
            del process.disk.lives[-1:]
        elif kind == "foreign":
            process.disk = Disk((member + 1) % self._n)
        else:
            process.disk = Disk(member)
        self._world.tell(f"the directory of {replica_name(member)} is {kind} now")

    # The end of the safety phase ---------------------------------------------------------------

    def _heal(self, order: list[ReplicaId], stays_dead: bool) -> None:
        """A core heals: nothing fails any more among its members. The rest stays dead or apart."""
        world = self._world
        world.tell("the core heals")
        world.mark("heal")
        world.network.calm()
        world.on_heal()
        world.limits = Limits(gate=world.options.gate)
        world.calm_at = tuple(process.clock.local(world.now) for process in world.processes)
        for process in world.processes:
            process.crash_at = process.disk_fault = None
            process.paused_until = min(process.paused_until, world.now)
            world.start(process.me)
            if process.node is not None:
                process.node.limits = world.limits
        lost = sum(process.dead for process in world.processes)
        budget = max(0, min(world.options.rest, self._survived - lost))
        living = [member for member in order if not world.processes[member].dead]
        for member in living[:budget]:
            self._leave_out(member, stays_dead)

    def _leave_out(self, member: ReplicaId, stays_dead: bool) -> None:
        world = self._world
        process = world.processes[member]
        process.outside_core = True
        if stays_dead:
            world.tell(f"{replica_name(member)} stays dead")
            world.crash(member, "for good")
            process.dead = True
            return
        world.tell(f"{replica_name(member)} stays cut off")
        others = [each for each in range(self._n) if each != member]
        world.network.sever([(member, each) for each in others])
        world.network.sever([(each, member) for each in others])


def draw_cut(rng: random.Random, n: int) -> Pairs:
    """Ordered pairs: one isolated, two halves, a ring of majorities, or some in one direction."""
    kind = rng.choice(("isolate", "halves", "ring", "one-way"))
    members = range(n)
    if kind == "one-way":
        return [(a, b) for a in members for b in members if a != b and rng.random() < 0.3]
    if kind == "ring":
        reach = n // 4 + 1
        return [
            (a, b)
            for a in members
            for b in members
            if a != b and min((a - b) % n, (b - a) % n) > reach
        ]
    side = {rng.randrange(n)} if kind == "isolate" else set(rng.sample(members, n // 2))
    return [(a, b) for a in members for b in members if (a in side) != (b in side)]
