"""The log on disk: append, one sync, replay; and what a bad record means.

Segments `wal/0000000001.wal`, ... are preallocated and zeroed before they are used, so that a sync
writes data alone. A new segment begins only after the one before it is on disk as a whole.

A record that is not valid is a torn tail (it was never synced, so nothing that left this replica
depends on it) unless something behind it shows that it once was on disk: a valid record that names
a synced sequence at or beyond it, or a later segment. Then it is corruption, and the replica
refuses to start: cutting it would be forgetting a promise (protocol reference, 1.14).

What a failed sync covered may still be read, from memory, and no later sync of that file writes it.
So a start does not trust the last segment that it read: it writes those very bytes into a new file,
syncs it, and gives it the segment's name, before anything rests on them. Earlier segments were
synced as a whole before the next one began.

Rules of this file: an OSError becomes a StorageError and is never retried; after a failed sync the
log accepts nothing more.
"""

import os
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final, NamedTuple

from epaxos.codec import Codec, encode
from epaxos.core.errors import CodecError, StorageError
from epaxos.core.replica import Record
from epaxos.core.types import ReplicaId, replica_name
from epaxos.runtime.segments import (
    HEADER_BYTES,
    RECORD_BYTES,
    LogFrame,
    RecordKind,
    SegmentHeader,
    chain_of,
    is_zero,
    pack_header,
    pack_record,
    parse_header,
    read_record,
    valid_records,
)

SEGMENT_BYTES: Final = 16 * 1024 * 1024
"""Size of a segment, unless one record alone needs more."""

_SUFFIX: Final = ".wal"
_ZEROS: Final = bytes(1 << 18)
_WHAT_TO_DO: Final = (
    "Nothing was changed. Do not start this replica from this directory again: its disk lost "
    'records that others may rely on; replace the replica (docs/operating.md, "lost disk")'
)


class Found(NamedTuple):
    """One valid record, and where it stands."""

    path: Path
    frame: LogFrame


class LogEnd(NamedTuple):
    """Where the log ends."""

    path: Path
    number: int
    offset: int
    """Where the next record goes."""
    sequence: int
    """Sequence of the next record."""
    chain: int
    """CRC of the last record."""
    data: memoryview
    """The last segment as it was read."""
    torn: int
    """Bytes behind the end that are not zero and not a record: a write that was under way."""


class LogReader:
    """Reads a log front to back without locking or changing it.

    Iterate once; raises StorageError at corruption. Afterwards `end` says where the log ends; it is
    None where no segment exists."""

    def __init__(
        self, directory: Path, cluster: str | None = None, replica: ReplicaId | None = None
    ) -> None:
        self._directory = directory
        self._cluster = cluster
        self._replica = replica
        self.end: LogEnd | None = None

    def __iter__(self) -> Iterator[Found]:
        paths = self._segments()
        sequence, chain = 1, 0
        for index, path in enumerate(paths):
            data = memoryview(_read(path))
            header = self._header(path, data, index + 1, sequence, chain)
            offset = HEADER_BYTES
            while (frame := read_record(data, offset, header.crc)) is not None:
                if frame.sequence != sequence or chain_of(data, offset) != chain:
                    break
                yield Found(path, frame)
                sequence, chain, offset = sequence + 1, frame.crc, frame.end
            if index + 1 < len(paths):
                self._check_next(path, offset, sequence, paths[index + 1])
            else:
                torn = _torn_bytes(path, data, offset, sequence, header.crc)
                self.end = LogEnd(path, header.number, offset, sequence, chain, data, torn)

    def _segments(self) -> list[Path]:
        try:
            paths = sorted(p for p in self._directory.iterdir() if p.suffix == _SUFFIX)
        except OSError as error:
            raise _storage_error("cannot list", self._directory, error) from error
        for index, path in enumerate(paths):
            if path.name != _segment_name(index + 1):
                raise StorageError(
                    f"log segment {self._directory / _segment_name(index + 1)} is missing, but "
                    f"{path.name} is there. {_WHAT_TO_DO}"
                )
        return paths

    def _header(
        self, path: Path, data: memoryview, number: int, sequence: int, chain: int
    ) -> SegmentHeader:
        header = parse_header(data)
        if isinstance(header, str):
            raise StorageError(f"log segment {path} is corrupt at byte 0: {header}. {_WHAT_TO_DO}")
        if self._cluster is not None and (header.cluster, header.replica) != (
            self._cluster,
            self._replica,
        ):
            raise StorageError(
                f"log segment {path} belongs to cluster {header.cluster}, replica "
                f"{replica_name(header.replica)}; this is replica "
                f"{replica_name(self._replica or 0)} of cluster {self._cluster}"
            )
        if (header.number, header.first, header.chain) != (number, sequence, chain):
            raise StorageError(
                f"log segment {path} is not the one that belongs here: it is number "
                f"{header.number} and begins with record {header.first}, expected number {number} "
                f"and record {sequence}. {_WHAT_TO_DO}"
            )
        return header

    def _check_next(self, path: Path, offset: int, sequence: int, following: Path) -> None:
        header = parse_header(_read(following, HEADER_BYTES))
        if isinstance(header, SegmentHeader) and header.first > sequence:
            raise _corrupt(
                path,
                offset,
                sequence,
                f"segment {following.name} begins with record {header.first}",
            )


def _torn_bytes(path: Path, data: memoryview, offset: int, sequence: int, seed: int) -> int:
    rest = data[offset:]
    if is_zero(rest):
        return 0
    for frame in valid_records(data, offset, seed, sequence):
        if frame.synced >= sequence:
            raise _corrupt(
                path,
                offset,
                sequence,
                f"record {frame.sequence} at byte "
                f"{frame.offset} says that record {frame.synced} was on disk",
            )
    return len(bytes(rest).rstrip(b"\0"))


def _corrupt(path: Path, offset: int, sequence: int, evidence: str) -> StorageError:
    return StorageError(
        f"log segment {path} is corrupt at byte {offset}: record {sequence} is not valid there, "
        f"yet {evidence}. {_WHAT_TO_DO}"
    )


class Wal:
    """The log of one replica. Call `replay` to its end before the first `append`."""

    def __init__(
        self,
        directory: Path,
        cluster: str,
        replica: ReplicaId,
        segment_bytes: int = SEGMENT_BYTES,
    ) -> None:
        self._directory = directory
        self._cluster = cluster
        self._replica = replica
        self._segment_bytes = segment_bytes
        self.boot = 0
        """The boot counter that the log last recorded; 0 before any."""
        self.warning: str | None = None
        """Set when replay cut a torn tail."""
        self.bytes = 0
        """Size of all records, headers and padding included."""
        self._fd = -1
        self._path = directory
        self._number = 0
        self._offset = 0
        self._size = 0
        self._sequence = 1
        self._synced = 0
        self._chain = 0
        self._seed = 0
        self._spare: _Spare | None = None
        self._failed = False

    def replay(self, codec: Codec) -> Iterator[Record]:
        """Every record, front to back; then the log is open for appending.

        Raises StorageError for corruption and for what this version cannot read."""
        _make_directory(self._directory)
        reader = LogReader(self._directory, self._cluster, self._replica)
        for path, frame in reader:
            self.bytes += frame.end - frame.offset
            if frame.kind == RecordKind.NODE:
                try:
                    yield codec.decode_record(frame.body)
                except CodecError as error:
                    raise StorageError(
                        f"log segment {path}, byte {frame.offset}: {error}; the record is intact, "
                        "so another version wrote it, perhaps as a broken peer told it: start that "
                        'version, or replace the replica (docs/operating.md, "lost disk")'
                    ) from None
            elif frame.kind == RecordKind.BOOT:
                self.boot = int.from_bytes(frame.body, "little")
            elif frame.kind != RecordKind.CLOSED:
                raise StorageError(
                    f"log segment {path}, byte {frame.offset}: record kind {frame.kind} is unknown "
                    "to this version; start the version that wrote it"
                )
        try:
            self._open(reader.end)
        except OSError as error:
            raise _storage_error("cannot open", self._path, error) from error

    def record_boot(self, boot: int) -> None:
        """Append and sync the boot counter: what is in the log now is on disk."""
        self._write([(RecordKind.BOOT, boot.to_bytes(8, "little"))])
        self.sync()
        self.boot = boot

    def append(self, records: Sequence[Record]) -> None:
        """Add records to the log with one write; durable after the next `sync`."""
        self._write([(RecordKind.NODE, encode(record)) for record in records])

    def sync(self) -> None:
        """Make everything appended durable. Raises StorageError; then the process must end."""
        if self._failed:
            raise StorageError(f"log segment {self._path}: an earlier write or sync failed")
        try:
            os.fdatasync(self._fd)
        except OSError as error:
            self._failed = True
            raise _storage_error("cannot sync", self._path, error) from error
        self._synced = self._sequence - 1

    def close(self) -> None:
        """End the log in order and release its file."""
        if self._fd >= 0 and not self._failed:
            self.sync()
            self._write([(RecordKind.CLOSED, b"")])
            self.sync()
        self.abandon()

    def abandon(self) -> None:
        """Release the file without writing anything."""
        if self._spare is not None:
            self._spare.discard()
            self._spare = None
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def _write(self, entries: list[tuple[RecordKind, bytes]]) -> None:
        if self._failed:
            raise StorageError(f"log segment {self._path}: an earlier write or sync failed")
        parts: list[bytes] = []
        size = 0
        chain, sequence, synced, seed = self._chain, self._sequence, self._synced, self._seed
        try:
            for kind, body in entries:
                needed = RECORD_BYTES + len(body) + (-len(body) & 7)
                if self._offset + size + needed > self._size:
                    self._put(parts, size, sequence, chain)
                    self._roll(needed)
                    parts, size = [], 0
                    synced, seed = self._synced, self._seed
                packed, chain = pack_record(kind, sequence, synced, body, chain, seed)
                parts.append(packed)
                size += needed
                sequence += 1
            self._put(parts, size, sequence, chain)
        except OSError as error:
            self._failed = True
            raise _storage_error("cannot write", self._path, error) from error

    def _put(self, parts: list[bytes], size: int, sequence: int, chain: int) -> None:
        if parts:
            _write_at(self._fd, b"".join(parts), self._offset)
        self._offset += size
        self.bytes += size
        self._sequence, self._chain = sequence, chain
        if self._spare is None and self._offset * 2 > self._size:
            self._spare = _Spare(self._directory / "spare.tmp", self._segment_bytes)

    def _roll(self, needed: int) -> None:
        """Begin the next segment; the present one is on disk first."""
        self.sync()
        os.close(self._fd)
        self._fd = -1
        spare, self._spare = self._spare, None
        needed += HEADER_BYTES
        if spare is None or needed > self._segment_bytes:
            if spare is not None:
                spare.discard()
            spare = _Spare(self._directory / "spare.tmp", max(needed, self._segment_bytes))
        self._begin(spare)

    def _begin(self, spare: "_Spare") -> None:
        number = self._number + 1
        path = self._directory / _segment_name(number)
        fd = spare.take()
        header = pack_header(self._cluster, self._replica, number, self._sequence, self._chain)
        _write_at(fd, header, 0)
        os.fdatasync(fd)
        spare.path.rename(path)
        sync_directory(self._directory)
        self._adopt(fd, path, header, number)
        self._offset = HEADER_BYTES

    def _adopt(self, fd: int, path: Path, header: bytes, number: int) -> None:
        parsed = parse_header(header)
        assert isinstance(parsed, SegmentHeader)
        self._fd, self._path, self._number, self._seed = fd, path, number, parsed.crc
        self._size = os.fstat(fd).st_size

    def _open(self, end: LogEnd | None) -> None:
        if end is None:
            self._begin(_Spare(self._directory / "spare.tmp", self._segment_bytes))
            return
        if end.torn:
            self._keep_torn(end)
        fd = self._rewrite(end)
        self._adopt(fd, end.path, bytes(end.data[:HEADER_BYTES]), end.number)
        self._offset, self._sequence, self._chain = end.offset, end.sequence, end.chain
        self._synced = end.sequence - 1

    def _keep_torn(self, end: LogEnd) -> None:
        """Copy the torn tail beside the segment, which will be written without it."""
        copy = end.path.with_name(f"{end.path.stem}-{end.offset}.torn")
        os.close(_new_file(copy, end.data[end.offset : end.offset + end.torn], end.torn))
        sync_directory(self._directory)
        self.warning = (
            f"torn tail of {end.torn} bytes cut from {end.path} at byte {end.offset}: it was never "
            f"synced; a copy is in {copy.name}"
        )

    def _rewrite(self, end: LogEnd) -> int:
        """Put the last segment, up to where the log ends, on disk in a new file; returns its
        descriptor. Raises OSError; then the segment is there as it was, or whole."""
        fresh = self._directory / "rewritten.tmp"
        fd = _new_file(fresh, end.data[: end.offset], len(end.data))
        try:
            fresh.rename(end.path)
            sync_directory(self._directory)
        except OSError:
            os.close(fd)
            raise
        return fd


class _Spare:
    """A zeroed file for the next segment, filled by a thread so that no step waits for it."""

    def __init__(self, path: Path, size: int) -> None:
        self.path = path
        self._size = size
        self._error: OSError | None = None
        self._discarded = False
        flags = os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW
        self._fd = os.open(path, flags, 0o600)
        self._thread = threading.Thread(target=self._fill, name="log spare", daemon=True)
        self._thread.start()

    def _fill(self) -> None:
        try:
            left = self._size
            while left and not self._discarded:
                left -= os.write(self._fd, _ZEROS[:left])
            os.fdatasync(self._fd)
        except OSError as error:
            self._error = error

    def take(self) -> int:
        """The filled file's descriptor. Raises OSError if filling failed."""
        self._thread.join()
        if self._error is not None:
            os.close(self._fd)
            raise self._error
        return self._fd

    def discard(self) -> None:
        """Give the file up."""
        self._discarded = True
        self._thread.join()
        os.close(self._fd)
        self.path.unlink(missing_ok=True)


def sync_directory(path: Path) -> None:
    """Make the names in a directory durable. Raises OSError."""
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def _new_file(path: Path, data: memoryview, size: int) -> int:
    """A file of `size` bytes, on disk: the data, then zeros. Returns its descriptor; raises
    OSError."""
    flags = os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW
    fd = os.open(path, flags, 0o600)
    try:
        _write_at(fd, data, 0)
        for offset in range(len(data), size, len(_ZEROS)):
            _write_at(fd, _ZEROS[: size - offset], offset)
        os.fsync(fd)
    except OSError:
        os.close(fd)
        raise
    return fd


def _segment_name(number: int) -> str:
    return f"{number:010d}{_SUFFIX}"


def _make_directory(path: Path) -> None:
    try:
        path.mkdir(mode=0o700, exist_ok=True)
        sync_directory(path.parent)
    except OSError as error:
        raise _storage_error("cannot make", path, error) from error


def _read(path: Path, size: int = -1) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(size)
    except OSError as error:
        raise _storage_error("cannot read", path, error) from error


def _write_at(fd: int, data: bytes | memoryview, offset: int) -> None:
    view = memoryview(data)
    while view:
        written = os.pwrite(fd, view, offset)
        view = view[written:]
        offset += written


def _storage_error(what: str, path: Path, error: OSError) -> StorageError:
    return StorageError(f"{what} {path}: {error.strerror or error}")
