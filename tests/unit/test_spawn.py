"""Starting a child loses no Ctrl-C, also one that falls into Python's fork hooks."""

import os
import signal
import subprocess
import sys

import pytest

from bench.spawn import spawn
from tests.house.sources import ROOT

LOCUSTFILE = str(ROOT / "bench" / "locustfile.py")

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


@pytest.fixture
def shadowed(tmp_path, monkeypatch):
    """A current directory that holds modules with our names, which say so and fail."""
    (tmp_path / "topology.py").write_text("raise SystemExit('their topology')")
    (tmp_path / "bench").mkdir()
    (tmp_path / "bench" / "__init__.py").write_text("raise SystemExit('their bench')")
    (tmp_path / "mine.py").write_text("NAME = 5")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", "", prepend=os.pathsep)  # an empty entry: here


@pytest.mark.parametrize("how", ["-m", "-c"])
def test_a_child_imports_our_modules_not_those_of_the_current_directory(shadowed, how):
    code = "import bench.load.client, topology; print(topology.DEFAULT)"
    command = ["-c", code] if how == "-c" else ["-m", "epaxos", "topology", "show", "lan:3"]
    child = spawn([sys.executable, *command], stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    said = child.communicate()[0].decode()
    assert child.returncode == 0, said
    assert "their" not in said


def test_a_child_finds_own_parts_in_the_current_directory(shadowed):
    code = "from epaxos.extensions import load_place; print(load_place('mine:NAME'))"
    child = spawn([sys.executable, "-c", code], stdout=subprocess.PIPE)
    assert child.communicate()[0] == b"5\n"


def test_locust_imports_our_modules_not_those_of_the_current_directory(shadowed):
    command = [sys.executable, "-m", "locust", "-f", LOCUSTFILE, "--list"]
    child = spawn(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    said = child.communicate()[0].decode()
    assert child.returncode == 0, said


def test_python_m_imports_our_modules_not_those_of_the_current_directory(shadowed):
    command = [sys.executable, "-m", "epaxos", "topology", "show", "lan:3"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
