"""Runs whose calls are kept: what is right is OK, and a broken protocol is found out."""

import json
from datetime import datetime

import pytest

from bench.clusters.histories import FOLDER, KeptHistory, judge_real, verdict_of
from bench.clusters.local import free_port_numbers
from bench.compare import simulated
from bench.compare.compare import ComparisonOptions
from bench.compare.save import write_results
from bench.history.calls import ABSENT, OTHER, HistoryWriter
from bench.history.reading import read_lines
from bench.reports.comparison import render
from bench.trials.store import trial_key
from bench.trials.trial import Trial, run_trial
from epaxos.core.command import Operation

BROKEN = "tests.unit.echoing:SPEC"
HOT = "hot:hot=2,keys=2,puts=0.5"


def trial(**more):
    settings = {"rate": 20.0, "duration_s": 2.0, "warmup_s": 0.2, "workload": HOT, **more}
    return Trial(simulated=True, check=True, **settings)


def again(path):
    return verdict_of(read_lines(sorted(path.glob("*.jsonl"))), lambda share: None)


@pytest.mark.parametrize("protocol", ["epaxos", "multipaxos"])
@pytest.mark.parametrize("workload", [HOT, "ycsb-f:keys=2,value_size=16", "conflict:50"])
def test_what_is_right_is_ok(protocol, workload, tmp_path):
    outcome = run_trial(trial(protocol=protocol, workload=workload), tmp_path)
    assert outcome.checked.verdict == "OK"
    assert not [reason for reason in outcome.reasons if "history" in reason]
    assert outcome.checked.calls > len(outcome.load.samples)


def test_closed_loops_with_compare_and_set_are_ok(tmp_path):
    asked = trial(rate=0.0, clients=2, workload="ycsb-f:keys=2,value_size=16")
    outcome = run_trial(asked, tmp_path)
    text = (tmp_path / FOLDER / "load-1.jsonl").read_text()
    assert '"operation":"cas"' in text
    assert '"met":' in text
    assert outcome.checked.verdict == "OK"


def test_crashes_and_partitions_leave_calls_of_unknown_outcome_and_are_ok(tmp_path):
    faults = ("crash:CA@0.3-1", "partition:JP@1.2-1.8")
    outcome = run_trial(trial(faults=faults, patience_s=1.0, workload="hot"), tmp_path)
    assert outcome.checked.verdict == "OK"
    assert outcome.checked.ambiguous > 0


def test_a_broken_protocol_is_illegal_with_the_calls_that_show_it(tmp_path):
    outcome = run_trial(trial(protocol=BROKEN), tmp_path)
    checked = outcome.checked
    assert checked.verdict == "ILLEGAL"
    assert outcome.validity == "INVALID"
    assert any("history is ILLEGAL" in reason for reason in outcome.reasons)
    assert 2 <= len(checked.shown) <= 6
    assert checked.key in ("key-0", "key-1")


def test_a_comparison_says_which_run_was_wrong_and_its_report_draws_it(tmp_path):
    asked = Trial(simulated=True, check=True, rate=20.0, duration_s=2.0, warmup_s=0.2)
    options = ComparisonOptions(asked, protocols=("epaxos", BROKEN), workload=HOT)
    trials = simulated.compare(options, directory=tmp_path)
    document = write_results(tmp_path, options, trials, datetime.now())
    (phase,) = document["phases"]
    assert {row["run"]: row["verdict"] for row in phase["histories"]} == {
        "epaxos": "OK",
        "echoing": "ILLEGAL",
    }
    assert document["verdict"]["validity"] == "INVALID"
    assert document["setup"]["check"] is True
    assert json.loads((tmp_path / "manifest.json").read_text())["setup"]["check"] is True
    page = render(document)
    assert "Were the answers right?" in page
    assert "Calls that no order explains" in page


def test_values_are_unlike_and_keep_their_size(tmp_path):
    run_trial(trial(workload="conflict:50,value_size=100"), tmp_path)
    lines = (tmp_path / FOLDER / "load-1.jsonl").read_text().splitlines()
    puts = [each for each in map(json.loads, lines) if each.get("operation") == "put"]
    values = [str(put["argument"]) for put in puts]
    assert len(set(values)) == len(values) > 50


def test_an_edited_history_is_found_out(tmp_path):
    run_trial(trial(workload="hot:hot=1,keys=1,puts=1"), tmp_path)
    place = tmp_path / FOLDER
    assert again(place).verdict == "OK"
    after = place / "after-1.jsonl"
    lines = after.read_text().splitlines(keepends=True)
    load = (place / "load-1.jsonl").read_text().splitlines()
    first = next(each for each in map(json.loads, load) if each.get("operation") == "put")
    lost = json.loads(lines[1]) | {"result": first["argument"], "version": ""}
    after.write_text("".join([lines[0], json.dumps(lost) + "\n", *lines[2:]]))
    found = again(place)
    assert found.verdict == "ILLEGAL"
    assert any(str(first["argument"]) in call.what for call in found.shown)


def test_a_history_whose_writer_ended_early_is_undecided(tmp_path):
    run_trial(trial(), tmp_path)
    path = tmp_path / FOLDER / "load-1.jsonl"
    path.write_text(path.read_text()[:-30])
    found = again(tmp_path / FOLDER)
    assert found.verdict == "UNKNOWN"
    assert "load-1.jsonl has no last line" in found.sentence()


def test_whoever_is_interrupted_leaves_no_last_line(tmp_path):
    path = tmp_path / "load-1.jsonl"

    def interrupted():
        with HistoryWriter(path) as history:
            history.failed("c", Operation.PUT, b"k", b"v", 1, definite=False)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert read_lines([path]).unfinished


def test_only_the_first_load_of_a_cluster_knows_what_was_before(tmp_path):
    kept = KeptHistory.next_in(tmp_path)
    assert kept.initial == ABSENT
    HistoryWriter(kept.path, kept.initial).close()
    assert KeptHistory.next_in(tmp_path).initial == OTHER


def test_a_checked_trial_has_another_name_in_the_store():
    plain = Trial(simulated=True)
    assert trial_key(plain, "code") != trial_key(Trial(simulated=True, check=True), "code")


async def test_what_is_read_back_is_read_beside_an_event_loop_too(tmp_path):
    """As in a notebook; a replica that is not there says nothing."""
    kept = KeptHistory.next_in(tmp_path)
    with HistoryWriter(kept.path, kept.initial) as history:
        history.failed("c", Operation.PUT, b"k", b"v", 1, definite=False)
    (closed,) = free_port_numbers(1)
    found = judge_real(kept, [closed])
    assert (found.verdict, found.calls, found.ambiguous) == ("OK", 1, 1)
