"""A node around a replica whose decisions the test controls: batches, answers, refusals,
restore."""

import gc
import random
import sys
import weakref
from dataclasses import replace

import pytest

from epaxos.core.command import Batch, Operation, Payload, encode_cas
from epaxos.core.errors import Ambiguous, Definite, StorageError
from epaxos.core.replica import Executed, Leaderless, Outbox, Path, Setup
from epaxos.core.types import InstanceId
from epaxos.node.node import Node
from epaxos.node.requests import (
    AskGraph,
    AskInstance,
    AskKeys,
    AskStatus,
    AskTransfer,
    Limits,
    QuestionReply,
    Refusal,
    Reply,
    Request,
    Run,
)
from epaxos.protocols.epaxos.messages import Committed
from epaxos.registry import find_protocol

SECOND = 1_000_000


class Puppet(Leaderless):
    """Proposes into its own column; decides when it is told to."""

    def __init__(self, setup):
        self.me, self.n = setup.me, setup.n
        self.out = Outbox()
        self.floor = (0,) * setup.n
        self.live_bytes = 0
        self.proposed = []
        self.advertised = []
        self.latest = {}
        self.forwards = False
        self.refuses = False
        self.woken = 0

    def propose(self, payload, now):
        if self.refuses:
            raise Definite("no leader")
        self.proposed.append(payload)
        for key in payload.batch.keys:
            self.latest[key] = len(self.proposed)
        return None if self.forwards else InstanceId(self.me, len(self.proposed))

    def decide(self, slot, nop=False, deps=None, path=Path.FAST):
        payload = None if nop else self.proposed[slot - 1]
        self.out.commit(self.me, slot, deps or (0,) * self.n, payload, path)

    def dependencies(self, footprint):
        latest = [self.latest.get(key, 0) for key in (*footprint.writes, *footprint.reads)]
        return (max(latest, default=0), *(0,) * (self.n - 1))

    def executed(self, durable, now):
        self.advertised.append(durable)

    def receive(self, source, message, now):
        message(self)

    def wake(self, now):
        self.woken += 1

    def deadline(self):
        return None if self.woken else 0

    def restore(self, record):
        self.out.commit(record.replica, record.slot, record.deps, record.payload, Path.LEARNED)

    def unready(self):
        return None

    def slowest_member(self):
        return 2

    def describe(self, instance):
        return None

    def statistics(self):
        return {}


def node(**limits):
    spec = replace(find_protocol("epaxos"), replica=Puppet)
    made = Node(spec, Setup(0, 3, (0, 1, 1), random.Random(1)), 1, Limits(**limits))
    made.wake(0)
    made.take(0)
    return made


def puts(waiter, *keys, deadline=5 * SECOND):
    names = [key.encode() for key in keys]
    return Request(waiter, b"\1" * len(names), names, [b"v"] * len(names), deadline)


def keys_of(payload):
    return [key.decode() for key in payload.batch.keys]


def test_what_arrives_together_leaves_as_one_batch():
    made = node()
    made.request([puts("a", "x", "y"), puts("b", "z")], 10)
    made.take(10)
    assert [keys_of(p) for p in made.replica.proposed] == [["x", "y", "z"]]
    made.replica.decide(1)
    ready = made.take(20)
    replies = {reply.waiter: reply.results for reply in ready.replies}
    assert (replies["a"].index, replies["a"].count) == (0, 2)
    assert (replies["b"].index, replies["b"].count) == (2, 1)
    assert ready.flights[0].path is Path.FAST
    assert ready.log == [Executed(b"\0", [1])]


def test_a_command_over_the_bound_of_a_payload_is_refused_before_anything_is_proposed():
    made = node(payload_bytes=100)
    keys, values = [b"a", b"b", b"c"], [b"", bytes(100 - 34 - 11), b""]
    made.request([Request("large", b"\1" * 3, keys, values, 5 * SECOND), puts("small", "x")], 10)
    ready = made.take(10)
    (refusal,) = ready.replies
    assert (refusal.waiter, refusal.count, refusal.code) == ("large", 3, "invalid")
    assert isinstance(refusal.error, Definite)
    assert "over the limit of 100" in str(refusal.error)
    assert [keys_of(p) for p in made.replica.proposed] == [["x"]]


def test_commands_that_fit_one_by_one_share_batches_within_the_bound_of_a_payload():
    made = node(payload_bytes=100)
    values = [bytes(20)] * 5
    made.request([Request("a", b"\1" * 5, [b"x"] * 5, values, 5 * SECOND)], 10)
    made.take(10)
    assert [keys_of(p) for p in made.replica.proposed] == [["x"] * 2, ["x"] * 2, ["x"]]
    assert all(len(p.encoded) <= 100 for p in made.replica.proposed)


def test_batch_numbers_are_unique_over_restarts():
    numbers = set()
    for boot in (1, 2):
        spec = replace(find_protocol("epaxos"), replica=Puppet)
        made = Node(spec, Setup(0, 3, (0, 1, 1), random.Random(1)), boot, Limits())
        made.wake(0)
        for each in range(3):
            made.request([puts(each, f"k{each}")], 0)
            made.take(0)
        numbers |= {payload.batch.number for payload in made.replica.proposed}
    assert len(numbers) == 6


def test_batches_keep_their_limits():
    made = node(batch_commands=2)
    made.request([puts("a", "p", "q", "r", "s", "t"), puts("b", "u")], 0)
    made.take(0)
    sizes = [len(payload.batch.keys) for payload in made.replica.proposed]
    assert sizes == [2, 2, 1, 1]
    for slot in range(1, 5):
        made.replica.decide(slot)
    replies = made.take(1).replies
    assert sorted((r.waiter, r.offset, r.results.count) for r in replies) == [
        ("a", 0, 2),
        ("a", 2, 2),
        ("a", 4, 1),
        ("b", 0, 1),
    ]


def test_what_is_answered_is_not_kept_until_its_deadline():
    class Client:
        """Something that can be watched."""

    made, client = node(), Client()
    gone = weakref.ref(client)
    made.request([puts(client, "x", deadline=3600 * SECOND)], 10)
    made.take(10)
    made.replica.decide(1)
    ready = made.take(20)
    flight = ready.flights[0]
    assert all(run.waiter is None and run.flight is None for run in flight.runs)
    assert ready.replies[0].waiter is client
    del ready, client
    assert gone() is None
    assert sys.getrefcount(flight) == 2


def test_a_request_cut_into_parts_leaves_no_copy_of_its_columns():
    made = node(batch_commands=2)
    made.request([puts("a", "p", "q", "r")], 0)
    made.take(0)
    made.request([puts("b", "p", "new")], 0)
    made.take(0)
    assert [keys_of(p) for p in made.replica.proposed] == [["p", "q"], ["r"], ["new"]]
    # The parts of the first and of the second request wait; nothing else is kept.
    runs = [run for watched in made._deadlines.values() for run in watched]
    assert [(run.waiter, run.count, run.done, run.keys) for run in runs] == [
        ("a", 2, False, []),
        ("a", 1, False, []),
        ("b", 1, False, [b"p"]),
        ("b", 1, False, []),
    ]


def runs_kept():
    """How many runs there are; a node is not asked, since whoever keeps one keeps it from all."""
    gc.collect()
    return sum(type(each) is Run for each in gc.get_objects())


@pytest.mark.parametrize("patience", [5 * SECOND, 1 << 50])
def test_nothing_is_kept_of_what_was_answered_however_patient_its_client_is(patience):
    made, before, now = node(), runs_kept(), 10
    made.request([puts("slow", "kept", deadline=now + patience)], now)
    made.take(now)
    for slot in range(2, 502):
        now += 20_000
        made.request([puts(slot, f"k{slot}", deadline=now + patience)], now)
        made.take(now)
        made.replica.decide(slot)
        assert len(made.take(now).replies) == 1
    assert runs_kept() - before == 1
    assert len(made._periods) < 200, "times are kept of what waits"
    made.replica.decide(1)
    assert len(made.take(now).replies) == 1
    assert runs_kept() == before
    now += 200_000
    made.wake(now)
    made.take(now)
    made.take(now)
    assert made.deadline() is None


def test_nothing_is_kept_of_what_was_refused():
    class Client:
        """Something that can be watched."""

    made, client = node(), Client()
    gone = weakref.ref(client)
    made.request([puts(client, "x", deadline=SECOND)], 10)
    made.take(10)
    made.wake(2 * SECOND)
    (refusal,) = made.take(2 * SECOND).replies
    assert refusal.waiter is client
    del refusal, client
    assert gone() is None, "a batch in flight keeps nobody who no longer waits"


def test_a_deadline_is_kept_beside_answers_of_the_same_period():
    made = node()
    made.request([puts("a", "x", deadline=SECOND)], 10)
    made.request([puts("b", "y", deadline=SECOND)], 20)
    made.take(20)
    made.request([puts("c", "z", deadline=SECOND)], 30)
    made.take(30)
    made.replica.decide(1)
    assert [reply.waiter for reply in made.take(40).replies] == ["a", "b"]
    made.take(200_000)  # what was executed becomes durable
    made.take(200_000)
    assert SECOND <= made.deadline() <= SECOND + 20_000
    made.wake(2 * SECOND)
    assert [refusal.waiter for refusal in made.take(2 * SECOND).replies] == ["c"]


def test_large_values_make_small_batches():
    made = node(batch_bytes=100)
    request = Request("a", b"\1\1\1", [b"x", b"y", b"z"], [b"v" * 90] * 3, SECOND)
    made.request([request], 0)
    made.take(0)
    assert [len(p.batch.keys) for p in made.replica.proposed] == [1, 1, 1]


def test_contended_keys_queue_and_leave_together():
    made = node()
    made.request([puts("a", "hot")], 0)
    made.take(0)
    made.request([puts("b", "hot", "cold")], 1)
    made.request([puts("c", "hot")], 1)
    made.take(1)
    assert [keys_of(p) for p in made.replica.proposed] == [["hot"], ["cold"]]
    made.replica.decide(1)
    made.take(2)
    assert keys_of(made.replica.proposed[2]) == ["hot", "hot"]
    made.replica.decide(2)
    made.replica.decide(3)
    replies = made.take(3).replies
    assert sorted((r.waiter, r.offset) for r in replies) == [("b", 0), ("b", 1), ("c", 0)]


def test_without_the_gate_nothing_queues():
    made = node(gate=False)
    for number in range(3):
        made.request([puts(number, "hot")], number)
        made.take(number)
    assert len(made.replica.proposed) == 3


def test_the_queue_is_bounded():
    made = node(queued_commands=2)
    made.request([puts("a", "hot")], 0)
    made.take(0)
    made.request([puts(n, "hot") for n in "bcd"], 1)
    refusals = [r for r in made.take(1).replies if isinstance(r, Refusal)]
    assert [(r.waiter, r.code, type(r.error)) for r in refusals] == [("d", "overloaded", Definite)]


def test_the_queue_is_bounded_by_bytes_and_has_room_again():
    def large(waiter):
        return Request(waiter, b"\1", [b"hot"], [b"v" * 400], SECOND)

    made = node(queued_bytes=1000)
    made.request([puts("first", "hot")], 0)
    made.take(0)
    made.request([large(n) for n in "abc"], 1)
    refusals = [r for r in made.take(1).replies if isinstance(r, Refusal)]
    assert [(r.waiter, r.code, type(r.error)) for r in refusals] == [("c", "overloaded", Definite)]
    made.replica.decide(1)
    made.take(2)
    made.request([large("d"), large("e")], 3)
    assert made.take(3).replies == []
    made.wake(2 * SECOND)
    assert len(made.take(2 * SECOND).replies) == 4
    made.request([Request(n, b"\1", [b"hot"], [b"v" * 400], 9 * SECOND) for n in "fg"], 2 * SECOND)
    assert made.take(2 * SECOND).replies == []


@pytest.mark.parametrize("ends", ["executed", "expired", "given back"])
def test_what_waits_for_a_leader_elsewhere_is_bounded(ends):
    def large(waiter, at):
        return Request(waiter, b"\1", [waiter.encode()], [b"v" * 800], at + SECOND)

    made = node(live_bytes=1000)
    made.replica.forwards = True
    for number, waiter in enumerate("ab"):
        made.request([large(waiter, 0)], number)
        made.take(number)
    made.request([large("c", 0)], 2)
    [refusal] = made.take(2).replies
    assert (refusal.waiter, refusal.code, type(refusal.error)) == ("c", "overloaded", Definite)
    assert "wait for a leader elsewhere" in str(refusal.error)
    now = 2 * SECOND
    if ends == "executed":
        made.replica.out.commit(1, 1, (0, 0, 0), made.replica.proposed[0], Path.LEADER)
        made.replica.out.commit(1, 2, (0, 0, 0), made.replica.proposed[1], Path.LEADER)
    elif ends == "expired":
        made.wake(now)
    else:
        for payload in made.replica.proposed[:2]:
            made.replica.out.give_back(payload.batch.number)
    made.take(now)
    made.request([large("d", now)], now)
    assert made.take(now).replies == []
    assert keys_of(made.replica.proposed[-1]) == ["d"]


def test_a_queued_command_fails_definitely_and_a_proposed_one_ambiguously():
    made = node()
    made.request([puts("proposed", "hot", deadline=SECOND)], 0)
    made.take(0)
    made.request([puts("queued", "hot", deadline=SECOND)], 1)
    made.take(1)
    at = made.deadline()
    assert SECOND <= at <= SECOND + 20_000
    made.wake(at)
    replies = {r.waiter: r for r in made.take(at).replies}
    assert isinstance(replies["queued"].error, Definite)
    assert replies["queued"].code == "not-proposed"
    assert isinstance(replies["proposed"].error, Ambiguous)
    assert replies["proposed"].code == "outcome-unknown"
    made.replica.decide(1)
    assert made.take(at + 1).replies == []
    assert made.store.get(b"hot") is not None


def test_what_ends_as_nop_is_submitted_again_while_somebody_waits():
    made = node()
    made.request([puts("a", "x"), puts("late", "y", deadline=SECOND)], 0)
    made.take(0)
    made.wake(2 * SECOND)
    made.take(2 * SECOND)
    made.replica.decide(1, nop=True)
    made.take(2 * SECOND + 1)
    assert [keys_of(p) for p in made.replica.proposed] == [["x", "y"], ["x"]]
    made.replica.decide(2)
    assert [r.waiter for r in made.take(2 * SECOND + 2).replies] == ["a"]
    assert made.statistics()["resubmitted"] == 1


def test_a_slot_lost_to_another_batch_is_submitted_again():
    made = node()
    made.request([puts("a", "x")], 0)
    made.take(0)
    other = made.replica.proposed[0]
    foreign = replace_origin(other)
    made.replica.out.commit(0, 1, (0, 0, 0), foreign, Path.LEARNED)
    made.take(1)
    assert [keys_of(p) for p in made.replica.proposed] == [["x"], ["x"]]


def replace_origin(payload):
    batch = payload.batch
    return Payload.of(Batch(2, 99, batch.operations, batch.keys, batch.arguments))


def test_a_forwarded_batch_is_answered_where_it_was_made():
    made = node()
    made.replica.forwards = True
    made.request([puts("a", "x")], 0)
    made.take(0)
    made.replica.out.commit(1, 1, (0, 0, 0), made.replica.proposed[0], Path.LEADER)
    [reply] = made.take(1).replies
    assert (reply.waiter, reply.results.replica, reply.results.slot) == ("a", 1, 1)


def test_a_forwarded_batch_that_comes_back_is_proposed_anew_in_the_same_take():
    made = node()
    made.replica.forwards = True
    made.request([puts("a", "x", deadline=9 * SECOND), puts("b", "y", deadline=SECOND)], 0)
    made.take(0)
    number = made.replica.proposed[0].batch.number
    made.replica.latest.clear()  # as in slot protocols: nothing is ever contended
    made.replica.out.give_back(number)
    assert made.take(SECOND).replies == []
    assert [keys_of(p) for p in made.replica.proposed] == [["x", "y"], ["x"]]
    made.replica.out.give_back(number)
    made.take(SECOND)
    made.replica.out.commit(1, 1, (0, 0, 0), made.replica.proposed[1], Path.LEADER)
    assert [reply.waiter for reply in made.take(SECOND).replies] == ["a"]
    assert made.statistics()["resubmitted"] == 1


def test_a_batch_that_a_lying_peer_has_decided_elsewhere_ends_once():
    """Our batch is decided as B.1, executed and answered; then its own id is decided without it."""
    made = node()
    made.request([puts("a", "x")], 0)
    made.take(0)
    made.replica.out.commit(1, 1, (0, 0, 0), made.replica.proposed[0], Path.LEARNED)
    assert [reply.waiter for reply in made.take(1).replies] == ["a"]
    made.replica.decide(1, nop=True)
    assert made.take(2).replies == []
    assert made.statistics()["resubmitted"] == 0
    assert made.statistics()["in_flight"] == 0


def test_a_command_that_is_proposed_anew_waits_as_long_as_its_client_would():
    """A new leader shortens the wait for what was forwarded to the one before."""
    made = node()
    made.replica.forwards = True
    made.replica.leadership = 1
    made.request([puts("a", "x", deadline=9 * SECOND)], 0)
    made.take(0)
    made.replica.leadership = 2
    made.take(SECOND)
    made.replica.latest.clear()
    made.replica.out.give_back(made.replica.proposed[0].batch.number)
    made.take(SECOND)
    made.wake(4 * SECOND)
    assert made.take(4 * SECOND).replies == []
    made.wake(10 * SECOND)
    [refusal] = made.take(10 * SECOND).replies
    assert isinstance(refusal.error, Ambiguous)


def test_a_batch_whose_id_is_known_cannot_come_back():
    made = node()
    made.request([puts("a", "x")], 0)
    made.take(0)
    made.replica.out.give_back(made.replica.proposed[0].batch.number)
    made.take(1)
    assert len(made.replica.proposed) == 1


def test_a_forwarded_batch_that_expires_is_forgotten():
    made = node()
    made.replica.forwards = True
    made.request([puts("a", "x", deadline=SECOND)], 0)
    made.take(0)
    made.wake(2 * SECOND)
    [refusal] = made.take(2 * SECOND).replies
    assert isinstance(refusal.error, Ambiguous)
    assert made.statistics()["in_flight"] == 0


def test_a_replica_that_cannot_propose_refuses_definitely():
    made = node()
    made.replica.refuses = True
    made.request([puts("a", "x")], 0)
    [refusal] = made.take(0).replies
    assert (refusal.code, type(refusal.error)) == ("not-proposed", Definite)


def test_memory_at_its_bound_refuses_and_names_who_holds_it():
    made = node(live_bytes=10)
    made.replica.live_bytes = 11
    made.request([puts("a", "x", "y")], 0)
    [refusal] = made.take(0).replies
    assert (refusal.count, refusal.code, type(refusal.error)) == (2, "overloaded", Definite)
    assert "C holds them back" in str(refusal.error)
    assert made.unready() is not None


@pytest.mark.parametrize(
    "request_",
    [
        Request("a", b"\1", [b"x", b"y"], [b"v"], SECOND),
        Request("a", b"", [], [], SECOND),
        Request("a", b"\7", [b"x"], [b"v"], SECOND),
        Request("a", bytes([Operation.CAS]), [b"x"], [b"nonsense"], SECOND),
    ],
)
def test_malformed_requests_are_refused(request_):
    made = node()
    made.request([request_], 0)
    [refusal] = made.take(0).replies
    assert (refusal.code, type(refusal.error)) == ("invalid", Definite)
    assert not made.replica.proposed


def test_a_good_compare_and_set_passes():
    made = node()
    argument = encode_cas(False, b"v")
    made.request([Request("a", bytes([Operation.CAS]), [b"x"], [argument], SECOND)], 0)
    made.take(0)
    made.replica.decide(1)
    [reply] = made.take(1).replies
    assert isinstance(reply, Reply)
    assert made.store.get(b"x") == (b"v", (0, 1, 0))


def test_only_what_is_durable_is_advertised():
    """R3: the executed vector is told when the log that says it was synced, at latest after 100 ms
    by a record of its own."""
    made = node()
    made.request([puts("a", "x")], 0)
    made.take(0)
    made.replica.decide(1)
    ready = made.take(10)
    assert not ready.must_sync
    made.replica.advertised.clear()
    made.take(20)
    assert made.replica.advertised == []
    at = made.deadline()
    assert at <= 10 + 100_000
    made.wake(at)
    ready = made.take(at)
    assert ready.must_sync
    assert ready.log == [Executed(b"", [])]
    made.take(at + 1)
    assert made.replica.advertised == [(1, 0, 0)]


def test_restore_applies_in_the_order_of_the_log():
    first = node()
    for number, value in enumerate((b"1", b"2"), 1):
        first.request([Request(number, b"\1", [b"x"], [value], SECOND)], 0)
        first.take(0)
        first.replica.decide(number)
        first.take(0)
    one, two = first.replica.proposed
    spec = replace(find_protocol("epaxos"), replica=Puppet)
    made = Node(spec, Setup(0, 3, (0, 1, 1), random.Random(1)), 2, Limits())
    made.restore(Committed(0, 1, one, (0, 0, 0)))
    made.restore(Committed(1, 1, two, (0, 0, 0)))
    made.restore(Executed(b"\1\0", [1, 1]))
    made.wake(0)
    made.take(0)
    assert made.store.get(b"x") == (b"1", (0, 1, 0))
    assert made.replica.advertised[-1] == (1, 1, 0)


def test_what_was_committed_and_not_executed_executes_after_the_restart():
    first = node()
    first.request([puts("a", "x")], 0)
    first.take(0)
    spec = replace(find_protocol("epaxos"), replica=Puppet)
    made = Node(spec, Setup(0, 3, (0, 1, 1), random.Random(1)), 2, Limits())
    made.restore(Committed(0, 1, first.replica.proposed[0], (0, 0, 0)))
    made.wake(0)
    assert made.take(0).log == [Executed(b"\0", [1])]
    assert made.store.get(b"x") is not None


def test_a_log_that_names_what_it_does_not_hold_is_refused():
    spec = replace(find_protocol("epaxos"), replica=Puppet)
    made = Node(spec, Setup(0, 3, (0, 1, 1), random.Random(1)), 2, Limits())
    with pytest.raises(StorageError):
        made.restore(Executed(b"\0", [1]))


def test_questions_are_answered_in_the_next_ready():
    spec = find_protocol("epaxos")
    made = Node(spec, Setup(0, 1, (0,), random.Random(1)), 1, Limits())
    made.wake(0)
    made.request([puts("a", "x"), puts("b", "y")], 0)
    made.request([puts("c", "x")], 0)
    made.take(0)
    for question in (
        AskStatus(),
        AskInstance(InstanceId(0, 1)),
        AskGraph(),
        AskKeys(),
        AskTransfer(1),
    ):
        made.ask(type(question).__name__, question, 1)
    told = {each.waiter: each for each in made.take(1).replies if isinstance(each, QuestionReply)}
    assert told["AskStatus"].document["executed"] == [1]
    assert told["AskInstance"].document["phase"] == "committed"
    assert told["AskGraph"].document["instances"][0]["keys"] == ["x", "y"]
    assert told["AskKeys"].document["keys"] == 2
    assert isinstance(told["AskTransfer"].error, Definite)


def test_the_graph_has_an_edge_where_two_meet():
    spec = find_protocol("epaxos")
    limits = Limits(batch_commands=1, gate=False)
    made = Node(spec, Setup(0, 1, (0,), random.Random(1)), 1, limits)
    made.wake(0)
    made.request([puts("a", "x", "x", "y")], 0)
    made.take(0)
    made.ask("graph", AskGraph(), 1)
    [told] = made.take(1).replies
    assert told.document["edges"] == [["A.2", "A.1"]]
    assert [each["id"] for each in told.document["instances"]] == ["A.1", "A.2", "A.3"]


def test_what_its_driver_owes_it_is_checked():
    spec = replace(find_protocol("epaxos"), replica=Puppet)
    made = Node(spec, Setup(0, 3, (0, 1, 1), random.Random(1)), 1, Limits())
    with pytest.raises(AssertionError, match="before the first take"):
        made.take(0)
    made.wake(0)
    with pytest.raises(AssertionError, match="ends restore"):
        made.restore(Executed(b"", []))
