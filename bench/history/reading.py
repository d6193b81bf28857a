"""Histories from files: our lines, jepsen's, porcupine's; which it is, is seen in the content.

    {"client": …, "operation": …}                              lines of JSON, ours: docs/check.md
    {:process 0, :type :invoke, :f :write, :value 3 …}         jepsen: a register, or one per key
    {:process 0, :type :invoke, :f :get, :key "1" …}           porcupine: a key-value store
    INFO  jepsen.util - 0 :invoke :write 3                     porcupine: a log of jepsen's

A history of events has no clock: each event is a moment of its own, in the order of the file.

Rules of this file: it reads; what is wrong is a ConfigError that names the line, the field, and
what may stand there.
"""

import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path
from typing import Any, BinaryIO, Final

import msgspec

from bench.history.calls import AMBIGUOUS, ANYTHING, DEFINITE, OTHER, CallLine, HistoryCall
from bench.history.edn import Name, read_edn
from bench.history.judge import Initial
from epaxos.core.errors import ConfigError

KINDS: Final = ("get", "put", "delete", "cas", "append")
_WORDS: Final = {"read": "get", "write": "put", "compare-and-set": "cas"} | {k: k for k in KINDS}
_ONE_KEY: Final = b"register"
_LOG: Final = re.compile(r"INFO\s+jepsen\.\S+\s+-\s+(?P<rest>\S+\s+:\S+\s+:\S+\s+.*)")
_INITIALS: Final = {"absent": None, OTHER: OTHER, ANYTHING: ANYTHING}
_TYPES: Final = ("invoke", "ok", "fail", "info")


@dataclass
class ReadHistory:
    """What stood in one or more files."""

    initial: Initial = ANYTHING
    keys: dict[bytes, list[HistoryCall]] = field(default_factory=dict)
    unfinished: str = ""
    """Why calls are missing; empty: none is."""

    def add(self, key: bytes, call: HistoryCall) -> None:
        self.keys.setdefault(key, []).append(call)


def read_history(path: Path, into: ReadHistory | None = None) -> ReadHistory:
    """The history in a file or pipe; lines are added to what was read before. Raises
    ConfigError."""
    with _named(path), _opened(path) as file:
        begin = file.read(4096).decode("utf-8-sig", "replace").lstrip()
        file.seek(0)
        if re.match(r'\{\s*"', begin):
            found = ReadHistory() if into is None else into
            _read_file(found, path.name, file)
            return found
        if into is not None:
            raise ConfigError("only histories in lines of JSON may have several files")
        text = file.read().decode("utf-8-sig", "replace")
        if re.match(r"[\[({;]|#[_a-z]", begin):
            return _from_events(_edn_events(text), Shape.of_edn)
        if _LOG.search(begin):
            return _from_events(_log_events(text), Shape.of_log)
    raise ConfigError(
        f'{path} is no history: it should begin with {{"client" (lines of JSON), {{:process '
        "(EDN of jepsen or porcupine) or INFO jepsen.util; see docs/check.md"
    )


@contextmanager
def _named(path: Path) -> Iterator[None]:
    try:
        yield
    except ConfigError as error:
        said = str(error)
        raise ConfigError(said if said.startswith(str(path)) else f"{path}: {said}") from None


# Lines of JSON -----------------------------------------------------------------------------------


class _Header(msgspec.Struct):
    history: str
    initial: str


class _Footer(msgspec.Struct, forbid_unknown_fields=True):
    calls: int


_decode_line: Final = msgspec.json.Decoder(CallLine).decode
_decode_header: Final = msgspec.json.Decoder(_Header).decode
_decode_footer: Final = msgspec.json.Decoder(_Footer).decode


def read_lines(paths: Iterable[Path], into: ReadHistory | None = None) -> ReadHistory:
    """The history that several processes wrote, a file each; added to what was read before. Raises
    ConfigError."""
    found = ReadHistory() if into is None else into
    for path in paths:
        with _named(path), _opened(path) as file:
            _read_file(found, path.name, file)
    return found


def _opened(path: Path) -> BinaryIO:
    """The file; what can be read only once is read now."""
    try:
        file = path.open("rb")
        if file.seekable():
            return file
        with file:
            return BytesIO(file.read())
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror}") from None


def _read_file(found: ReadHistory, name: str, file: BinaryIO) -> None:
    calls, is_ours, is_ended = 0, False, False
    for number, octets in enumerate(file, 1):
        line = octets.strip().removeprefix(b"\xef\xbb\xbf")
        if not line:
            continue
        if number == 1 and line.startswith(b'{"history"'):
            is_ours = True
            found.initial = _initial(_decode_header(line).initial)
            continue
        if is_ours and line.startswith(b'{"calls"'):
            is_ended = _decode_footer(line).calls == calls
            continue
        try:
            key, call = _call(_decode_line(line))
        except (msgspec.MsgspecError, ConfigError, UnicodeDecodeError) as error:
            if is_ours and not octets.endswith(b"\n"):
                break  # its writer ended within it
            raise ConfigError(f"line {number}: {error}") from None
        calls += 1
        found.add(key, call)
    if is_ours and not is_ended:
        found.unfinished = f"{name} has no last line: its process ended before the load did"


def _initial(word: str) -> Initial:
    if word not in _INITIALS:
        raise ConfigError(f"initial = {word!r}: write {', '.join(_INITIALS)}")
    return _INITIALS[word]


def _call(line: CallLine) -> tuple[bytes, HistoryCall]:
    kind = _WORDS.get(line.operation)
    if kind is None:
        raise ConfigError(f"operation = {line.operation!r}: write one of {', '.join(KINDS)}")
    if line.error not in ("", DEFINITE, AMBIGUOUS):
        raise ConfigError(f"error = {line.error!r}: write {DEFINITE} or {AMBIGUOUS}")
    if line.end is not None and line.end < line.call:
        raise ConfigError(f"return = {line.end} is before call = {line.call}")
    value, expect = _argument(kind, line.argument)
    is_known = line.end is not None and not line.error
    return octets_of(line.key, "key") or b"", HistoryCall(
        client=str(line.client),
        kind=kind,
        called=line.call,
        returned=line.end if is_known else None,
        value=value,
        expect=expect,
        result=_result(kind, line) if is_known else None,
        version=line.version if is_known else "",
        refused=line.error == DEFINITE,
    )


def octets_of(value: Any, name: str) -> bytes | None:
    """The octets of a text, a number or `{"hex": …}`; None for null. Raises ConfigError."""
    if value is None or isinstance(value, str):
        return None if value is None else value.encode("utf-8", "surrogateescape")
    if isinstance(value, int | float):
        return msgspec.json.encode(value)
    if isinstance(value, dict) and set(value) == {"hex"}:
        try:
            return bytes.fromhex(value["hex"])
        except (TypeError, ValueError):
            pass  # the sentence below says what may stand there
    raise ConfigError(f'{name} = {value!r}: write a text, a number, or {{"hex": "00ff"}}')


def _argument(kind: str, argument: Any) -> tuple[bytes | None, bytes | bool | str]:
    if kind in ("get", "delete"):
        return None, False
    if kind != "cas":
        value = octets_of(argument, "argument")
        if value is None:
            raise ConfigError(f"argument of a {kind} is missing: write the value")
        return value, False
    if not isinstance(argument, dict) or set(argument) != {"expect", "value"}:
        raise ConfigError(f'argument of a cas = {argument!r}: write {{"expect": …, "value": …}}')
    return octets_of(argument["value"], "value"), _expect(argument["expect"])


def _expect(expect: Any) -> bytes | bool | str:
    if expect is None or expect is True:
        return expect is True
    if isinstance(expect, dict) and set(expect) == {"version"}:
        return str(expect["version"])
    found = octets_of(expect, "expect")
    return False if found is None else found


def _result(kind: str, line: CallLine) -> bytes | bool | tuple[bool, bytes | None] | None:
    result = line.result
    if kind == "get":
        return octets_of(result, "result")
    if result is None and kind in ("put", "append"):
        return True
    if kind in ("put", "append") and result is False:
        raise ConfigError(f'result of a {kind} = false: write "error": "definite"')
    if not isinstance(result, bool):
        raise ConfigError(f"result of a {kind} = {result!r}: write true or false")
    if kind == "cas" and not result and line.met is not msgspec.UNSET:
        return False, octets_of(line.met, "met")
    return result


# Events of jepsen and porcupine ------------------------------------------------------------------


class Shape:
    """What the events of a file mean."""

    def __init__(self, *, independent: bool, absent: bytes | None, failed_cas: bool) -> None:
        self.independent = independent
        """Values are pairs of a key and a value."""
        self.absent = absent
        """What a key holds before, as a read says it."""
        self.failed_cas = failed_cas
        """A cas that failed met another value; else it just did not happen."""

    @classmethod
    def of_edn(cls, events: list["_Event"]) -> "Shape":
        invoked = [each for each in events if each.type == "invoke"]
        reads = [each.value for each in invoked if each.kind == "get" and each.key is None]
        cases = [each.value for each in invoked if each.kind == "cas" and each.key is None]
        others = [each.value for each in invoked if each.kind == "put" and each.key is None]
        pairs = reads or [value[1] if _is_pair(value) else None for value in cases] or others
        has_keys = any(each.key is not None for each in events)
        return cls(
            independent=bool(pairs) and all(map(_is_pair, pairs)),
            absent=b"" if has_keys else None,
            failed_cas=False,
        )

    @classmethod
    def of_log(cls, events: list["_Event"]) -> "Shape":
        return cls(independent=False, absent=None, failed_cas=True)


@dataclass(frozen=True)
class _Event:
    """One line of such a history."""

    line: int
    process: str
    type: str
    kind: str
    value: Any
    key: Any = None


def _is_pair(value: Any) -> bool:
    return isinstance(value, list) and len(value) == 2


def _edn_events(text: str) -> Iterator[_Event]:
    for line, value in read_edn(text):
        for each in value if isinstance(value, list) else [value]:
            if not isinstance(each, dict):
                raise ConfigError(f"line {line}: {each!r} is no event: write a map with :process")
            yield from _edn_event(line, each)


def _edn_event(line: int, event: dict[Any, Any]) -> Iterator[_Event]:
    missing = [name for name in ("process", "type", "f") if Name(name) not in event]
    if missing:
        raise ConfigError(f"line {line}: an event has no :{missing[0]}")
    process = event[Name("process")]
    if not isinstance(process, int):  # the nemesis: what it did is seen in what clients saw
        return
    yield _event(line, process, event["type"], event["f"], event.get("value"), event.get("key"))


def _log_events(text: str) -> Iterator[_Event]:
    for number, line in enumerate(text.splitlines(), 1):
        found = _LOG.fullmatch(line.strip())
        if found is None:
            continue
        process, kind, word, *rest = found["rest"].split(None, 3)
        if not process.isdecimal():
            continue
        values = [value for _, value in read_edn(rest[0] if rest else "nil")]
        value = values[0] if values else None
        yield _event(number, process, kind[1:], word[1:], value)


def _event(line: int, process: Any, type_: Any, word: Any, value: Any, key: Any = None) -> _Event:
    kind = _WORDS.get(str(word))
    if kind is None:
        raise ConfigError(f"line {line}: :f :{word} is unknown; there are {', '.join(_WORDS)}")
    if type_ not in _TYPES:
        raise ConfigError(f"line {line}: :type :{type_} is unknown; there are {', '.join(_TYPES)}")
    return _Event(line, str(process), str(type_), kind, value, key)


def _from_events(found: Iterable[_Event], shape_of: Any) -> ReadHistory:
    events = list(found)
    shape: Shape = shape_of(events)
    history = ReadHistory(initial=shape.absent)
    open_: dict[str, tuple[int, _Event]] = {}
    for at, event in enumerate(events):
        if event.type == "invoke":
            if event.process in open_:
                raise ConfigError(
                    f"line {event.line}: process {event.process} invokes again before its call of "
                    f"line {open_[event.process][1].line} has ended"
                )
            open_[event.process] = (at, event)
            continue
        begun = open_.pop(event.process, None)
        if begun is None:
            if event.type == "info":
                continue
            raise ConfigError(
                f"line {event.line}: process {event.process} has not invoked anything"
            )
        if begun[1].kind != event.kind:
            raise ConfigError(
                f"line {event.line}: process {event.process} ends a {event.kind}, but began a "
                f"{begun[1].kind} in line {begun[1].line}"
            )
        _add(history, shape, begun, (at, event))
    for begun in open_.values():
        _add(history, shape, begun, None)
    return history


def _add(
    history: ReadHistory, shape: Shape, begun: tuple[int, _Event], ended: tuple[int, _Event] | None
) -> None:
    """One call from its two events; of a read that failed nothing is to be said."""
    called, event = begun
    kind, (key, asked) = event.kind, _split(shape, event)
    outcome = "info" if ended is None else ended[1].type
    if kind == "get" and outcome != "ok":
        return
    value: bytes | None = None
    expect: bytes | bool | str = False
    result: bytes | bool | None = None
    with _at_line(event.line):
        if kind == "cas":
            if not _is_pair(asked):
                raise ConfigError(f":value {asked!r} of a cas: write [expected new]")
            before = octets_of(_plain(asked[0]), "expected")
            expect, value = (
                (False if before is None else before),
                octets_of(_plain(asked[1]), "new"),
            )
        elif kind in ("put", "append"):
            value = octets_of(_plain(asked), ":value")
    refused = outcome == "fail"
    if outcome == "ok" and ended is not None:
        with _at_line(ended[1].line):
            result = True
            if kind == "get":
                result = octets_of(_plain(_split(shape, ended[1])[1]), ":value")
            elif kind == "delete":
                raise ConfigError("a delete does not say whether there was a value")
    elif refused and kind == "cas" and shape.failed_cas:
        refused, result = False, False
    is_known = ended is not None and (outcome == "ok" or result is False)
    returned = ended[0] if is_known and ended is not None else None
    history.add(
        key,
        HistoryCall(event.process, kind, called, returned, value, expect, result, refused=refused),
    )


@contextmanager
def _at_line(number: int) -> Iterator[None]:
    try:
        yield
    except ConfigError as error:
        raise ConfigError(f"line {number}: {error}") from None


def _split(shape: Shape, event: _Event) -> tuple[bytes, Any]:
    """Key and value of an event."""
    if event.key is not None:
        return octets_of(_plain(event.key), ":key") or b"", event.value
    if not shape.independent:
        return _ONE_KEY, event.value
    if not _is_pair(event.value):
        raise ConfigError(
            f"line {event.line}: :value {event.value!r} is no [key value], as that of others is"
        )
    return octets_of(_plain(event.value[0]), "key") or b"", event.value[1]


def _plain(value: Any) -> Any:
    """A value as text where it is none that a line of ours could hold."""
    return value if isinstance(value, str | int | float | None) else repr(value)
