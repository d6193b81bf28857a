"""Which batches are sampled, what is stamped, and the stages that stamps make."""

import pytest

from epaxos.core.stamps import Stamps
from epaxos.core.types import InstanceId
from epaxos.node.sampling import SAMPLES_KEPT, Samples, document, instance_of, stages, under_way
from epaxos.sim.schedule.stage import Stage, head_of

EVERY = 1_000_000


def staged(n, protocol="epaxos", per_second=EVERY, gate=False):
    head = head_of(n, protocol, leader=0, gate=gate, memory=False)
    stage = Stage(head._replace(limits=(("sampled_per_s", per_second),)))
    for member in range(n):
        stage.start("ABCDE"[member])
    stage.deliver_all()
    return stage


def samples(stage, name):
    """Its samples, oldest first."""
    return stage.actors["ABCDE".index(name)].samples.latest(SAMPLES_KEPT)[::-1]


def lengths(stamps):
    return {stage.name: stage.length for stage in stages(stamps)}


def closers(stamps):
    return {stage.name: stage.closed_by for stage in stages(stamps) if stage.closed_by is not None}


def at(stage, micros):
    stage.now = micros
    return stage


def test_fast_path_names_the_answer_that_completed_the_quorum():
    stage = staged(5)
    at(stage, 1_000).put("A", "x")
    at(stage, 1_500).deliver("A>B", "PreAccept")
    stage.deliver("A>C", "PreAccept")
    at(stage, 41_000).deliver("B>A", "PreAcceptOk")
    at(stage, 71_000).deliver("C>A", "PreAcceptOk")
    (stamps,) = samples(stage, "A")
    assert lengths(stamps) == {
        "queue": 0,
        "batch": 0,
        "sync": 0,
        "preaccept": 70_000,
        "commit": 0,
        "execute": 0,
        "reply": 0,
    }
    assert closers(stamps) == {"preaccept": 2}
    said = document(stamps, 72_000)
    assert (said["instance"], said["path"], said["answer_ms"]) == ("A.1", "fast", 70.0)
    assert said["first"] == [{"operation": "put", "key": "x"}]
    assert said["answers"] == [
        {"replica": "B", "at_ms": 40.0, "also": []},
        {"replica": "C", "at_ms": 70.0, "also": []},
    ]


def test_slow_path_names_who_had_seen_what():
    stage = staged(3)
    at(stage, 1_000).put("A", "x")
    stage.put("B", "x")
    at(stage, 31_000).deliver("A>B", "PreAccept")
    at(stage, 61_000).deliver("B>A", "PreAcceptOk")
    assert under_way(samples(stage, "A")[0]) in ("preaccept", "accept")
    at(stage, 500_000).wake("A")
    stage.drop("A>B", "PreAccept")
    at(stage, 600_000).deliver("A>B", "AcceptShort")
    at(stage, 700_000).deliver("B>A", "AcceptOk")
    (stamps,) = samples(stage, "A")
    said = document(stamps, stage.now)
    assert said["path"] == "slow"
    assert said["answers"] == [{"replica": "B", "at_ms": 60.0, "also": ["B.1"]}]
    assert said["accepts"] == [{"replica": "B", "at_ms": 699.0, "also": []}]
    found = lengths(stamps)
    assert found["preaccept"] + found["accept"] == 699_000
    assert found["accept"] > 0
    assert closers(stamps)["accept"] == 1


def test_execution_says_for_which_instance_it_waited():
    """A.1 is committed after B.1, which is not committed at A yet."""
    stage = staged(3)
    at(stage, 1_000).put("B", "x")
    stage.deliver("B>C", "PreAccept")
    stage.deliver("C>B", "PreAcceptOk")
    assert samples(stage, "B")[0].path == 0, "B.1 is decided on the fast path, and A has not heard"
    stage.deliver("B>A", "PreAccept")
    stage.put("A", "x")
    at(stage, 2_000).deliver("A>C", "PreAccept")
    at(stage, 3_000).deliver("C>A", "PreAcceptOk")
    (stamps,) = samples(stage, "A")
    assert stamps.decided_at == 3_000
    assert under_way(stamps) == "execute"
    said = document(stamps, 5_000)
    assert said["held_by"] == [{"instance": "B.1", "from_ms": 2.0, "ms": 2.0}]
    assert said["answer_ms"] is None
    at(stage, 9_000).deliver("B>A", "CommitShort")
    assert lengths(stamps)["execute"] == 6_000
    said = document(stamps, 50_000)
    assert said["held_by"] == [{"instance": "B.1", "from_ms": 2.0, "ms": 6.0}]
    assert said["answer_ms"] == 8.0


def test_contended_key_shows_as_queue():
    stage = staged(3, gate=True)
    at(stage, 1_000).put("A", "x")
    at(stage, 1_500).put("A", "x")
    assert len(samples(stage, "A")) == 1
    at(stage, 4_000).deliver_all()
    second = samples(stage, "A")[1]
    assert lengths(second)["queue"] == 2_500
    assert document(second, stage.now)["answer_ms"] == 2.5


def test_a_leader_and_those_who_forward():
    stage = staged(3, "multipaxos")
    at(stage, 1_000).put("A", "x")
    at(stage, 2_000).deliver_all()
    at(stage, 3_000).put("B", "y")
    at(stage, 7_000).deliver_all()
    (own,) = samples(stage, "A")
    assert lengths(own)["accept"] == 1_000
    assert closers(own) == {"accept": 1}
    (forwarded,) = samples(stage, "B")
    assert lengths(forwarded)["leader"] == 4_000
    said = document(forwarded, stage.now)
    assert (said["forwarded"], said["leader"], said["instance"]) == (True, "A", "A.2")


def test_a_slot_waits_for_the_first_gap():
    stage = staged(3, "multipaxos")
    at(stage, 1_000).put("A", "x")
    at(stage, 1_500).put("A", "y")
    at(stage, 3_000).deliver("A>B", "Accept 2")
    at(stage, 4_000).deliver("B>A", "AcceptOk")
    first, second = samples(stage, "A")
    assert first.decided_at is None
    assert (second.decided_at, second.executed_at) == (4_000, None)
    said = document(second, 4_500)
    assert said["held_by"] == [{"instance": "A.1", "from_ms": 2.5, "ms": 0.5}]
    at(stage, 9_000).deliver_all()
    assert lengths(second)["execute"] == 5_000
    assert lengths(first)["execute"] == 0
    assert closers(first) == {"accept": 1}


@pytest.mark.parametrize("protocol", ["epaxos", "multipaxos"])
@pytest.mark.parametrize("n", [1, 3, 5])
def test_stages_add_up_to_the_answer(protocol, n):
    stage = staged(n, protocol)
    for _ in range(4):
        for name in "ABCDE"[:n]:
            at(stage, stage.now + 170).put(name, "x", "y")
        while stage.flight:
            at(stage, stage.now + 1_300)
            stage.deliver()
        at(stage, stage.now + 20_000).deliver_all()
        for name in "ABCDE"[:n]:
            stage.wake(name)
        stage.deliver_all()
    answered = [
        stamps
        for name in "ABCDE"[:n]
        for stamps in samples(stage, name)
        if stamps.replied_at is not None
    ]
    assert len(answered) >= 3 * n
    for stamps in answered:
        found = stages(stamps)
        assert sum(each.length for each in found) == stamps.replied_at - stamps.arrived_at
        assert all(each.length >= 0 for each in found)
        begin = 0
        for each in found:
            assert each.start == begin
            begin += each.length


def test_an_instance_lost_to_a_nop_says_so():
    stage = staged(3)
    at(stage, 1_000).put("A", "x")
    stage.drop("A>B")
    stage.drop("A>C")
    stage.recover("B", "A.1")
    stage.deliver("B>C", "Recover")
    stage.deliver("C>B", "RecoverOk")
    stage.deliver_all()
    lost = samples(stage, "A")[0]
    assert lost.nop
    assert under_way(lost) is None
    assert document(lost, stage.now)["nop"] is True


def test_sampling_keeps_to_its_rate_and_changes_nothing():
    quiet, watched = staged(3, per_second=0), staged(3, per_second=10)
    for stage in (quiet, watched):
        for i in range(40):
            at(stage, 1_000 + 10_000 * i).put("A", "x")
            stage.deliver_all()
    assert not samples(quiet, "A")
    assert len(samples(watched, "A")) == 4
    # All that was sent, logged, decided, executed and answered.
    assert quiet.chart() == watched.chart()
    assert [reply.results for reply in quiet.answers("A")] == [
        reply.results for reply in watched.answers("A")
    ]


def stamps_of(slot, *requests):
    stamps = Stamps(0, 0, 1, 1, [(0, b"k")])
    stamps.instance = InstanceId(0, slot)
    stamps.requests += requests
    return stamps


def test_only_the_latest_are_kept():
    kept = Samples(lambda: 0)
    for slot in range(1, SAMPLES_KEPT + 3):
        kept.released([stamps_of(slot, "same", f"r{slot}")])
    assert len(kept) == SAMPLES_KEPT
    assert kept.find(InstanceId(0, 2)) is None
    assert kept.find(InstanceId(0, 3)).instance == InstanceId(0, 3)
    assert kept.named("r5").instance == InstanceId(0, 5)
    assert kept.named("same").instance.slot == SAMPLES_KEPT + 2
    assert kept.named("r1") is None
    assert [stamps.instance.slot for stamps in kept.latest(2)] == [
        SAMPLES_KEPT + 2,
        SAMPLES_KEPT + 1,
    ]


@pytest.mark.parametrize("text", ["B.7", "0.B.7.3", '"0.B.7.3"', " B.7 "])
def test_what_names_an_instance(text):
    assert instance_of(text) == InstanceId(1, 7)


@pytest.mark.parametrize("text", ["", "my-request", "1.B.7.3", "b.7", "B.", "a.b.c.d", "7"])
def test_what_names_none(text):
    assert instance_of(text) is None
