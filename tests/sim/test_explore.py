"""Small worlds are exhausted; broken replicas are found in them; what is left out loses nothing."""

from dataclasses import replace

import orjson
import pytest

from epaxos.cli.main import run
from epaxos.core.replica import Outbox, Path
from epaxos.protocols.epaxos.instance import Phase
from epaxos.protocols.epaxos.messages import PreAccepted
from epaxos.protocols.epaxos.replica import EPaxosReplica
from epaxos.protocols.multipaxos.messages import Forward
from epaxos.protocols.multipaxos.replica import MultiPaxosReplica
from epaxos.protocols.multipaxos.stages import Leading
from epaxos.registry import find_protocol
from epaxos.sim.check.checkers import AGREEMENT, INVARIANT, ONCE, REMEMBERED, VISIBILITY
from epaxos.sim.explore.replica import ClientBatch, SmallWorld
from epaxos.sim.explore.search import Search, explore

A, B, C, D, E = range(5)
BUDGET = 60_000


def world(name, replica=None, **settings):
    spec = find_protocol(name)
    if replica is not None:
        spec = replace(spec, replica=replica)
    return SmallWorld(spec, **settings)


PAIR = {"batches": (ClientBatch(A), ClientBatch(B)), "duplicates": True}
"""Two conflicting batches at two command leaders."""
UNSEEN = {
    "replicas": 5,
    "batches": (ClientBatch(A), ClientBatch(C)),
    "fallen": (A, C),
    "recoveries": 1,
    "recovering": (B,),
    "duplicates": True,
}
"""Two command leaders fall, and B recovers."""
LED = {"batches": (ClientBatch(A), ClientBatch(A)), "duplicates": True}
"""Two batches at the leader of Multi-Paxos."""


class AnswersInitialDeps(EPaxosReplica):
    """An acceptor answers with the command leader's deps as they came."""

    def _acceptor_deps(self, replica, payload, initial):
        return initial


class SmallFastQuorum(EPaxosReplica):
    """The fast path counts one answer too few."""

    def __init__(self, setup):
        super().__init__(setup)
        self.sizes = self.sizes._replace(fast=self.sizes.fast - 1)


class SkipsValidation(EPaxosReplica):
    """What may have been fast is proposed again without asking what speaks against it."""

    def _start_validate(self, recovering, payload, deps, matching, now):
        self._start_accept(recovering.instance, recovering.ballot, payload, deps, now)


class RecoversBlindly(EPaxosReplica):
    """A recoverer proposes Nop whatever the answers say."""

    def _on_recover_ok(self, source, m, now):
        votes = [vote for vote in m.votes if vote.phase == Phase.INITIAL]
        super()._on_recover_ok(source, type(m)(m.replica, m.ballot, votes), now)
        for vote in m.votes:
            known = self.columns.get(m.replica, vote.slot)
            attempt = known.attempt
            if attempt is not None and attempt.ballot == m.ballot and known.phase < Phase.ACCEPTED:
                nop = (0,) * self.n
                self._start_accept(known, m.ballot, None, nop, now)


class NotesItsFastCommit(EPaxosReplica):
    """The fast commit is not durable before it is said."""

    def _commit(self, instance, payload, deps, path, now):
        path = Path.SLOW if path is Path.FAST else path
        super()._commit(instance, payload, deps, path, now)


class NotesPreAccepts(Outbox):
    def record(self, record):
        if isinstance(record, PreAccepted):
            self.note(record)
        else:
            super().record(record)


class AnswersBeforeItSyncs(EPaxosReplica):
    """A pre-accept is noted: the answer leaves before the vote is durable."""

    def __init__(self, setup):
        super().__init__(setup)
        self.out = NotesPreAccepts()


class BreaksItsPromise(MultiPaxosReplica):
    """A promise is said, and not kept."""

    def _on_prepare(self, source, m, now):
        promised, leader = self.promised, self.leader
        super()._on_prepare(source, m, now)
        self.promised, self.leader = promised, leader


class BelievesAnyVote(MultiPaxosReplica):
    """The commit index makes votes of other ballots chosen."""

    def _choose_voted(self, ballot, commit):
        while self.log.chosen < commit:
            entry = self.log.entries.get(self.log.chosen + 1)
            if entry is None:
                return
            self._choose(self.log.chosen + 1, entry)


class LeadsAfresh(MultiPaxosReplica):
    """A new leader forgets what others voted for."""

    def _lead(self, prepared, now):
        prepared._best.clear()
        super()._lead(prepared, now)


class TakesEveryForward(MultiPaxosReplica):
    """A forwarded batch is proposed as often as it arrives."""

    def _on_forward(self, source, m, now):
        if isinstance(self.stage, Leading):
            self.stage._seen.clear()
            super()._on_forward(source, Forward(self.stage.ballot, m.payload), now)


class ForgetsPromises(MultiPaxosReplica):
    """Says a promise that it has not recorded."""

    def _promise(self, ballot):
        self.promised = ballot
        self.leader = None
        self._alive_at = None


FORWARDED = {"batches": (ClientBatch(B),), "duplicates": True}
"""A batch of a follower."""


@pytest.mark.parametrize(
    ("name", "settings", "replica", "sentence"),
    [
        ("epaxos", PAIR, AnswersInitialDeps, VISIBILITY),
        ("epaxos", PAIR | {"recoveries": 1}, RecoversBlindly, AGREEMENT),
        ("epaxos", PAIR | {"crashes": 1}, NotesItsFastCommit, REMEMBERED),
        ("epaxos", PAIR | {"crashes": 1}, AnswersBeforeItSyncs, REMEMBERED),
        ("epaxos", UNSEEN, SkipsValidation, VISIBILITY),
        ("epaxos", UNSEEN, SmallFastQuorum, VISIBILITY),
        ("multipaxos", LED | {"recoveries": 1}, BreaksItsPromise, AGREEMENT),
        ("multipaxos", LED | {"recoveries": 1}, BelievesAnyVote, INVARIANT),
        ("multipaxos", PAIR | {"recoveries": 1, "recovering": (B,)}, LeadsAfresh, AGREEMENT),
        ("multipaxos", FORWARDED, TakesEveryForward, ONCE),
        ("multipaxos", LED | {"crashes": 1}, ForgetsPromises, REMEMBERED),
    ],
)
def test_broken_replica_is_found(name, settings, replica, sentence):
    broken = world(name, replica, **settings)
    report = explore(broken, BUDGET, deep=broken.replicas == 5)
    assert report.violation is not None
    assert report.violation.property == sentence, report.violation
    assert 0 < len(report.path) < 30


EXACT = [
    ("epaxos", {"batches": (ClientBatch(A), ClientBatch(B))}),
    ("epaxos", {"batches": (ClientBatch(A),), "recoveries": 1, "duplicates": False}),
    ("epaxos", {"batches": (ClientBatch(A),), "crashes": 1}),
    ("multipaxos", {"batches": (ClientBatch(A),), "crashes": 1}),
    ("multipaxos", {"batches": (ClientBatch(B),), "recoveries": 1, "recovering": (C,)}),
]


@pytest.mark.parametrize(("name", "settings"), EXACT)
def test_what_is_left_out_loses_no_outcome(name, settings):
    small = world(name, **({"duplicates": True} | settings))
    found = []
    for reduced, deep in ((True, False), (True, True), (False, False)):
        search = Search(small, reduced, deep)
        report = search.run(200_000, lambda counts: False)
        assert report.violation is None
        assert report.exhausted
        found.append((search.outcomes, report.counts.states))
    assert found[0][0] == found[1][0] == found[2][0]
    assert found[0][1] < found[2][1] / 1.4


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("epaxos", PAIR | {"recoveries": 1}),
        ("epaxos", PAIR | {"crashes": 1}),
        ("epaxos", UNSEEN),
        ("multipaxos", LED | {"recoveries": 1}),
        ("multipaxos", LED | {"crashes": 1}),
        ("multipaxos", FORWARDED),
    ],
)
def test_the_code_holds_where_broken_replicas_do_not(name, settings):
    report = explore(world(name, **settings), 8_000)
    assert report.violation is None, report.path


def test_the_watch_stops_a_search():
    report = explore(world("epaxos", **PAIR), BUDGET, lambda counts: counts.states > 0)
    assert not report.exhausted
    assert report.counts.states == 1


def test_the_verb_exhausts_a_world(capfd):
    assert run(["explore", "--batches", "1", "--crashes", "0", "--json"]) == 0
    document = orjson.loads(capfd.readouterr().out)
    assert document["exhausted"]
    assert document["violation"] is None
    assert document["states"] > 100


def test_the_verb_says_how_far_it_came(capfd):
    assert run(["explore", "--at", "AA", "--protocol", "multipaxos", "--budget", "300"]) == 0
    said = capfd.readouterr()
    assert "not exhausted" in said.out
    assert "at most 300 states" in said.out


def test_the_verb_tells_the_path_to_a_violation(monkeypatch, capfd):
    spec = replace(find_protocol("epaxos"), replica=AnswersInitialDeps)
    monkeypatch.setattr("epaxos.cli.explore.find_protocol", lambda name: spec)
    assert run(["explore", "--crashes", "0", "--recoveries", "0"]) == 1
    said = capfd.readouterr().out
    assert f"violated: {VISIBILITY}" in " ".join(said.split())
    assert "A proposes a batch on x" in said


@pytest.mark.parametrize(
    "arguments", [["--at", "AD"], ["--fallen", "?"], ["--protocol", "raft"], ["--at", "A" * 10]]
)
def test_the_verb_refuses_what_is_no_world(arguments, capfd):
    assert run(["explore", *arguments]) == 2
    assert "error: " in capfd.readouterr().err
