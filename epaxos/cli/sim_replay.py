"""`epaxos sim replay DIR`: runs recorded replicas again, compares, and charts an instance.

Traces are mapped, not loaded: they may be large.
"""

import mmap
from collections import Counter
from pathlib import Path
from typing import Any

from epaxos.cli.exits import ExitCode
from epaxos.cli.output import console, count, make_table, milliseconds, print_json
from epaxos.core.errors import ConfigError, StorageError
from epaxos.core.numbers import parse_whole
from epaxos.core.replica import EVERYONE
from epaxos.core.replica import Path as CommitPath
from epaxos.core.types import SLOT_MAX, InstanceId, parse_instance, replica_name
from epaxos.registry import ProtocolSpec, find_protocol
from epaxos.sim.instance_chart import PATHS, Event, Observer, chart, describe_batch, proposal
from epaxos.sim.replay import LISTED, Replay
from epaxos.trace import CLOSED, SUFFIX, TraceReader


def replay(
    directory: Path, instance: str | None, json: bool, spec: ProtocolSpec | None = None
) -> ExitCode:
    """Replay every trace in a directory, with another protocol than the recorded one if `spec` is
    given.

    OK: every replica answers as recorded. FAILED: one does not. Raises ConfigError for a wrong
    directory or instance, StorageError for a trace that cannot be read."""
    traces, empty = _traces(directory)
    run = ReplayedRun(directory, traces, instance)
    run.empty = empty
    run.replay(spec)
    if run.observer is not None and not run.observer.events:
        raise ConfigError(
            f"--instance: {run.observer.instance} is in none of these traces; {run.range()}"
        )
    if json:
        print_json(run.document())
    else:
        _ReplayScreen(run).show()
    damage = [each.trace.damage for each in run.replays if each.trace.damage]
    if damage:
        raise StorageError("; ".join(damage))
    return ExitCode.FAILED if run.differing() else ExitCode.OK


class ReplayedRun:
    """All lives in a directory, and what their replay showed."""

    def __init__(self, directory: Path, traces: list[TraceReader], instance: str | None) -> None:
        """Raises ConfigError if the traces do not belong together."""
        self.directory = directory
        self.traces = traces
        _check_together(directory, traces)
        self.header = traces[0].header
        self.regions = self.header.regions
        self.protocol = find_protocol(self.header.protocol)
        self.observer = None if instance is None else Observer(self._instance(instance))
        self.replays: list[Replay] = []
        self.empty: list[str] = []
        """Traces without a byte."""

    def replay(self, spec: ProtocolSpec | None) -> None:
        for trace in self.traces:
            self.replays.append(Replay(trace, spec, self.observer).run())
        if self.observer is not None:
            self.observer.finish()

    def _instance(self, text: str) -> InstanceId:
        try:
            if self.protocol.has_leader and "." not in text:
                return InstanceId(0, parse_whole(text, 0, SLOT_MAX))
            return parse_instance(text)
        except ValueError as error:
            raise ConfigError(f"--instance: {error}") from None

    def differing(self) -> list[Replay]:
        """The lives that did not come out as recorded."""
        return [each for each in self.replays if each.divergence is not None]

    def range(self) -> str:
        """Which instances there are."""
        highest: Counter[int] = Counter()
        if self.observer is not None:
            highest.update(self.observer.slots)
        named = [
            f"{replica_name(column)} has slots up to {slot}"
            for column, slot in sorted(highest.items())
        ]
        return ", ".join(named) or "they decide none"

    def title(self, member: int) -> str:
        return self.regions[member]

    def remarks(self) -> list[str]:
        """What limits the trust in all this, in sentences."""
        found = [f"{name} is empty: its replica was killed as it began" for name in self.empty]
        for each in self.replays:
            trace = each.trace
            found += [f"{trace.torn}: a write that a kill interrupted"] if trace.torn else []
            if trace.end is None and trace.damage is None:
                found.append(f"{trace.name} was not closed: its replica was killed or runs still")
            elif trace.end not in (None, CLOSED):
                found.append(f"{trace.name} ends early: {trace.end}")
            if each.failure is not None and each.divergence is None:
                found.append(
                    f"{trace.name}: the recorded replica failed in step {each.steps}, and "
                    f"{each.failure} in the replay too"
                )
        there = {trace.header.member for trace in self.traces}
        missing = [name for i, name in enumerate(self.regions) if i not in there]
        if missing:
            found.append(f"no trace of {', '.join(missing)}")
        if len({trace.header.machine for trace in self.traces}) > 1:
            found.append(
                "the traces come from several machines or starts of one: their clocks do not "
                "compare, so the order between replicas is not to be trusted"
            )
        return found

    def document(self) -> dict[str, Any]:
        """All of it, in values that JSON can say."""
        document: dict[str, Any] = {
            "directory": str(self.directory),
            "cluster": self.header.cluster,
            "protocol": self.header.protocol,
            "regions": self.regions,
            "replicas": [_life_document(each) for each in self.replays],
            "remarks": self.remarks(),
            "differing": len(self.differing()),
        }
        if self.observer is None:
            return document
        observer = self.observer
        first = proposal(observer.events)
        zero = 0 if first is None else first.at
        document["instance"] = {
            "id": str(observer.instance),
            "commands": describe_batch(observer.batch),
            "path": None if observer.path is None else observer.path.name.lower(),
            "proposed_at_us": zero,
            "events": [_event_document(event, zero) for event in observer.events],
        }
        return document


def _event_document(event: Event, zero: int) -> dict[str, Any]:
    return {
        "at_us": event.at - zero,
        "replica": replica_name(event.replica),
        "does": event.kind,
        "what": event.text,
        "other": "all" if event.other == EVERYONE else _letter(event.other),
    }


def _letter(member: int | None) -> str | None:
    return None if member is None else replica_name(member)


def _life_document(each: Replay) -> dict[str, Any]:
    divergence = each.divergence
    return {
        "trace": each.trace.name,
        "replica": replica_name(each.header.member),
        "region": each.header.regions[each.header.member],
        "boot": each.header.boot,
        "steps": each.steps,
        "from_us": each.first,
        "to_us": each.last,
        "counts": dict(each.counts),
        "paths": {path.name.lower(): number for path, number in sorted(each.paths.items())},
        "end": each.trace.end,
        "torn": each.trace.torn,
        "damage": each.trace.damage,
        "failure": each.failure,
        "differing_steps": each.differing,
        "divergence": None if divergence is None else divergence._asdict(),
        "slowest": [
            {
                "id": str(slow.instance),
                "answer_us": slow.answer_us,
                "path": slow.path.name.lower(),
            }
            for slow in each.slowest
        ],
        "recovered": [str(instance) for instance in each.recovered],
        "slow_path": [str(instance) for instance in each.slow_path],
    }


def _traces(directory: Path) -> tuple[list[TraceReader], list[str]]:
    """The traces of a directory by member and boot, and the names of those without a byte."""
    try:
        paths = sorted(path for path in directory.iterdir() if path.suffix == SUFFIX)
    except OSError as error:
        raise ConfigError(f"{directory}: {error.strerror}; name a directory of traces") from None
    sizes = {path: path.stat().st_size for path in paths}
    empty = [str(path) for path in paths if not sizes[path]]
    paths = [path for path in paths if sizes[path]]
    if not paths:
        raise ConfigError(
            f"{directory}: no {SUFFIX} files with content in it; `epaxos up --record` makes some"
        )
    traces = [TraceReader(str(path), _mapped(path)) for path in paths]
    traces.sort(key=lambda trace: (trace.header.member, trace.header.boot))
    return traces, empty


def _mapped(path: Path) -> mmap.mmap:
    try:
        with path.open("rb") as file:
            return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    except OSError as error:
        raise StorageError(f"cannot read {path}: {error.strerror or error}") from None


def _check_together(directory: Path, traces: list[TraceReader]) -> None:
    first = traces[0].header
    lives: dict[tuple[int, int], str] = {}
    for trace in traces:
        header = trace.header
        if (header.cluster, header.regions, header.protocol) != (
            first.cluster,
            first.regions,
            first.protocol,
        ):
            raise ConfigError(
                f"{directory}: {traces[0].name} is of cluster {first.cluster} "
                f"({first.protocol}), {trace.name} of cluster {header.cluster} "
                f"({header.protocol}); give each cluster its own directory"
            )
        other = lives.setdefault((header.member, header.boot), trace.name)
        if other != trace.name:
            raise ConfigError(
                f"{directory}: {other} and {trace.name} are both boot {header.boot} of "
                f"{header.regions[header.member]}, so they come from two clusters; give each its "
                "own directory"
            )


class _ReplayScreen:
    """What a person sees."""

    def __init__(self, run: ReplayedRun) -> None:
        self._run = run
        self._console = console()

    def show(self) -> None:
        run = self._run
        if run.observer is None:
            self._lives()
        else:
            self._instance(run.observer)
        for each in run.replays:
            self._verdict(each)
        if not run.differing():
            steps = sum(each.steps for each in run.replays)
            self._print(f"no difference: {count(steps)} steps came out as recorded")
        for sentence in run.remarks():
            self._print(f"note: {sentence}")
        if run.observer is None:
            self._hints()

    def _print(self, text: str) -> None:
        self._console.print(text, soft_wrap=True)

    def _lives(self) -> None:
        run = self._run
        begun = min((each.first for each in run.replays if each.first is not None), default=0)
        title = f"{run.directory} · {run.protocol.title} · cluster {run.header.cluster}"
        columns = (">boot", ">from s", ">to s", ">steps", ">messages", ">records", ">commands")
        table = make_table("region", *columns, ">fast", ">slow", ">differ", title=title)
        for each in run.replays:
            first = begun if each.first is None else each.first
            paths = each.paths
            table.add_row(
                run.title(each.header.member),
                count(each.header.boot),
                f"{(first - begun) / 1e6:,.1f}",
                f"{(max(each.last, first) - begun) / 1e6:,.1f}",
                count(each.steps),
                count(each.counts["received"]),
                count(each.counts["records"]),
                count(each.counts["commands"]),
                count(paths[CommitPath.FAST] + paths[CommitPath.LEADER]),
                count(paths[CommitPath.SLOW]),
                count(each.differing),
            )
        self._console.print(table)

    def _instance(self, observer: Observer) -> None:
        path = "undecided" if observer.path is None else PATHS[observer.path]
        first = proposal(observer.events)
        assert first is not None
        self._print(
            f"{observer.instance} · {self._run.title(first.replica)} · "
            f"{describe_batch(observer.batch)} · {path}"
        )
        for line in chart(observer.events, self._run.regions):
            self._print(line)

    def _verdict(self, each: Replay) -> None:
        divergence = each.divergence
        if divergence is None:
            return
        begun = each.first or 0
        where = f"{self._run.title(each.header.member)} (boot {each.header.boot})"
        self._print(
            f"{where} differs from step {count(divergence.step)} of {count(each.steps)} on, "
            f"{milliseconds(max(0, divergence.at - begun))} ms after its start: {divergence.part}\n"
            f"  recorded  {divergence.recorded}\n"
            f"  replayed  {divergence.replayed}\n"
            f"  {count(each.differing)} steps differ; what follows the first says little"
        )

    def _hints(self) -> None:
        run = self._run
        slowest = sorted((slow for each in run.replays for slow in each.slowest), reverse=True)
        named = {
            "slowest answers": [
                f"{slow.instance} ({milliseconds(slow.answer_us)} ms)" for slow in slowest
            ],
            "slow path": [str(i) for each in run.replays for i in each.slow_path],
            "recovered": [str(i) for each in run.replays for i in each.recovered],
        }
        for what, ids in named.items():
            if ids:
                self._print(f"{what}: {', '.join(list(dict.fromkeys(ids))[:LISTED])}")
        example = slowest[0].instance if slowest else None
        if example is not None:
            self._print(f"try:  epaxos sim replay {run.directory} --instance {example}")
