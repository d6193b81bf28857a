"""What can be written as a fault, and what is said of everything else."""

import pytest

from bench.clusters.faults import Fault, parse_fault, plan_timeline
from epaxos.core.errors import ConfigError
from topology import find

SITES = find("aws-5-2020")


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("crash:Tokyo@3-6", Fault("crash", "Tokyo", 3, 6)),
        ("crash:CA@3", Fault("crash", "CA", 3)),
        ("pause:CA@0.5-5", Fault("pause", "CA", 0.5, 5)),
        ("partition:us-east-1@3-6", Fault("partition", "us-east-1", 3, 6)),
        ("slow:CA@3-6,factor=4.5", Fault("slow", "CA", 3, 6, 4.5)),
        ("leader:JP@5", Fault("leader", "JP", 5)),
    ],
)
def test_a_fault_is_read_and_written_back(text, fault):
    assert parse_fault(text) == fault
    assert str(fault) == text


@pytest.mark.parametrize(
    ("text", "word"),
    [
        ("burn:CA@3", "kind 'burn' is unknown; one of crash, pause, partition, slow, leader"),
        ("crash", "is not KIND:REGION@TIME"),
        ("crash:CA", "is not KIND:REGION@TIME"),
        ("crash:@3", "is not KIND:REGION@TIME"),
        ("crash:CA@soon", "'soon' is not a time in seconds"),
        ("crash:CA@-3", "'' is not a time in seconds"),
        ("crash:CA@3-inf", "'inf' is not a time in seconds"),
        ("crash:CA@3-nan", "'nan' is not a time in seconds"),
        ("crash:CA@6-3", "ends at 3, before it begins at 6"),
        ("crash:CA@3,factor=2", "crash takes nothing after its time"),
        ("slow:CA@3-6", "say how slow with factor=N"),
        ("slow:CA@3-6,factor=1", "say how slow with factor=N"),
        ("slow:CA@3-6,speed=3", "say how slow with factor=N"),
        ("slow:CA@3-6,factor=x", "say how slow with factor=N"),
        ("leader:JP@5-6", "a leader moves at one time, like leader:JP@5"),
    ],
)
def test_a_wrong_fault_is_told_with_what_is_allowed(text, word):
    with pytest.raises(ConfigError, match="fault ") as caught:
        parse_fault(text)
    assert word in str(caught.value)


def test_a_timeline_is_in_order_and_has_names_of_regions():
    planned = plan_timeline(("leader:JP@5", "crash:tokyo@3-6"), SITES, 7, "fsync")
    assert planned == (Fault("crash", "JP", 3, 6), Fault("leader", "JP", 5))


@pytest.mark.parametrize(
    ("texts", "durability", "word"),
    [
        (("crash:Mars@3",), "fsync", "fault 'crash:Mars@3': topology aws-5-2020 has no region"),
        (("crash:JP@8",), "fsync", "is later than duration_s = 7"),
        (("crash:JP@3-8",), "fsync", "is later than duration_s = 7"),
        (("crash:JP@3-6",), "memory", "without a disk nobody starts again"),
        (("slow:JP@1-3,factor=2", "slow:Tokyo@2-4,factor=3"), "fsync", "are at the same time"),
        (("crash:JP@1", "pause:JP@3-4"), "fsync", "are at the same time"),
    ],
)
def test_what_cannot_be_done_is_told_before_anything_starts(texts, durability, word):
    with pytest.raises(ConfigError) as caught:
        plan_timeline(texts, SITES, 7, durability)
    assert word in str(caught.value)


def test_different_faults_may_be_at_the_same_time():
    texts = ("crash:JP@1", "crash:CA@1", "slow:EU@1-3,factor=2", "partition:EU@2-4", "leader:OR@2")
    assert len(plan_timeline(texts, SITES, 7, "memory")) == 5
