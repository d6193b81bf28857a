"""`epaxos load`: a cluster, Locust on it as processes of their own, and what both say together.

Locust always runs in steps, also a single one: a step begins when all users are there, in whatever
process, and its window is exact.

Rules of this file: no Locust here, it is started as anybody would start it. Whatever happens, no
process is left.
"""

import importlib.util
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import orjson
from msgspec import to_builtins

from bench.analysis.statistics import ms_of
from bench.analysis.validity import LAG_MS, LINK_ERROR_MS, Findings
from bench.clusters.counters import SETTLE_S, Late, Lateness
from bench.clusters.histories import FOLDER, judge_processes
from bench.clusters.local import LocalCluster, free_port_numbers
from bench.history.calls import ABSENT, OTHER
from bench.loadtest.options import Offer, places
from bench.loadtest.summary import Document
from bench.progress import ProgressReport, Watch, ignore
from bench.spawn import spawn, unhurried
from bench.trials.trial import Trial, local_cluster
from epaxos.core.errors import ConfigError, EpaxosError
from epaxos.core.quorum import quorums

LOCUSTFILE: Final = Path(__file__).parents[1] / "locustfile.py"
LOCUST_LOG: Final = "locust.log"
LIVE: Final = "live.json"
START_S: Final = 8.0
"""What starting the cluster and Locust takes, for the estimate."""
_POLL_S: Final = 0.2
_ORDERLY: Final = (0, 1)
"""Exit codes after which Locust has ended its workers."""
_ENDS_WITHIN_S: Final = 20.0
"""From Ctrl-C until Locust is killed; it waits for what is under way."""


@dataclass(frozen=True, kw_only=True)
class LoadOptions:
    """What is loaded, and how. Raises ConfigError."""

    trial: Trial
    """Cluster, workload and load of a single step."""
    steps: tuple[float, ...] = ()
    """Rates (open loop) or users per region (closed loop); empty: the trial's."""
    processes: int = 1
    """Of Locust that send."""
    limits: tuple[str, ...] = ()
    """Options of the locustfile that state criteria."""
    patience_s: float = 10.0
    at: str = ""
    """URLs of the replicas of a cluster that runs already."""

    def __post_init__(self) -> None:
        if importlib.util.find_spec("locust") is None:
            raise ConfigError("Locust is not installed: install epaxos with its extra `load`")
        if not 1 <= self.processes <= 64:
            raise ConfigError(f"--processes {self.processes} must be between 1 and 64")
        trial = self.trial
        _ = Offer(
            loop="open" if self.open else "closed",
            steps=self.all_steps,
            step_s=self.step_s,
            warmup_s=trial.warmup_s,
            patience_s=self.patience_s,
        )
        places(trial.topology, trial.replicas, at=self.at)

    @property
    def open(self) -> bool:
        """Whether commands are sent at their moments."""
        return not self.trial.clients

    @property
    def all_steps(self) -> tuple[float, ...]:
        """At least one."""
        return self.steps or (self.trial.rate or float(self.trial.clients),)

    @property
    def step_s(self) -> float:
        """A step with its warm-up."""
        return self.trial.warmup_s + self.trial.duration_s

    @property
    def run_s(self) -> float:
        """All steps."""
        return len(self.all_steps) * self.step_s

    def title(self) -> str:
        """What is configured, in a line."""
        trial, n = self.trial, self.trial.sites.n
        loop = "commands/s per region, open loop" if self.open else "users per region, closed loop"
        leader = trial.leader_index
        parts = [trial.topology, trial.protocol, f"n={n}", trial.durability]
        if self.at:
            parts = [trial.topology, f"cluster at {self.at}"]
        elif leader is not None:
            parts.insert(2, f"leader {trial.sites.regions[leader].title}")
        steps = ", ".join(f"{step:g}" for step in self.all_steps)
        parts += [f"{steps} {loop}", trial.workload, f"seed {trial.seed}"]
        return " · ".join([*parts, *(["history checked"] if trial.check else [])])


@dataclass(frozen=True, kw_only=True)
class LoadReport(ProgressReport):
    """Progress of a load."""

    live: Document | None
    """What Locust counted until now (`summary.live`)."""


def run_load(options: LoadOptions, directory: Path, watch: Watch[LoadReport]) -> Document:
    """Run it; everything is kept in `directory`. Returns what `load.json` says. Raises
    EpaxosError."""
    with _served(options, directory, watch) as (urls, cluster):
        lateness = None if cluster is None else Lateness(cluster)
        with Locust(_arguments(options, directory, urls), directory) as locust:
            begun, live = time.monotonic(), None
            while not locust.ended:
                time.sleep(_POLL_S)
                live = _live(directory) or live
                if lateness and not lateness.begun and live and live["measured_s"]:
                    lateness.begin()
                watch(_report(options, live, time.monotonic() - begun))
        document = locust.document(directory)
        late: list[Late | None] = []
        if lateness is not None:
            time.sleep(SETTLE_S)
            late = lateness.end()
        document = _complete(document, options, cluster, late)
        if options.trial.check:
            _check(document, directory, options, cluster, watch)
        return document


def serve_page(options: LoadOptions, directory: Path, port: int, ready: Callable[[], None]) -> None:
    """Locust's web page on 127.0.0.1 until it ends or Ctrl-C. Raises EpaxosError."""
    with _served(options, directory, ignore) as (urls, _):
        with Locust(_arguments(options, directory, urls, port), directory) as locust:
            locust.wait_for_page(port)
            ready()
            while not locust.ended:
                time.sleep(_POLL_S)
        if locust.code:
            raise EpaxosError(f"Locust ended: {locust.last_words()}")


@contextmanager
def _served(
    options: LoadOptions, directory: Path, watch: Watch[LoadReport]
) -> Iterator[tuple[str, LocalCluster | None]]:
    """The URLs of the replicas, and the cluster if it is ours."""
    if options.at:
        yield options.at, None
        return
    trial = options.trial
    n, left_s = trial.sites.n, START_S + options.run_s
    with ExitStack() as stack:
        cluster = stack.enter_context(local_cluster(trial, directory / "replicas"))
        watch(LoadReport(activity=f"starting {n} replicas", total=0.0, left_s=left_s, live=None))
        cluster.start()
        cluster.give_way()
        yield ",".join(f"http://127.0.0.1:{each.http}" for each in cluster.ports), cluster


def _arguments(
    options: LoadOptions, directory: Path, urls: str, page_port: int | None = None
) -> list[str]:
    trial = options.trial
    found = ["--topology", trial.topology, "--at", urls, "--only-summary"]
    if trial.replicas is not None:
        found += ["--replicas", str(trial.replicas)]
    found += ["--workload", trial.workload, "--seed", str(trial.seed)]
    found += ["--warmup", f"{trial.warmup_s:g}s", "--patience", f"{options.patience_s:g}s"]
    found += ["--results", str(directory), *options.limits]
    if trial.check:
        found += ["--history", str(directory / FOLDER)]
        found += ["--history-initial", OTHER if options.at else ABSENT]
    if options.processes > 1:
        (port,) = free_port_numbers(1)
        found += ["--processes", str(options.processes), "--master-port", str(port)]
        found += ["--master-bind-host", "127.0.0.1", "--master-bind-port", str(port)]
    if page_port is not None:
        rate = ["--rate", f"{trial.rate:g}"] if options.open else []
        return [*found, *rate, "--web-host", "127.0.0.1", "--web-port", str(page_port)]
    steps = ",".join(f"{step:g}" for step in options.all_steps)
    found += ["--headless", "--steps", steps, "--step-time", f"{options.step_s:g}s"]
    return [*found, "-T", "open" if options.open else "closed"]


def _live(directory: Path) -> Document | None:
    """What Locust counted until now; None before it begins and after its end."""
    try:
        found: Document = orjson.loads((directory / LIVE).read_bytes())
    except (OSError, ValueError):
        return None
    return found if found["state"] == "running" else None


def _report(options: LoadOptions, live: Document | None, since_s: float) -> LoadReport:
    if live is None:
        left_s = max(options.run_s, START_S + options.run_s - since_s)
        return LoadReport(activity="starting Locust", total=0.0, left_s=left_s, live=None)
    done_s = live["step"] * options.step_s + options.trial.warmup_s + live["measured_s"]
    what = "commands/s" if options.open else "users"
    activity = f"{live['wanted']:g} {what}" if len(options.all_steps) > 1 else "load"
    if not live["measured_s"]:
        activity += ", warming up"
    return LoadReport(
        activity=activity,
        total=min(1.0, done_s / options.run_s),
        left_s=max(0.0, options.run_s - done_s),
        live=live,
    )


def _complete(
    document: Document, options: LoadOptions, cluster: LocalCluster | None, late: list[Late | None]
) -> Document:
    """With what Locust does not know: the cluster, and how it kept up."""
    trial, findings = options.trial, Findings()
    document["title"] = options.title()
    document["setup"] |= {"title": options.title(), "processes": options.processes}
    if cluster is not None:
        sizes = quorums(trial.sites.n)
        leader = trial.leader_index
        document["setup"] |= {
            "n": sizes.n,
            "fast_quorum": sizes.fast,
            "slow_quorum": sizes.slow,
            "durability": trial.durability,
            "leader": None if leader is None else trial.sites.regions[leader].name,
        }
        document["replicas"] = [
            row
            for i in range(sizes.n)
            if (row := _replica(cluster, i, late[i], findings)) is not None
        ]
    _hold(document, findings)
    return document


def _check(
    document: Document,
    directory: Path,
    options: LoadOptions,
    cluster: LocalCluster | None,
    watch: Watch[LoadReport],
) -> None:
    """Judge the history, what is read after the load included. What somebody else's replicas hold
    is not read: their client ports are not known."""

    def tell(share: float) -> None:
        activity = "judging the history"
        watch(LoadReport(activity=activity, share=share, total=1.0, left_s=0.0, live=None))

    tell(0.0)
    verdict = judge_processes(directory / FOLDER, options.processes, cluster, tell)
    document["history"] = {"sentence": verdict.sentence(), **to_builtins(verdict)}
    findings = Findings()
    findings.look_at_history("", verdict.verdict, verdict.sentence())
    _hold(document, findings)


def _hold(document: Document, findings: Findings) -> None:
    levels = ("VALID", "SUSPECT", "INVALID")
    document["validity"] = max(document["validity"], findings.validity, key=levels.index)
    document["reasons"] += findings.reasons


def _replica(
    cluster: LocalCluster, i: int, late: Late | None, findings: Findings
) -> Document | None:
    """How one replica kept up; None where it ended."""
    process, title = cluster.processes[i], cluster.topology.regions[i].title
    if not process.running:
        findings.add("INVALID", f"the replica in {title} ended: {process.last_words()}")
        return None
    try:
        status = process.status()
    except EpaxosError as error:
        findings.add("INVALID", str(error))
        return None
    if late is None:
        findings.add("INVALID", f"{title}: the replica did not say how late it was")
        return None
    lag_ms = late.loop_us / 1000
    error_ms = None if late.link_us is None else late.link_us / 1000
    findings.hold(lag_ms, LAG_MS, f"{title}: loop lag p99 of the replica is {lag_ms:.1f} ms")
    if error_ms is not None:
        findings.hold(error_ms, LINK_ERROR_MS, f"{title}: link error p99 is {error_ms:.1f} ms")
    return {
        "region": title,
        "loop_lag_p99_ms": lag_ms,
        "link_error_p99_ms": error_ms,
        "sync_p50_ms": ms_of(status["log"]["sync"]["p50_us"]),
        "cpu_s": status["process"]["cpu_s"],
        "commands": status["commands"],
    }


class Locust:
    """Locust and its workers; `with` ends them whatever happens."""

    def __init__(self, arguments: list[str], directory: Path) -> None:
        self._log = directory / LOCUST_LOG
        command = [sys.executable, "-m", "locust", "-f", str(LOCUSTFILE), *arguments]
        with self._log.open("wb") as log:
            self._process = spawn(command, stdout=log, stderr=log)

    @property
    def ended(self) -> bool:
        return self._process.poll() is not None

    @property
    def code(self) -> int | None:
        return self._process.poll()

    def last_words(self) -> str:
        """The last line of its log that says why."""
        lines = self._log.read_text(encoding="utf-8", errors="replace").splitlines()
        said = [line.strip() for line in lines if line.strip()]
        errors = [line for line in said if "error" in line.lower()]
        return (errors or said or ["it said nothing"])[-1].removeprefix("error: ")

    def document(self, directory: Path) -> Document:
        """What it wrote. Raises EpaxosError."""
        try:
            found: Document = orjson.loads((directory / "load.json").read_bytes())
        except (OSError, ValueError):
            raise EpaxosError(f"Locust ended without figures: {self.last_words()}") from None
        return found

    def wait_for_page(self, port: int) -> None:
        """Until its web page answers. Raises EpaxosError."""
        while not self.ended:
            with suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1.0):
                return
            time.sleep(_POLL_S)
        raise EpaxosError(f"Locust did not start: {self.last_words()}")

    def __enter__(self) -> "Locust":
        return self

    def __exit__(self, *_: object) -> None:
        """Ctrl-C lets it end its workers; what is left of its session is killed."""
        with unhurried():
            if not self.ended:
                self._process.send_signal(signal.SIGINT)
                with suppress(subprocess.TimeoutExpired):
                    self._process.wait(_ENDS_WITHIN_S)
            if self.code not in _ORDERLY:
                with suppress(ProcessLookupError):
                    os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
