"""What is fuzzed: per surface, valid inputs and a function that takes any bytes.

A target returns where the bytes were taken and raises where they were refused by name; any other
exception is a bug."""

import atexit
import shutil
import struct
import tempfile
from collections.abc import Callable
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import NamedTuple
from zlib import crc32

from hypothesis import HealthCheck, Phase, given, settings

import topology
from bench.clusters.faults import parse_fault
from bench.history.judge import judge
from bench.history.reading import read_history
from bench.trials.experiment import Experiment, built_in
from epaxos import codec, trace
from epaxos.codec import FRAME_HEADER, Codec, decode_client, encode, encode_frame
from epaxos.core.command import Operation, decode_cas, encode_cas
from epaxos.core.errors import CodecError, ConfigError, StorageError
from epaxos.core.replica import Executed
from epaxos.registry import find_protocol, protocol_names
from epaxos.runtime import segments
from epaxos.runtime.config import load_cluster
from epaxos.runtime.framing import FrameBuffer
from epaxos.runtime.greeting import LinkHello, LinkProof, LinkRefusal, decode_greeting, judge_hello
from epaxos.runtime.wal import LogReader
from epaxos.workload import parse_workload
from tests.fuzz.lies import liar
from tests.property.strategies import st, structs_of
from topology.export import to_csv, to_toml
from topology.regions import TopologyError

REFUSALS = (CodecError, ConfigError, StorageError, TopologyError)
_LIMIT = 1 << 20
_POSITIONS = 2_000
"""Budget of a search for an order."""
_HELLO = LinkHello(1, "cluster", 0, 1, 3, "nonce", "epaxos", 3, "hash")


class Target(NamedTuple):
    """One surface."""

    seeds: Callable[[], list[bytes]]
    run: Callable[[bytes], None]


def _drawn(*kinds: type, numbers: tuple[int, int] = (0, 3)) -> list[bytes]:
    """Encoded values of classes, some of each, the same at every call."""
    found: list[bytes] = []
    for kind in kinds:

        @settings(
            max_examples=8, derandomize=True, database=None, deadline=None,
            phases=[Phase.generate], suppress_health_check=list(HealthCheck),
        )  # fmt: skip
        @given(structs_of(kind, st.integers(*numbers), st.just(3)))
        def draw(value):
            found.append(encode(value))

        draw()
    return found


# Frames ------------------------------------------------------------------------------------------


def _client_seeds() -> list[bytes]:
    ops = bytes([Operation.PUT, Operation.GET, Operation.CAS])
    cas = encode_cas(True, b"new")
    request = codec.ClientRequest(7, 0, ops, [b"x", b"y", b"z"], [b"1", b"", cas])
    return [encode(codec.ClientHello(1, "c")), encode(request), *_drawn(
        codec.ServerHello, codec.ClientAnswer, codec.ClientRefusal)]  # fmt: skip


def _client(data: bytes) -> None:
    frame = decode_client(data)
    if isinstance(frame, codec.ClientRequest):
        for operation, argument in zip(frame.operations, frame.arguments, strict=False):
            if operation == Operation.CAS:
                decode_cas(argument)


def _stream(data: bytes) -> None:
    """A receive buffer fed in pieces, with checksums right and as they are: never more memory than
    a frame within the limit takes."""
    with suppress(CodecError):
        _feed(sealed_frames(data, 0))
    _feed(data)


def _feed(data: bytes) -> None:
    buffer, at = FrameBuffer(_LIMIT), 0
    while at < len(data):
        space = buffer.space()
        assert len(space) <= 2 * _LIMIT
        size = min(len(space), 1 + (at * 7) % 61, len(data) - at)
        space[:size] = data[at : at + size]
        at += size
        for body in buffer.cut(size):
            assert len(body) <= _LIMIT


def _stream_seeds() -> list[bytes]:
    return [
        encode_frame(_HELLO) + encode_frame(LinkProof("n")),
        b"".join(FRAME_HEADER.pack(len(b), crc32(b)) + b for b in (b"", b"a" * 90, b"b" * 300)),
    ]


def _greeting(data: bytes) -> None:
    found = decode_greeting(memoryview(data))
    if isinstance(found, LinkHello):
        judge_hello(_HELLO, found)


def _greeting_seeds() -> list[bytes]:
    return [encode(_HELLO), *_drawn(LinkHello, LinkProof, LinkRefusal)]


def _peer(name: str) -> tuple[Target, Target]:
    spec = find_protocol(name)
    codecs = Codec(spec)
    return (
        Target(lambda: _drawn(*spec.messages), lambda data: void(codecs.decode_message(data))),
        Target(
            lambda: _drawn(Executed, *spec.records), lambda data: void(codecs.decode_record(data))
        ),
    )


def void(found: object) -> None:
    """What was decoded can be said and encoded again."""
    repr(found)
    encode(found)


# The log -----------------------------------------------------------------------------------------


def _segment_seeds() -> list[bytes]:
    header = segments.pack_header("cluster", 0, 1, 1, 0)
    found, (seed,) = [header], struct.unpack("<I", header[-4:])
    data, chain = header, 0
    for sequence, body in enumerate((b"\1" + bytes(7), b"body", b"b" * 99, b""), 1):
        record, chain = segments.pack_record(1, sequence, sequence - 1, body, chain, seed)
        data += record
        found.append(data)
    return [*found, data + bytes(4096)]


def _segment(data: bytes) -> None:
    """A segment as it is, and with all checksums corrected: what a writer that errs, and no disk,
    would leave."""
    with suppress(StorageError):
        _read_log(data)
    _read_log(_sealed(data))


def _sealed(data: bytes) -> bytes:
    """The segment with the checksums of its header and of the records that fit right."""
    if len(data) < segments.HEADER_BYTES:
        return data
    at, sealed = segments.HEADER_BYTES - 4, bytearray(data)
    seed = crc32(sealed[:at])
    struct.pack_into("<I", sealed, at, seed)
    at = segments.HEADER_BYTES
    while at + segments.RECORD_BYTES <= len(sealed):
        (length,) = struct.unpack_from("<I", sealed, at + 4)
        end = at + segments.RECORD_BYTES + length
        if end > len(sealed):
            break
        struct.pack_into("<I", sealed, at, crc32(sealed[at + 4 : end], seed))
        at = end + (-length & 7)
    return bytes(sealed)


def _read_log(data: bytes) -> None:
    path = scratch() / "log"
    path.mkdir(exist_ok=True)
    (path / "0000000001.wal").write_bytes(data)
    reader = LogReader(path)
    for found in reader:
        assert len(found.frame.body) <= len(data)
    assert reader.end is not None
    assert reader.end.offset < len(data) + 8  # Padding may be torn.


# Files of people ---------------------------------------------------------------------------------


@cache
def scratch() -> Path:
    """A directory of this process, removed with it."""
    path = Path(tempfile.mkdtemp(prefix="epaxos-fuzz-"))
    atexit.register(shutil.rmtree, path, ignore_errors=True)
    return path


def _file(name: str, read: Callable[[Path], object]) -> Callable[[bytes], None]:
    def run(data: bytes) -> None:
        path = scratch() / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(data)
        read(path)

    return run


def _topologies(write: Callable[[topology.Topology], str]) -> Callable[[], list[bytes]]:
    return lambda: [write(topology.find(name)).encode() for name in ("lan:3", "equidistant:5,30")]


_CLUSTER = b"""cluster = "c"
protocol = "epaxos"
durability = "memory"
batch_commands = 64
[[replicas]]
region = "a"
peer_port = 7000
client_port = 7001
http_port = 7002
[[replicas]]
region = "b"
host = "127.0.0.1"
peer_port = 7003
client_port = 0
http_port = 0
"""
_JSON = b"""\
{"client":1,"operation":"put","key":"x","argument":"1","result":true,"call":1,"return":2}
{"client":2,"operation":"get","key":"x","result":"1","call":3,"return":4}
"""
_EDN = b"""{:process 0, :type :invoke, :f :write, :value 3}
{:process 0, :type :ok, :f :write, :value 3}
{:process 1, :type :invoke, :f :read, :value nil}
{:process 1, :type :ok, :f :read, :value 3}
"""
_LOG = b"""INFO  jepsen.util - 0 :invoke :write 3
INFO  jepsen.util - 0 :ok :write 3
INFO  jepsen.util - 1 :invoke :cas [3 4]
INFO  jepsen.util - 1 :fail :cas [3 4]
"""


def _experiments() -> list[bytes]:
    folder = Path(__file__).parents[2] / "bench" / "experiments"
    return [(folder / f"{name}.toml").read_bytes() for name in built_in()]


def _history(path: Path) -> None:
    found = read_history(path)
    judge(found.keys, found.initial, _POSITIONS)


def _dats(path: Path) -> None:
    (path.parent / "b.dat").write_text("0.1/0.3/0.9/0.01:a\n")
    topology.find(f"{path.parent}/")


def _line(data: bytes) -> str:
    return data.decode("utf-8", "surrogateescape")


def _trace_seeds() -> list[bytes]:
    frames = [*_drawn(trace.TraceStep), *_drawn(trace.TraceEnd)]
    framed = [FRAME_HEADER.pack(len(b), crc32(b)) + b for b in frames]
    headers = _drawn(trace.Header, numbers=(codec.PROTOCOL_VERSION,) * 2)
    return [
        trace.MAGIC + FRAME_HEADER.pack(len(h), crc32(h)) + h + b"".join(framed[i : i + 3])
        for i, h in enumerate(headers)
    ]


def sealed_frames(data: bytes, at: int) -> bytes:
    """The same with the checksums right of all frames from `at` on that fit."""
    sealed = bytearray(data)
    while at + FRAME_HEADER.size <= len(sealed):
        length, _ = FRAME_HEADER.unpack_from(sealed, at)
        end = at + FRAME_HEADER.size + length
        if end > len(sealed):
            break
        body = sealed[at + FRAME_HEADER.size : end]
        FRAME_HEADER.pack_into(sealed, at, length, crc32(body))
        at = end
    return bytes(sealed)


def _trace(data: bytes) -> None:
    """A trace as it is, and with the checksums of its frames right."""
    for each in (data, sealed_frames(data, len(trace.MAGIC))):
        with suppress(StorageError):
            _read_trace(each)
    _read_trace(data)


def _read_trace(data: bytes) -> None:
    reader = trace.TraceReader("t", data)
    for _ in reader.records():
        pass
    for _ in reader.steps():
        pass


TARGETS: dict[str, Target] = {
    "client": Target(_client_seeds, _client),
    "stream": Target(_stream_seeds, _stream),
    "greeting": Target(_greeting_seeds, _greeting),
    "segment": Target(_segment_seeds, _segment),
    "topology-toml": Target(
        _topologies(to_toml), _file("t.toml", lambda path: topology.find(str(path)))
    ),
    "topology-csv": Target(
        _topologies(to_csv), _file("t.csv", lambda path: topology.find(str(path)))
    ),
    "topology-conf": Target(
        lambda: [b"a b 128ms\na c 3.5ms\nb c 70ms\n"],
        _file("t.conf", lambda path: topology.find(str(path))),
    ),
    "topology-dat": Target(
        lambda: [b"0.1/0.3/0.9/0.01:b\n0.1/0.2/0.3/0.1:a\n"],
        _file("dats/a.dat", _dats),
    ),
    "cluster": Target(lambda: [_CLUSTER], _file("c.toml", lambda path: load_cluster(path, {}, {}))),
    "experiment": Target(_experiments, _file("e.toml", Experiment.load)),
    "workload": Target(
        lambda: [
            b"conflict:2",
            b"zipf:theta=0.9,keys=1000",
            b"hot:10,keys=3,value_size=16",
            b"local",
        ],
        lambda data: void_of(parse_workload(_line(data))),
    ),
    "fault": Target(
        lambda: [b"crash:a@5-9", b"slow:b@1-2,factor=3", b"leader:c@5"],
        lambda data: void_of(parse_fault(_line(data))),
    ),
    "trace": Target(_trace_seeds, _trace),
    "history": Target(lambda: [_JSON, _EDN, _LOG], _file("h", _history)),
}
for _name in protocol_names():
    if _name in ("epaxos", "multipaxos"):
        TARGETS[f"{_name}-message"], TARGETS[f"{_name}-record"] = _peer(_name)
        TARGETS[f"{_name}-liar"] = Target(lambda: [b"0", b"1"], liar(_name))


def void_of(found: object) -> None:
    """What was read can be said."""
    repr(found)
