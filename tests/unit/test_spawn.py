"""Starting a child loses no Ctrl-C, also one that falls into Python's fork hooks."""

import os
import signal
import subprocess
import sys

import pytest

from bench.spawn import spawn

os.register_at_fork(after_in_parent=lambda: _hook())
_wanted = []


def _hook():
    if _wanted:
        _wanted.clear()
        signal.raise_signal(signal.SIGINT)


def test_an_interrupt_during_the_fork_is_raised_afterwards():
    _wanted.append(True)
    with pytest.raises(KeyboardInterrupt):
        spawn([sys.executable, "-c", "pass"])
    with pytest.raises(KeyboardInterrupt):
        signal.raise_signal(signal.SIGINT)


def test_a_child_is_outside_our_session():
    code = "import os; print(os.getsid(0) == os.getpid())"
    with spawn([sys.executable, "-c", code], stdout=subprocess.PIPE) as child:
        said, _ = child.communicate(timeout=30)
    assert said.strip() == b"True"


def test_a_child_sees_no_settings_of_replicas(monkeypatch):
    monkeypatch.setenv("EPAXOS_DURABILITY", "memory")
    monkeypatch.setenv("NOT_EPAXOS_DURABILITY", "kept")
    code = "import os; print(sorted(key for key in os.environ if 'EPAXOS_' in key))"
    child = spawn([sys.executable, "-c", code], stdout=subprocess.PIPE)
    assert child.communicate()[0].decode().strip() == "['NOT_EPAXOS_DURABILITY']"
