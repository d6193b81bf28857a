"""The project's own benchmark: throughput, latency and CPU per command in closed windows.

The repeats are the outer loop, so that what the machine does meanwhile meets all cases alike; a
case's figure is the median of its repeats. Per repeat every cluster is started anew, and a case
with a large window has one to itself: a store that a case before filled with a million keys is
slower. A server that only answers (echo.py) takes part like a cluster: the ceiling.

Rules of this file: it runs, collects and takes medians; no emulated delays; CPU per command is that
of a whole case, warm-up included, from what each process says of itself.
"""

import math
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import msgspec
import orjson

from bench.analysis.statistics import stated
from bench.clusters.counters import check_bounds
from bench.clusters.histories import KeptHistory, judge_real
from bench.clusters.local import ClusterOptions, LocalCluster
from bench.history.judge import HistoryVerdict
from bench.progress import ProgressClock, ProgressReport, Watch, ignore
from bench.spawn import spawn
from bench.throughput.window import Form, WindowResult, WindowSpec
from epaxos.core.errors import ConfigError, EpaxosError
from epaxos.percentile import median
from topology import find

ECHO: Final = "echo"
WINDOWS: Final = (1, 15, 120, 960, 7680)
REPLICAS: Final = (5, 3)
_REPLICAS_MAX: Final = 9
_STANDARD: Final = 960
"""The window of the cases that run at one window only."""
_COLLAPSED: Final = 0.9
"""A share of the best throughput: with less at a larger window the setting has its own sentence."""
_CLUSTER_S: Final = 3.0
"""What starting and stopping a cluster takes, for the estimate."""
_CASE_EXTRA_S: Final = 0.9
"""What a case takes beside warm-up and measurement, for the estimate."""
_WARMUP_SHARE: Final = 0.33
_ENDS_WITHIN_S: Final = 30.0
_CONNECTIONS: Final = 5
"""To the echo server: as many as to five replicas."""


@dataclass(frozen=True)
class Setting:
    """A cluster: what is started, and anew for each repeat."""

    protocol: str
    """ECHO: the server that only answers."""
    replicas: int = 5
    durability: str = "memory"
    batched: bool = True
    """False: one command per instance."""

    @property
    def title(self) -> str:
        if self.protocol == ECHO:
            return "echo, no agreement"
        name = {"epaxos": "EPaxos", "multipaxos": "Multi-Paxos"}.get(self.protocol, self.protocol)
        unbatched = "" if self.batched else ", unbatched"
        return f"{name}, {self.replicas} replicas, {self.durability}{unbatched}"


@dataclass(frozen=True)
class Case:
    """One row of the result."""

    setting: Setting
    window: int
    form: Form = "columns"
    one_key: bool = False

    @property
    def title(self) -> str:
        """What is special about its commands, for people."""
        form = "many per frame" if self.form == "columns" else "one per frame"
        return f"{form}, one key" if self.one_key else form


@dataclass(frozen=True)
class ThroughputOptions:
    """What is run. Raises ConfigError."""

    repeats: int = 3
    seconds: float = 1.5
    """Measured per case; a third of it more is warm-up."""
    windows: tuple[int, ...] = WINDOWS
    replicas: tuple[int, ...] = REPLICAS
    """Of the clusters."""
    unbatched: bool = False
    """Instead of the cases of every kind: one command per instance, at every window."""
    only: str = ""
    """Part of the titles of the settings that are run; empty: all."""
    value_size: int = 16
    check: bool = False
    """Whether calls are kept, with values that are all unlike, and judged."""
    seed: int = 1

    def __post_init__(self) -> None:
        check_bounds(self, repeats=(1, 100), seconds=(0.1, 600.0), value_size=(0, 1_000_000))
        for window in self.windows:
            if not 1 <= window <= 65_536:
                raise ConfigError(f"window {window} must be between 1 and 65536")
        for replicas in self.replicas:
            if not 1 <= replicas <= _REPLICAS_MAX:
                raise ConfigError(f"replicas {replicas} must be between 1 and {_REPLICAS_MAX}")
        if not self.cases():
            titles = "; ".join(dict.fromkeys(case.setting.title for case in self._all()))
            raise ConfigError(f"nothing is called {self.only!r}; there are: {titles}")

    @property
    def warmup_s(self) -> float:
        """Load before the measurement of a case."""
        return self.seconds * _WARMUP_SHARE

    @property
    def case_s(self) -> float:
        """How long one case takes, for the estimate."""
        return self.seconds + self.warmup_s + _CASE_EXTRA_S

    def cases(self) -> list[Case]:
        """What is run, in the order of the table."""
        wanted = self.only.casefold()
        return [c for c in self._all() if wanted in c.setting.title.casefold()]

    def _all(self) -> list[Case]:
        every = unbatched_cases if self.unbatched else all_cases
        return every(self.windows, self.replicas)

    def groups(self) -> list[list[Case]]:
        """The cases of each cluster that is started, in order."""
        found: dict[tuple[Setting, Case | None], list[Case]] = {}
        for case in self.cases():
            shares = case.window < _STANDARD or case.setting.protocol == ECHO
            found.setdefault((case.setting, None if shares else case), []).append(case)
        return [*found.values()]

    def estimate_s(self) -> float:
        groups = self.groups()
        cases = sum(map(len, groups))
        return self.repeats * (len(groups) * _CLUSTER_S + cases * self.case_s)


def unbatched_cases(windows: tuple[int, ...], sizes: tuple[int, ...]) -> list[Case]:
    """One command per instance: what agreement costs, and whether load adds to it."""
    return [
        Case(Setting(protocol, replicas, durability, batched=False), window)
        for replicas in sizes
        for protocol in ("epaxos", "multipaxos")
        for durability in ("memory", "fsync")
        for window in windows
    ]


def all_cases(windows: tuple[int, ...], sizes: tuple[int, ...]) -> list[Case]:
    """Cases of every kind. What is run at one window only runs at 960, or at the largest."""
    one = _STANDARD if _STANDARD in windows else windows[-1]
    found = []
    for replicas in sizes:
        for protocol in ("epaxos", "multipaxos"):
            setting = Setting(protocol, replicas)
            found += [Case(setting, window) for window in windows]
            if protocol == "epaxos":
                found += [Case(setting, one, "single"), Case(setting, one, one_key=True)]
                found.append(Case(Setting(protocol, replicas, batched=False), one))
                disk = Setting(protocol, replicas, "fsync")
                found += [Case(disk, window) for window in windows if window in (1, 960, 7680)]
    echo = Setting(ECHO, 1)
    found += [Case(echo, window) for window in windows]
    return [*found, Case(echo, one, "single")]


@dataclass(frozen=True)
class WindowRun:
    """One repeat of one case."""

    repeat: int
    case: Case
    result: WindowResult
    cpu_us: dict[str, float]
    """µs of CPU per command: `client` and each replica by letter, or `echo`."""
    commands_per_instance: float | None
    fast_share: float | None
    """Of the instances; None where there is no fast path."""
    syncs_per_command: float
    checked: HistoryVerdict | None = None
    """Of the calls that were kept; None: none was."""


def run_suite(
    options: ThroughputOptions, directory: Path, watch: Watch[ProgressReport] = ignore
) -> list[WindowRun]:
    """Run everything; clusters keep their files in `directory`. Raises EpaxosError; whatever
    happens, no process is left."""
    found: list[WindowRun] = []
    clock = ProgressClock(options.estimate_s(), watch)
    for repeat in range(options.repeats):
        what = f"repeat {repeat + 1} of {options.repeats}" if options.repeats > 1 else ""
        for number, cases in enumerate(options.groups()):
            setting = cases[0].setting
            place = directory / f"{repeat + 1}-{number + 1}-{setting.protocol}"
            place.mkdir(parents=True, exist_ok=True)
            clock.tell(what, f"starting {setting.title}")
            with _backend(setting, place, options.seed) as backend:
                clock.ended(what, _CLUSTER_S)
                for case in cases:
                    clock.tell(what, f"{setting.title}, {case.title}, window {case.window}")
                    found.append(_run(repeat, case, options, backend, place))
                    clock.ended(what, options.case_s)
    return found


def _run(
    repeat: int,
    case: Case,
    options: ThroughputOptions,
    backend: "_ClusterBackend | _EchoBackend",
    place: Path,
) -> WindowRun:
    spec = WindowSpec(
        ports=backend.ports,
        window=case.window,
        form=case.form,
        one_key=case.one_key,
        value_size=options.value_size,
        label=f"{case.window}{case.form[0]}{'x' if case.one_key else ''}",
        warmup_s=options.warmup_s,
        duration_s=options.seconds,
    )
    kept = None
    if options.check and case.setting.protocol != ECHO:
        kept = KeptHistory.next_in(place)
        spec = msgspec.structs.replace(spec, history=str(kept.path), initial=kept.initial)
    before = backend.read()
    result = _drive(spec, place)
    after = backend.read()
    if result.refused or result.unanswered:
        raise EpaxosError(
            f"{case.setting.title}, window {case.window}: {result.refused} commands were refused "
            f"and {result.unanswered} had no answer; the logs are in {place}"
        )
    checked = None if kept is None else judge_real(kept, spec.ports, share=spec.kept_share)
    grown = {name: after[name] - before[name] for name in after}
    commands = max(1, result.answered)
    instances = grown.pop("instances", 0.0)
    fast = grown.pop("fast", None)
    syncs = grown.pop("syncs", 0.0)
    return WindowRun(
        repeat=repeat,
        case=case,
        result=result,
        cpu_us={
            "client": result.cpu_s / commands * 1e6,
            **{name: cpu_s / commands * 1e6 for name, cpu_s in grown.items()},
        },
        commands_per_instance=commands / instances if instances else None,
        fast_share=fast / instances if fast is not None and instances else None,
        syncs_per_command=syncs / commands,
        checked=checked,
    )


def _drive(spec: WindowSpec, place: Path) -> WindowResult:
    paths = place / "window.json", place / "window-result.json"
    paths[0].write_bytes(msgspec.json.encode(spec))
    command = [sys.executable, "-m", "bench.throughput.window", *map(str, paths)]
    limit = spec.warmup_s + spec.duration_s + _ENDS_WITHIN_S
    with spawn(command, stderr=subprocess.PIPE) as client:
        try:
            _, said = client.communicate(timeout=limit)
        except subprocess.TimeoutExpired:
            raise EpaxosError(f"the client did not end within {limit:.0f} s") from None
        finally:
            client.kill()
    if client.returncode:
        lines = said.decode(errors="replace").strip().splitlines() or ["it said nothing"]
        raise EpaxosError(f"the client failed: {lines[-1]}")
    return msgspec.json.decode(paths[1].read_bytes(), type=WindowResult)


@contextmanager
def _backend(
    setting: Setting, place: Path, seed: int
) -> "Iterator[_ClusterBackend | _EchoBackend]":
    if setting.protocol == ECHO:
        with _EchoBackend() as echo:
            yield echo
        return
    options = ClusterOptions(
        protocol=setting.protocol,
        durability=setting.durability,
        emulate=False,
        seed=seed,
        more={} if setting.batched else {"batch_commands": 1},
    )
    with LocalCluster(find(f"lan:{setting.replicas}"), place, options) as cluster:
        cluster.start()
        yield _ClusterBackend(cluster)


class _ClusterBackend:
    """Replicas under load."""

    def __init__(self, cluster: LocalCluster) -> None:
        self.ports = [each.client for each in cluster.ports]
        self._cluster = cluster

    def read(self) -> dict[str, float]:
        """CPU seconds per replica by letter, and counters of all replicas together."""
        statuses = self._cluster.status()
        own = ("fast", "slow", "recovered", "leader")
        found = {
            "instances": float(sum(s["commits"].get(path, 0) for s in statuses for path in own)),
            "syncs": float(sum(s["log"]["syncs"] for s in statuses)),
        }
        if self._cluster.options.protocol == "epaxos":
            found["fast"] = float(sum(s["commits"]["fast"] for s in statuses))
        return found | {s["replica"]: s["process"]["cpu_s"] for s in statuses}


class _EchoBackend:
    """The server that only answers; it tells its CPU when asked."""

    def __init__(self) -> None:
        self._process = spawn(
            [sys.executable, "-m", "bench.throughput.echo"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        self.ports: list[int] = []

    def read(self) -> dict[str, float]:
        assert self._process.stdin is not None
        self._process.stdin.write(b"\n")
        self._process.stdin.flush()
        return {ECHO: self._hear()["cpu_s"]}

    def __enter__(self) -> "_EchoBackend":
        try:
            self.ports = [self._hear()["port"]] * _CONNECTIONS
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.communicate()

    def _hear(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise EpaxosError("the echo server ended")
        document: dict[str, Any] = orjson.loads(line)
        return document


# From runs to a document -------------------------------------------------------------------------


def summarize(options: ThroughputOptions, runs: list[WindowRun]) -> dict[str, Any]:
    """The document of a benchmark: `setup`, `rows` (medians and single repeats), `sentences`."""
    rows = [_row(case, [r for r in runs if r.case == case]) for case in options.cases()]
    return {
        "format": 1,
        "title": title(options),
        "setup": {
            "repeats": options.repeats,
            "seconds": options.seconds,
            "warmup_s": options.warmup_s,
            "windows": list(options.windows),
            "replicas": list(options.replicas),
            "unbatched": options.unbatched,
            "value_size": options.value_size,
            "conflicts": 0,
            "loop": "closed",
            "emulated_delays": False,
            "check": options.check,
            "seed": options.seed,
        },
        "rows": rows,
        "saturation": saturation(rows),
        "sentences": sentences(rows),
        "histories": [_history(run) for run in runs if run.checked is not None],
    }


def _history(run: WindowRun) -> dict[str, Any]:
    """The verdict of one case's repeat."""
    case = run.case
    return {
        "case": f"{case.setting.title}, {case.title}, window {case.window}",
        "repeat": run.repeat,
        "sentence": run.checked.sentence() if run.checked is not None else "",
        **msgspec.to_builtins(run.checked),
    }


def title(options: ThroughputOptions) -> str:
    """What is configured, in one line."""
    repeats = f"{options.repeats} interleaved repeats" if options.repeats > 1 else "one repeat"
    return (
        f"closed windows · no emulated delays · {options.value_size}-byte puts · 0 % conflicts · "
        f"{options.seconds:g} s per case · {repeats}"
        f"{' · history checked' if options.check else ''}"
    )


def _row(case: Case, runs: list[WindowRun]) -> dict[str, Any]:
    rates = [run.result.commands_per_s for run in runs]
    names = list(runs[0].cpu_us)
    cpu_us = {name: _median([run.cpu_us[name] for run in runs], 2) for name in names}
    shares = [run.fast_share for run in runs if run.fast_share is not None]
    sizes = [run.commands_per_instance for run in runs if run.commands_per_instance is not None]
    return {
        "setting": case.setting.title,
        "protocol": case.setting.protocol,
        "replicas": case.setting.replicas,
        "durability": case.setting.durability,
        "batched": case.setting.batched,
        "case": case.title,
        "form": case.form,
        "one_key": case.one_key,
        "window": case.window,
        "commands_per_s": _median(rates, 0),
        "repeats": [round(rate) for rate in rates],
        **_latencies([run.result for run in runs]),
        "cpu_us": cpu_us,
        "cpu_us_all": round(sum(cpu_us.values()), 2),
        "commands_per_instance": _median(sizes, 1) if sizes else None,
        "fast_share": _median(shares, 6) if shares else None,
        "syncs_per_command": _median([run.syncs_per_command for run in runs], 4),
    }


def _latencies(results: Sequence[WindowResult]) -> dict[str, float | None]:
    """`p50_ms`, `p99_ms`, `p99_9_ms`: medians of the repeats; None where one has too few."""
    fewest = min(result.marked for result in results)
    found_us = {
        50: median([result.p50_us or 0 for result in results]),
        99: median([result.p99_us or 0 for result in results]),
        99.9: median([result.p99_9_us or 0 for result in results]),
    }
    return {f"{name}_ms": value for name, value in stated(found_us, fewest).items()}


def _median(values: Sequence[float], digits: int) -> float:
    """Of the repeats, of which there is at least one."""
    found = median(values)
    assert found is not None
    return round(found, digits or None)


def sentences(rows: list[dict[str, Any]]) -> list[str]:
    """What the rows say: best of each protocol against the other's, and against the ceiling; and
    what is left of a setting's best at larger windows."""
    found = []
    best: dict[tuple[str, int], dict[str, Any]] = {}
    for row in rows:
        if row["durability"] == "memory" and row["batched"] and row["form"] == "columns":
            if row["one_key"]:
                continue
            key = row["protocol"], row["replicas"]
            if key not in best or row["commands_per_s"] > best[key]["commands_per_s"]:
                best[key] = row
    for replicas in sorted({size for _, size in best}, reverse=True):
        ours, theirs = best.get(("epaxos", replicas)), best.get(("multipaxos", replicas))
        if ours and theirs:
            share = theirs["commands_per_s"] / ours["commands_per_s"]
            found.append(
                f"With {replicas} replicas Multi-Paxos's best ({theirs['commands_per_s']:,} "
                f"commands/s, window {theirs['window']:,}) is {share:.0%} of EPaxos's best "
                f"({ours['commands_per_s']:,}, window {ours['window']:,})."
            )
    ceiling = best.get((ECHO, 1))
    ours = best.get(("epaxos", 5))
    if ceiling and ours:
        found.append(
            f"The same client reaches {ceiling['commands_per_s']:,} commands/s against a server "
            f"that only answers; EPaxos with 5 replicas on the same cores reaches "
            f"{ours['commands_per_s'] / ceiling['commands_per_s']:.0%} of it."
        )
    return found + _held(saturation(rows))


def _held(found: list[dict[str, Any]]) -> list[str]:
    """Whether more load gives less."""
    if not found:
        return []
    less = [
        f"{each['setting']}: window {each['window']:,} has {math.floor(each['share'] * 100)} % of "
        f"the best, {each['best_per_s']:,} commands/s at window {each['best_window']:,}."
        for each in found
        if each["share"] < _COLLAPSED
    ]
    least = math.floor(min(each["share"] for each in found) * 100)
    return less or [f"No setting has less than {least} % of its best at a larger window."]


def saturation(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Per setting that has larger windows than its best one: the least throughput of those, as a
    share of the best. Below 1 by more than the spread, more load gives less."""
    found = []
    for setting in dict.fromkeys(row["setting"] for row in rows):
        own = [
            row
            for row in rows
            if row["setting"] == setting and row["form"] == "columns" and not row["one_key"]
        ]
        if not own:
            continue
        best = max(own, key=lambda row: row["commands_per_s"])
        larger = [row for row in own if row["window"] > best["window"]]
        if larger and best["commands_per_s"]:
            least = min(larger, key=lambda row: row["commands_per_s"])
            found.append(
                {
                    "setting": setting,
                    "best_window": best["window"],
                    "best_per_s": best["commands_per_s"],
                    "window": least["window"],
                    "share": round(least["commands_per_s"] / best["commands_per_s"], 4),
                }
            )
    return found
