"""What a load costs, over all lives of the replicas, and what of them counts as the machine's."""

from types import SimpleNamespace

import pytest

from bench.cluster import free_port_numbers
from bench.load import Demand, LoadResult, Spec, Spread, Target, run_load
from bench.measure import Meter

NONE = Spread(0, 0, 0, 0)
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


def status(replica, boot, count, lag_us=100, error_us=100, sync_us=200):
    """What a replica says that has done `count` of everything in this life."""
    return {
        "replica": replica,
        "boot": boot,
        "commands": count,
        "messages": {"sent": {"Commit": {"count": count}}},
        "peers": [{"sent_bytes": count, "dropped": count}],
        "log": {"syncs": count, "sync": {"p50_us": sync_us}},
        "process": {"cpu_s": float(count), "loop_lag": {"p99_us": lag_us}},
        "link_error": {"p99_us": error_us},
    }


def stop(before, after, **more):
    meter = Meter(SimpleNamespace(status=lambda: before))
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


def test_who_was_made_late_says_nothing_of_the_machine():
    before = [status("A", 1, 0), status("B", 1, 0)]
    after = [status("A", 1, 9, lag_us=500), status("B", 1, 9, lag_us=900_000, error_us=800_000)]
    assert stop(before, after).machine.loop_lag_p99_us == 900_000
    machine = stop(before, after, excused={1}).machine
    assert (machine.loop_lag_p99_us, machine.link_error_p99_us) == (500, 100)


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
