"""The log: what is appended comes back, a torn tail is cut, corruption is refused; nothing counts
before it is synced, and the next segment is ready in time."""

import errno
import os
import stat
import threading
from collections import Counter
from pathlib import Path

import msgspec
import pytest

from epaxos.codec import Codec, encode
from epaxos.core.errors import StorageError
from epaxos.core.replica import Executed
from epaxos.protocols.epaxos.messages import Promised
from epaxos.registry import ProtocolSpec, find_protocol
from epaxos.runtime.segments import HEADER_BYTES, RECORD_BYTES, pack_record
from epaxos.runtime.wal import LogReader, Wal
from tests.scripted.files import Disk, ScriptedOs, scripted_files
from tests.scripted.loop import Host

SMALL = 4096
CALLS = ("pwrite", "fdatasync", "fsync", "rename")
WHO = ("c1", 2)


class Note(msgspec.Struct, frozen=True, array_like=True, tag=16, gc=False):
    text: bytes


class Unknown(msgspec.Struct, frozen=True, array_like=True, tag=99, gc=False):
    text: bytes


class Message(msgspec.Struct, frozen=True, array_like=True, tag=1, gc=False):
    text: bytes


SPEC = ProtocolSpec("fake", "Fake", False, (Message,), (Note,), None, None)
CODEC = Codec(SPEC)


def fresh(path, segment_bytes=SMALL):
    log = Wal(path / "wal", *WHO, segment_bytes)
    assert list(log.replay(CODEC)) == []
    return log


def reopened(path, segment_bytes=SMALL):
    log = Wal(path / "wal", *WHO, segment_bytes)
    return log, list(log.replay(CODEC))


def notes(count, start=0):
    return [Note(b"%d" % i * 3) for i in range(start, start + count)]


def append_and_sync(log, records):
    for record in records:
        log.append([record])
    log.sync()


def last_segment(path) -> Path:
    return sorted((path / "wal").glob("*.wal"))[-1]


def used(path) -> int:
    return len(last_segment(path).read_bytes().rstrip(b"\0"))


def test_replay_returns_what_was_appended_in_order(tmp_path):
    log = fresh(tmp_path)
    log.append([*notes(3), Executed(b"\0\1", [1, 2])])
    log.sync()
    log.append(notes(2, 3))
    log.abandon()
    log, records = reopened(tmp_path)
    assert records == [*notes(3), Executed(b"\0\1", [1, 2]), *notes(2, 3)]
    assert log.warning is None
    log.append(notes(1, 9))
    log.close()
    log, records = reopened(tmp_path)
    assert records[-1] == notes(1, 9)[0]
    log.close()


def test_replay_spans_segments_and_records_larger_than_one(tmp_path):
    log = fresh(tmp_path)
    expected = []
    for i in range(60):
        group = [Note(b"x" * (i * 37 % 900)), Note(b"y%d" % i)]
        expected += group
        log.append(group)
        if i % 7 == 0:
            log.sync()
    expected += [big := Note(b"z" * 3 * SMALL), *notes(1)]
    log.append([big, *notes(1)])
    log.close()
    assert len(list((tmp_path / "wal").glob("*.wal"))) > 8
    log, records = reopened(tmp_path)
    assert records == expected
    log.close()


def test_files_are_private_and_preallocated(tmp_path):
    log = fresh(tmp_path)
    path = last_segment(tmp_path)
    assert path.stat().st_size == SMALL
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    log.close()


def test_boot_counter_comes_back(tmp_path):
    log = fresh(tmp_path)
    log.record_boot(7)
    log.append(notes(1))
    log.close()
    log, records = reopened(tmp_path)
    assert (log.boot, records) == (7, notes(1))
    log.close()


def test_torn_tail_is_cut_at_every_byte_of_the_last_record(tmp_path):
    log = fresh(tmp_path)
    log.append(notes(3))
    log.sync()
    start = used(tmp_path) + (-used(tmp_path) & 7)
    log.append([Note(b"the last one, never synced")])
    log.abandon()
    path = last_segment(tmp_path)
    whole = path.read_bytes()
    for length in range(start, used(tmp_path)):
        path.write_bytes(whole[:length] + bytes(len(whole) - length))
        log, records = reopened(tmp_path)
        assert records == notes(3)
        torn = len(whole[start:length].rstrip(b"\0"))
        assert bool(log.warning) == bool(torn)
        if torn:
            copy = path.with_name(f"{path.stem}-{start}.torn")
            assert copy.read_bytes() == whole[start : start + torn]
        log.append(notes(1, 50))
        log.abandon()
        log, records = reopened(tmp_path)
        assert records == [*notes(3), *notes(1, 50)]
        log.abandon()


def test_every_flipped_bit_of_a_record_that_was_on_disk_is_refused(tmp_path):
    log = fresh(tmp_path)
    log.append(notes(2))
    log.sync()
    log.append(notes(1, 2))
    log.close()
    path = last_segment(tmp_path)
    whole = path.read_bytes()
    closing = used(tmp_path) + (-used(tmp_path) & 7) - RECORD_BYTES
    for bit in range(HEADER_BYTES * 8, closing * 8):
        data = bytearray(whole)
        data[bit // 8] ^= 1 << bit % 8
        path.write_bytes(data)
        log = Wal(tmp_path / "wal", *WHO, SMALL)
        records, sentence = None, ""
        try:
            records = list(log.replay(CODEC))
        except StorageError as error:
            sentence = str(error)
        log.abandon()
        # Only the padding between records says nothing.
        assert f"{path} is corrupt at byte" in sentence or records == notes(3)
        assert path.read_bytes()[HEADER_BYTES:closing] == data[HEADER_BYTES:closing]
        path.write_bytes(whole)


@pytest.mark.parametrize("bit", range(0, HEADER_BYTES * 8, 61))
def test_a_flipped_bit_in_a_segment_header_is_refused(tmp_path, bit):
    fresh(tmp_path).close()
    path = last_segment(tmp_path)
    data = bytearray(path.read_bytes())
    data[bit // 8] ^= 1 << bit % 8
    path.write_bytes(data)
    with pytest.raises(StorageError, match="corrupt at byte 0"):
        reopened(tmp_path)


def test_a_zeroed_sector_in_the_middle_is_corruption_not_a_tail(tmp_path):
    log = fresh(tmp_path)
    for i in range(30):
        log.append(notes(1, i))
        log.sync()
    log.abandon()
    path = last_segment(tmp_path)
    data = bytearray(path.read_bytes())
    data[512:1024] = bytes(512)
    path.write_bytes(data)
    with pytest.raises(StorageError, match="was on disk"):
        reopened(tmp_path)


def test_a_hole_among_unsynced_records_is_a_torn_tail(tmp_path):
    log = fresh(tmp_path)
    log.append(notes(1))
    log.sync()
    log.append(notes(20, 1))
    log.abandon()
    path = last_segment(tmp_path)
    data = bytearray(path.read_bytes())
    data[512:560] = bytes(48)
    path.write_bytes(data)
    log, records = reopened(tmp_path)
    assert 1 < len(records) < 20
    assert "torn tail" in log.warning
    log.append(notes(1, 70))
    log.close()
    log, again = reopened(tmp_path)
    assert again == [*records, *notes(1, 70)]
    log.close()


def test_a_huge_length_is_not_allocated(tmp_path):
    log = fresh(tmp_path)
    log.append(notes(1))
    log.sync()
    log.append(notes(1, 1))
    log.abandon()
    path = last_segment(tmp_path)
    data = bytearray(path.read_bytes())
    data[HEADER_BYTES + 4 : HEADER_BYTES + 8] = b"\xff" * 4
    path.write_bytes(data)
    with pytest.raises(StorageError, match="corrupt"):
        reopened(tmp_path)


@pytest.mark.parametrize("what", ["swap", "duplicate", "remove middle", "remove first", "other"])
def test_segments_out_of_place_are_refused(tmp_path, what):
    log = fresh(tmp_path)
    for i in range(9):
        log.append([Note(b"%d" % i * 1000)])
    log.close()
    names = sorted((tmp_path / "wal").glob("*.wal"))
    if what == "swap":
        a, b = names[1].read_bytes(), names[2].read_bytes()
        names[1].write_bytes(b)
        names[2].write_bytes(a)
    elif what == "duplicate":
        names[2].write_bytes(names[1].read_bytes())
    elif what == "remove middle":
        names[1].unlink()
    elif what == "remove first":
        names[0].unlink()
    else:
        other = Wal(tmp_path / "other", "c2", 2, SMALL)
        list(other.replay(CODEC))
        other.close()
        names[0].write_bytes((tmp_path / "other" / names[0].name).read_bytes())
    with pytest.raises(StorageError):
        reopened(tmp_path)


def test_a_stale_record_of_another_segment_is_not_valid(tmp_path):
    log = fresh(tmp_path)
    log.append(notes(1))
    log.abandon()
    path = last_segment(tmp_path)
    end = used(tmp_path) + (-used(tmp_path) & 7)
    record, _ = pack_record(1, 2, 1, b"\x92\x10\xc4\x01a", 0, seed=1234)
    with path.open("r+b") as file:
        file.seek(end)
        file.write(record)
    log, records = reopened(tmp_path)
    assert records == notes(1)
    assert "torn tail" in log.warning
    log.close()


def test_a_record_of_another_version_is_refused_not_skipped(tmp_path):
    log = fresh(tmp_path)
    log.append([Unknown(b"from the future")])
    log.close()
    with pytest.raises(StorageError, match="another version"):
        reopened(tmp_path)


def test_a_record_with_a_value_out_of_range_is_refused_with_what_to_do(tmp_path):
    """Older versions wrote down whatever promise a broken peer asked for."""
    log = fresh(tmp_path)
    log.append([Promised(1, [1], 2**64 - 15)])
    log.close()
    with pytest.raises(StorageError, match=r"byte 256: .* `int` <= .*replace the replica"):
        list(Wal(tmp_path / "wal", *WHO, SMALL).replay(Codec(find_protocol("epaxos"))))


@pytest.fixture
def host(tmp_path):
    """The disk under the log, which forgets at a power loss what no sync made durable."""
    system = ScriptedOs()
    disk = Disk(Host("a host"), tmp_path, 1, [], lambda: None)
    system.add(disk)
    with scripted_files(system):
        yield disk


def fail_a_sync(log, host):
    host.sync_fails_in = 0
    with pytest.raises(StorageError, match="cannot sync"):
        log.sync()
    log.abandon()


def test_what_a_failed_sync_covered_is_made_durable_before_it_is_relied_upon(tmp_path, host):
    log = fresh(tmp_path)
    append_and_sync(log, notes(2))
    log.append(notes(2, 2))
    fail_a_sync(log, host)
    log, records = reopened(tmp_path)
    assert records == notes(4), "it can be read, from memory"
    append_and_sync(log, notes(2, 4))
    log.abandon()
    host.lose_power()
    log, records = reopened(tmp_path)
    assert records == notes(6)
    log.close()


def test_what_a_failed_sync_covered_may_be_lost_before_the_next_start(tmp_path, host):
    log = fresh(tmp_path)
    append_and_sync(log, notes(2))
    log.append(notes(2, 2))
    fail_a_sync(log, host)
    host.lose_power()
    log, records = reopened(tmp_path)
    assert records == notes(2)
    append_and_sync(log, notes(2, 4))
    log.abandon()
    host.lose_power()
    log, records = reopened(tmp_path)
    assert records == [*notes(2), *notes(2, 4)]
    log.close()


def test_a_start_whose_own_sync_fails_changes_nothing_and_the_next_one_goes_on(tmp_path, host):
    log = fresh(tmp_path)
    append_and_sync(log, notes(2))
    log.append(notes(2, 2))
    fail_a_sync(log, host)
    host.sync_fails_in = 0
    with pytest.raises(StorageError, match="cannot open"):
        reopened(tmp_path)
    log, records = reopened(tmp_path)
    assert records == notes(4)
    log.abandon()
    host.lose_power()
    log, records = reopened(tmp_path)
    assert records == notes(4)
    log.close()


def test_a_power_loss_anywhere_in_a_start_loses_nothing_that_was_synced(tmp_path, host):
    log = fresh(tmp_path)
    append_and_sync(log, notes(3))
    log.append(notes(1, 3))
    log.abandon()
    died = 0
    for calls in range(12):
        host.host.alive, host.dies_in = True, calls
        log = Wal(tmp_path / "wal", *WHO, SMALL)
        try:
            list(log.replay(CODEC))
        except StorageError:
            died += 1
        log.abandon()
        host.dies_in = None
        host.lose_power()
        host.host.alive = True
        log, records = reopened(tmp_path)
        assert records[:3] == notes(3)
        log.abandon()
    assert died


def test_a_full_disk_that_keeps_the_first_part_of_a_step(tmp_path, monkeypatch):
    """Wherever it is cut, what was whole comes back, and the log goes on."""
    log = fresh(tmp_path)
    append_and_sync(log, notes(2))
    log.abandon()
    real = os.pwrite
    start = last_segment(tmp_path).read_bytes()
    step = [Note(b"one" * 9), Note(b"two" * 9)]
    seen = set()
    size = 2 * (RECORD_BYTES + 32)
    for kept in (*range(0, size, 9), size - 1):
        last_segment(tmp_path).write_bytes(start)
        log, records = reopened(tmp_path)
        assert records == notes(2)
        left = kept

        def full(fd, data, at):
            nonlocal left
            if not left:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            written = real(fd, data[:left], at)
            left -= written
            return written

        with monkeypatch.context() as patch:
            patch.setattr(os, "pwrite", full)
            with pytest.raises(StorageError, match="No space left"):
                log.append(step)
            with pytest.raises(StorageError, match="earlier"):
                log.sync()
        log.abandon()
        log, records = reopened(tmp_path)
        whole = len(records) - 2
        assert records == [*notes(2), *step][: 2 + whole]
        seen.add(whole)
        append_and_sync(log, notes(1, 50))
        log.close()
        log, again = reopened(tmp_path)
        assert again == [*records, *notes(1, 50)]
        log.abandon()
    assert seen == {0, 1, 2}


@pytest.mark.parametrize("call", ["fdatasync", "pwrite"])
def test_after_a_failed_call_the_log_refuses_everything(tmp_path, monkeypatch, call):
    log = fresh(tmp_path)
    log.append(notes(1))

    def fail(*_):
        raise OSError(5, "Input/output error")

    with monkeypatch.context() as patch:
        patch.setattr(os, call, fail)
        with pytest.raises(StorageError, match="Input/output error"):
            append_and_sync(log, notes(1, 1))
    with pytest.raises(StorageError, match="earlier"):
        log.sync()
    with pytest.raises(StorageError, match="earlier"):
        log.append(notes(1))
    log.close()


def test_short_writes_are_completed(tmp_path, monkeypatch):
    log = fresh(tmp_path)
    real = os.pwrite
    monkeypatch.setattr(os, "pwrite", lambda fd, data, at: real(fd, data[:5], at))
    log.append(notes(5))
    log.close()
    monkeypatch.undo()
    log, records = reopened(tmp_path)
    assert records == notes(5)
    log.close()


def test_a_full_disk_while_preparing_a_segment_stops_the_log(tmp_path, monkeypatch):
    log = fresh(tmp_path)

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "write", full)
    with pytest.raises(StorageError, match="No space left"):
        append_and_sync(log, [Note(b"%d" % i * 400) for i in range(20)])
    monkeypatch.undo()
    log.abandon()
    log, records = reopened(tmp_path)
    assert records == [Note(b"%d" % i * 400) for i in range(len(records))]
    log.close()


def test_reading_without_a_lock_changes_nothing_and_shows_positions(tmp_path):
    log = fresh(tmp_path)
    log.append(notes(2))
    log.sync()
    log.append(notes(1, 2))
    before = last_segment(tmp_path).read_bytes()
    reader = LogReader(tmp_path / "wal")
    found = [(f.path.name, f.frame.offset, f.frame.sequence, f.frame.synced) for f in reader]
    assert [f[2:] for f in found] == [(1, 0), (2, 0), (3, 2)]
    assert found[0][:2] == ("0000000001.wal", HEADER_BYTES)
    assert (reader.end.sequence, reader.end.torn) == (4, 0)
    assert last_segment(tmp_path).read_bytes() == before
    log.close()


# When what is on disk ----------------------------------------------------------------------


def note(size):
    """A record of about so many bytes."""
    return Executed(bytes(size), [])


def segments(tmp_path):
    return sorted((tmp_path / "wal").glob("*.wal"))


def watch(tmp_path, monkeypatch):
    """(call, whether on the segment that is the last one now): what this thread does from now on.
    Another thread makes the next spare file, which may be sooner or later."""
    calls, mine = [], threading.get_ident()
    segment = last_segment(tmp_path).stat().st_ino
    for name in CALLS:
        real = getattr(os, name)

        def noted(target, *args, name=name, real=real, **more):
            if threading.get_ident() == mine:
                calls.append((name, name != "rename" and os.fstat(target).st_ino == segment))
            return real(target, *args, **more)

        monkeypatch.setattr(os, name, noted)
    return calls


def end_of(tmp_path):
    """(where the log ends, the size of its last file)."""
    reader = LogReader(tmp_path / "wal")
    for _ in reader:
        pass
    return reader.end.offset, reader.end.path.stat().st_size


def test_a_boot_is_on_disk_before_it_counts(tmp_path, monkeypatch):
    log = fresh(tmp_path)
    calls = watch(tmp_path, monkeypatch)
    log.record_boot(3)
    assert calls == [("pwrite", True), ("fdatasync", True)]
    assert log.boot == 3
    log.abandon()


def test_the_end_of_a_log_is_on_disk_and_so_is_all_before_it(tmp_path, monkeypatch):
    log = fresh(tmp_path)
    calls = watch(tmp_path, monkeypatch)
    log.close()
    assert calls == [("fdatasync", True), ("pwrite", True), ("fdatasync", True)]


def test_a_segment_begins_when_the_last_one_is_on_disk_and_is_there_with_its_name(
    tmp_path, monkeypatch
):
    before = set(threading.enumerate())
    log = fresh(tmp_path)
    log.append([note(3000)])
    for preparing in set(threading.enumerate()) - before:
        preparing.join()
    calls = watch(tmp_path, monkeypatch)
    log.append([note(2000)])
    names = [name for name, _ in calls]
    assert names == ["fdatasync", "pwrite", "fdatasync", "rename", "fsync", "pwrite"]
    assert calls[0] == ("fdatasync", True)
    log.abandon()


def test_the_next_segment_is_prepared_when_half_of_this_one_is_written(tmp_path):
    log = fresh(tmp_path)
    spare = tmp_path / "wal" / "spare.tmp"
    log.append([note(1000)])
    assert not spare.exists()
    log.append([note(2000)])
    with spare.open("rb") as prepared:  # open, so that no other file gets its number
        log.append([note(2000)])
        assert segments(tmp_path)[-1].stat().st_ino == os.fstat(prepared.fileno()).st_ino
    log.abandon()


def test_a_segment_begins_also_where_none_was_prepared(tmp_path):
    log = fresh(tmp_path)
    log.append([note(1000)])
    assert not (tmp_path / "wal" / "spare.tmp").exists()
    log.append([note(3500)])
    assert len(segments(tmp_path)) == 2
    log.close()


def test_a_record_larger_than_a_segment_gets_one_of_its_size(tmp_path, monkeypatch):
    zeros = Counter()
    real = os.write

    def noted(target, data):
        zeros[os.fstat(target).st_ino] += len(data)
        return real(target, data)

    log = fresh(tmp_path)
    monkeypatch.setattr(os, "write", noted)
    log.append([note(3 * SMALL)])
    end, size = end_of(tmp_path)
    assert 3 * SMALL < end <= size
    assert size == zeros[segments(tmp_path)[-1].stat().st_ino], "no record made the file longer"
    log.abandon()


def test_a_large_record_does_without_what_was_prepared(tmp_path):
    log = fresh(tmp_path)
    log.append([note(3000)])
    log.append([note(3 * SMALL), note(100)])
    end, size = end_of(tmp_path)
    assert end <= size
    log.close()
    again = Wal(tmp_path / "wal", *WHO, SMALL)
    assert [len(record.replicas) for record in again.replay(CODEC)] == [3000, 3 * SMALL, 100]
    again.abandon()


def watched_opening(tmp_path, monkeypatch):
    """The log again, and which calls opening it made."""
    calls = []
    for name in ("fdatasync", "fsync", "pwrite"):
        real = getattr(os, name)

        def noted(*args, name=name, real=real):
            calls.append((name, os.path.isdir(f"/proc/self/fd/{args[0]}")))
            return real(*args)

        monkeypatch.setattr(os, name, noted)
    log = Wal(tmp_path / "wal", *WHO, SMALL)
    assert len(list(log.replay(CODEC))) == 1
    return log, calls


def test_what_the_last_life_wrote_is_on_disk_before_this_one_goes_on(tmp_path, monkeypatch):
    log = fresh(tmp_path)
    log.append([note(100)])
    log.abandon()
    log, calls = watched_opening(tmp_path, monkeypatch)
    assert calls == [
        ("fsync", True),  # the name of the log's directory
        ("pwrite", False),  # the segment in a new file
        ("pwrite", False),  # its zeros
        ("fsync", False),
        ("fsync", True),  # its name
    ]
    log.abandon()


def test_a_torn_tail_is_kept_on_disk_before_it_is_cut(tmp_path, monkeypatch):
    log = fresh(tmp_path)
    log.append([note(100)])
    end, _ = end_of(tmp_path)
    log.append([note(100)])
    log.abandon()
    with segments(tmp_path)[-1].open("r+b") as file:
        file.seek(end + 60)
        file.write(b"torn")
    log, calls = watched_opening(tmp_path, monkeypatch)
    assert calls == [
        ("fsync", True),  # the name of the log's directory
        ("pwrite", False),  # the copy
        ("fsync", False),
        ("fsync", True),  # its name
        ("pwrite", False),  # the segment without it, in a new file
        ("pwrite", False),  # its zeros
        ("fsync", False),
        ("fsync", True),  # its name
    ]
    log.abandon()


def test_a_new_segment_is_on_disk_with_all_its_zeros_before_its_header(tmp_path, monkeypatch):
    calls = []
    for name in ("write", "fdatasync", "pwrite"):
        real = getattr(os, name)

        def noted(*args, name=name, real=real):
            calls.append(name)
            return real(*args)

        monkeypatch.setattr(os, name, noted)
    fresh(tmp_path).abandon()
    assert calls == ["write", "fdatasync", "pwrite", "fdatasync"]


def filling(octets):
    """A record that takes just so many bytes of a segment, its own head included."""
    for size in range(octets):
        body = len(encode(note(size)))
        if RECORD_BYTES + body + (-body & 7) == octets:
            return note(size)
    raise AssertionError(f"no record takes {octets} bytes")


def test_a_record_that_just_fits_stays_in_its_segment(tmp_path):
    log = fresh(tmp_path)
    log.append([filling(SMALL - end_of(tmp_path)[0])])
    assert end_of(tmp_path) == (SMALL, SMALL)
    assert len(segments(tmp_path)) == 1
    log.abandon()


def test_at_just_half_of_a_segment_the_next_one_is_not_prepared(tmp_path):
    log = fresh(tmp_path)
    log.append([filling(SMALL // 2 - end_of(tmp_path)[0])])
    assert not (tmp_path / "wal" / "spare.tmp").exists()
    log.abandon()
