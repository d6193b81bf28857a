"""`epaxos up`: a local cluster over emulated regions, to touch and to watch.

Runs in the foreground. On a terminal a table of the regions is redrawn; elsewhere a line per region
comes now and then, and with --json a document per line.
"""

import signal
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any, Final

import orjson
import typer
from rich.live import Live
from rich.table import Table

from bench.clusters.local import (
    ClusterOptions,
    LocalCluster,
    LocalReplica,
    check_ports,
    fixed_ports,
    free_ports,
)
from epaxos.cli.options import (
    Durability,
    Replicas,
    StateMachineName,
    TopologyName,
    UnsafeNoGate,
    seed_option,
)
from epaxos.cli.output import console, count, make_table, milliseconds, size
from epaxos.core.errors import AddressError, ConfigError
from epaxos.registry import ProtocolSpec, find_protocol, find_state_machine
from topology import DEFAULT, Topology, best_leader, find, worst_leader

app = typer.Typer()

STATUS_WITHIN_S: Final = 1.0
"""A replica that says nothing for so long is shown as silent."""
_WATCHED_S: Final = 0.5
_UNWATCHED_S: Final = 10.0


@app.command()
def up(
    topology: TopologyName = DEFAULT,
    replicas: Replicas = None,
    protocol: Annotated[
        str, typer.Option(help="epaxos, multipaxos, or your own as package.module:NAME.")
    ] = "epaxos",
    leader: Annotated[
        str, typer.Option(help="First leader of multipaxos: best, worst or a region.")
    ] = "best",
    state_machine: StateMachineName = "",
    durability: Durability = "fsync",
    data: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Keep logs and data here, and go on from them."),
    ] = None,
    emulate: Annotated[
        bool, typer.Option(help="Hold messages back as long as the topology says.")
    ] = True,
    seed: Annotated[int, seed_option("Of emulated jitter and loss.")] = 1,
    unsafe_no_gate: UnsafeNoGate = False,
    record: Annotated[
        bool,
        typer.Option(
            "--record", help="Keep every input of every node, for `epaxos sim replay DIR`."
        ),
    ] = False,
    free: Annotated[
        bool, typer.Option("--free-ports", help="Whatever ports are free, not 7001, 7101, 8001 ...")
    ] = False,
    every: Annotated[
        float | None,
        typer.Option(
            min=0.1,
            max=3600,
            metavar="SECONDS",
            help="How often figures are shown; 0.5 on a terminal, else 10.",
        ),
    ] = None,
    json: Annotated[
        bool, typer.Option("--json", help="One JSON document per line: ready, then figures.")
    ] = False,
) -> None:
    """Start a cluster on this machine and watch it; Ctrl-C stops all.

    HTTP listens on 8001 and up, the binary client port on 7101 and up, replicas on 7001 and up.
    Without --data everything is deleted at the end, except traces: those stay, in DIR/traces or in
    results."""
    spec = find_protocol(protocol)
    find_state_machine(state_machine)
    if durability not in ("fsync", "memory"):
        raise ConfigError(f"--durability {durability!r}: write fsync or memory")
    places = find(topology, replicas)
    if places.n > 9:
        raise ConfigError(
            f"{topology} has {places.n} regions; a cluster has at most 9: --replicas 5"
        )
    options = ClusterOptions(
        protocol=protocol,
        durability=durability,
        leader=_leader(places, spec, leader),
        emulate=emulate,
        seed=seed,
        gate=not unsafe_no_gate,
        admin=True,
        record=_traces(data) if record else "",
        more={"state_machine": state_machine} if state_machine else {},
    )
    ports = free_ports(places.n) if free else fixed_ports(places.n)
    if not free:
        check_ports(places, ports)
    with _directory(data) as directory, _stop_on_sigint():
        cluster = LocalCluster(places, directory, options, ports)
        try:
            _run(cluster, _Screen(cluster, every, json))
        except KeyboardInterrupt:
            console(stderr=True).print("stopped all replicas")


def _leader(topology: Topology, spec: ProtocolSpec, text: str) -> str:
    if not spec.has_leader:
        return ""
    index = {"best": best_leader, "worst": worst_leader}.get(text, lambda t: t.index(text))
    return topology.regions[index(topology)].name


def _traces(data: Path | None) -> str:
    """A new directory for the traces of this cluster; it outlives it."""
    from bench.run_directory import make_directory

    parent = Path("results") if data is None else data / "traces"
    try:
        return str(make_directory(parent, "record", datetime.now()).absolute())
    except ConfigError as error:
        raise ConfigError(str(error).replace("--out", "--record into")) from None


@contextmanager
def _directory(data: Path | None) -> Iterator[Path]:
    if data is not None:
        try:
            data.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ConfigError(f"--data {data}: {error.strerror}; name another") from None
        yield data
        return
    with tempfile.TemporaryDirectory(prefix="epaxos-up-", ignore_cleanup_errors=True) as made:
        yield Path(made)


@contextmanager
def _stop_on_sigint() -> Iterator[None]:
    """Also where a script started us behind it, which has SIGINT ignored."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def _run(cluster: LocalCluster, screen: "_Screen") -> None:
    with cluster:
        screen.starting()
        cluster.start()
        screen.ready()
        with screen, ThreadPoolExecutor(cluster.topology.n) as pool:
            while True:
                screen.show([*pool.map(_ask, cluster.processes)])
                time.sleep(screen.every)


def _ask(process: LocalReplica) -> dict[str, Any] | None:
    """The status of a replica that runs and answers."""
    if not process.running:
        return None
    try:
        return process.status(STATUS_WITHIN_S)
    except AddressError:
        return None


class _Screen:
    """What is shown: a table that is redrawn, plain lines, or documents."""

    def __init__(self, cluster: LocalCluster, every: float | None, json: bool) -> None:
        self._cluster = cluster
        self._console = console()
        self._json = json
        self._live: Live | None = None
        if self._console.is_terminal and not json:
            self._live = Live(console=self._console, auto_refresh=False)
        self.every = every or (_WATCHED_S if self._live else _UNWATCHED_S)
        self._begun = time.monotonic()
        self._before: dict[str, tuple[float, int]] = {}
        """Per region: when, and how many commands there were."""

    def starting(self) -> None:
        """Say what comes, before the wait."""
        if not self._json:
            self._print(f"{self._title()} · starting {self._cluster.topology.n} replicas")

    def ready(self) -> None:
        """Say where everything listens, and what to try."""
        cluster = self._cluster
        self._begun = time.monotonic()
        if self._json:
            self._print_line(
                {
                    "ready": True,
                    "config": str(cluster.config),
                    "protocol": cluster.options.protocol,
                    "topology": cluster.topology.name,
                    "durability": cluster.options.durability,
                    "record": cluster.options.record or None,
                    "replicas": [
                        {
                            "region": process.region,
                            "title": region.title,
                            "pid": process.pid,
                            "http": f"http://127.0.0.1:{process.ports.http}",
                            "client": f"127.0.0.1:{process.ports.client}",
                            "peer": f"127.0.0.1:{process.ports.peer}",
                        }
                        for process, region in zip(cluster.processes, cluster.topology.regions)
                    ],
                }
            )
            return
        first, last = cluster.ports[0], cluster.ports[-1]
        via = cluster.topology.regions[-1].title
        where = f"--cluster {cluster.config} " if first.client != 7101 else ""
        self._print(
            f"ready · http://127.0.0.1:{first.http} … {last.http} · "
            f"clients {first.client} … {last.client} · logs in {cluster.config.parent}"
        )
        if cluster.options.record:
            self._print(
                f"recording every input in {cluster.options.record}\n"
                f"then:  epaxos sim replay {cluster.options.record}"
            )
        self._print(
            f"try:  curl -i -X PUT --data hello http://127.0.0.1:{first.http}/v1/kv/greeting\n"
            f'      epaxos kv get greeting {where}--via "{via}"'
        )

    def show(self, statuses: list[dict[str, Any] | None]) -> None:
        """The figures of this moment; None: no answer."""
        most = max((sum(s["node"]["executed"]) for s in statuses if s and s["node"]), default=0)
        rows = [
            self._row(process, region.title, status, most)
            for process, region, status in zip(
                self._cluster.processes, self._cluster.topology.regions, statuses
            )
        ]
        if self._json:
            self._print_line({"up_s": round(time.monotonic() - self._begun, 1), "regions": rows})
        elif self._live is not None:
            self._live.update(self._table(rows), refresh=True)
        else:
            for row in rows:
                self._print(_plain(row))

    def __enter__(self) -> "_Screen":
        if self._live is not None:
            self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._live is not None:
            self._live.stop()

    def _row(
        self, process: LocalReplica, title: str, status: dict[str, Any] | None, most: int
    ) -> dict[str, Any]:
        row: dict[str, Any] = {"region": process.region, "title": title, "state": _state(process)}
        if status is None:
            self._before.pop(process.region, None)
            return row
        now, commands = time.monotonic(), status["commands"]
        since, already = self._before.get(process.region, (now, commands))
        self._before[process.region] = (now, commands)
        commits = status["commits"]
        own = commits["fast"] + commits["slow"] + commits["recovered"]
        latency = status["latency"]
        node = status["node"]
        row |= {
            "state": "ready" if status["ready"] else status["unready"],
            "commands": commands,
            "commands_per_s": round((commands - already) / (now - since), 1)
            if now > since
            else 0.0,
            "fast_share": commits["fast"] / own if own else None,
            "commit_p50_us": latency["commit"]["p50_us"],
            "answer_p50_us": latency["execute"]["p50_us"],
            "answer_p99_us": latency["execute"]["p99_us"],
            "behind": most - sum(node["executed"]) if node else None,
            "log_bytes": status["log"]["bytes"],
            "memory_bytes": status["process"]["rss_bytes"],
            "leader": node.get("leader") if node else None,
        }
        return row

    def _table(self, rows: list[dict[str, Any]]) -> Table:
        minutes, seconds = divmod(int(time.monotonic() - self._begun), 60)
        clock = f"{minutes // 60:02}:{minutes % 60:02}:{seconds:02}"
        table = make_table(
            "region",
            "state",
            ">cmd/s",
            ">fast",
            ">commit p50",
            ">answer p50 / p99 ms",
            ">behind",
            ">log",
            ">memory",
            title=f"{self._title()}   up {clock}   Ctrl-C stops all",
        )
        for row in rows:
            style = None if row["state"] == "ready" else "yellow"
            table.add_row(row["title"], row["state"], *_cells(row), style=style)
        return table

    def _title(self) -> str:
        options = self._cluster.options
        parts = [self._cluster.topology.name, find_protocol(options.protocol).title]
        if options.leader:
            parts.append(f"leader {options.leader}")
        parts.append(options.durability)
        if not options.emulate:
            parts.append("no emulated delays")
        if not options.gate:
            parts.append("no gate")
        return " · ".join(parts)

    def _print(self, text: str) -> None:
        self._console.print(text, soft_wrap=True)
        sys.stdout.flush()

    @staticmethod
    def _print_line(document: dict[str, Any]) -> None:
        sys.stdout.write(orjson.dumps(document).decode() + "\n")
        sys.stdout.flush()


def _state(process: LocalReplica) -> str:
    """Of a replica that did not answer."""
    if process.running:
        return "silent"
    code, said = process.code, process.last_words()
    return said if code is not None and code < 0 else f"ended with {code}: {said}"


def _cells(row: dict[str, Any]) -> list[str]:
    """From cmd/s to memory; dashes where the replica said nothing."""
    if "commands" not in row:
        return ["–"] * 7
    fast = row["fast_share"]
    return [
        f"{row['commands_per_s']:,.0f}",
        "–" if fast is None else f"{fast * 100:.0f} %",
        milliseconds(row["commit_p50_us"]),
        f"{milliseconds(row['answer_p50_us'])} / {milliseconds(row['answer_p99_us'])}",
        count(row["behind"]),
        size(row["log_bytes"]),
        size(row["memory_bytes"]),
    ]


def _plain(row: dict[str, Any]) -> str:
    names = ("cmd/s", "fast", "commit p50", "answer p50 / p99 ms", "behind", "log", "memory")
    cells = _cells(row)
    if "commands" not in row:
        return f"{row['title']}: {row['state']}"
    figures = " · ".join(f"{name} {cell}" for name, cell in zip(names, cells))
    return f"{row['title']}: {row['state']} · {figures}"
