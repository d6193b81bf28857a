"""Schedules about execution, forgetting, contended keys and Nop (protocol reference 2.8, 2.9, 2.11
and rules R6, R12, R13, R15)."""

from epaxos.core.command import Operation
from epaxos.core.types import InstanceId
from epaxos.execution.graph_executor import GraphExecutor
from epaxos.node.admission import HotQueue, Wanted
from epaxos.node.requests import Reply
from epaxos.sim.check.linearizability import Op, Verdict, check
from epaxos.sim.schedule.recipes import ask
from epaxos.sim.schedule.stage import directed
from tests.scenarios.exhibits import happened, played, rules, values
from tests.unit.builders import write

A, B, C, D, E = range(5)


def order(executor, *arrivals):
    """The ids an executor executes, in its order, Nops left out."""
    found = []
    for each in arrivals:
        executor.commit(each)
        for component in executor.ready():
            found += [(d.replica, d.slot) for d in component if d.payload is not None]
    return found


def test_2_8_deps_are_closed_prefixes():
    """A.1 names E's column up to 2, and E.2 is a Nop: it still follows E.1."""
    world = played("single-edges")
    assert values(world, "B", "C") == {
        "A.1": (["x"], (0, 0, 0, 0, 2)),
        "E.1": (["x"], (0,) * 5),
        "E.2": (None, (0,) * 5),
    }
    assert world.executed("B") == world.executed("C") == [(E, 1), (A, 1)]


def ack_at_commit():
    """n = 3. B's x reaches C. C's γ meets x and is decided with A on the fast path; its client
    could be told now. Then A's δ meets γ and x, and x meets δ: all three form one component, in
    which δ comes before γ. Returns the cluster and whether γ was answered before δ was sent."""
    world = directed(3)
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
    assert world.executed("A").index((A, 1)) < world.executed("A").index((C, 1))
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


def test_2_11_execution_goes_on_beside_what_waits():
    world = played("head-of-line")
    assert values(world, "A") == {"A.1": (["x"], (0, 1, 0)), "C.1": (["y"], (0, 0, 0))}
    assert world.executed("A") == [(C, 1)]


def test_2_11_the_executor_says_what_it_waits_for_and_goes_on():
    """A.1 depends on B.1, which nobody has. C.1 has nothing to do with either."""
    executor = GraphExecutor(3)
    assert order(executor, write(A, 1, (0, 1, 0), b"x"), write(C, 1, (0, 0, 0), b"y")) == [(C, 1)]
    assert executor.blocked() == {InstanceId(A, 1): InstanceId(B, 1)}
    assert order(executor, write(B, 1, (0, 0, 0), b"x")) == [(B, 1), (A, 1)]


def test_2_11_recovery_starts_for_what_execution_waits_for():
    """All of B.1's messages are lost but for its PreAccept at C; A learns of it as a dependency of
    C's batch, asks, and in the end takes it over."""
    world = directed(3)
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
    assert (C, 1) in world.executed("A")
    assert world.value("A", "B.1") is not None
    world.check()


def test_r6_edges_lead_to_interfering_instances_only():
    """a (on x) follows c, c (on x and y) follows b, and b's closed prefix names a, with which it
    has no key in common."""
    a = write(A, 1, (0, 0, 1), b"x")
    b = write(B, 1, (1, 0, 0), b"y")
    c = write(C, 1, (0, 1, 0), b"x", b"y")
    assert order(GraphExecutor(3), a, b, c) == [(B, 1), (C, 1), (A, 1)]


def test_r6_everybody_prunes_alike():
    world = played("one-unpruned")
    for member in "ABC":
        assert world.executed(member) == [(B, 1), (C, 1), (A, 2), (A, 1)]


# R15 -------------------------------------------------------------------------------------------


def test_r15_deps_start_at_stable():
    """A leaves B's batch in its deps although everybody has executed it, since C does not know."""
    world = played("leader-leaves-out")
    assert values(world, *"ABC") == {"A.1": (["x"], (0, 1, 0)), "B.1": (["x"], (0, 0, 0))}
    assert rules(world, "B") == {"4": 1, "V1": 1}


def test_r15_what_was_forgotten_is_always_in_the_answer():
    world = played("acceptor-leaves-out")
    assert world.replica("B").floor == (0, 0, 1)
    assert world.replica("C").floor == (0, 0, 0)
    assert happened(world, "PreAcceptOk A.1 deps 001")
    assert world.value("B", "A.1") == world.value("C", "A.1") == (None, (0, 0, 0))


# R12 -------------------------------------------------------------------------------------------


def run_queue(commands, rounds):
    """Each round everything that may leave leaves, and what left a round before has executed.

    `commands` maps a round to what arrives in it. Returns the round in which each left."""
    queue = HotQueue()
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
            queue.hold(number + 1, [key for _, keys in leaving for key in keys])
            flying = [number + 1]
        for name, _ in leaving:
            left[name] = number
    return left


def writing(name, *keys):
    return Wanted(keys, (), (name, keys))


def reading(name, key):
    return Wanted((), (key,), (name, ()))


def test_r12_all_keys_are_taken_at_once_so_the_oldest_can_always_leave():
    """Two commands name the same two keys in opposite order."""
    crossing = {0: [writing("one", b"a", b"b"), writing("two", b"b", b"a")]}
    assert run_queue(crossing, 4) == {"one": 0, "two": 0}


def test_r12_a_read_behind_a_queued_write_queues():
    """A write is queued behind a key in use; a read of the key arrives in every round."""
    arrivals = {number: [reading(f"read {number}", b"k")] for number in range(50)}
    arrivals[1] = [writing("write", b"k"), *arrivals[1]]
    assert run_queue(arrivals, 50)["write"] <= 2


# R13 -------------------------------------------------------------------------------------------


def test_r13_a_batch_is_submitted_again_only_when_nop_is_decided():
    """A accepts Nop for its own instance from E, and D decides the batch in a higher ballot."""
    world = played("submits-again-too-early")
    assert happened(
        world,
        "logs Accepted A.1 b1@E (Nop)",
        "takes over A.1 logs Promised A.1 b2@D",
        "decides A.1 by recovery (put x 1)",
    )
    assert values(world, *"ABCD") == {"A.1": (["x"], (0,) * 5)}
    assert [type(answer) for answer in world.answers("A")] == [Reply]


def test_r13_what_ended_as_nop_is_submitted_again_and_answered_once():
    """E recovers A's batch as Nop with A in its quorum, and decides; A submits it again."""
    world = directed(5)
    world.request("A", [(Operation.PUT, b"x", b"once")])
    world.drop_all()
    ask(world, "E", "A.1", "C", "A")
    world.deliver_all()
    assert world.value("A", "A.1") == (None, (0,) * 5)
    assert world.value("A", "A.2") is not None
    assert [type(answer) for answer in world.answers("A")] == [Reply]
    world.check()
