"""The deterministic world: clean seeds, same seed same trace, and checkers that bite."""

import os
import subprocess
import sys
from dataclasses import replace

import pytest

from epaxos.core.types import ballot_replica
from epaxos.protocols.epaxos.instance import Phase
from epaxos.protocols.epaxos.messages import PreAccepted
from epaxos.protocols.epaxos.replica import EPaxosReplica
from epaxos.protocols.multipaxos.replica import MultiPaxosReplica
from epaxos.registry import find_protocol
from epaxos.sim.check import checkers
from epaxos.sim.options import RunOptions, draw
from epaxos.sim.run import CleanRun, Failure, simulate, tell


@pytest.mark.parametrize("first", range(1, 201, 25))
@pytest.mark.parametrize("protocol", ["epaxos", "multipaxos"])
def test_seeds_are_clean(protocol, first):
    for seed in range(first, first + 25):
        outcome = tell(draw(seed, protocol))
        assert isinstance(outcome, CleanRun), f"seed {seed}: {outcome}"


@pytest.mark.parametrize("replicas", [1, 2, 4, 6, 8, 9])
def test_other_cluster_sizes_are_clean(replicas):
    for seed in range(1, 9):
        outcome = tell(draw(seed, "epaxos", (replicas,)))
        assert isinstance(outcome, CleanRun), f"seed {seed}: {outcome}"


def test_a_run_is_not_vacuous():
    total = 0
    seen = {}
    for seed in range(1, 31):
        outcome = simulate(draw(seed))
        total += outcome.answered
        for name, value in outcome.counts.items():
            seen[name] = seen.get(name, 0) + value
    assert total > 30 * 20
    for name in ("fast", "slow", "recovered", "nop", "crashes", "lost", "components_2", "queued"):
        assert seen[name] > 0, name


@pytest.mark.parametrize("protocol", ["epaxos", "multipaxos"])
def test_same_seed_gives_the_same_trace(protocol):
    for seed in (3, 7, 11):
        assert simulate(draw(seed, protocol)) == simulate(draw(seed, protocol))


def test_the_story_changes_nothing():
    options = draw(5)
    assert simulate(options) == simulate(replace(options, story=True))


def test_the_trace_does_not_depend_on_the_hash_seed():
    code = (
        "from epaxos.sim.options import draw; from epaxos.sim.run import simulate\n"
        "from epaxos.sim.directed import run_directed\n"
        "both = ('epaxos', 'multipaxos')\n"
        "print([simulate(draw(s, p)).trace for s in range(1, 9) for p in both])\n"
        "print([run_directed(s).trace for s in range(6)])"
    )
    traces = {
        subprocess.run(
            [sys.executable, "-c", code],
            env={**os.environ, "PYTHONHASHSEED": hash_seed},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for hash_seed in ("1", "2")
    }
    assert len(traces) == 1


def failure_of(replica, seeds, protocol="epaxos", **changes):
    """The first failure among seeds of a cluster whose replicas are of another class."""
    spec = replace(find_protocol(protocol), replica=replica)
    for seed in seeds:
        outcome = tell(replace(draw(seed, protocol), **changes), spec)
        if isinstance(outcome, Failure):
            return outcome
    return None


class ForgetsDeps(EPaxosReplica):
    """Acceptors answer with the command leader's deps as they came."""

    def _acceptor_deps(self, replica, payload, initial):
        return initial


class SmallFastQuorum(EPaxosReplica):
    """The fast path counts one answer too few."""

    def __init__(self, setup):
        super().__init__(setup)
        self.sizes = self.sizes._replace(fast=max(2, self.sizes.fast - 1))


class UnsyncedVote(EPaxosReplica):
    """A vote is noted instead of recorded: it leaves before it is durable."""

    def __init__(self, setup):
        super().__init__(setup)
        record = self.out.record
        note = self.out.note
        self.out = _LooseOutbox(record, note, self.out)


class _LooseOutbox:
    def __init__(self, record, note, box):
        self._record, self._note, self._box = record, note, box

    def record(self, record):
        if isinstance(record, PreAccepted):
            self._note(record)
        else:
            self._record(record)

    def __getattr__(self, name):
        return getattr(self._box, name)


class ForgetsItsPromise(EPaxosReplica):
    """Promises any ballot, also one below an earlier promise."""

    def _on_recover(self, source, m, now):
        for slot in m.slots:
            known = self.columns.get(m.replica, slot)
            if known is not None and known.phase != Phase.COMMITTED:
                known.promised = min(known.promised, m.ballot - 1)
        super()._on_recover(source, m, now)
        assert ballot_replica(m.ballot) == source


class NeverRecovers(EPaxosReplica):
    """Nobody takes over what a dead replica left."""

    def _start_recover(self, replica, slots, now):
        pass


def test_missing_deps_are_caught():
    failure = failure_of(ForgetsDeps, range(1, 60))
    assert failure is not None
    assert failure.property in (checkers.VISIBILITY, checkers.ORDER, checkers.LINEARIZABLE)
    assert failure.story


def test_a_fast_quorum_one_too_small_is_caught():
    failure = failure_of(SmallFastQuorum, range(1, 200))
    assert failure is not None
    assert failure.property in (
        checkers.AGREEMENT,
        checkers.VISIBILITY,
        checkers.ORDER,
        checkers.LINEARIZABLE,
    )


def test_a_vote_that_leaves_before_its_sync_is_caught():
    failure = failure_of(UnsyncedVote, range(1, 60))
    assert failure is not None
    assert failure.property == checkers.REMEMBERED


def test_a_broken_promise_is_caught():
    failure = failure_of(ForgetsItsPromise, range(1, 200), deep=True)
    assert failure is not None
    assert failure.property in (checkers.INVARIANT, checkers.AGREEMENT)


def test_a_missing_recovery_is_caught():
    failure = failure_of(NeverRecovers, range(1, 200), settle_us=20_000_000)
    assert failure is not None
    assert failure.property == checkers.EXECUTES


class TrustsAnyVote(MultiPaxosReplica):
    """Proposes the same slot again after a restart: its promise is not kept."""

    def restore(self, record):
        if type(record).__name__ != "Promised":
            super().restore(record)


def test_a_forgotten_promise_is_caught_in_multipaxos():
    failure = failure_of(TrustsAnyVote, range(1, 200), "multipaxos")
    assert failure is not None
    assert failure.property in (checkers.REMEMBERED, checkers.INVARIANT, checkers.AGREEMENT)


def test_options_follow_from_the_seed():
    assert draw(4) == draw(4)
    assert draw(4) != draw(5)
    assert isinstance(draw(4), RunOptions)


@pytest.mark.parametrize("seed", [2040, 3942, 4307, 4839, 7274])
def test_a_leader_that_is_answered_again_sends_all_that_is_open(seed):
    """Its pause between retransmissions had grown while a majority was away, and stayed long for
    what was still open when the first answer came."""
    assert isinstance(tell(draw(seed, "multipaxos")), CleanRun)


@pytest.mark.parametrize("seed", [72, 444, 1984, 3146, 3507])
def test_who_restarts_has_executed_what_its_log_says_is_forgotten(seed):
    """Restore forgot by a note but took its own executed for 0: below the floor until more was
    executed (MP2). With every slot noted."""
    noted = (("multipaxos.NOTED_SLOTS", 1),)
    options = replace(draw(seed, "multipaxos"), tunables=noted, deep=True)
    assert isinstance(tell(options), CleanRun)
