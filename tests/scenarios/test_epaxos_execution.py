"""Schedules about execution, forgetting, contended keys and Nop (protocol reference 2.8, 2.9, 2.11
and rules R6, R12, R13, R15).

Each story runs on the real code and must hold, and on a variant broken as the story's bug was,
where it must not.
"""

import networkx as nx
import pytest

from epaxos.core.command import Batch, Operation, Payload
from epaxos.core.replica import Decided, Path
from epaxos.core.types import InstanceId
from epaxos.execution.graph_executor import GraphExecutor
from epaxos.node.admission import HotQueue, Wanted
from epaxos.node.node import Node
from epaxos.protocols.epaxos.conflicts import ConflictIndex
from epaxos.protocols.epaxos.instance import Phase
from epaxos.protocols.epaxos.replica import EPaxosReplica
from epaxos.sim.check.checkers import AGREEMENT, ONCE, Violation
from epaxos.sim.check.linearizability import Op, Verdict, check
from tests.scenarios.cluster import Broken, cluster
from tests.scenarios.test_epaxos_recovery import ask


def decided(replica, slot, deps, *keys):
    batch = Batch(replica, slot, b"\1" * len(keys), [k.encode() for k in keys], [b"v"] * len(keys))
    return Decided(replica, slot, deps, Payload.of(batch), Path.LEARNED)


def nop(replica, slot, n):
    return Decided(replica, slot, (0,) * n, None, Path.LEARNED)


def order(executor, *arrivals):
    """The ids an executor executes, in its order, Nops left out."""
    found = []
    for each in arrivals:
        executor.commit(each)
        for component in executor.ready():
            found += [(d.replica, d.slot) for d in component if d.payload is not None]
    return found


class SingleEdges:
    """Reads deps[q] as exactly one instance and reaches the rest through it."""

    def __init__(self, n):
        self.waiting = []
        self.done = set()

    def commit(self, each):
        self.waiting.append(each)

    def ready(self):
        found = []
        moved = True
        while moved:
            moved = False
            for each in list(self.waiting):
                named = {(q, slot) for q, slot in enumerate(each.deps) if slot}
                if named <= self.done:
                    self.waiting.remove(each)
                    self.done.add((each.replica, each.slot))
                    found.append([each])
                    moved = True
        return found


def closed_prefix(executor):
    """E decides E.1 with B and C, unheard by the others. E.2 reaches E only. A's batch sees E.2 at
    E and nothing at D, so its deps name E's column up to 2. A recovers E.2 as Nop. B hears of E.1
    first, C of A's batch first."""
    x, y, z = decided(4, 1, (0,) * 5, "k"), nop(4, 2, 5), decided(0, 1, (0, 0, 0, 0, 2), "k")
    at_b = order(executor(5), x, y, z)
    at_c = order(executor(5), y, z, x)
    if at_b != at_c:
        raise Broken(f"order: {at_b} {at_c}")


def test_2_8_deps_are_closed_prefixes():
    closed_prefix(GraphExecutor)


def test_2_8_deps_read_as_single_edges_are_caught():
    with pytest.raises(Broken, match="order"):
        closed_prefix(SingleEdges)


def ack_at_commit():
    """n = 3. B's x reaches C. C's γ meets x and is decided with A on the fast path; its client
    could be told now. Then A's δ meets γ and x, and x meets δ: all three form one component, in
    which δ comes before γ. Returns the cluster and whether γ was answered before δ was sent."""
    world = cluster(3)
    world.put("B", "k", value=b"x")
    world.deliver("B>C", "PreAccept")
    world.put("C", "k", value=b"gamma")
    world.deliver("C>A", "PreAccept")
    world.deliver("A>C", "PreAcceptOk")
    assert world.value("C", "C.1") == (["k"], (0, 1, 0))
    answered = bool(world.answers("C"))
    world.put("A", "k", value=b"delta")
    world.deliver("A>C", "PreAccept")
    world.deliver("C>A", "PreAcceptOk")
    world.deliver("B>A", "PreAccept")
    world.deliver("A>B", "PreAcceptOk", "B.1")
    world.deliver_all()
    world.check()
    return world, answered


def test_2_9_an_answer_leaves_at_execution():
    world, answered = ack_at_commit()
    assert not answered
    assert world.executed("A") == world.executed("B") == world.executed("C")
    assert world.executed("A").index((0, 1)) < world.executed("A").index((2, 1))
    assert world.answers("C")


def test_2_9_an_answer_at_commit_is_not_linearizable():
    """What clients would have seen: γ's answer before δ's call, then a read that finds γ."""
    seen = [
        Op("put", b"gamma", None, 0, 1, True),
        Op("put", b"delta", None, 2, 3, True),
        Op("get", None, None, 4, 5, b"gamma"),
    ]
    assert check(seen) is Verdict.ILLEGAL
    at_execution = [seen[0]._replace(returned=3), *seen[1:]]
    assert check(at_execution) is Verdict.OK


class HeadOfLine(GraphExecutor):
    """Stops at the first instance that cannot execute yet."""

    def ready(self):
        held = [d for d in self._arrived if any(a > b for a, b in zip(d.deps, self.executed))]
        if held:
            return []
        return super().ready()


def blocked_on(executor):
    """A.1 depends on B.1, which nobody has. C.1 has nothing to do with either."""
    found = executor(3)
    ran = order(found, decided(0, 1, (0, 1, 0), "x"), decided(2, 1, (0, 0, 0), "y"))
    if ran != [(2, 1)]:
        raise Broken(f"only {ran} ran")
    return found


def test_2_11_the_executor_says_what_it_waits_for_and_goes_on():
    executor = blocked_on(GraphExecutor)
    assert executor.blocked() == {InstanceId(0, 1): InstanceId(1, 1)}
    assert order(executor, decided(1, 1, (0, 0, 0), "x")) == [(1, 1), (0, 1)]


def test_2_11_an_executor_that_stops_at_the_first_is_caught():
    with pytest.raises(Broken, match="only"):
        blocked_on(HeadOfLine)


def test_2_11_recovery_starts_for_what_execution_waits_for():
    """All of B.1's messages are lost but for its PreAccept at C; A learns of it as a dependency of
    C's batch, asks, and in the end takes it over."""
    world = cluster(3)
    world.put("B", "x")
    world.deliver("B>C", "PreAccept")
    world.crash("B")
    world.drop_all()
    world.put("C", "x")
    world.deliver_all("AC")
    assert world.value("A", "C.1") is not None
    assert not world.executed("A")
    for _ in range(60):
        for member in "AC":
            world.wait(member, 20_000)
        world.deliver_all("AC")
        if world.executed("A"):
            break
    assert (2, 1) in world.executed("A")
    assert world.value("A", "B.1") is not None
    world.check()


class NeverPrunes:
    """Follows every id of the closed prefix, also those that do not interfere."""

    def __init__(self, n):
        self.known = {}
        self.done = set()

    def commit(self, each):
        self.known[each.replica, each.slot] = each

    def ready(self):
        graph = nx.DiGraph()
        for key, each in self.known.items():
            prefix = {(q, s) for q, top in enumerate(each.deps) for s in range(1, top + 1)}
            graph.add_node(key)
            graph.add_edges_from((key, other) for other in prefix - self.done - {key})
        found = []
        for component in nx.strongly_connected_components(graph):
            reached = set().union(*(nx.descendants(graph, key) for key in component), component)
            if reached <= self.known.keys():
                ordered = sorted(component, key=lambda key: (key[1], key[0]))
                found.append([self.known.pop(key) for key in ordered])
                self.done |= component
        return found


def pruned_order(executor):
    """a (on x) follows c, c (on x and y) follows b, and b's closed prefix names a, with which it
    has no key in common. Two replicas hear of them in different orders."""
    a = decided(0, 1, (0, 0, 1), "x")
    b = decided(1, 1, (1, 0, 0), "y")
    c = decided(2, 1, (0, 1, 0), "x", "y")
    return order(executor(3), a, b, c)


def test_r6_edges_lead_to_interfering_instances_only():
    assert pruned_order(GraphExecutor) == [(1, 1), (2, 1), (0, 1)]


def test_r6_two_replicas_that_differ_in_pruning_are_caught():
    assert pruned_order(NeverPrunes) == [(0, 1), (1, 1), (2, 1)]
    assert pruned_order(NeverPrunes) != pruned_order(GraphExecutor)


HEARTBEAT_US = 60_000


# R15 -------------------------------------------------------------------------------------------


def tell_progress(world, *ways):
    """A heartbeat of one replica reaches another, "A>B"."""
    for way in ways:
        world.wait(way[0], HEARTBEAT_US)
        world.deliver(way, "Progress")


def settle_durably(world):
    """Everybody's executed vector becomes durable and is known to itself."""
    for member in "ABC":
        world.wait(member, 150_000)
        world.wait(member, 1)
    world.drop_all()


def leader_leaves_out(replica):
    """n = 3. B's d is executed by all; A and B know that everybody has, C does not. A proposes X on
    the same key and decides with B; its Commit is lost, A dies; B recovers X with C."""
    world = cluster(3, replica)
    world.put("B", "x")
    world.deliver_all()
    settle_durably(world)
    tell_progress(world, "A>B", "C>B", "B>A", "C>A")
    assert world.replica("A").columns.stable == (0, 1, 0)
    assert world.replica("C").columns.stable == (0, 0, 0)
    world.put("A", "x")
    world.deliver("A>B", "PreAccept")
    world.deliver("B>A", "PreAcceptOk")
    assert world.value("A", "A.1") is not None
    world.crash("A")
    world.drop_all()
    ask(world, "B", "A.1", "C")
    world.deliver_all("BC")
    return world


class ForgetsAtStable(EPaxosReplica):
    """What is stable leaves the conflict index and is left out of deps."""

    def _on_progress(self, source, m, now):
        super()._on_progress(source, m, now)
        self.index = ConflictIndex(self.n)
        for column, instances in enumerate(self.columns.instances):
            for slot, known in instances.items():
                if slot > self.columns.stable[column] and known.payload is not None:
                    self.index.add(column, slot, known.payload.footprint)

    def propose(self, payload, now):
        stable, self.columns.stable = self.columns.stable, (0,) * self.n
        instance = super().propose(payload, now)
        self.columns.stable = stable
        return instance


def test_r15_deps_start_at_stable():
    world = leader_leaves_out(EPaxosReplica)
    world.check()
    assert world.value("B", "A.1") == (["x"], (0, 1, 0))


def test_r15_a_leader_that_leaves_out_what_is_stable_is_caught():
    with pytest.raises(Violation, match=AGREEMENT):
        leader_leaves_out(ForgetsAtStable).check()


def acceptor_leaves_out(replica):
    """n = 3. A's X is proposed with empty deps and is slow on its way to B. C's d on the same key
    is decided, executed by all and forgotten at B. Now X reaches B; A dies; B recovers X with C."""
    world = cluster(3, replica)
    world.put("A", "x")
    world.drop("A>C")
    world.put("C", "x")
    world.deliver("C>B", "PreAccept")
    world.deliver("B>C", "PreAcceptOk")
    assert world.value("C", "C.1") == (["x"], (0, 0, 0))
    world.deliver("C>B", "CommitShort")
    world.deliver("C>A", "CommitShort")
    world.deliver("A>C", "CommitReq")
    world.deliver("C>A", "Commit")
    slow = [item for item in world.flight if world.matches(item, "A>B", "PreAccept", "A.1")]
    settle_durably(world)
    tell_progress(world, "B>C", "A>C", "A>B", "C>B", "B>A", "C>A", "A>B")
    assert world.replica("B").floor == (0, 0, 1)
    assert world.replica("C").floor == (0, 0, 0)
    world.flight = slow
    world.deliver("A>B", "PreAccept")
    world.deliver("B>A", "PreAcceptOk")
    world.crash("A")
    world.drop_all()
    ask(world, "B", "A.1", "C")
    world.deliver_all("BC")
    return world


class AnswersWithoutFloor(EPaxosReplica):
    """What was forgotten is missing in the answer."""

    def _acceptor_deps(self, replica, payload, initial):
        self.index = ConflictIndex(self.n)
        for column, instances in enumerate(self.columns.instances):
            for slot, known in instances.items():
                if known.phase != Phase.INITIAL and known.payload is not None:
                    self.index.add(column, slot, known.payload.footprint)
        return self.index.deps(payload.footprint, initial)


def test_r15_what_was_forgotten_is_always_in_the_answer():
    acceptor_leaves_out(EPaxosReplica).check()


def test_r15_an_acceptor_that_leaves_out_what_it_forgot_is_caught():
    with pytest.raises(Violation, match=AGREEMENT):
        acceptor_leaves_out(AnswersWithoutFloor).check()


# R12 -------------------------------------------------------------------------------------------


def run_queue(queue, commands, rounds):
    """Each round everything that may leave leaves, and what left a round before has executed.

    `commands` maps a round to what arrives in it. Returns the round in which each left."""
    left = {}
    flying = []
    for number in range(rounds):
        for slot in flying:
            queue.release(slot)
        flying = []
        for wanted in commands.get(number, ()):
            queue.add(wanted)
        leaving = queue.leave()
        if leaving:
            keys = [key for item in leaving for key in item[1]]
            queue.hold(number + 1, keys)
            flying = [number + 1]
        for item in leaving:
            left[item[0]] = number
    return left


def write(name, *keys):
    return Wanted(keys, (), (name, keys))


def read(name, key):
    return Wanted((), (key,), (name, ()))


class KeyByKey(HotQueue):
    """A command takes its keys one by one, and keeps what it has while it waits for the rest."""

    def __init__(self):
        super().__init__()
        self.owners = {}

    def leave(self):
        found = []
        for wanted in list(self._queue):
            for key in wanted.keys:
                if self.owners.setdefault(key, wanted) is wanted:
                    break_here = len([k for k in wanted.keys if self.owners.get(k) is wanted])
                    if break_here < len(wanted.keys):
                        break
            if all(self.owners.get(key) is wanted for key in wanted.keys):
                found.append(wanted)
        for wanted in found:
            self._queue.remove(wanted)
            for key in wanted.keys:
                del self.owners[key]
        return [wanted.item for wanted in found]


def crossing():
    """Two commands name the same two keys in opposite order."""
    return {0: [write("one", b"a", b"b"), write("two", b"b", b"a")]}


def test_r12_all_keys_are_taken_at_once_so_the_oldest_can_always_leave():
    assert run_queue(HotQueue(), crossing(), 4) == {"one": 0, "two": 0}


def test_r12_keys_taken_one_by_one_deadlock():
    assert run_queue(KeyByKey(), crossing(), 50) == {}


class ReadsOvertake(HotQueue):
    """Reads leave past queued writes, and take the key's slot like these."""

    def leave(self):
        reads = [wanted for wanted in self._queue if not wanted.writes]
        if not reads:
            return super().leave()
        for wanted in reads:
            self._queue.remove(wanted)
            self._forget(wanted.keys)
        return [(wanted.item[0], wanted.reads) for wanted in reads]


def reads_without_end():
    """A write is queued behind a key in use; a read of the key arrives in every round."""
    arrivals = {number: [read(f"read {number}", b"k")] for number in range(50)}
    arrivals[1] = [write("write", b"k"), *arrivals[1]]
    return arrivals


def test_r12_a_read_behind_a_queued_write_queues():
    left = run_queue(HotQueue(), reads_without_end(), 50)
    assert left["write"] <= 2


def test_r12_reads_that_overtake_starve_the_write():
    assert "write" not in run_queue(ReadsOvertake(), reads_without_end(), 50)


# R13 -------------------------------------------------------------------------------------------


class ResubmitsTooEarly(Node):
    """Submits a batch again as soon as Nop is accepted for its instance, decided or not."""

    def receive(self, source, message, now):
        super().receive(source, message, now)
        for key, flight in list(self._by_instance.items()):
            known = self.replica.columns.get(*key)
            if known is not None and known.phase == Phase.ACCEPTED and known.payload is None:
                del self._by_instance[key]
                self._resubmit(flight, Path.SLOW, now)


def accepted_nop(node):
    """n = 5. A's batch is pre-accepted at B and D. E recovers it with C and A: the command leader
    is in the quorum, so Nop; only A accepts it, and E dies. D recovers it with B and C, in a higher
    ballot: two votes equal the initial deps and nothing objects, so the batch is decided after
    all."""
    world = cluster(5, node=node)
    world.request("A", [(Operation.PUT, b"x", b"once")])
    world.deliver("A>B", "PreAccept")
    world.deliver("A>D", "PreAccept")
    world.drop_all()
    ask(world, "E", "A.1", "C", "A")
    world.deliver("E>A", "Accept", "A.1")
    world.drop("E>", "Accept")
    world.drop("A>E", "AcceptOk")
    world.crash("E")
    world.recover("D", "A.1")
    world.drop("D>", "Recover")
    world.recover("D", "A.1")
    world.deliver("D>B", "Recover", "A.1")
    world.deliver("B>D", "RecoverOk", "A.1")
    world.deliver("D>C", "Recover", "A.1")
    if any(world.matches(item, "C>D", "Nack", "A.1") for item in world.flight):
        world.deliver("C>D", "Nack", "A.1")
        world.drop("D>", "Recover")
        world.recover("D", "A.1")
        world.deliver("D>B", "Recover", "A.1")
        world.deliver("B>D", "RecoverOk", "A.1")
        world.deliver("D>C", "Recover", "A.1")
    world.deliver("C>D", "RecoverOk", "A.1")
    world.deliver_all("ABCD")
    return world


def test_r13_a_batch_is_submitted_again_only_when_nop_is_decided():
    world = accepted_nop(Node)
    world.check()
    assert world.value("A", "A.1") == (["x"], (0,) * 5)
    assert len(world.answers("A")) == 1


def test_r13_submitting_again_at_an_accepted_nop_applies_twice():
    with pytest.raises(Violation, match=ONCE):
        accepted_nop(ResubmitsTooEarly)


def test_r13_what_ended_as_nop_is_submitted_again_and_answered_once():
    """E recovers A's batch as Nop with A in its quorum, and decides; A submits it again."""
    world = cluster(5)
    world.request("A", [(Operation.PUT, b"x", b"once")])
    world.drop_all()
    ask(world, "E", "A.1", "C", "A")
    world.deliver_all()
    assert world.value("A", "A.1") == (None, (0,) * 5)
    assert world.value("A", "A.2") is not None
    assert [(reply.waiter, type(reply).__name__) for reply in world.answers("A")] == [
        (world.answers("A")[0].waiter, "Reply")
    ]
    world.check()
