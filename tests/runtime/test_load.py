"""`epaxos load` as a person runs it: a cluster, Locust, a report, and nothing left."""

import json
import os
import re
import signal
import subprocess
import sys
import time
import urllib.request
from contextlib import contextmanager
from pathlib import Path

import pytest

from bench.clusters.local import free_port_numbers
from bench.history.reading import octets_of
from bench.loadtest.seconds import read_seconds
from epaxos.cli.main import run

WAIT_S = 120


def command(*options):
    return [sys.executable, "-m", "epaxos", "load", *map(str, options)]


def load(*options, cwd):
    return subprocess.run(
        command(*options), cwd=cwd, capture_output=True, text=True, timeout=WAIT_S, check=False
    )


@contextmanager
def running(*options, cwd):
    process = subprocess.Popen(
        command(*options), cwd=cwd, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    try:
        yield process
    finally:
        process.kill()
        process.wait(WAIT_S)
        process.stdout.close()


def processes_about(directory):
    """Command lines of living processes that name a directory."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            words = path.read_bytes().split(b"\0")
        except OSError:
            continue
        if any(str(directory).encode() in word for word in words):
            found.append(words)
    return found


def test_a_run_has_figures_and_a_report(tmp_path):
    done = load(
        *("--topology", "lan:3", "--durability", "memory", "--rate", 40, "--time", "3s"),
        *("--warmup", "0.5s", "--workload", "conflict:2", "--out", tmp_path, "--json"),
        cwd=tmp_path,
    )
    document = json.loads(done.stdout)
    assert document["validity"] in ("VALID", "SUSPECT", "INVALID")
    assert done.returncode == (document["validity"] == "INVALID")
    assert document["setup"]["fast_quorum"] == 2
    assert document["setup"]["durability"] == "memory"
    assert "3 replicas" in done.stderr
    (step,) = document["steps"]
    assert [row["region"] for row in step["regions"]] == ["Region 1", "Region 2", "Region 3"]
    assert all(row["answered"] == row["sent"] > 50 for row in step["regions"])
    assert len(document["replicas"]) == 3
    directory = Path(document["directory"])
    assert json.loads((directory / "load.json").read_text())["steps"] == document["steps"]
    page = (directory / "report.html").read_text()
    assert "http" not in re.sub(r"http://127\.0\.0\.1:\d+", "", page)
    assert f"{step['regions'][0]['answer']['p50']:,.1f}</text>" in page
    for name in ("manifest.json", "steps.csv", "Region1-answer.hlog", "Region1-commit.hgrm"):
        assert (directory / name).stat().st_size > 0
    seconds = read_seconds(directory / "seconds.csv")
    for row in step["regions"]:
        came = sum(each.answers for each in seconds if each.region == row["region"])
        assert came > row["answered"]  # those of the warm-up, too
    assert not (directory / "live.json").exists()
    assert not list((directory / "replicas").glob("data-*"))
    assert processes_about(tmp_path) == []


def test_a_checked_run_keeps_its_calls_and_says_whether_the_answers_were_right(tmp_path):
    done = load(
        *("--topology", "lan:3", "--durability", "memory", "--users", 3, "--time", "2s"),
        *("--warmup", "0.5s", "--workload", "ycsb-f:keys=2,value_size=32", "--check"),
        *("--processes", 2, "--out", tmp_path, "--json"),
        cwd=tmp_path,
    )
    document = json.loads(done.stdout)
    assert document["setup"]["check"] is True
    assert document["history"]["verdict"] == "OK", document["history"]
    assert "history checked" in document["title"]
    answered = sum(step["total"]["answered"] for step in document["steps"])
    assert document["history"]["calls"] > answered
    directory = Path(document["directory"])
    kept = sorted((directory / "history").glob("*.jsonl"))
    assert [path.name for path in kept] == ["after.jsonl", "load-0.jsonl", "load-1.jsonl"]
    lines = [json.loads(line) for path in kept for line in path.read_text().splitlines()]
    expected = [each["argument"]["expect"] for each in lines if each.get("operation") == "cas"]
    assert any(isinstance(each, dict) and "version" in each for each in expected)
    values = [
        octets_of(each["argument"]["value"], "value")
        for each in lines
        if each.get("operation") == "cas"
    ]
    assert len(set(values)) == len(values)
    assert {len(value) for value in values} == {32}
    assert "Were the answers right?" in (directory / "report.html").read_text()
    assert run(["check", *map(str, kept)]) == 0


def test_ctrl_c_leaves_no_process(tmp_path):
    with running(
        *("--topology", "lan:3", "--durability", "memory", "--users", 2, "--time", "90s"),
        *("--processes", 2, "--out", tmp_path),
        cwd=tmp_path,
    ) as process:
        said = []
        for line in process.stdout:
            said.append(line)
            if line.startswith("load · "):
                break
        assert processes_about(tmp_path), said
        process.send_signal(signal.SIGINT)
        rest = process.stdout.read()
        assert process.wait(WAIT_S) == 130
    assert "stopped; nothing was kept" in rest
    assert processes_about(tmp_path) == []
    assert list(tmp_path.iterdir()) == []


def test_replicas_that_cannot_be_reached_make_it_invalid(tmp_path):
    (closed,) = free_port_numbers(1)
    at = f"http://127.0.0.1:{closed}"
    done = load(
        *("--topology", "lan:3", "--at", at, "--time", "1s", "--warmup", "0.2s"),
        *("--out", tmp_path),
        cwd=tmp_path,
    )
    assert done.returncode == 1
    for region in ("Region 1", "Region 2", "Region 3"):
        assert f"{region}: no good answer from {at}: cannot connect" in done.stdout
    assert "INVALID" in done.stdout


def test_the_web_page_is_on_loopback(tmp_path):
    with running(
        *("--topology", "lan:3", "--durability", "memory", "--web", "--out", tmp_path),
        cwd=tmp_path,
    ) as process:
        for line in process.stdout:
            if line.startswith("ready"):
                break
        url = re.search(r"web page: (http://127\.0\.0\.1:\d+)", line)[1]
        page = urllib.request.urlopen(url, timeout=WAIT_S).read().decode()
        assert "Region1" in page
        process.send_signal(signal.SIGINT)
        assert "stopped" in process.stdout.read()
        assert process.wait(WAIT_S) == 0
    limit = time.monotonic() + WAIT_S
    while processes_about(tmp_path) and time.monotonic() < limit:
        time.sleep(0.1)
    assert processes_about(tmp_path) == []


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--rate", "5", "--users", "5"), "--rate is the open loop, --users the closed one"),
        (("--rate", "5", "--steps", "5"), "leave --rate and --users out"),
        (("--steps", "5,fast"), "--steps '5,fast'"),
        (("--at", "http://a:1,http://b:2"), "--at names 2 URLs"),
        (("--max-p99", "Paris=3"), "--max-p99: there is no region 'Paris'"),
        (("--max-fail-ratio", "few"), "--max-fail-ratio 'few'"),
        (("--processes", "0"), "--processes 0 must be between 1 and 64"),
        (("--workload", "tpc-c"), "unknown workload 'tpc-c'"),
        (("--time", "soon"), "--time 'soon'"),
        (("--protocol", "viewstamped"), "viewstamped"),
        (("--web", "--json"), "--web starts and stops runs by hand"),
        (("--patience", "0s"), "--patience 0 must be between"),
    ],
)
def test_wrong_options_are_one_line(options, said, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert run(["load", *options]) == 2
    error = capsys.readouterr().err
    assert said in error
    assert error.count("\n") == 1
    assert os.listdir(tmp_path) == []
