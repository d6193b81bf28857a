"""Real replicas as real processes on this machine, from a topology.

Each replica runs in a session of its own: Ctrl-C reaches only us, and we stop the others in order.
Where the kernel can, a replica also dies with us. `with LocalCluster(...)` leaves nothing running.
"""

import contextlib
import json
import os
import random
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Final, NamedTuple

from bench.spawn import spawn, unhurried
from epaxos.core.errors import AddressError, CodecError, EpaxosError
from epaxos.http_client import fetch
from topology import Topology

READY_WITHIN_S: Final = 30.0
STOPS_WITHIN_S: Final = 8.0
STATUS_WITHIN_S: Final = 10.0
_BEHIND: Final = 19
"""The nice value of replicas that give way."""
_FREE_PORTS: Final = (12_000, 32_000)
"""From where free ports are taken: above the fixed ones, below the ephemeral ones."""


class Ports(NamedTuple):
    """Where one replica listens, on 127.0.0.1."""

    peer: int
    client: int
    http: int


@dataclass(frozen=True)
class ClusterOptions:
    """What the replicas are told; the names are those of the cluster's file."""

    protocol: str = "epaxos"
    durability: str = "fsync"
    leader: str = ""
    """Region of the first leader."""
    emulate: bool = True
    seed: int = 1
    gate: bool = True
    admin: bool = False
    record: str = ""
    """Directory for traces; empty: nothing is recorded."""
    more: dict[str, int | str] = field(default_factory=dict)
    """Further settings of the file, like `batch_commands`."""


def free_ports(n: int) -> list[Ports]:
    """Ports for n replicas that were free a moment ago."""
    numbers = free_port_numbers(3 * n)
    return [Ports(*numbers[3 * i : 3 * i + 3]) for i in range(n)]


def free_port_numbers(count: int) -> list[int]:
    """Ports that were free a moment ago, from below those that systems give to outgoing
    connections: between here and the moment a replica listens, nobody is handed one of these."""
    chance = random.SystemRandom()
    found: list[int] = []
    with contextlib.ExitStack() as held:
        while len(found) < count:
            port = chance.randrange(*_FREE_PORTS)
            each = held.enter_context(socket.socket())
            try:
                each.bind(("127.0.0.1", port))
            except OSError:
                continue  # somebody has it, perhaps we
            found.append(port)
    return found


def fixed_ports(n: int) -> list[Ports]:
    """The ports that people and the other verbs expect: 7001, 7101 and 8001 upwards."""
    return [Ports(7001 + i, 7101 + i, 8001 + i) for i in range(n)]


def check_ports(topology: Topology, ports: list[Ports]) -> None:
    """Raises AddressError that names a port which somebody else listens on."""
    for region, each in zip(topology.regions, ports):
        for kind, port in each._asdict().items():
            with socket.socket() as probe:
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                try:
                    probe.bind(("127.0.0.1", port))
                except OSError as error:
                    raise AddressError(
                        f"port {port} ({kind} port of {region.title}) cannot be used: "
                        f"{error.strerror}; stop what listens there, or give --free-ports"
                    ) from None


class LocalReplica:
    """One replica: its process, or none."""

    def __init__(self, region: str, ports: Ports, command: list[str], log: Path) -> None:
        self.region = region
        self.ports = ports
        self.log = log
        """Its stderr."""
        self._command = command
        self._process: subprocess.Popen[bytes] | None = None
        self._ready = threading.Event()
        self._ended = threading.Event()

    @property
    def pid(self) -> int | None:
        """None while it does not run."""
        return self._process.pid if self.running and self._process else None

    @property
    def running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    @property
    def ready(self) -> bool:
        """Whether the process has said that it is ready."""
        return self._ready.is_set()

    def start(self) -> None:
        """Start the process; `wait_ready` waits for it."""
        # New ones: the listener of an earlier process may still be about to say that it ended.
        self._ready, self._ended = threading.Event(), threading.Event()
        with self.log.open("ab") as log:
            self._process = spawn(self._command, stdout=subprocess.PIPE, stderr=log)
        threading.Thread(
            target=_listen, args=(self._process, self._ready, self._ended), daemon=True
        ).start()

    def wait_ready(self, limit: float) -> None:
        """Wait until it says that it is ready. Raises EpaxosError with its last words."""
        while not self._ready.wait(0.02):
            if self._ended.is_set():
                raise EpaxosError(
                    f"the replica in {self.region} did not start: {self.last_words()}"
                )
            if time.monotonic() > limit:
                raise EpaxosError(
                    f"the replica in {self.region} is not ready after {READY_WITHIN_S:g} s: "
                    f"{self.last_words()}"
                )

    @property
    def code(self) -> int | None:
        """How it ended; None while it runs or before it was started."""
        return None if self._process is None else self._process.poll()

    def last_words(self) -> str:
        """The signal that killed it; else the last line of its log, without a leading `error:`."""
        code = self.code
        if code is not None and code < 0:
            return f"killed by signal {-code}"
        try:
            lines = self.log.read_text(encoding="utf-8", errors="replace").split("\n")
        except OSError:
            return "it left no log"
        said = [line.strip() for line in lines if line.strip()]
        return said[-1].removeprefix("error: ") if said else "it said nothing"

    def signal(self, number: signal.Signals) -> None:
        """Send a signal, if it runs."""
        if self._process is not None and self._process.poll() is None:
            self._process.send_signal(number)

    def wait(self, limit: float) -> None:
        """Wait for its end until `limit`, then kill it."""
        if self._process is None:
            return
        try:
            self._process.wait(max(0.0, limit - time.monotonic()))
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def status(self, within_s: float = STATUS_WITHIN_S) -> dict[str, Any]:
        """Its `/v1/status`. Raises AddressError while it does not answer."""
        return self.ask("/v1/status", within_s=within_s)

    def ask(
        self,
        path: str,
        document: object = None,
        method: str = "GET",
        within_s: float = STATUS_WITHIN_S,
    ) -> dict[str, Any]:
        """What it answers over HTTP to a document, or to nothing. Raises AddressError where it
        does not answer, or refuses."""
        url = f"http://127.0.0.1:{self.ports.http}{path}"
        try:
            found: dict[str, Any] = json.loads(fetch(url, within_s, document, method))
        except (OSError, ValueError, CodecError) as error:
            raise AddressError(f"{self.region} does not answer at {url}: {error}") from None
        return found


def _listen(
    process: "subprocess.Popen[bytes]", ready: threading.Event, ended: threading.Event
) -> None:
    assert process.stdout is not None
    with process.stdout as lines:
        for line in lines:
            if b'"ready"' in line:
                ready.set()
    ended.set()


class LocalCluster:
    """All replicas of a topology. Directory: cluster.toml, and per replica a log and its data."""

    def __init__(
        self,
        topology: Topology,
        directory: Path,
        options: ClusterOptions,
        ports: list[Ports] | None = None,
    ) -> None:
        self.topology = topology
        self.options = options
        self.ports = ports or free_ports(topology.n)
        directory.mkdir(parents=True, exist_ok=True)
        self.config = directory / "cluster.toml"
        self.config.write_text(_config_text(topology, options, self.ports), encoding="utf-8")
        self.processes = [
            LocalReplica(
                region.name,
                self.ports[i],
                self._command(directory, i),
                directory / f"{region.name}.log",
            )
            for i, region in enumerate(topology.regions)
        ]

    def start(self, on_ready: Callable[[int], None] = lambda count: None) -> None:
        """Start all and wait until each is ready; `on_ready` hears how many are. Raises
        EpaxosError."""
        limit = time.monotonic() + READY_WITHIN_S
        for process in self.processes:
            process.start()
        for count, process in enumerate(self.processes, 1):
            process.wait_ready(limit)
            on_ready(count)

    def status(self) -> list[dict[str, Any]]:
        """`/v1/status` of all. Raises AddressError where one does not answer."""
        return [process.status() for process in self.processes]

    def histograms(self) -> list[dict[str, Any] | None]:
        """`/v1/histograms` of all; None of those that do not answer."""
        found: list[dict[str, Any] | None] = []
        for process in self.processes:
            try:
                found.append(process.ask("/v1/histograms"))
            except AddressError:
                found.append(None)
        return found

    def give_way(self) -> None:
        """Let the replicas wait for whoever loads them, where the cores do not suffice: a client
        that is late measures itself. Where the system does not let us, nothing changes."""
        for process in self.processes:
            if process.pid is not None:
                with contextlib.suppress(OSError):
                    os.setpriority(os.PRIO_PROCESS, process.pid, _BEHIND)
                # A replica that wakes up then takes the core from nobody.
                with contextlib.suppress(OSError, AttributeError):
                    os.sched_setscheduler(process.pid, os.SCHED_BATCH, os.sched_param(0))
                # Linux shares the cores out among sessions first, and each replica is one.
                with contextlib.suppress(OSError):
                    Path(f"/proc/{process.pid}/autogroup").write_text(str(_BEHIND))

    def kill(self, i: int, number: signal.Signals = signal.SIGKILL) -> None:
        """Send a signal to one replica and, where it ends one, wait for the end."""
        self.processes[i].signal(number)
        if number in (signal.SIGKILL, signal.SIGTERM):
            self.processes[i].wait(time.monotonic() + STOPS_WITHIN_S)

    def restart(self, i: int) -> None:
        """Start one again and wait until it is ready. Raises EpaxosError."""
        self.processes[i].start()
        self.processes[i].wait_ready(time.monotonic() + READY_WITHIN_S)

    def stop_all(self) -> None:
        """SIGTERM, then SIGKILL for what does not end."""
        for process in self.processes:
            process.signal(signal.SIGTERM)
            process.signal(signal.SIGCONT)
        limit = time.monotonic() + STOPS_WITHIN_S
        for process in self.processes:
            process.wait(limit)

    def __enter__(self) -> "LocalCluster":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        with unhurried():
            self.stop_all()

    def _command(self, directory: Path, i: int) -> list[str]:
        command = [sys.executable, "-m", "epaxos.cli.main", "serve", "--config", str(self.config)]
        command += ["--replica", self.topology.regions[i].name]
        if self.options.durability == "fsync":
            command += ["--data", str(directory / f"data-{self.topology.regions[i].name}")]
        return command


def _config_text(topology: Topology, options: ClusterOptions, ports: list[Ports]) -> str:
    settings: dict[str, str | int] = {
        "cluster": f"local-{options.protocol}",
        "protocol": options.protocol,
        "durability": options.durability,
        "topology": topology.name,
        "emulate": options.emulate,
        "seed": options.seed,
        "leader": options.leader,
        "gate": options.gate,
        "admin": options.admin,
        **({"record": options.record} if options.record else {}),
        **options.more,
    }
    # JSON's strings, numbers and booleans are TOML's.
    lines = [f"{key} = {json.dumps(value)}" for key, value in settings.items()]
    for region, port in zip(topology.regions, ports):
        lines += [
            "",
            "[[replicas]]",
            f"region = {json.dumps(region.name)}",
            f"peer_port = {port.peer}",
            f"client_port = {port.client}",
            f"http_port = {port.http}",
        ]
    return "\n".join(lines) + "\n"
