"""The log: nothing counts before it is synced."""

import os

from epaxos.codec import Codec
from epaxos.registry import find_protocol
from epaxos.runtime.wal import Wal

CODEC = Codec(find_protocol("epaxos"))


def logged(tmp_path, monkeypatch):
    """A log, and the order of its writes and syncs from now on."""
    log = Wal(tmp_path / "wal", "c1", 2, 4096)
    assert list(log.replay(CODEC)) == []
    calls = []
    for name in ("pwrite", "fdatasync"):
        real = getattr(os, name)

        def noted(*args, name=name, real=real):
            if args[0] == log._fd:
                calls.append(name)
            return real(*args)

        monkeypatch.setattr(os, name, noted)
    return log, calls


def test_a_boot_is_on_disk_before_it_counts(tmp_path, monkeypatch):
    log, calls = logged(tmp_path, monkeypatch)
    log.record_boot(3)
    assert calls == ["pwrite", "fdatasync"]
    assert log.boot == 3
    log.abandon()


def test_the_end_of_a_log_is_on_disk_and_so_is_all_before_it(tmp_path, monkeypatch):
    log, calls = logged(tmp_path, monkeypatch)
    log.close()
    assert calls == ["fdatasync", "pwrite", "fdatasync"]
