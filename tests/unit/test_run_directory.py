"""Result directories are never written over."""

from datetime import datetime

import pytest

from bench.run_directory import make_directory, sweep
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
