"""The log: nothing counts before it is synced, and the next segment is ready in time."""

import os
import threading

from epaxos.codec import Codec, encode
from epaxos.core.replica import Executed
from epaxos.registry import find_protocol
from epaxos.runtime.segments import RECORD_BYTES
from epaxos.runtime.wal import Wal

CODEC = Codec(find_protocol("epaxos"))
SMALL = 4096
CALLS = ("pwrite", "fdatasync", "fsync", "rename")


def opened(tmp_path):
    log = Wal(tmp_path / "wal", "c1", 2, SMALL)
    assert list(log.replay(CODEC)) == []
    return log


def note(size):
    """A record of about so many bytes."""
    return Executed(bytes(size), [])


def segments(tmp_path):
    return sorted((tmp_path / "wal").glob("*.wal"))


def watch(log, monkeypatch):
    """What this thread does from now on with the log's file of that moment (`old`) and with others:
    beside it the next spare file is made, which may be sooner or later."""
    calls, mine = [], threading.get_ident()
    old = log._fd
    for name in CALLS:
        real = getattr(os, name)

        def noted(*args, name=name, real=real, **more):
            if threading.get_ident() != mine:
                return real(*args, **more)
            if name in ("pwrite", "rename") or args[0] == old or args[0] == log._fd:
                calls.append((name, args[0] == old))
            elif name == "fsync" or calls[-1:] == [("pwrite", False)]:
                calls.append((name, False))
            return real(*args, **more)

        monkeypatch.setattr(os, name, noted)
    return calls


def test_a_boot_is_on_disk_before_it_counts(tmp_path, monkeypatch):
    log = opened(tmp_path)
    calls = watch(log, monkeypatch)
    log.record_boot(3)
    assert calls == [("pwrite", True), ("fdatasync", True)]
    assert log.boot == 3
    log.abandon()


def test_the_end_of_a_log_is_on_disk_and_so_is_all_before_it(tmp_path, monkeypatch):
    log = opened(tmp_path)
    calls = watch(log, monkeypatch)
    log.close()
    assert calls == [("fdatasync", True), ("pwrite", True), ("fdatasync", True)]


def test_a_segment_begins_when_the_last_one_is_on_disk_and_is_there_with_its_name(
    tmp_path, monkeypatch
):
    log = opened(tmp_path)
    log.append([note(3000)])
    log._spare._thread.join()
    calls = watch(log, monkeypatch)
    log.append([note(2000)])
    names = [name for name, _ in calls]
    assert names == ["fdatasync", "pwrite", "fdatasync", "rename", "fsync", "pwrite"]
    assert calls[0] == ("fdatasync", True)
    log.abandon()


def test_the_next_segment_is_prepared_when_half_of_this_one_is_written(tmp_path):
    log = opened(tmp_path)
    spare = tmp_path / "wal" / "spare.tmp"
    log.append([note(1000)])
    assert not spare.exists()
    log.append([note(2000)])
    number = spare.stat().st_ino
    log.append([note(2000)])
    assert segments(tmp_path)[-1].stat().st_ino == number
    log.abandon()


def test_a_record_larger_than_a_segment_gets_one_of_its_size(tmp_path):
    log = opened(tmp_path)
    log.append([note(3 * SMALL)])
    assert log._offset <= log._size == segments(tmp_path)[-1].stat().st_size
    log.abandon()


def test_a_large_record_does_without_what_was_prepared(tmp_path):
    log = opened(tmp_path)
    log.append([note(3000)])
    log.append([note(3 * SMALL), note(100)])
    assert log._offset <= log._size
    log.close()
    again = Wal(tmp_path / "wal", "c1", 2, SMALL)
    assert [len(record.replicas) for record in again.replay(CODEC)] == [3000, 3 * SMALL, 100]
    again.abandon()


def reopened(tmp_path, monkeypatch):
    """The log again, and which calls opening it made."""
    calls = []
    for name in ("fdatasync", "fsync", "pwrite"):
        real = getattr(os, name)

        def noted(*args, name=name, real=real):
            calls.append((name, os.path.isdir(f"/proc/self/fd/{args[0]}")))
            return real(*args)

        monkeypatch.setattr(os, name, noted)
    log = Wal(tmp_path / "wal", "c1", 2, SMALL)
    assert len(list(log.replay(CODEC))) == 1
    return log, calls


def test_what_the_last_life_wrote_is_on_disk_before_this_one_goes_on(tmp_path, monkeypatch):
    log = opened(tmp_path)
    log.append([note(100)])
    log.abandon()
    log, calls = reopened(tmp_path, monkeypatch)
    assert calls[-1] == ("fdatasync", False)
    log.abandon()


def test_a_torn_tail_is_kept_on_disk_before_it_is_cut(tmp_path, monkeypatch):
    log = opened(tmp_path)
    log.append([note(100)])
    end = log._offset
    log.append([note(100)])
    log.abandon()
    with segments(tmp_path)[-1].open("r+b") as file:
        file.seek(end + 60)
        file.write(b"torn")
    log, calls = reopened(tmp_path, monkeypatch)
    assert calls == [
        ("fsync", True),  # the name of the log's directory
        ("pwrite", False),  # the copy
        ("fsync", False),
        ("fsync", True),  # its name
        ("pwrite", False),  # the cut
        ("fdatasync", False),
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
    opened(tmp_path).abandon()
    assert calls == ["write", "fdatasync", "pwrite", "fdatasync"]


def filling(octets):
    """A record that takes just so many bytes of a segment, its own head included."""
    for size in range(octets):
        body = len(encode(note(size)))
        if RECORD_BYTES + body + (-body & 7) == octets:
            return note(size)
    raise AssertionError(f"no record takes {octets} bytes")


def test_a_record_that_just_fits_stays_in_its_segment(tmp_path):
    log = opened(tmp_path)
    log.append([filling(SMALL - log._offset)])
    assert log._offset == log._size
    assert len(segments(tmp_path)) == 1
    log.abandon()


def test_at_just_half_of_a_segment_the_next_one_is_not_prepared(tmp_path):
    log = opened(tmp_path)
    log.append([filling(SMALL // 2 - log._offset)])
    assert not (tmp_path / "wal" / "spare.tmp").exists()
    log.abandon()
