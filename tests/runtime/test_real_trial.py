"""Trials with real replicas: closed loops, faults that happen, and deaths that nobody planned."""

import os
import signal
import sys
from pathlib import Path

import pytest

from bench.trials.trial import Trial, run_trial

pytestmark = pytest.mark.timeout(180)


def short(**settings):
    base = {"topology": "equidistant:3,20", "rate": 40.0, "warmup_s": 0.2, "duration_s": 2.0}
    return Trial(**{**base, **settings})


def processes_below(directory):
    """What runs with settings from a directory: pids, and how they were called."""
    found = {}
    for entry in Path("/proc").iterdir():
        try:
            words = (entry / "cmdline").read_bytes().decode(errors="replace").split("\0")
            state = (entry / "stat").read_text().rpartition(")")[2].split()[0]
        except OSError:
            continue
        if any(str(directory) in word for word in words) and state != "Z":
            found[int(entry.name)] = words
    return found


def test_a_crashed_replica_starts_again_and_its_clients_come_back(tmp_path):
    outcome = run_trial(short(faults=("crash:R3@0.4-0.8",)), tmp_path)
    [event] = outcome.events
    assert (event.kind, event.region, event.failed) == ("crash", "R3", "")
    assert event.at_s >= 0.4
    assert event.until_s > event.at_s
    load = outcome.load
    assert load.loop == "open"
    assert load.disconnects == [0, 0, 1]
    assert load.unreachable == ["", "", ""]
    for region in (0, 1):
        assert load.fates[region].answered == load.fates[region].sent > 40
    fates = load.fates[2]
    assert fates.refused > 0
    assert set(fates.codes) <= {"unreachable", "connection-lost"}
    assert fates.answered + fates.refused + fates.ambiguous == fates.sent
    assert outcome.costs.commands > 80
    assert outcome.costs.syncs > outcome.costs.commands / 4
    assert not [reason for reason in outcome.reasons if "Region 3" in reason]
    assert not processes_below(tmp_path)


def test_a_closed_loop_goes_on_through_all_that_heals(tmp_path):
    trial = short(
        protocol="multipaxos",
        leader="R1",
        durability="memory",
        rate=0,
        clients=2,
        faults=(
            "leader:R2@0.3",
            "pause:R3@0.6-0.9",
            "partition:Region 3@1-1.3",
            "slow:R1@1-1.5,factor=3",
        ),
    )
    heard = []
    outcome = run_trial(trial, tmp_path, heard.append)
    assert heard[-1] == 1.0
    happened = [(e.kind, e.region, e.failed) for e in outcome.events]
    assert sorted(happened) == [
        ("leader", "R2", ""),
        ("partition", "R3", ""),
        ("pause", "R3", ""),
        ("slow", "R1", ""),
    ]
    for event, fault in zip(outcome.events, trial.timeline, strict=True):
        assert event.at_s >= fault.at_s
        assert event.until_s is None or event.until_s >= fault.until_s
    load = outcome.load
    assert load.loop == "closed"
    assert load.start_error.count == 0
    assert load.disconnects == [0, 0, 0]
    for i, fates in enumerate(load.fates):
        assert fates.answered > 2
        assert fates.answered + fates.refused + fates.ambiguous == fates.sent
        # At no time more commands than clients.
        mine = [s for s in load.samples if s.region == i]
        moments = sorted(
            moment for s in mine for moment in ((s.start_us, 1), (s.start_us + s.answer_us, -1))
        )
        outstanding = peak = 0
        for _, step in moments:
            outstanding += step
            peak = max(peak, outstanding)
        assert peak <= 2
    assert not processes_below(tmp_path)


@pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")
def test_a_death_that_nobody_planned_makes_the_trial_invalid(tmp_path):
    killed = []

    def kill(share):
        if killed or not (tmp_path / "load.json").exists():
            return  # the clients are not there yet
        for pid, words in processes_below(tmp_path).items():
            if words[-3:] == ["--replica", "R3", ""]:
                killed.append(pid)
                os.kill(pid, signal.SIGKILL)

    outcome = run_trial(short(duration_s=1.0, durability="memory"), tmp_path, kill)
    assert killed
    assert outcome.validity == "INVALID"
    assert "the replica in Region 3 ended: killed by signal 9" in outcome.reasons
    assert any(reason.startswith("Region 3: ") for reason in outcome.reasons)
    fates = outcome.load.fates[2]
    assert fates.answered < fates.sent
    assert fates.answered + fates.refused + fates.ambiguous == fates.sent
    assert outcome.load.fates[0].answered == outcome.load.fates[0].sent > 0
    assert not processes_below(tmp_path)


def test_a_history_with_a_crash_is_kept_and_judged(tmp_path):
    trial = short(
        check=True,
        rate=30.0,
        patience_s=20.0,
        workload="hot:hot=4,keys=4,puts=0.5",
        faults=("crash:R3@0.4-0.8",),
    )
    outcome = run_trial(trial, tmp_path)
    checked = outcome.checked
    assert checked.verdict == "OK", checked.sentence()
    assert checked.keys == 4
    assert checked.calls > outcome.load.fates[0].answered
    assert checked.refused + checked.ambiguous > 0
    assert {path.name for path in (tmp_path / "history").iterdir()} == {
        "load-1.jsonl",
        "after-1.jsonl",
    }
    assert not processes_below(tmp_path)
