"""A cluster of running replicas, their clients, what happens to them, and what is asked of them."""

import asyncio
import contextlib
import random
import shutil
from collections.abc import Coroutine, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from unittest import mock
from zlib import crc32

import structlog

import topology
from epaxos.client import EPaxosClient, PreconditionFailed
from epaxos.core.errors import Definite, RequestError
from epaxos.core.types import replica_name
from epaxos.runtime import server, wal
from epaxos.runtime.config import Cluster, Member, ServeConfig
from epaxos.sim.check.linearizability import Op, Verdict, check, say_illegal
from tests.scripted.files import Disk, ScriptedOs, scripted_files
from tests.scripted.http import Lost, call, is_definite
from tests.scripted.loop import HOST, Host, Listener, VirtualLoop, virtual_clock
from tests.scripted.network import Network

SEGMENT_BYTES = 16 * 1024
LIMITS = {
    "unread.CHUNK_BYTES": (1, 150, 20_100),
    "binary.UNREAD_BYTES_MAX": (1, 300, 20_100),
    "binary.IN_FLIGHT_MAX": (1, 2, 5),
    "binary.JOINED_BYTES_MAX": (1, 300),
    "backlog.BACKLOG_MESSAGES_MAX": (2, 20),
    "backlog.BACKLOG_BYTES_MAX": (100, 20_100),
}
"""What a seed may set instead of limits that its few commands would never reach."""
SETTLES_S = 90.0
"""After the last fault everything is executed everywhere within so many virtual seconds."""
KEYS = [b"k0", b"k1", b"k2"]
PEER, CLIENT, HTTP = 1000, 2000, 3000
"""Ports of replica A."""
TIMEOUT_S = 2.0
SHOWN = 8
PROBES = 3
STARTS = 3
"""After the last fault a start may still fail so often."""


class Broken(Exception):
    """What must hold did not."""


@dataclass(frozen=True)
class Plan:
    """What a seed draws before anything runs."""

    seed: int
    protocol: str
    n: int
    durable: bool
    topology: str
    """Whose distances the delay lines emulate; empty: none."""
    active_s: float
    commands: int
    harsh: bool
    """Whether machines die often, in the middle of a step, and start again at once."""
    syncs_fail: bool = True
    limits: tuple[int, ...] = ()
    """Instead of `LIMITS`, in their order; empty: as they are."""

    @classmethod
    def of(cls, seed: int, protocol: str) -> "Plan":
        rng = random.Random(f"scripted plan {seed} {protocol}")
        n = rng.choice((3, 3, 5))
        return cls(
            seed,
            protocol,
            n,
            rng.random() < 0.75,
            rng.choice(("", "", f"lan:{n}", f"equidistant:{n},30")),
            rng.choice((2.0, 4.0)),
            rng.choice((60, 120)),
            rng.random() < 0.2,
            limits=tuple(map(rng.choice, LIMITS.values())) if rng.random() < 0.5 else (),
        )


@dataclass
class Told:
    """What a run did."""

    trace: int = 0
    """Checksum of everything that happened."""
    answered: int = 0
    unknown: int = 0
    refused: int = 0
    kills: int = 0
    power_losses: int = 0
    failures: int = 0
    """Lives that ended by an error of their own, like a disk that is full."""
    lost_writes: int = 0
    """Writes that a power loss took back."""
    broken_links: int = 0
    insisted: int = 0
    """Starts from a directory that was emptied or replaced by an older copy."""
    virtual_s: float = 0.0


@dataclass
class Machine:
    """A host with its disk, and the replica on it while one runs."""

    member: int
    root: Path
    life: int = 0
    host: Host = field(default_factory=lambda: Host(""))
    disk: Disk | None = None
    task: asyncio.Task[None] | None = None
    running: server.Server | None = None
    failure: Exception | None = None
    lost_power: bool = False
    copied_in: int = 0
    """The life in which a copy of the directory was made."""
    older: Path | None = None
    swapped: bool = False
    """Its directory was emptied or replaced by an older copy: it must be refused, and stay so."""
    replaced: bool = False
    gone: bool = False
    """It will not start again."""

    @property
    def node(self):
        assert self.running is not None
        return self.running._parts.node

    @property
    def is_down(self) -> bool:
        return not self.host.alive and not self.gone


class World:
    """Everything of one run."""

    def __init__(self, plan: Plan, directory: Path, story: list[str]) -> None:
        self.plan = plan
        self.told = Told()
        self.random = random.Random(f"scripted {plan.seed} {plan.protocol}")
        self.network = Network(plan.seed)
        self.network.on_write = self._on_write
        self.system = ScriptedOs()
        self.machines = [Machine(i, directory / replica_name(i)) for i in range(plan.n)]
        self.ops: dict[bytes, list[Op]] = {}
        self.refused: set[bytes] = set()
        """Values of writes that certainly did not happen."""
        self.errors: list[str] = []
        """What callbacks raised that nobody caught."""
        self._story = story
        self._writes_until_death: dict[Host, int] = {}
        regions = [f"r{i}" for i in range(plan.n)]
        if plan.topology:
            regions = [region.name for region in topology.find(plan.topology).regions]
        self.cluster = Cluster(
            cluster="scripted",
            replicas=[
                Member(
                    region=region,
                    peer_port=PEER + i,
                    client_port=CLIENT + i,
                    http_port=HTTP + i,
                )
                for i, region in enumerate(regions)
            ],
            protocol=plan.protocol,
            durability="fsync" if plan.durable else "memory",
            topology=plan.topology,
            emulate=bool(plan.topology),
            batch_commands=self.random.choice((1, 4, 4096)),
            patience_ms=2000,
            grace_ms=100,
            seed=plan.seed,
        )

    def on_loop_error(self, loop: asyncio.AbstractEventLoop, context: dict[str, object]) -> None:
        """A callback raised. (Tasks of the dead are never finished.)"""
        error = context.get("exception")
        host = HOST.get()
        if error is not None and (host is None or host.alive):
            self.errors.append(f"{context.get('message')}: {error!r}")

    def note(self, text: str) -> None:
        """Something happened: part of what two runs of a seed share."""
        line = f"{asyncio.get_running_loop().time():10.6f} {text}"
        self.told.trace = crc32(line.encode(), self.told.trace)
        self._story.append(line)

    # Machines ------------------------------------------------------------------------------------

    def start(self, machine: Machine) -> None:
        """Begin a new life."""
        loop = asyncio.get_running_loop()
        machine.life += 1
        host = machine.host = Host(f"{replica_name(machine.member)}.{machine.life}")
        pending = [] if machine.disk is None else machine.disk.pending
        if machine.disk is not None:
            self.system.remove(machine.disk)
        # A killed process leaves what it wrote to the system; the power may still fail.
        machine.disk = Disk(
            host,
            machine.root,
            f"{self.plan.seed} {machine.life}",
            pending,
            lambda: loop.call_soon(self._bury, machine, host, True),
        )
        self.system.add(machine.disk)
        machine.failure, machine.lost_power = None, False
        token = HOST.set(host)
        machine.task = loop.create_task(self._live(machine, host))
        HOST.reset(token)

    async def _live(self, machine: Machine, host: Host) -> None:
        data = machine.root if self.plan.durable else None
        config = ServeConfig(cluster=self.cluster, me=machine.member, data=data)
        try:
            async with server.running(config) as running:
                machine.running = running
                try:
                    await running.failed
                finally:
                    machine.running = None
        except asyncio.CancelledError:
            pass
        except Exception as error:
            if host.alive:
                machine.failure = error
                self.told.failures += 1
                self.note(f"{host} failed: {str(error).replace(str(machine.root), '')}")
                host.alive = False
                self.network.vanish(host)
                machine.gone = not self.plan.durable

    def kill(self, machine: Machine, *, power: bool) -> None:
        """End a life between two steps."""
        if machine.host.alive:
            machine.host.alive = False
            self._bury(machine, machine.host, power)

    def _bury(self, machine: Machine, host: Host, power: bool) -> None:
        self.told.kills += 1
        self.told.power_losses += power
        self.note(f"{host} dies{' with its power' if power else ''}")
        self.network.vanish(host)
        machine.lost_power = power
        machine.gone = not self.plan.durable
        assert machine.task is not None
        machine.task.cancel()

    async def revive(self, machine: Machine) -> None:
        """Start again what died or failed."""
        assert machine.task is not None
        assert machine.disk is not None
        machine.task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await machine.task
        if machine.lost_power:
            self.told.lost_writes += machine.disk.lose_power()
        if machine.swapped and not machine.replaced:
            machine.replaced = True
            shutil.rmtree(machine.root)
            machine.disk.pending.clear()
            if machine.older is not None:
                shutil.copytree(machine.older, machine.root)
        if machine.swapped:
            self.told.insisted += 1
        self.start(machine)

    def _on_write(self, host: Host) -> None:
        left = self._writes_until_death.get(host)
        if left is None:
            return
        self._writes_until_death[host] = left - 1
        if left > 0:
            return
        del self._writes_until_death[host]
        machine = next(m for m in self.machines if m.host is host)
        if host.alive:
            host.alive = False
            power = self.random.random() < 0.5
            asyncio.get_running_loop().call_soon(self._bury, machine, host, power)

    # Faults --------------------------------------------------------------------------------------

    async def faults(self) -> None:
        """What happens until the calm."""
        rng = self.random
        loop = asyncio.get_running_loop()
        end = loop.time() + self.plan.active_s
        self.network.breaks = rng.choice((0.0, 0.0005, 0.003))
        kinds = [self._break, self._break, self._block, self._open, self._death, self._bad_disk]
        kinds += [self._swap]
        if self.plan.harsh:
            kinds += [self._death] * 6
        while loop.time() < end:
            await asyncio.sleep(rng.uniform(0.02, 0.4))
            rng.choice(kinds)(*rng.sample(self.machines, 2))
            for machine in self.machines:
                if machine.is_down and (self.plan.harsh or rng.random() < 0.5):
                    await self.revive(machine)

    def _break(self, a: Machine, b: Machine) -> None:
        self.note(f"links of {a.host} and {b.host} break")
        self.network.break_between(a.host, b.host)

    def _block(self, a: Machine, b: Machine) -> None:
        self.note(f"{a.host} to {b.host} is blocked")
        self.network.block(a.host, b.host)

    def _open(self, a: Machine, b: Machine) -> None:
        self.note("everything flows")
        self.network.open()

    def _may_die(self, machine: Machine) -> bool:
        """Durable replicas may all be down at once; without a disk a minority dies, for good."""
        dead = sum(m.gone for m in self.machines)
        return machine.host.alive and (self.plan.durable or dead < (self.plan.n - 1) // 2)

    def _death(self, a: Machine, b: Machine) -> None:
        if not self._may_die(a):
            return
        rng = self.random
        how = rng.choice(("between steps", "amid sends", "at its disk"))
        if self.plan.harsh:
            how = "at its disk"
        if how == "between steps" or not self.plan.durable:
            self.kill(a, power=rng.random() < 0.5)
            return
        self.note(f"{a.host} will die {how}")
        if how == "amid sends":
            self._writes_until_death[a.host] = rng.randrange(6)
        else:
            assert a.disk is not None
            a.disk.dies_in = rng.randrange(4)

    def _swap(self, a: Machine, b: Machine) -> None:
        """Somebody empties a directory, or puts an older copy back, and starts the replica."""
        lost = sum(m.swapped for m in self.machines)
        if lost >= (self.plan.n - 1) // 2 or not self._is_known_to_all(a):
            return
        copy = a.root.with_suffix(".copy")
        if a.copied_in == 0:
            self.note(f"the directory of {a.host} is copied")
            shutil.copytree(a.root, copy)
            a.copied_in = a.life
            return
        self.kill(a, power=False)
        a.swapped = True
        a.older = copy if a.copied_in < a.life and self.random.random() < 0.5 else None
        self.note(f"the directory of {a.host} is {'an older copy' if a.older else 'empty'} now")

    def _is_known_to_all(self, a: Machine) -> bool:
        """Whether all peers remember this life. (Those that do not could let an earlier one in, as
        long as all that do are down: docs/operating.md says so.)"""
        if not self.plan.durable or a.running is None:
            return False
        boot = a.running._parts.boot
        peers = [m.running for m in self.machines if m is not a]
        return all(
            peer is not None
            and peer._parts.transport._identity.peers.remembered(a.member).boot == boot
            for peer in peers
        )

    def _bad_disk(self, a: Machine, b: Machine) -> None:
        if not self.plan.durable or not a.host.alive:
            return
        assert a.disk is not None
        kind = self.random.choice(("fails", "full", "slow"))
        if kind == "fails" and self.plan.syncs_fail:
            self.note(f"a sync of {a.host} will fail")
            a.disk.sync_fails_in = self.random.randrange(4)
        elif kind == "full":
            self.note(f"the disk of {a.host} will be full")
            a.disk.full_in = self.random.randrange(1, 6)
        else:
            self.note(f"the disk of {a.host} is slow")
            a.disk.slow_us = self.random.choice((1_000, 20_000, 200_000))

    # Clients -------------------------------------------------------------------------------------

    async def clients(self) -> None:
        """All clients, until each has said all it has to say."""
        share = self.plan.commands // self.plan.n
        async with asyncio.TaskGroup() as group:
            for member in range(self.plan.n):
                rng = random.Random(self.random.getrandbits(32))
                token = HOST.set(Host(f"client {member}"))
                group.create_task(self._client(member, share, rng))
                HOST.reset(token)

    async def _client(self, member: int, commands: int, rng: random.Random) -> None:
        address = f"127.0.0.1:{CLIENT + member}"
        async with (
            EPaxosClient([address], timeout=TIMEOUT_S) as client,
            asyncio.TaskGroup() as group,
        ):
            for number in range(commands):
                if rng.random() < 0.6:  # Otherwise in one breath with the one before.
                    await asyncio.sleep(rng.expovariate(0.6 * commands / self.plan.active_s))
                token = (b"%d.%d" % (member, number)).ljust(
                    rng.choice((0, 0, 0, 100, 20_000)), b"."
                )
                roll, key = rng.random(), rng.choice(KEYS)
                if rng.random() < 0.3:
                    group.create_task(self._by_http(member, token, roll, key))
                else:
                    group.create_task(self._by_client(client, token, roll, key))

    async def _by_client(
        self,
        client: EPaxosClient,
        token: bytes,
        roll: float,
        key: bytes,
        seconds: float = TIMEOUT_S,
    ) -> None:
        kind = _kind(roll)
        value = token if kind in ("put", "cas") else None
        called = self._now()
        try:
            result = await _ask(client, kind, key, token, seconds)
        except Definite:
            self._refuse(kind, token)
        except RequestError:
            self._keep(Op(kind, value, None, called, None, None), key)
        else:
            self._keep(Op(kind, value, None, called, self._now(), result), key)

    async def _by_http(self, member: int, token: bytes, roll: float, key: bytes) -> None:
        kind = _kind(roll)
        method = {"get": "GET", "put": "PUT", "delete": "DELETE", "cas": "PUT"}[kind]
        headers = {"If-None-Match": "*"} if kind == "cas" else {}
        body = token if method == "PUT" else b""
        called = self._now()
        try:
            status, _, answer = await call(HTTP + member, method, key, body, headers, TIMEOUT_S)
        except OSError:
            self._refuse(kind, token)
            return
        except Lost:
            status, answer = 504, b""
        value = token if method == "PUT" else None
        if kind == "cas" and status == 412:
            # Its document does not hold the value: that there was one is all that is known.
            self.told.answered += 1
            self.refused.add(token)
            return
        if kind == "get" and status == 404:
            result: object = None
        elif status in (200, 201, 204):
            result = answer if kind == "get" else True
        elif kind == "delete" and status == 404:
            result = False
        elif is_definite(status, answer):
            if status not in (429, 503):
                raise Broken(f"{method} {key!r} was answered {status}: {answer[:300]!r}")
            self._refuse(kind, token)
            return
        else:
            self._keep(Op(kind, value, None, called, None, None), key)
            return
        self._keep(Op(kind, value, None, called, self._now(), result), key)

    def _now(self) -> int:
        return round(asyncio.get_running_loop().time() * 1e6)

    def _refuse(self, kind: str, token: bytes) -> None:
        self.told.refused += 1
        if kind in ("put", "cas"):
            self.refused.add(token)

    def _keep(self, op: Op, key: bytes) -> None:
        short = op.result[:24] if isinstance(op.result, bytes) else op.result
        said = "?" if op.returned is None else repr(short)
        self.note(f"{op.kind} {key!r} {(op.value or b'')[:16]!r} since {op.called} -> {said}")
        if op.returned is None:
            self.told.unknown += 1
            if op.kind == "get":
                return
        else:
            self.told.answered += 1
        self.ops.setdefault(key, []).append(op)

    # Verdict -------------------------------------------------------------------------------------

    async def settle(self) -> None:
        """The calm: everything heals, and within `SETTLES_S` all agree and serve."""
        loop = asyncio.get_running_loop()
        self.network.calm = True
        self.network.open()
        self._writes_until_death.clear()
        self.note("calm")
        for machine in self.machines:
            assert machine.disk is not None
            machine.disk.heal()
        end = loop.time() + SETTLES_S
        failures = [0] * self.plan.n
        while not self._is_settled():
            await asyncio.sleep(0.05)
            for machine in self.machines:
                if machine.is_down and machine.swapped:
                    if not _is_refused(machine):
                        await self.revive(machine)
                elif machine.is_down:
                    failures[machine.member] += machine.failure is not None
                    if failures[machine.member] > STARTS:
                        raise Broken(f"{machine.host} does not start: {machine.failure}")
                    await self.revive(machine)
            if loop.time() > end:
                raise Broken(f"not settled after {SETTLES_S} s: {self._states()}")
        digests = {str(m.host): m.node.store.digest() for m in self._living()}
        if len(set(digests.values())) > 1:
            raise Broken(f"stores differ: {digests}")

    def _living(self) -> list[Machine]:
        return [m for m in self.machines if not m.gone and not m.swapped]

    def _is_settled(self) -> bool:
        vectors = set()
        if any(m.swapped and not _is_refused(m) for m in self.machines):
            return False
        for machine in self._living():
            if machine.running is None or machine.running._status.unready() is not None:
                return False
            node = machine.node
            if node.executor.pending():
                return False
            columns = getattr(node.replica, "columns", None)
            if columns is not None and tuple(columns.known) != tuple(node.executor.executed):
                return False
            vectors.add(tuple(node.executor.executed))
        return len(vectors) == 1

    def _states(self) -> str:
        return "; ".join(
            f"{m.host}: {m.failure or 'no server'}"
            if m.running is None
            else f"{m.host}: executed {m.node.executor.executed} "
            f"pending {len(m.node.executor.pending())} unready {m.running._status.unready()}"
            for m in self._living()
        )

    async def probe(self) -> None:
        """Each key is written and read through each replica."""
        for machine in self._living():
            HOST.set(Host(f"probe {machine.member}"))
            address = f"127.0.0.1:{CLIENT + machine.member}"
            async with EPaxosClient([address], timeout=5.0) as client:
                for key in KEYS:
                    for roll in (0.5, 0.0):
                        await self._probe(client, machine, key, roll)

    async def _probe(self, client: EPaxosClient, machine: Machine, key: bytes, roll: float) -> None:
        """One command. What was forwarded just before a link broke is of unknown outcome, and is
        tried again as any client would."""
        before = self.told.answered
        for number in range(PROBES):
            token = b"probe %d %s %d" % (machine.member, key, number)
            await self._by_client(client, token, roll, key, 5.0)
            if self.told.answered > before:
                return
        raise Broken(f"{PROBES} probes through {machine.host} were not answered")

    def judge(self) -> None:
        """Every key's history has an order that explains it; what failed for certain is in none."""
        for key, ops in sorted(self.ops.items()):
            for op in ops:
                seen = op.result[1] if isinstance(op.result, tuple) else op.result
                if isinstance(seen, bytes) and seen in self.refused:
                    raise Broken(f"{seen[:20]!r} was refused for certain, and seen in {key!r}")
            verdict = check(ops)
            if verdict is not Verdict.OK:
                raise Broken(f"{key!r} is {verdict.value}: {say_illegal(ops, SHOWN)[:2000]}")
        if self.errors:
            raise Broken(f"a callback raised: {self.errors[0]}")


def _is_refused(machine: Machine) -> bool:
    return machine.failure is not None and (
        "refused before" in str(machine.failure) or "forgotten" in str(machine.failure)
    )


def _kind(roll: float) -> str:
    if roll < 0.45:
        return "get"
    if roll < 0.8:
        return "put"
    return "delete" if roll < 0.9 else "cas"


async def _ask(client: EPaxosClient, kind: str, key: bytes, token: bytes, seconds: float) -> object:
    """What the key's model answers for this operation (`Op.result`); a cas writes a key that has no
    value."""
    if kind == "get":
        found = await client.get(key, timeout=seconds)
        return None if found is None else bytes(found.value)
    if kind == "put":
        await client.put(key, token, timeout=seconds)
        return True
    if kind == "delete":
        return await client.delete(key, timeout=seconds) is not None
    try:
        await client.cas(key, expect=False, value=token, timeout=seconds)
    except PreconditionFailed as error:
        return (False, None if error.current is None else bytes(error.current.value))
    return True


async def _run(world: World) -> None:
    for machine in world.machines:
        world.start(machine)
    await asyncio.gather(world.clients(), world.faults())
    await world.settle()
    await world.probe()
    await world.settle()
    world.judge()
    world.told.virtual_s = asyncio.get_running_loop().time()


async def _end(world: World) -> None:
    for machine in world.machines:
        machine.host.alive = False
        if machine.task is not None:
            machine.task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await machine.task


@contextlib.contextmanager
def limited(values: tuple[int, ...]) -> Iterator[None]:
    """Limits of the ports are these."""
    with contextlib.ExitStack() as stack:
        for name, value in zip(LIMITS, values):
            stack.enter_context(mock.patch(f"epaxos.runtime.{name}", value))
        yield


async def _cancel_the_rest() -> None:
    rest = asyncio.all_tasks() - {asyncio.current_task()}
    for task in rest:
        task.cancel()
    await asyncio.gather(*rest, return_exceptions=True)


def play(world: World, scenario: Coroutine[None, None, None]) -> None:
    """Run a scenario of a world to its end, in virtual time; whatever it raises, nothing stays."""
    loop = VirtualLoop(world.network)
    loop.set_exception_handler(world.on_loop_error)
    with (
        virtual_clock(loop),
        scripted_files(world.system),
        mock.patch.object(server, "_bind", lambda host, port, key: Listener(host, port)),
        mock.patch.object(wal.Wal.__init__, "__defaults__", (SEGMENT_BYTES,)),
        limited(world.plan.limits),
        structlog.testing.capture_logs(),
    ):
        try:
            loop.run_until_complete(scenario)
        finally:
            loop.run_until_complete(_end(world))
            loop.run_until_complete(_cancel_the_rest())
            loop.close()


def run_scripted(plan: Plan, directory: Path, story: list[str] | None = None) -> Told:
    """Run once. Raises Broken, or whatever broke; `story` then says what came before."""
    world = World(plan, directory, [] if story is None else story)
    play(world, _run(world))
    world.told.broken_links = world.network.broken
    return world.told
