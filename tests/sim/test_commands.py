"""What clients ask for and are told: conditions on versions, and commands that are sent or run
again."""

from dataclasses import replace

import pytest

from epaxos.core.command import Among, Cas, Operation, Payload, decode_cas
from epaxos.execution import store
from epaxos.execution.store import Store
from epaxos.node.node import Node, node_with
from epaxos.registry import find_protocol
from epaxos.sim.check import checkers
from epaxos.sim.check.calls import Call, check_fates, histories
from epaxos.sim.check.checkers import ExecutionChecker, Violation
from epaxos.sim.clients import Clients
from epaxos.sim.options import draw
from epaxos.sim.run import CleanRun, Failure, tell


def with_conditions(seed, protocol="epaxos", **changes):
    drawn = draw(seed, protocol, only=frozenset())
    return replace(drawn, conditions=True, keys=1, reads=0.2, **changes)


def sentences(seeds, node=Node, protocol="epaxos", **changes):
    outcomes = [
        tell(with_conditions(seed, protocol, **changes), find_protocol(protocol), node)
        for seed in seeds
    ]
    return {outcome.property for outcome in outcomes if isinstance(outcome, Failure)}


def watched(monkeypatch):
    """The clients of every run from here on."""
    made = []
    init = Clients.__init__

    def noted(self, *arguments):
        init(self, *arguments)
        made.append(self)

    monkeypatch.setattr(Clients, "__init__", noted)
    return made


@pytest.mark.parametrize("protocol", ["epaxos", "multipaxos"])
def test_every_kind_of_condition_is_used_and_met_and_missed(monkeypatch, protocol):
    made = watched(monkeypatch)
    for seed in range(1, 13):
        outcome = tell(with_conditions(seed, protocol))
        assert isinstance(outcome, CleanRun), outcome
    seen = set()
    for call in (call for clients in made for call in clients.calls):
        if call.operation == Operation.CAS and call.returned is not None:
            cas = decode_cas(call.argument)
            excluded = isinstance(cas.expect, Among) and cas.expect.excluded
            seen.add((type(cas.expect), excluded, cas.value is None, call.result is True))
    for took_effect in (True, False):
        assert (tuple, False, False, took_effect) in seen
        for removes in (True, False):
            assert (Among, False, removes, took_effect) in seen
            assert (Among, True, removes, took_effect) in seen


def slot_alone(true):
    def is_as_expected(cas, entry):
        if isinstance(cas.expect, tuple):
            return entry is not None and entry[2] == cas.expect[1]
        return true(cas, entry)

    return is_as_expected


def ignores_exclusion(true):
    def is_as_expected(cas, entry):
        if isinstance(cas.expect, Among):
            cas = Cas(Among(cas.expect.versions), cas.value)
        return true(cas, entry)

    return is_as_expected


@pytest.mark.parametrize("broken", [slot_alone, ignores_exclusion])
def test_a_condition_judged_wrongly_everywhere_is_caught(monkeypatch, broken):
    """All replicas agree, so what clients saw alone can tell."""
    monkeypatch.setattr(store, "_is_as_expected", broken(store._is_as_expected))
    assert sentences(range(1, 25)) == {checkers.LINEARIZABLE}


class NamesAnother(Store):
    """Answers of some commands carry the version of another write."""

    wrong = Operation.GET

    def answer(self, decided):
        results = super().answer(decided)
        codes = decided.payload.batch.operations
        versions = [
            (replica, slot, index + (code == self.wrong and slot > 0))
            for code, (replica, slot, index) in zip(codes, results.versions)
        ]
        return type(results)(
            *(results.replica, results.slot, results.index, results.count),
            *(results.statuses, results.values, versions),
        )


class NamesAnotherInCas(NamesAnother):
    wrong = Operation.CAS


@pytest.mark.parametrize(
    ("machine", "violated"),
    [(NamesAnother, checkers.LINEARIZABLE), (NamesAnotherInCas, checkers.VERSIONED)],
)
def test_an_answer_with_the_version_of_another_write_is_caught(machine, violated):
    assert violated in sentences(range(1, 9), node_with(machine))


class ProposesTwice(Node):
    """A batch is proposed again, under the number that it has."""

    def _launch(self, runs, now):
        flight = super()._launch(runs, now)
        if flight is not None and self._number % 5 == 0:
            self.replica.propose(flight.payload, now)
        return flight


class SubmitsTwice(Node):
    """A batch is submitted anew, under another number, though it was not given up."""

    def _launch(self, runs, now):
        flight = super()._launch(runs, now)
        if flight is not None and self._number % 5 == 0:
            self._number += 1
            batch = flight.payload.batch
            again = type(batch)(
                self.me, self._number, batch.operations, batch.keys, batch.arguments
            )
            self.replica.propose(Payload.of(again), now)
        return flight


@pytest.mark.parametrize("broken", [ProposesTwice, SubmitsTwice])
def test_what_the_system_submits_twice_is_caught_where_clients_send_arguments_again(broken):
    again = {"same_argument": True, "patience_us": 150_000, "gate": False}
    assert sentences(range(1, 5), broken, **again) == {checkers.ONCE}


def test_a_clients_command_sent_again_under_its_argument_may_run_again(monkeypatch):
    made = watched(monkeypatch)
    for seed in range(1, 9):
        options = with_conditions(seed, same_argument=True, patience_us=100_000)
        options = replace(options, faults=replace(options.faults, retries=1.0, loss=0.2))
        outcome = tell(options)
        assert isinstance(outcome, CleanRun), outcome
    ran = {}
    for number, clients in enumerate(made):
        for call in clients.calls:
            if call.place is not None and call.argument:
                ran.setdefault((number, call.argument), set()).add(call.place)
    assert any(len(places) > 1 for places in ran.values())


def call(returned=None, place=None, failed=False):
    version = (0, 0, 0) if place is None else (*place[0], place[1])
    return Call(0, Operation.PUT, b"k", b"v", 0, returned, True, version, failed, place)


ONE, TWO = ((0, 1), 0), ((0, 2), 0)


@pytest.mark.parametrize(
    ("calls", "places", "violated"),
    [
        ([call(5, ONE)], [ONE], None),
        ([call(5, ONE), call()], [ONE, TWO], None),
        ([call(), call()], [ONE], None),
        ([call(5, ONE), call(failed=True)], [ONE], None),
        ([call(5, ONE), call(6, ONE)], [ONE, TWO], checkers.ONCE),
        ([call(5, ONE), call(failed=True)], [ONE, TWO], checkers.HONEST),
        ([call(5, ONE)], [TWO], checkers.VERSIONED),
    ],
)
def test_the_fates_of_commands_with_one_argument(calls, places, violated):
    executions = ExecutionChecker()
    executions.places_of = lambda member, argument: places
    if violated is None:
        check_fates(calls, executions)
        assert len({each.place for each in calls} - {None}) == len(places)
        return
    with pytest.raises(Violation) as raised:
        check_fates(calls, executions)
    assert raised.value.property == violated


def test_the_version_in_the_answer_of_a_write_is_its_own():
    wrong = call(5, ONE)
    wrong.version = (1, 1, 0)
    with pytest.raises(Violation) as raised:
        histories([wrong])
    assert raised.value.property == checkers.VERSIONED
