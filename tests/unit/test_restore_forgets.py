"""What a restart holds depends on what is live, not on how long the log is."""

import random
import tracemalloc

import pytest

from epaxos.codec import Codec
from epaxos.core.command import Batch, Payload
from epaxos.core.replica import Executed, Setup
from epaxos.node.node import Node
from epaxos.node.requests import Limits
from epaxos.protocols.epaxos import messages as ep
from epaxos.protocols.epaxos import replica as ep_replica
from epaxos.protocols.multipaxos import messages as mp
from epaxos.registry import find_protocol
from epaxos.runtime.wal import Wal
from tests.unit import builders

LENGTH = 500
SEGMENT = 256 * 1024


def written(protocol, slot, value):
    """The records of a batch that one member decided and executed."""
    payload = Payload.of(Batch(0, slot, b"\1", [b"x"], [value]))
    deps = (slot - 1, 0, 0)
    records = (
        (ep.PreAccepted(0, slot, payload, deps, deps), ep.CommittedShort(0, slot, deps))
        if protocol == "epaxos"
        else (mp.Voted(16, slot, payload), mp.Chosen(slot))
    )
    return (*records, Executed(b"\0", [slot]))


def forgotten(protocol, slot):
    vector = (slot, 0, 0)
    return ep.Forgotten(vector, vector) if protocol == "epaxos" else mp.Forgotten(slot)


def restored(protocol, *notes, length=LENGTH):
    """A node that restored `length` batches, all executed, with these notes at the end."""
    setup = Setup(0, 3, (0, 1000, 1000), random.Random(1))
    node = Node(find_protocol(protocol), setup, 2, Limits())
    for slot in range(1, length + 1):
        for record in written(protocol, slot, b"%d" % slot):
            node.restore(record)
    for note in notes:
        node.restore(note)
    return node


def test_epaxos_forgets_what_a_note_says():
    node = restored("epaxos", ep.Forgotten((490, 0, 0), (480, 0, 0)))
    replica = node.replica
    assert replica.floor == (480, 0, 0)
    assert list(replica.columns.instances[0]) == list(range(481, 501))
    assert replica.live_bytes == sum(each.cost for each in replica.columns.instances[0].values())
    assert replica.columns.committed[0] == 500
    assert node.store.get(b"x") == (b"500", (0, 500, 0))


def test_initial_deps_start_at_the_stable_that_was_noted():
    """R15: what the index has forgotten stays in every initial deps."""
    made = builders.unstarted(me=0, n=3)
    made.restore(ep.Forgotten((9, 7, 8), (9, 6, 8)))
    made.wake(0)
    made.out.take()
    assert made.propose(builders.payload(), 1) == (0, 10)
    [(_, message), *_] = builders.sent(made, ep.PreAccept)
    assert message.deps == (9, 7, 8)


def test_multipaxos_forgets_what_a_note_says():
    node = restored("multipaxos", mp.Forgotten(480))
    replica = node.replica
    assert replica.floor == (480,)
    assert list(replica.log.entries) == list(range(481, 501))
    assert replica.live_bytes == replica.log.live_bytes
    assert node.store.get(b"x") == (b"500", (0, 500, 0))


@pytest.mark.parametrize("protocol", ["epaxos", "multipaxos"])
def test_a_log_of_an_older_version_has_no_notes_and_is_read(protocol):
    node = restored(protocol)
    assert set(node.replica.floor) == {0}
    assert len(node.store) == 1


def test_what_is_forgotten_is_noted_now_and_then_and_not_when_nothing_happens():
    made = builders.replica(me=0, n=3)
    notes = []
    for slot in range(1, 201):
        payload = builders.payload(slot, origin=1)
        made.receive(1, ep.Commit(1, slot, payload, (0, slot - 1, 0)), slot)
        vector = (0, slot, 0)
        made.executed(vector, slot)
        for member in (1, 2):
            made.receive(
                member, ep.Progress(vector, vector, vector, (0, 0, 0), slot, (0, 0, 0)), slot
            )
        notes += [each for each in made.out.take().log if isinstance(each, ep.Forgotten)]
    assert [note.floor[1] // ep_replica.NOTED_INSTANCES for note in notes] == [1, 2, 3]
    for now in range(201, 400):
        for member in (1, 2):
            made.receive(
                member, ep.Progress(vector, vector, vector, (0, 0, 0), now, (0, 0, 0)), now
            )
        made.executed(vector, now)
    assert not [each for each in made.out.take().log if isinstance(each, ep.Forgotten)]


@pytest.mark.parametrize("protocol", ["epaxos", "multipaxos"])
def test_a_restart_holds_two_segments_and_what_is_live_however_long_the_log(protocol, tmp_path):
    """The log of one key that is written again and again, in ten segments."""
    spec = find_protocol(protocol)
    log = Wal(tmp_path / "wal", "c1", 0, SEGMENT)
    assert list(log.replay(Codec(spec))) == []
    count = 0
    while log.bytes < 10 * SEGMENT:
        for _ in range(64):
            count += 1
            log.append(written(protocol, count, b"%01000d" % count))
        log.append([forgotten(protocol, count)])
        log.sync()
    log.close()
    assert len(list((tmp_path / "wal").glob("*.wal"))) >= 10

    node = Node(spec, Setup(0, 3, (0, 1000, 1000), random.Random(1)), 2, Limits())
    tracemalloc.start()
    try:
        again = Wal(tmp_path / "wal", "c1", 0, SEGMENT)
        for record in again.replay(Codec(spec)):
            node.restore(record)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    again.close()
    assert node.store.get(b"x") == (b"%01000d" % count, (0, count, 0))
    assert peak < 3 * SEGMENT
