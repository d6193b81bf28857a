"""Result directories are never written over, and keep no data of replicas."""

from datetime import datetime
from io import StringIO

import pytest
from rich.console import Console

from bench.run_directory import make_directory, manifest, measuring, sweep
from epaxos.core.errors import ConfigError


def test_a_directory_per_run(tmp_path):
    now = datetime(2026, 11, 23, 15, 7)
    names = [make_directory(tmp_path / "results", "compare", now).name for _ in range(3)]
    assert names == [
        "2026-11-23-1507-compare",
        "2026-11-23-1507-compare-2",
        "2026-11-23-1507-compare-3",
    ]


def test_a_place_that_cannot_be_written_is_said(tmp_path):
    (tmp_path / "file").write_text("x")
    with pytest.raises(ConfigError, match="name a directory"):
        make_directory(tmp_path / "file", "compare", datetime(2026, 1, 1))


def test_only_data_is_swept(tmp_path):
    run = tmp_path / "epaxos"
    (run / "data-VA").mkdir(parents=True)
    (run / "data-VA" / "log").write_text("x")
    (run / "VA.log").write_text("said")
    (run / "load.json").write_text("{}")
    sweep(tmp_path)
    assert [path.name for path in run.iterdir()] == ["VA.log"]


@pytest.mark.parametrize("error", [None, ValueError, KeyboardInterrupt])
def test_what_stays_of_a_run(tmp_path, error):
    directory = tmp_path / "run"
    said = Console(file=StringIO())
    stopped = False
    try:
        with measuring(directory, said) as replicas:
            (replicas / "epaxos" / "data-VA").mkdir(parents=True)
            (replicas / "epaxos" / "VA.log").write_text("said")
            if error is not None:
                raise error
    except (ValueError, KeyboardInterrupt):
        stopped = True
    assert stopped == (error is not None)
    left = sorted(path.name for path in directory.rglob("*"))
    assert left == ([] if error is KeyboardInterrupt else ["VA.log", "epaxos", "replicas"])
    assert ("nothing was kept" in said.file.getvalue()) == (error is KeyboardInterrupt)


def test_a_manifest_says_how_to_repeat_the_run(monkeypatch):
    monkeypatch.setattr("sys.argv", ["epaxos", "compare", "--out", "a b"])
    found = manifest(datetime(2026, 11, 23, 15, 7))
    assert found["command_line"] == "epaxos compare --out 'a b'"
    assert found["begun"].startswith("2026-11-23T15:07:00")
    assert found["begun"] < found["ended"]
    assert {"version", "python", "packages", "machine"} <= set(found)
