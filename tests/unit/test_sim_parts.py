"""Disk, clocks and tunables of the simulated world."""

import random

import pytest

from epaxos.protocols.epaxos import agreement, columns
from epaxos.sim.clocks import LocalClock
from epaxos.sim.disk import Corrupt, Disk
from epaxos.sim.tunables import tuned


def written(disk, *groups):
    for group in groups:
        for body in group:
            disk.append(body)
        disk.sync()
    return disk


def test_a_crash_keeps_what_was_synced():
    for seed in range(50):
        for torn in (False, True):
            disk = written(Disk(0), [b"a"], [b"b"])
            disk.append(b"c")
            disk.append(b"d")
            kept = disk.crash(random.Random(seed), torn)
            assert disk.read() == [b"a", b"b", b"c", b"d"][: 2 + kept]


def test_a_torn_tail_may_keep_some_and_lose_some():
    kept = set()
    for seed in range(200):
        disk = Disk(0)
        for body in (b"a", b"b", b"c"):
            disk.append(body)
        kept.add(disk.crash(random.Random(seed), torn=True))
    assert kept == {0, 1, 2, 3}


def test_what_is_written_after_a_torn_tail_is_read():
    for seed in range(50):
        disk = written(Disk(0), [b"a"])
        disk.append(b"lost")
        disk.append(b"torn")
        disk.crash(random.Random(seed), torn=True)
        before = disk.read()
        written(disk, [b"z"])
        assert disk.read() == [*before, b"z"]


def test_what_a_failed_sync_covered_is_read_and_gone_with_the_power():
    disk = written(Disk(0), [b"a"])
    disk.append(b"b")
    assert disk.fail_sync() == 1
    assert disk.certain() == [b"a"]
    copy = disk.copy()
    assert copy.read() == [b"a", b"b"]
    assert disk.lose_power() == 1
    assert disk.read() == [b"a"]


def test_what_a_start_read_is_durable():
    disk = written(Disk(0), [b"a"])
    disk.append(b"b")
    disk.fail_sync()
    assert disk.read() == disk.certain() == [b"a", b"b"]
    written(disk, [b"c"])
    assert disk.lose_power() == 0
    assert disk.read() == [b"a", b"b", b"c"]


def test_a_start_that_trusts_what_it_read_has_a_hole_after_the_power_is_lost(monkeypatch):
    monkeypatch.setattr(Disk, "rewrite", lambda disk: None)
    disk = written(Disk(0), [b"a"])
    disk.append(b"b")
    disk.fail_sync()
    assert disk.read() == [b"a", b"b"]
    written(disk, [b"c"], [b"d"])
    assert disk.certain() == [b"a"]
    disk.lose_power()
    with pytest.raises(Corrupt):
        disk.read()


def test_a_full_disk_keeps_the_first_part_of_a_step():
    kept = set()
    for seed in range(50):
        disk = written(Disk(0), [b"a"])
        for body in (b"note", b"b", b"c", b"d"):
            disk.append(body)
        count = disk.crash_full(random.Random(seed), 3)
        assert disk.read() == [b"a", b"note", b"b", b"c"][: 1 + count]
        kept.add(count)
    assert kept == {1, 2, 3}


def test_bit_rot_in_the_middle_is_refused():
    disk = written(Disk(0), [b"a", b"b"], [b"c"])
    assert disk.rot(random.Random(1))
    with pytest.raises(Corrupt, match="is bad"):
        disk.read()


def test_bit_rot_is_put_only_where_it_must_be_noticed():
    disk = written(Disk(0), [b"a", b"b"])
    assert not disk.rot(random.Random(1)), "no record names a position behind these"


def test_what_goes_with_the_power_vouches_for_nothing_before_it():
    disk = written(Disk(0), [b"a"])
    disk.append(b"b")
    disk.fail_sync()
    assert not disk.rot(random.Random(1)), "what names it can be read, and is on no disk"


def test_a_torn_record_vouches_for_nothing_before_it():
    for seed in range(100):
        disk = written(Disk(0), [b"a", b"b"])
        disk.append(b"c")
        disk.crash(random.Random(seed), torn=True)
        if disk.rot(random.Random(seed)):
            with pytest.raises(Corrupt):
                disk.read()


@pytest.mark.parametrize("rate", [900_000, 1_000_000, 1_099_999])
@pytest.mark.parametrize("offset", [0, 12_345_678])
def test_a_clock_knows_when_it_will_show_a_time(rate, offset):
    clock = LocalClock(offset, rate)
    clock.jump(5_000, 0)
    shown = -1
    for now in range(5_000, 200_000, 7_919):
        local = clock.local(now)
        assert local > shown
        shown = local
        when = clock.world(local)
        assert clock.local(when) >= local
        assert clock.local(when - 1) < local


def test_a_jump_is_forward():
    clock = LocalClock(100, 1_000_000)
    clock.jump(50, 1_000)
    assert clock.local(50) == 1_150
    assert clock.local(60) == 1_160
    assert LocalClock().local(60) == 60


def fail_while_tuned():
    with tuned((("epaxos.SUSPECT_RTTS", 2), ("epaxos.COMMITS_PER_ANSWER", 1))):
        assert (columns.SUSPECT_RTTS, agreement.COMMITS_PER_ANSWER) == (2, 1)
        raise KeyError


def test_constants_are_set_everywhere_and_set_back():
    before = (columns.SUSPECT_RTTS, agreement.COMMITS_PER_ANSWER)
    with pytest.raises(KeyError):
        fail_while_tuned()
    assert before == (columns.SUSPECT_RTTS, agreement.COMMITS_PER_ANSWER)
