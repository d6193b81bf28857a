"""`epaxos experiment`: run, list, show, report, diff, on a small sweep in virtual time."""

import json
import os
import signal
import subprocess
import sys

import pytest

from bench.trials.results import Results
from epaxos.cli.exits import ExitCode
from epaxos.cli.main import run
from tests.house.sources import ROOT

SMALL = """
[experiment]
name = "small"
title = "A small sweep"
repeats = 2

[trial]
simulated = true
replicas = 3
protocol = ["epaxos", "multipaxos"]
rate = 160
warmup_s = 0.2
duration_s = 1.0
"""


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    """A directory with a finished sweep, and what was said of it."""
    place = tmp_path_factory.mktemp("cli")
    path = place / "small.toml"
    path.write_text(SMALL, encoding="utf-8")
    said = subprocess.run(
        [sys.executable, "-m", "epaxos", "experiment", "run", str(path)],
        cwd=place,
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    assert said.returncode == 0, said.stderr
    return place, said


@pytest.fixture
def at(done, monkeypatch):
    monkeypatch.chdir(done[0])
    return done[0]


def directory(at):
    (found,) = at.glob("results/*-small")
    return found


def test_run_says_what_is_run_prints_the_table_and_where_everything_is(done):
    place, said = done
    lines = said.stdout.splitlines()
    assert lines[0] == "A small sweep · 2 configurations · 2 repeats · seed 1"
    assert sum("EPaxos" in line for line in lines) == 3
    assert "VALID" in lines
    assert lines[-1].startswith("report  results/")
    assert "of 4 trials" in said.stderr
    assert "s to go" in said.stderr
    found = directory(place)
    assert sorted(each.name for each in found.iterdir()) == [
        "cells.jsonl",
        "experiment.json",
        "report.html",
        "trials",
    ]


def test_show_prints_the_newest_results_of_a_name(at, capsys):
    assert run(["experiment", "show", "small"]) == ExitCode.OK
    assert "Multi-Paxos @VA" in capsys.readouterr().out
    assert run(["experiment", "show", str(directory(at)), "--json"]) == ExitCode.OK
    document = json.loads(capsys.readouterr().out)
    assert document["validity"] == "VALID"
    assert len(document["cells"]) == 6


def test_list_shows_what_comes_with_us_and_what_there_is(at, capsys):
    assert run(["experiment", "list"]) == ExitCode.OK
    said = capsys.readouterr().out
    assert "quick" in said
    assert str(directory(at).relative_to(at)) in said
    assert run(["experiment", "list", "--json"]) == ExitCode.OK
    document = json.loads(capsys.readouterr().out)
    assert {"conflicts", "quick"} <= {each["name"] for each in document["experiments"]}
    assert [each["trials"] for each in document["results"]] == [4]


def test_list_without_results_says_how_to_make_some(tmp_path, capsys):
    assert run(["experiment", "list", "--out", str(tmp_path)]) == ExitCode.OK
    assert "no results in" in capsys.readouterr().out


def test_report_is_written_where_it_was_asked_for(at, tmp_path, capsys):
    page = tmp_path / "page.html"
    assert run(["experiment", "report", "small", "--to", str(page)]) == ExitCode.OK
    assert capsys.readouterr().out.strip() == str(page)
    assert page.read_text(encoding="utf-8").startswith("<!doctype html>")
    missing = tmp_path / "nowhere" / "page.html"
    assert run(["experiment", "report", "small", "--to", str(missing)]) == ExitCode.CONFIG
    assert "name a file that can be written" in capsys.readouterr().err


def test_diff_prints_cells_and_sentences(at, capsys):
    name = str(directory(at))
    assert run(["experiment", "diff", name, "small"]) == ExitCode.OK
    assert "At the median, the answers of B are not sig" in capsys.readouterr().out
    assert run(["experiment", "diff", name, "small", "--json"]) == ExitCode.OK
    assert len(json.loads(capsys.readouterr().out)["cells"]) == 6


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["run", "quik"], "there is no experiment 'quik' (did you mean quick?)"),
        (["run", "none.toml"], "none.toml: No such file"),
        (["run", "quick", "--jobs", "0"], "jobs"),
        (["show", "small2"], "epaxos experiment list shows what there is"),
        (["show", "."], "holds no results of an experiment"),
        (["diff", "small", "other"], "has no results of an experiment called that"),
    ],
)
def test_what_is_wrong_is_one_line_that_says_what_to_do(at, capsys, arguments, said):
    assert run(["experiment", *arguments]) == ExitCode.CONFIG
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert said in error


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_ctrl_c_keeps_what_is_finished_says_so_and_leaves_nothing(tmp_path, number):
    path = tmp_path / "long.toml"
    path.write_text(SMALL.replace("repeats = 2", "repeats = 200"), encoding="utf-8")
    process = subprocess.Popen(
        [sys.executable, "-m", "epaxos", "experiment", "run", str(path), "--jobs", "2"],
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    try:
        store = tmp_path / "results" / "store"
        while process.poll() is None and not list(store.glob("*/*.trial")):
            try:
                process.wait(0.1)
            except subprocess.TimeoutExpired:
                continue
        children = _children(process.pid)
        process.send_signal(number)
        _, said = process.communicate(timeout=60)
    finally:
        if process.poll() is None:
            process.kill()
            process.communicate()
    assert process.returncode == ExitCode.INTERRUPTED, said
    assert "of 400 trials are finished and kept: the same command goes on from there" in said
    assert len(children) == 2
    assert not [pid for pid in children if os.path.exists(f"/proc/{pid}")]
    assert [each.name for each in (tmp_path / "results").iterdir()] == ["store"]


def _children(pid):
    """Processes that it started."""
    path = f"/proc/{pid}/task/{pid}/children"
    if not os.path.exists(path):
        pytest.skip("NOT TESTED: this kernel does not tell whose children are whose")
    with open(path, encoding="ascii") as file:
        return file.read().split()


def test_the_example_notebook_runs(tmp_path):
    done = subprocess.run(
        [sys.executable, str(ROOT / "docs" / "notebook.py")],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=280,
        check=False,
        env={**os.environ, "PYTHONPATH": str(ROOT), "TMPDIR": str(tmp_path)},
    )
    assert done.returncode == 0, done.stderr
    place = tmp_path / "epaxos-notebook"
    assert "At the 95th percentile, the answers of B are slower in" in done.stdout
    assert (place / "tails.svg").exists()
    assert {Results(path.parent).name for path in place.glob("*/experiment.json")} == {
        "notebook",
        "notebook-no-gate",
    }
