"""`epaxos sim run` as a process: over two workers, and stopped by Ctrl-C and by SIGTERM."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest


def children_of(pid):
    """Process ids of the living children of a process."""
    found = []
    for entry in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = entry.read_text(encoding="ascii", errors="replace").rpartition(")")[2].split()
        except OSError:
            continue  # it ended while we looked
        if int(fields[1]) == pid:
            found.append(int(entry.parent.name))
    return found


@pytest.fixture
def endless():
    """A soak that would run for an hour."""
    process = subprocess.Popen(
        [sys.executable, "-m", "epaxos", "sim", "run", "--minutes", "60", "--jobs", "2"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    yield process
    if process.poll() is None:
        for pid in (*children_of(process.pid), process.pid):
            os.kill(pid, signal.SIGKILL)
    process.communicate()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_who_interrupts_sees_what_was_found_and_leaves_nobody(endless, number):
    deadline = time.monotonic() + 120
    while len(children_of(endless.pid)) < 2:
        assert endless.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.1)
    workers = children_of(endless.pid)
    time.sleep(1)
    endless.send_signal(number)
    out, err = endless.communicate(timeout=120)
    assert endless.returncode == 130, err
    assert "seeds clean" in out
    assert "Traceback" not in err
    for pid in workers:
        assert not Path(f"/proc/{pid}").exists()


def test_seeds_over_two_workers_are_the_same_as_over_one():
    def soak(jobs):
        words = [
            "sim",
            "run",
            "--seeds",
            "12",
            "--protocol",
            "multipaxos",
            "--json",
            "--jobs",
            jobs,
        ]
        done = subprocess.run(
            [sys.executable, "-m", "epaxos", *words], capture_output=True, text=True, check=True
        )
        return done.stdout

    assert soak("1") == soak("2")
