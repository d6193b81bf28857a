"""`epaxos inspect`: what a data directory holds. Reads only; a running replica is not disturbed.

The phase of an instance is the furthest that a record of this log says; another replica may know
more. At damage, what was read before it is still told, and the exit code is that of storage.
"""

from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Annotated, Any, Final, NamedTuple

import msgspec
import orjson
import typer

from epaxos.cli.exits import ExitCode
from epaxos.cli.output import console, count, make_table, print_json, printable, size
from epaxos.codec import Codec
from epaxos.core.command import UNDECODABLE, Operation, Payload
from epaxos.core.errors import CodecError, ConfigError, StorageError
from epaxos.core.replica import Executed, Record
from epaxos.core.types import Deps, InstanceId, ballot_name, parse_instance, replica_name
from epaxos.registry import ProtocolSpec, find_protocol
from epaxos.runtime.segments import RecordKind
from epaxos.runtime.wal import Found, LogReader

app = typer.Typer()

PHASES: Final = ("introduced", "promised", "pre-accepted", "accepted", "committed", "executed")
"""In the order in which an instance goes through them."""

_PHASE_OF: Final = {
    "Introduced": "introduced",
    "Promised": "promised",
    "PreAccepted": "pre-accepted",
    "Accepted": "accepted",
    "AcceptedShort": "accepted",
    "Voted": "accepted",
    "Committed": "committed",
    "CommittedShort": "committed",
    "Learned": "committed",
    "Chosen": "committed",
    "Executed": "executed",
    "Forgotten": "executed",
}
_COMMANDS_SHOWN: Final = 3
_IDS_SHOWN: Final = 8


class Identity(msgspec.Struct, frozen=True):
    """The content of `identity.json`."""

    cluster: str
    replica: int
    n: int
    protocol: str
    boot: int
    """Boot counter of the last start."""


class Line(NamedTuple):
    """One record of the log, decoded."""

    file: str
    offset: int
    sequence: int
    kind: str
    """Class of the record; `Boot` and `Closed` for the log's own."""
    octets: int
    """Size of its body."""
    record: Record | None
    boot: int
    """Of the life that wrote it."""
    instances: list[InstanceId]
    """Which it is about."""


@app.command()
def inspect(
    directory: Annotated[
        Path, typer.Argument(metavar="DATA_DIR", help="Data directory of one replica.")
    ],
    records: Annotated[bool, typer.Option("--records", help="List every record.")] = False,
    instance: Annotated[
        str | None,
        typer.Option(metavar="A.7", help="List only the records about this instance."),
    ] = None,
    json: Annotated[
        bool,
        typer.Option("--json", help="JSON: one document, or one line per record listed."),
    ] = False,
) -> None:
    """Say what is in a data directory; changes nothing.

    Tells whose it is, its starts, segments, records and instances, and where the log ends, is torn
    or is damaged."""
    wanted = None
    if instance is not None:
        try:
            wanted = parse_instance(instance)
        except ValueError as error:
            raise ConfigError(f"--instance: {error}") from None
    log = LogSummary(directory)
    if records or wanted is not None:
        listed = 0
        for line in log.read():
            if wanted is None or wanted in line.instances:
                listed += 1
                _print_line(line, json)
        if wanted is not None and not listed and not json:
            console().print(f"{wanted} is not in this log")
    else:
        for _ in log.read():
            pass
        if json:
            print_json(log.document())
        else:
            _print_summary(log)
    if log.damage is not None:
        if json or records or wanted is not None:
            raise StorageError(log.damage)
        raise typer.Exit(ExitCode.STORAGE)


class LogSummary:
    """Reads a data directory once, and counts."""

    def __init__(self, directory: Path) -> None:
        """Raises StorageError if `directory` is not a data directory."""
        self.directory = directory
        self.identity = _read_identity(directory)
        self.spec = _find_protocol(self.identity.protocol, directory)
        self.reader = LogReader(directory / "wal", self.identity.cluster, self.identity.replica)
        self.segments: dict[str, dict[str, int]] = {}
        """Per file: first and last sequence, records, and bytes in use."""
        self.boots: list[dict[str, int]] = []
        """Boot counter and sequence of each start."""
        self.kinds: Counter[str] = Counter()
        self.octets: Counter[str] = Counter()
        self.commands = 0
        """Commands in the batches that this log carries."""
        self._carried: set[InstanceId] = set()
        self.phases: dict[int, dict[int, int]] = {}
        """Per column and slot: index in PHASES."""
        self.is_closed = False
        """Whether the last record says that the replica stopped in order."""
        self.damage: str | None = None
        self._chosen = 0

    def read(self) -> Iterator[Line]:
        """Every record, front to back; afterwards everything is counted. At damage it stops and
        sets `damage`."""
        codec = Codec(self.spec)
        try:
            for found in self.reader:
                yield self._count(found, codec)
        except StorageError as error:
            self.damage = str(error)

    def _count(self, found: Found, codec: Codec) -> Line:
        frame = found.frame
        body = bytes(frame.body)
        record: Record | None = None
        if frame.kind == RecordKind.NODE:
            try:
                record = codec.decode_record(body)
            except CodecError as error:
                raise StorageError(
                    f"log segment {found.path}, byte {frame.offset}: {error}; the record is "
                    "intact, so another version wrote it"
                ) from None
            kind = type(record).__name__
        else:
            names: dict[int, str] = {RecordKind.BOOT: "Boot", RecordKind.CLOSED: "Closed"}
            kind = names.get(frame.kind, f"kind {frame.kind}")
        if frame.kind == RecordKind.BOOT:
            boot = int.from_bytes(body, "little")
            self.boots.append({"boot": boot, "sequence": frame.sequence})
        self.is_closed = frame.kind == RecordKind.CLOSED
        self.kinds[kind] += 1
        self.octets[kind] += len(body)
        segment = self.segments.setdefault(
            found.path.name, {"first": frame.sequence, "last": 0, "records": 0, "bytes": 0}
        )
        segment["last"] = frame.sequence
        segment["records"] += 1
        segment["bytes"] = frame.end
        ids = [] if record is None else self._note(record)
        boot = self.boots[-1]["boot"] if self.boots else 0
        return Line(
            found.path.name, frame.offset, frame.sequence, kind, len(body), record, boot, ids
        )

    def _note(self, record: Record) -> list[InstanceId]:
        """Raise the phase of every instance that the record is about."""
        ids = list(self._about(record))
        phase = PHASES.index(_PHASE_OF[type(record).__name__])
        for replica, slot in ids:
            column = self.phases.setdefault(replica, {})
            column[slot] = max(phase, column.get(slot, 0))
        for instance, payload in zip(ids, _payloads(record)):
            if payload is not None and instance not in self._carried:
                self._carried.add(instance)
                self.commands += len(payload.batch.keys)
        return ids

    def _about(self, record: Record) -> Iterable[InstanceId]:
        """By the names of its fields, which mean the same in every protocol."""
        if isinstance(record, Executed):
            return map(InstanceId, record.replicas, record.slots)
        fields = msgspec.structs.asdict(record)
        column = fields.get("replica", 0)
        slots: Iterable[int] = ()
        if "slot" in fields:
            slots = (fields["slot"],)
        elif "slots" in fields:
            slots = fields["slots"]
        elif "payloads" in fields:
            slots = range(fields["first"], fields["first"] + len(fields["payloads"]))
        elif "up_to" in fields:
            slots = range(self._chosen + 1, fields["up_to"] + 1)
            self._chosen = max(self._chosen, fields["up_to"])
        return (InstanceId(column, slot) for slot in slots)

    def document(self) -> dict[str, Any]:
        """Everything counted, in values that JSON can say."""
        end = self.reader.end
        columns = {}
        for column, slots in sorted(self.phases.items()):
            phases = Counter(slots.values())
            columns["log" if self.spec.has_leader else replica_name(column)] = {
                "first": min(slots),
                "last": max(slots),
                "instances": len(slots),
                "phases": {PHASES[phase]: phases[phase] for phase in sorted(phases)},
            }
        return {
            "directory": str(self.directory),
            "cluster": self.identity.cluster,
            "replica": replica_name(self.identity.replica),
            "n": self.identity.n,
            "protocol": self.identity.protocol,
            "boot": self.identity.boot,
            "boots": self.boots,
            "stopped_in_order": self.is_closed,
            "segments": self.segments,
            "records": {
                kind: {"count": number, "bytes": self.octets[kind]}
                for kind, number in sorted(self.kinds.items())
            },
            "commands": self.commands,
            "columns": columns,
            "end": None
            if end is None
            else {
                "file": end.path.name,
                "offset": end.offset,
                "next_sequence": end.sequence,
                "torn_bytes": end.torn,
            },
            "damage": self.damage,
        }


def _read_identity(directory: Path) -> Identity:
    path = directory / "identity.json"
    try:
        return msgspec.json.decode(path.read_bytes(), type=Identity)
    except FileNotFoundError:
        inside = sorted(str(p.parent) for p in directory.glob("*/identity.json"))
        hint = f"; did you mean {' or '.join(inside)}?" if inside else ""
        raise StorageError(
            f"{directory} is not a data directory: it has no identity.json{hint}"
        ) from None
    except OSError as error:
        raise StorageError(f"cannot read {path}: {error.strerror or error}") from None
    except UNDECODABLE as error:
        raise StorageError(f"{path} is damaged: {error}") from None


def _find_protocol(name: str, directory: Path) -> ProtocolSpec:
    try:
        return find_protocol(name)
    except ConfigError as error:
        raise StorageError(f"{directory / 'identity.json'}: {error}") from None


def _payloads(record: Record) -> list[Payload | None]:
    values = msgspec.structs.asdict(record)
    return values["payloads"] if "payloads" in values else [values.get("payload")]


def _print_line(line: Line, json: bool) -> None:
    where = f"{line.file}:{line.offset}"
    if json:
        document = {
            "file": line.file,
            "offset": line.offset,
            "sequence": line.sequence,
            "boot": line.boot,
            "kind": line.kind,
            "bytes": line.octets,
            "instances": [str(i) for i in line.instances],
            "what": _details(line),
        }
        typer.echo(orjson.dumps(document).decode())
        return
    typer.echo(f"{where:<24} #{line.sequence:<7} {line.kind:<14} {_details(line)}".rstrip())


def _details(line: Line) -> str:
    if line.record is None:
        return f"boot {line.boot}" if line.kind == "Boot" else ""
    ids = [str(instance) for instance in line.instances[:_IDS_SHOWN]]
    if len(line.instances) > _IDS_SHOWN:
        ids.append(f"… {len(line.instances)} in all")
    words = [" ".join(ids)]
    for field, value in msgspec.structs.asdict(line.record).items():
        if field == "ballot":
            words.append(ballot_name(value))
        elif field in ("deps", "initial_deps"):
            words.append(f"{field.replace('_', ' ')} {format_deps(value)}")
        elif field == "payload":
            words.append(_describe(value))
        elif field == "payloads":
            words += [_describe(payload) for payload in value[:_COMMANDS_SHOWN]]
    return "  ".join(words)


def format_deps(deps: Deps) -> str:
    """`A.6 B.3`: the prefixes that are not empty; a dash if all are."""
    named = [str(InstanceId(replica, slot)) for replica, slot in enumerate(deps) if slot]
    return " ".join(named) or "–"


def _describe(payload: Payload | None) -> str:
    if payload is None:
        return "Nop"
    batch = payload.batch
    words = [
        f"{Operation(code).name} {printable(key)}"
        for code, key in zip(batch.operations[:_COMMANDS_SHOWN], batch.keys)
    ]
    if len(batch.keys) > _COMMANDS_SHOWN:
        words.append(f"… {count(len(batch.keys))} commands")
    return "(" + ", ".join(words) + ")"


def _print_summary(log: LogSummary) -> None:
    screen = console()
    me = log.identity
    screen.print(
        f"{log.directory}: replica {replica_name(me.replica)} of {me.n}, {log.spec.title}, "
        f"cluster {me.cluster}, boot {me.boot}",
        soft_wrap=True,
    )
    _print_log(log)
    _print_columns(log)
    end = log.reader.end
    if log.damage is not None:
        screen.print(f"DAMAGED: {log.damage}", soft_wrap=True)
    elif end is None:
        screen.print("the log is empty")
    else:
        screen.print(f"ends in {end.path.name} at byte {count(end.offset)}, {_ending(log)}")


def _ending(log: LogSummary) -> str:
    end = log.reader.end
    if end is not None and end.torn:
        return (
            f"followed by a torn tail of {count(end.torn)} bytes: a write that was never synced, "
            "or is under way; the next start cuts it"
        )
    return "stopped in order" if log.is_closed else "not stopped in order, or still running"


def _print_log(log: LogSummary) -> None:
    segments = make_table("segment", ">first", ">last", ">records", ">in use")
    for name, segment in log.segments.items():
        segments.add_row(
            name,
            count(segment["first"]),
            count(segment["last"]),
            count(segment["records"]),
            size(segment["bytes"]),
        )
    kinds = make_table("record", ">count", ">bytes")
    for kind, number in log.kinds.most_common():
        kinds.add_row(kind, count(number), size(log.octets[kind]))
    screen = console()
    screen.print(segments)
    screen.print(kinds)
    starts = ", ".join(f"{b['boot']} at #{b['sequence']:,}" for b in log.boots[-_IDS_SHOWN:])
    screen.print(f"{count(log.commands)} commands · starts: {starts or 'none'}")


def _print_columns(log: LogSummary) -> None:
    columns = log.document()["columns"]
    present = [phase for phase in PHASES if any(phase in c["phases"] for c in columns.values())]
    table = make_table("column", ">first", ">last", ">instances", *(f">{p}" for p in present))
    for name, column in columns.items():
        table.add_row(
            name,
            count(column["first"]),
            count(column["last"]),
            count(column["instances"]),
            *(count(column["phases"].get(phase, 0)) for phase in present),
        )
    if columns:
        console().print(table)
