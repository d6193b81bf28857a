"""Every kind of fault happens, alone and in the mix; the observers of execution, log and counters
bite."""

from dataclasses import fields, replace

import pytest

from epaxos.core.command import Batch, Payload
from epaxos.core.quorum import quorums
from epaxos.core.replica import Executed
from epaxos.execution.graph_executor import GraphExecutor
from epaxos.node.node import Node
from epaxos.node.requests import Limits
from epaxos.protocols.epaxos.replica import EPaxosReplica
from epaxos.registry import find_protocol
from epaxos.sim.check import checkers
from epaxos.sim.directed import run_directed
from epaxos.sim.options import LIMITS, ORDERS, TUNABLES, Faults, RunOptions, draw, restrict
from epaxos.sim.run import CleanRun, Failure, simulate, tell
from epaxos.sim.world import World

LEAVES_A_TRACE = {
    "loss": "lost",
    "duplication": "duplicated",
    "replays": "replayed",
    "partitions": "lost",
    "flaps": "lost",
    "crashes": "crashes",
    "dead": "crashes",
    "full": "crashes",
    "full_amid_step": "full_amid_step",
    "sync_errors": "crashes",
    "sync_errors_readable": "failed_syncs",
    "bit_rot": "refused_starts",
    "swapped": "refused_starts",
    "retries": "retried",
    "reorder": "overtaken",
    "spikes": "spikes",
    "pauses": "pauses",
    "stalls": "stalls",
    "sync_stalls": "stalls",
    "clocks": "clock_jumps",
    "vanishing": "vanished",
}


def first_with(kind, **changes):
    """A run in which this kind of fault, and no other, is drawn."""
    for seed in range(1, 200):
        options = restrict(draw(seed, replicas=(5,)), frozenset([kind]))
        if getattr(options.faults, kind) and not options.memory:
            yield replace(options, **changes)


@pytest.mark.parametrize(("kind", "counter"), LEAVES_A_TRACE.items())
def test_a_kind_of_fault_alone_leaves_its_trace_and_no_violation(kind, counter):
    patience = 150_000 if kind == "retries" else 3_000_000
    for number, options in enumerate(first_with(kind, patience_us=patience, hot=0.9)):
        outcome = tell(options)
        assert isinstance(outcome, CleanRun), outcome
        if outcome.counts[counter]:
            return
        assert number < 8, f"{kind} happens and nobody notices"


@pytest.mark.parametrize("order", ORDERS)
def test_every_order_of_deliveries_is_clean(order):
    traces = set()
    for seed in range(1, 7):
        outcome = tell(replace(draw(seed, only=frozenset()), order=order))
        assert isinstance(outcome, CleanRun), outcome
        traces.add(outcome.trace)
    assert len(traces) == 6


def test_delivery_orders_give_different_traces():
    options = replace(draw(3, only=frozenset()), jitter_us=2_000)
    assert len({simulate(replace(options, order=order)).trace for order in ORDERS}) == len(ORDERS)


def test_each_kind_of_fault_is_absent_in_about_half_of_the_seeds():
    drawn = [draw(seed) for seed in range(600)]
    calm = Faults()
    for each in fields(Faults):
        # How long a sync takes, and how often at most somebody starts what was refused.
        if each.name in ("sync_us", "insistent"):
            continue
        present = sum(
            getattr(options.faults, each.name) != getattr(calm, each.name) for options in drawn
        )
        assert 60 < present < 420, (each.name, present)
    assert 200 < sum(options.order == "delay" for options in drawn) < 450
    assert 200 < sum(bool(options.tunables) for options in drawn) < 400
    seen = {pair for options in drawn for pair in (*options.tunables, *options.limits)}
    for name, values in TUNABLES.items():
        if name.startswith("epaxos."):
            assert {(name, value) for value in values} <= seen
    far = {pair for seed in range(600) for pair in draw(seed, "multipaxos").tunables}
    assert {("multipaxos.SLOTS_AHEAD_MAX", 1), ("multipaxos.SLOTS_AHEAD_MAX", 3)} <= far
    assert {(name, value) for name, values in LIMITS.items() for value in values} <= seen


def test_no_more_than_a_minority_is_ever_lost_for_good():
    for seed in range(1, 60):
        options = draw(seed)
        world = World(options)
        from random import Random

        from epaxos.sim.clients import Clients
        from epaxos.sim.faults import FaultPlan

        Clients(world, options.keys, options.patience_us)
        for member in range(options.replicas):
            world.start(member)
        FaultPlan(world, Random(seed)).plan()
        world.run(options.active_us)
        assert len(world.living()) >= quorums(options.replicas).slow


class RunsAhead(GraphExecutor):
    """Executes what is committed without looking at its deps."""

    def ready(self):
        arrived, self._arrived = self._arrived, []
        for decided in arrived:
            self._mark(decided.replica, decided.slot)
        return [[decided] for decided in arrived]


class LastFirst(GraphExecutor):
    """Members of a component run in the order of their ids turned round."""

    def ready(self):
        return [component[::-1] for component in super().ready()]


class ForgetsToNote(Node):
    """What was executed beside the first component is not noted in the log."""

    def take(self, now):
        ready = super().take(now)
        log = [
            Executed(record.replicas[::-1], record.slots[::-1])
            if isinstance(record, Executed)
            else record
            for record in ready.log
        ]
        return ready._replace(log=log)


class CountsTwice(EPaxosReplica):
    """The counter of the fast path counts double."""

    def _commit_fast(self, attempt, now):
        self.counts["fast"] += 1
        super()._commit_fast(attempt, now)


class CountsAlone(GraphExecutor):
    """Says that all it executed was alone."""

    def statistics(self):
        return {**super().statistics(), "components_2": 0, "components_3_4": 0, "components_5": 0}


class CountsBatches(Node):
    """Counts batches where it says commands."""

    def statistics(self):
        told = super().statistics()
        return {**told, "commands": told["batches"]}


class QueuesForEver(Node):
    """The bound of the queue of contended keys is not looked at."""

    def _queue(self, run, reads, key):
        limits, self.limits = self.limits, Limits()
        super()._queue(run, reads, key)
        self.limits = limits


class FillsBatches(Node):
    """The bound of a batch is not looked at."""

    def _batches(self, runs):
        if runs:
            yield runs


class Invents(Node):
    """Proposes what no client has sent."""

    def wake(self, now):
        if self._started and not self._flying:
            batch = Batch(self.me, 77, b"\x01", [b"k0"], [b"invented"])
            self.replica.propose(Payload.of(batch), now)
        super().wake(now)


def sentences(seeds, executor=None, replica=None, node=Node, protocol="epaxos", **changes):
    spec = find_protocol(protocol)
    spec = replace(spec, executor=executor or spec.executor, replica=replica or spec.replica)
    found = set()
    for seed in seeds:
        outcome = tell(replace(draw(seed, protocol), **changes), spec, node)
        if isinstance(outcome, Failure):
            found.add(outcome.property)
    return found


def test_executing_before_deps_are_decided_is_caught():
    assert checkers.PREMATURE in sentences(range(1, 12), executor=RunsAhead)


def test_a_component_in_the_wrong_order_is_caught():
    assert checkers.IN_ORDER in sentences(range(1, 20), executor=LastFirst)


def test_a_log_that_tells_another_order_is_caught():
    found = sentences(range(1, 40), node=ForgetsToNote, memory=False, keys=1)
    assert found & {checkers.RESTORES, checkers.ORDER, checkers.CONVERGES}


def test_a_counter_that_lies_is_caught():
    assert checkers.COUNTED in sentences(range(1, 12), replica=CountsTwice)


def test_a_component_of_a_lying_size_is_caught():
    assert checkers.COUNTED in sentences(range(1, 12), executor=CountsAlone)


def test_a_count_of_commands_that_lies_is_caught():
    assert checkers.COUNTED in sentences(range(1, 12), node=CountsBatches)


@pytest.mark.parametrize(
    ("protocol", "name"),
    [
        *(("epaxos", name) for name in ("fast", "slow", "recovered", "nop")),
        *(("epaxos", name) for name in ("components", "components_2", "commands")),
        *(("multipaxos", name) for name in ("chosen", "commands")),
    ],
)
def test_every_counter_that_can_be_seen_is_compared(protocol, name):
    class Lies(Node):
        """One counter says more than was."""

        def statistics(self):
            told = super().statistics()
            return {**told, name: told[name] + 1_000}

    (sentence,) = sentences([1], node=Lies, protocol=protocol)
    assert sentence == checkers.COUNTED


def test_a_queue_without_a_bound_is_caught():
    bound = (("queued_commands", 1),)
    assert checkers.BOUNDED in sentences(
        range(1, 12), node=QueuesForEver, keys=1, limits=bound, gate=True, lag_us=50_000
    )


def test_a_batch_without_a_bound_is_caught():
    bound = (("batch_commands", 1),)
    found = sentences(range(1, 12), node=FillsBatches, limits=bound, gate=False, lag_us=50_000)
    assert checkers.BOUNDED in found


def test_an_invented_command_is_caught():
    assert checkers.PROPOSED in sentences(range(1, 6), node=Invents)


def test_directed_runs_reach_what_random_search_does_not():
    met = {}
    for seed in range(24):
        outcome = run_directed(seed)
        assert isinstance(outcome, CleanRun), outcome
        for name, value in outcome.situations.items():
            met[name] = met.get(name, 0) + value
    for rule in ("V2", "V3", "V4", "W1", "W2", "W3", "W4"):
        assert met[f"recovery rule {rule}"], rule
    assert met["bound: repeats of a wait"]


def test_a_directed_run_is_the_same_twice():
    assert run_directed(7) == run_directed(7)


def test_a_recovery_without_w1_is_caught_by_directed_runs(monkeypatch):
    from epaxos.protocols.epaxos import recovery

    settle = recovery.settle

    def without_w1(objectors, *rest):
        settled = [each._replace(settled=each.settled or each.refutes) for each in objectors]
        return settle([each._replace(refutes=False) for each in settled], *rest)

    monkeypatch.setattr(recovery, "settle", without_w1)
    found = [run_directed(seed) for seed in range(24)]
    assert any(isinstance(each, Failure) for each in found)


def test_restrict_names_what_it_does_not_know():
    with pytest.raises(Exception, match="unknown kind of fault 'rain'"):
        restrict(RunOptions(), frozenset(["rain"]))
