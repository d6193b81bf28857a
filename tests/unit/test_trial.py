"""Trials in virtual time, and what is said of a trial that cannot be."""

import dataclasses
from pathlib import Path

import msgspec
import pytest

from bench.load.samples import Sample
from bench.trials.trial import Outcome, Trial, run_trial
from epaxos.core.errors import ConfigError
from epaxos.percentile import median
from tests.over_time import binned
from topology import find, predict_epaxos, predict_leader

NOWHERE = Path("nowhere")
"""Virtual time keeps no files."""
SYNC_MS = 0.2
CLOSE_MS = 1.0


def quick(**settings):
    """A trial of three replicas, everybody 50 ms from everybody."""
    base = {"topology": "equidistant:3,50", "rate": 20.0, "warmup_s": 0.2, "duration_s": 2.0}
    return Trial(**{**base, "simulated": True, **settings})


def run(trial):
    return run_trial(trial, NOWHERE)


def medians_ms(outcome):
    """Median commit latency of each region, of what was measured."""
    samples = outcome.load.samples
    return [
        median(s.commit_us for s in samples if s.region == i and s.measured) / 1000
        for i in range(len(outcome.regions))
    ]


def lines(trial, outcome, width_s=0.5):
    regions = len(outcome.regions)
    found = binned(outcome.load.samples, regions, width_s, trial.warmup_s, trial.duration_s)
    return dict(zip(outcome.regions, found, strict=True))


@pytest.mark.parametrize("loop", [{"rate": 8.0}, {"rate": 0.0, "clients": 1}])
@pytest.mark.parametrize("protocol", ["epaxos", "multipaxos"])
def test_medians_are_those_of_the_closed_form(protocol, loop):
    trial = Trial(protocol=protocol, simulated=True, warmup_s=0.3, duration_s=3.0, **loop)
    outcome = run(trial)
    sites, leader = find("aws-5-2020"), trial.leader_index
    expected = predict_epaxos(sites) if leader is None else predict_leader(sites, leader)
    assert outcome.regions == [region.name for region in sites.regions]
    for found, each in zip(medians_ms(outcome), expected, strict=True):
        assert found == pytest.approx(each.fast_ms + 3 * SYNC_MS, abs=CLOSE_MS)
    assert outcome.load.loop == ("closed" if trial.clients else "open")


def test_a_closed_loop_asks_again_when_it_is_answered():
    one, four = (run(quick(rate=0, clients=clients)) for clients in (1, 4))
    for region in range(3):
        starts, ends = zip(
            *sorted(
                (s.start_us, s.start_us + s.answer_us)
                for s in one.load.samples
                if s.region == region
            ),
            strict=True,
        )
        assert starts[1:] == ends[:-1]
        sent = one.load.fates[region].sent
        assert sent == pytest.approx(2000 / 50.6, abs=2)
        assert four.load.fates[region].sent == pytest.approx(4 * sent, abs=8)
    assert all(fates.answered == fates.sent for fates in one.load.fates)


def test_a_closed_loop_counts_the_way_to_the_replica():
    trial = quick(
        topology="one-far:4,20,200",
        replicas=3,
        rate=0,
        clients=2,
        client_regions=("R1", "R4"),
    )
    outcome = run(trial)
    assert outcome.regions == ["R1", "R4"]
    near, far = medians_ms(outcome)
    assert far == pytest.approx(near + 200, abs=CLOSE_MS)
    starts = sorted(s.start_us for s in outcome.load.samples if s.region == 1)
    gaps = [b - a for a, b in zip(starts[::2], starts[2::2], strict=False)]
    assert min(gaps) > 200_000


def test_the_same_trial_gives_the_same_outcome_and_another_seed_another():
    trial = quick(
        workload="conflict:30",
        jitter=True,
        faults=("crash:R3@0.5-1", "slow:R2@0.2-1.5,factor=3", "partition:R1@1.2-1.4"),
    )
    first, second = run(trial), run(trial)
    assert msgspec.json.encode(first) == msgspec.json.encode(second)
    other = run(dataclasses.replace(trial, seed=2))
    assert other.load.samples != first.load.samples


def test_an_outcome_can_be_written_down():
    outcome = run(quick(duration_s=0.5, faults=("crash:R3@0.2",)))
    text = msgspec.json.encode(outcome)
    assert msgspec.json.decode(text, type=Outcome) == outcome


def test_watchers_hear_how_far_it_is():
    heard = []
    run_trial(quick(duration_s=0.5), NOWHERE, heard.append)
    assert heard == sorted(heard)
    assert (heard[0], heard[-1]) == (0.0, 1.0)


# What goes wrong -------------------------------------------------------------------------------


def test_a_crash_is_a_gap_that_ends_with_the_restart():
    trial = quick(duration_s=4.0, rate=100.0, faults=("crash:R3@1-2.5",))
    outcome = run(trial)
    [event] = outcome.events
    assert (event.kind, event.region, event.at_s, event.until_s) == ("crash", "R3", 1.0, 2.5)
    found = lines(trial, outcome)
    assert found["R3"].at_s == [0.25, 0.75, 1.25, 1.75, 2.25, 2.75, 3.25, 3.75]
    assert found["R3"].answers_per_s[2:5] == [0, 0, 0]
    assert found["R3"].median_ms[2:5] == [None, None, None]
    assert min(found["R3"].answers_per_s[:2] + found["R3"].answers_per_s[6:]) > 50
    # One of three is not missed by the others.
    assert min(found["R1"].answers_per_s) > 50
    assert max(found["R1"].max_ms) < 60
    fates = outcome.load.fates[2]
    assert fates.codes == {"unreachable": fates.refused, "connection-lost": fates.ambiguous}
    assert fates.refused > 100
    assert 1 <= fates.ambiguous < 20
    assert fates.answered + fates.refused + fates.ambiguous == fates.sent
    assert outcome.load.disconnects == [0, 0, 1]


def test_the_clients_of_a_closed_loop_come_back():
    outcome = run(quick(duration_s=3.0, rate=0, clients=3, faults=("crash:R3@1-2",)))
    fates = outcome.load.fates[2]
    assert fates.ambiguous == 3
    # Each tries ten times a second.
    assert fates.refused == pytest.approx(30, abs=3)
    later = [s for s in outcome.load.samples if s.region == 2 and s.start_us > 2_300_000]
    assert len(later) > 30


def test_without_an_end_a_crashed_replica_stays_dead():
    trial = quick(faults=("crash:R3@0.5",), durability="memory")
    outcome = run(trial)
    assert outcome.events[0].until_s is None
    assert lines(trial, outcome)["R3"].answers_per_s[1:] == [0, 0, 0]


def test_a_dead_majority_answers_nobody():
    trial = quick(duration_s=3.0, patience_s=0.5, faults=("crash:R2@1", "crash:R3@1"))
    outcome = run(trial)
    assert lines(trial, outcome)["R1"].answers_per_s[3:] == [0, 0, 0]
    fates = outcome.load.fates[0]
    assert fates.ambiguous + fates.refused > 30
    assert fates.lost == 0


def test_a_paused_replica_answers_when_it_goes_on():
    trial = quick(duration_s=3.0, faults=("pause:Region 3@1-2",))
    outcome = run(trial)
    assert outcome.events[0].region == "R3"
    found = lines(trial, outcome)
    assert found["R3"].answers_per_s[2:4] == [0, 0]
    assert found["R3"].max_ms[2] > 900
    assert max(found["R1"].max_ms) < 60
    assert all(fates.answered == fates.sent for fates in outcome.load.fates)


def test_who_is_cut_off_waits_until_the_cut_ends():
    trial = quick(duration_s=3.0, faults=("partition:R3@1-2",))
    outcome = run(trial)
    found = lines(trial, outcome)
    assert found["R3"].answers_per_s[2:4] == [0, 0]
    assert found["R3"].max_ms[2] > 900
    assert found["R3"].median_ms[5] < 60
    assert max(found["R1"].max_ms) < 60
    assert all(fates.answered == fates.sent for fates in outcome.load.fates)


def test_slow_links_take_so_many_times_as_long_and_no_longer_afterwards():
    trial = quick(duration_s=3.0, faults=("slow:R3@1-2,factor=4",))
    found = lines(trial, run(trial))
    assert found["R3"].median_ms[1] == pytest.approx(50.6, abs=CLOSE_MS)
    assert found["R3"].median_ms[2] == pytest.approx(200.6, abs=CLOSE_MS)
    assert found["R3"].median_ms[5] == pytest.approx(50.6, abs=CLOSE_MS)
    # The others ask each other.
    assert max(found["R1"].max_ms) < 60


def test_a_leader_moves_and_latencies_with_it():
    trial = quick(
        topology="one-far:3,20,200",
        protocol="multipaxos",
        leader="R1",
        duration_s=4.0,
        faults=("leader:R3@2",),
    )
    outcome = run(trial)
    [event] = outcome.events
    assert (event.kind, event.region, event.at_s, event.until_s) == ("leader", "R3", 2.0, None)
    found = lines(trial, outcome)
    assert found["R1"].median_ms[1] == pytest.approx(20.4, abs=CLOSE_MS)
    assert found["R1"].median_ms[7] == pytest.approx(400.4, abs=CLOSE_MS)
    assert found["R3"].median_ms[1] == pytest.approx(220.4, abs=CLOSE_MS)
    assert found["R3"].median_ms[7] == pytest.approx(200.4, abs=CLOSE_MS)


def test_where_nobody_leads_no_leader_moves():
    trial = quick(faults=("leader:R3@1",))
    assert trial.timeline == ()
    assert run(trial).events == []


# Whether to believe it -------------------------------------------------------------------------


def test_enough_samples_and_no_failure_are_valid():
    outcome = run(quick(rate=80.0))
    assert (outcome.validity, outcome.reasons) == ("VALID", [])


def test_few_samples_are_a_reason():
    outcome = run(quick(duration_s=0.8))
    assert outcome.validity == "SUSPECT"
    assert all(reason.startswith("Region ") for reason in outcome.reasons)
    assert "only" in outcome.reasons[0]


def test_failures_that_nobody_planned_are_a_reason():
    outcome = run(quick(topology="equidistant:3,300", rate=80.0, patience_s=0.1))
    assert outcome.validity == "INVALID"
    assert any("refused or ambiguous" in reason for reason in outcome.reasons)


def test_failures_of_the_timeline_are_none():
    outcome = run(quick(rate=80.0, faults=("crash:R3@0.1",)))
    assert outcome.load.fates[2].refused > 100
    assert (outcome.validity, outcome.reasons) == ("VALID", [])


# Settings --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("wrong", "word"),
    [
        ({"protocol": "tcp"}, "epaxos, multipaxos"),
        ({"topology": "nowhere"}, "topology = 'nowhere': there is no topology"),
        ({"replicas": 9}, "topology = 'equidistant:3,50': "),
        ({"topology": "lan:16"}, "has 16 regions; a cluster has at most 9"),
        ({"protocol": "multipaxos", "leader": "Mars"}, "leader = 'Mars': "),
        ({"workload": "conflict:200"}, "workload conflict"),
        ({"workload": "nothing"}, "unknown workload 'nothing'"),
        ({"rate": -1.0}, "rate = -1 must be between 0.1 and 20000"),
        ({"rate": 0.0}, "rate = 0 is a closed loop: write clients = 1 or more"),
        ({"clients": 3}, "rate = 20 and clients = 3: write rate = 0"),
        ({"rate": 0.0, "clients": -1}, "clients = -1 must be from 1"),
        ({"duration_s": 0.1}, "duration_s = 0.1 must be between"),
        ({"warmup_s": -1.0}, "warmup_s = -1 must be between"),
        ({"patience_s": 0.0}, "patience_s = 0 must be between"),
        ({"durability": "hope"}, "durability = 'hope': write fsync or memory"),
        ({"batch_commands": 0}, "batch_commands = 0 must be from 1 to 65536"),
        ({"faults": ("crash:Mars@1",)}, "fault 'crash:Mars@1': "),
        ({"faults": ("crash:R1@5",)}, "is later than duration_s = 2"),
        ({"client_regions": ("Mars",)}, "client_regions: "),
        ({"simulated": False, "jitter": True}, "write simulated = true"),
        ({"simulated": False, "client_regions": ("R1",)}, "write simulated = true"),
        ({"sync_ms": -1.0}, "sync_ms = -1 must be between"),
    ],
)
def test_a_wrong_setting_is_named_before_anything_starts(wrong, word):
    with pytest.raises(ConfigError) as caught:
        quick(**wrong)
    assert word in str(caught.value)


def test_a_trial_is_plain_values():
    trial = quick(faults=["crash:R1@1"], client_regions=["R1"])
    assert hash(trial) == hash(quick(faults=("crash:R1@1",), client_regions=("R1",)))
    fields = dataclasses.asdict(trial)
    again = Trial(**msgspec.json.decode(msgspec.json.encode(fields)))
    assert again == trial
    assert trial.loop == "open loop (Poisson), 20 commands/s per region"
    assert quick(rate=0, clients=1).loop == "closed loop, 1 client per region"
    assert quick(rate=0, clients=4).loop == "closed loop, 4 clients per region"


def test_the_leader_is_placed_for_those_who_ask():
    settings = {"topology": "one-far:4,20,300", "protocol": "multipaxos"}
    assert quick(**settings).leader_index == 0
    assert quick(**settings, leader="worst").leader_index == 3
    assert quick(**settings, leader="R3").leader_index == 2
    assert quick(**settings, client_regions=("R4",)).leader_index == 3
    assert quick(topology="one-far:4,20,300", leader="Mars").leader_index is None


def test_batches_keep_to_their_bound():
    many = run(quick(rate=300.0, sync_ms=20.0))
    single = run(quick(rate=300.0, sync_ms=20.0, batch_commands=1))
    for outcome, batched in ((many, True), (single, False)):
        instances = {(s.replica, s.slot) for s in outcome.load.samples}
        assert (len(instances) < len(outcome.load.samples)) == batched


# Bins ------------------------------------------------------------------------------------------


def sample(region, start_s, answer_ms):
    answer_us = round(answer_ms * 1000)
    return Sample(region, round(start_s * 1e6), answer_us, answer_us, 0, 0, 1, -1, True)


def test_bins_count_answers_when_they_come_and_latencies_when_they_were_asked():
    samples = [
        sample(0, 0.9, 10),  # warm-up
        sample(0, 1.1, 100),
        sample(0, 1.2, 300),
        sample(0, 1.49, 20),
        sample(1, 2.0, 10),
    ]
    first, second = binned(samples, 2, 0.5, 1.0, 1.2)
    assert first.at_s == second.at_s == [0.25, 0.75, 1.1]
    assert first.answers_per_s == pytest.approx([2 / 0.5, 1 / 0.5, 0])
    assert first.median_ms == [100, None, None]
    assert first.max_ms == [300, None, None]
    assert second.answers_per_s == pytest.approx([0, 0, 1 / 0.2])
    assert second.median_ms == [None, None, 10]


def test_no_samples_are_empty_bins():
    [line] = binned([], 1, 1.0, 0.0, 2.0)
    assert line.answers_per_s == [0, 0]
    assert line.median_ms == line.max_ms == [None, None]


@pytest.mark.parametrize(
    ("settings", "saturates"),
    [
        ({"topology": "lan:3", "rate": 0.0, "clients": 8}, True),
        ({"topology": "lan:3"}, False),
        ({"topology": "one-far:3,0.5,20", "rate": 0.0, "clients": 8}, False),
    ],
)
def test_only_a_closed_loop_in_one_room_asks_for_all_that_the_machine_gives(settings, saturates):
    assert Trial(**settings).saturates is saturates
