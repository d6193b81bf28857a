"""What a load costs, over all lives of the replicas, and what of them counts as the machine's."""

from types import SimpleNamespace

import pytest

from bench.clusters.counters import Late, Lateness, LoadMeter
from bench.clusters.local import free_port_numbers
from bench.load.client import run_load
from bench.load.samples import Demand, LoadResult, Spec, Spread, Target
from epaxos.runtime.alarm import clock
from epaxos.runtime.metrics import Distribution

NONE = Spread()
LOAD = LoadResult(
    samples=[],
    fates=[],
    hop_us=[],
    unreachable=[],
    disconnects=[],
    start_error=NONE,
    loop_lag=NONE,
    cpu_share=0.0,
    wall_s=1.0,
)


def status(replica, boot, count, sync_us=200):
    """What a replica says that has done `count` of everything in this life."""
    return {
        "replica": replica,
        "boot": boot,
        "commands": count,
        "messages": {"sent": {"Commit": {"count": count}}},
        "peers": [{"sent_bytes": count, "dropped": count}],
        "log": {"syncs": count, "sync": {"p50_us": sync_us}},
        "process": {"cpu_s": float(count)},
    }


class Replicas:
    """A cluster that says one thing after the other of how late it was."""

    def __init__(self, before, *lateness):
        self._before = before
        self._lateness = list(lateness) or [[]]

    def status(self):
        return self._before

    def histograms(self):
        return self._lateness.pop(0) if len(self._lateness) > 1 else self._lateness[0]


def lateness(boot, *loop_us, link_us=()):
    """What a replica recorded until now."""
    loop, link = Distribution(), Distribution()
    for us in loop_us:
        loop.record(us)
    for us in link_us:
        link.record(us)
    return {"boot": boot, "loop_lag": loop.encoded(), "link_error": link.encoded()}


def stop(before, after, **more):
    meter = LoadMeter(Replicas(before))
    return meter.stop(LOAD, after, **more)


def test_costs_are_what_counters_grew_by():
    found = stop(
        [status("A", 1, 100), status("B", 1, 50)],
        [status("A", 1, 130), status("B", 1, 57)],
    )
    assert found.costs.commands == found.costs.messages == found.costs.octets == 37
    assert found.costs.syncs == found.costs.cpu_s == found.machine.dropped == 37


def test_a_life_that_began_meanwhile_counts_from_its_start():
    found = stop(
        [status("A", 1, 100), status("B", 1, 50)],
        [status("A", 1, 130), status("B", 2, 7, sync_us=900)],
        ended=[status("B", 1, 55)],
    )
    assert found.costs.commands == 30 + 5 + 7
    assert found.sync_us == (200, 900)


def test_who_does_not_answer_any_more_counts_to_its_last_word():
    before = [status("A", 1, 100), status("B", 1, 50, sync_us=300)]
    killed = stop(before, [status("A", 1, 130), None], ended=[status("B", 1, 55, sync_us=400)])
    assert killed.costs.commands == 35
    assert killed.sync_us == (200, 400)
    silent = stop(before, [status("A", 1, 130), None])
    assert silent.costs.commands == 30
    assert silent.sync_us == (200, 300)


def near(us):
    return pytest.approx(us, rel=0.01)


def test_only_the_measured_stretch_says_how_late_replicas_were():
    start = [lateness(1, 900_000, link_us=[700])]
    warm = [lateness(1, 900_000, 400_000, link_us=[700, 600])]
    end = [lateness(1, 900_000, 400_000, 500, 800, link_us=[700, 600, 50])]
    watched = Lateness(Replicas([], start, warm, end))
    watched.begin()
    assert watched.end() == [Late(near(800), near(50))]
    assert Lateness(Replicas([], start, end)).end() == [Late(near(400_000), near(600))]


def test_another_life_counts_from_its_start_and_who_is_silent_is_left_out():
    before = [lateness(1, 500), None, lateness(1, 500), lateness(1, 500)]
    after = [lateness(2, 300), lateness(1, 200), None, lateness(1, 500)]
    found = Lateness(Replicas([], before, after)).end()
    assert found == [Late(near(300), None), Late(near(200), None), None, Late(0, None)]


def test_who_was_made_late_says_nothing_of_the_machine():
    before = [status("A", 1, 0), status("B", 1, 0)]
    late = [lateness(1, 500, link_us=[100]), lateness(1, 900_000, link_us=[800_000])]
    zero = [lateness(1), lateness(1)]
    after = [status("A", 1, 9), status("B", 1, 9)]
    found = LoadMeter(Replicas(before, zero, late)).stop(LOAD, after).machine
    assert (found.loop_lag_p99_us, found.link_error_p99_us) == (near(900_000), near(800_000))
    found = LoadMeter(Replicas(before, zero, late)).stop(LOAD, after, excused={1}).machine
    assert (found.loop_lag_p99_us, found.link_error_p99_us) == (near(500), near(100))
    found = LoadMeter(Replicas(before, zero, late)).stop(LOAD, after, excused={0, 1}).machine
    assert (found.loop_lag_p99_us, found.link_error_p99_us) == (near(900_000), near(800_000))


def test_the_measured_stretch_begins_when_the_load_is_warm():
    meter = LoadMeter(Replicas([]))
    demand = SimpleNamespace(first_us=1_000_000)
    meter.look(SimpleNamespace(zero_us=lambda: None), demand)
    meter.look(SimpleNamespace(zero_us=lambda: clock() - 900_000), demand)
    assert not meter.lateness.begun
    meter.look(SimpleNamespace(zero_us=lambda: clock() - 1_000_000), demand)
    assert meter.lateness.begun


@pytest.mark.parametrize("loop", [{"rate": 200.0}, {"rate": 0.0, "clients": 3}])
async def test_where_nobody_is_every_command_is_refused(loop):
    [port] = free_port_numbers(1)
    demand = Demand(
        workload="conflict:0",
        warmup_s=0.0,
        duration_s=0.3,
        cooldown_s=0.0,
        patience_us=100_000,
        **loop,
    )
    found = await run_load(Spec.of(demand, [Target("R1", port)]))
    [fates] = found.fates
    assert fates.sent > 3
    assert fates.refused == fates.sent
    assert fates.codes == {"unreachable": fates.sent}
    assert "refused" in found.unreachable[0] or str(port) in found.unreachable[0]
    assert found.samples == []
