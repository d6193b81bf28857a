"""Finished trials on disk: names that follow from everything, nothing written over or believed."""

import os
import shutil
from dataclasses import replace
from pathlib import Path

import msgspec
import pytest

from bench.trials import store as stored
from bench.trials.executors import Failed, Job, perform
from bench.trials.store import TrialStore, code_version, decode, encode, read, share, trial_key
from bench.trials.trial import Trial
from epaxos.core.errors import ConfigError, StorageError
from tests.house.sources import ROOT
from topology import predict_epaxos

TRIAL = Trial(simulated=True, replicas=3, rate=120.0, duration_s=1.0, warmup_s=0.2)


@pytest.fixture(scope="module")
def finished():
    """A trial and the bytes that the store keeps of it."""
    key = trial_key(TRIAL, code_version())
    settings = {name: getattr(TRIAL, name) for name in TRIAL.__dataclass_fields__}
    data = perform(Job(0, settings, key, code_version(), "unused"))
    assert not isinstance(data, Failed), data
    return key, data


def test_what_was_kept_comes_back(tmp_path, finished):
    key, data = finished
    store = TrialStore(tmp_path)
    assert store.get(key) is None
    path = store.put(key, data)
    stored = store.get(key)
    assert Trial(**stored.trial) == TRIAL
    assert stored.outcome.load.samples
    predicted = [each.fast_ms for each in predict_epaxos(TRIAL.sites)]
    assert [each.network_ms for each in stored.optimum] == pytest.approx(predicted, abs=0.001)
    assert stored.titles["CA"] == "California"
    assert stored.leader is None
    assert list(store.keys()) == [key]
    assert [each.name for each in path.parent.iterdir()] == [path.name]


def test_nothing_is_written_over(tmp_path, finished):
    key, data = finished
    store = TrialStore(tmp_path)
    path = store.put(key, data)
    before = path.stat()
    other = encode(replace_took(decode(data, path)))
    assert other != data
    store.put(key, other)
    assert path.read_bytes() == data
    assert path.stat().st_ino == before.st_ino


def replace_took(stored):
    return msgspec.structs.replace(stored, took_s=stored.took_s + 1)


def test_a_write_that_fails_leaves_nothing_in_the_trials_place(tmp_path, finished, monkeypatch):
    key, data = finished
    store = TrialStore(tmp_path)

    def fail(descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(StorageError, match="No space left on device"):
        store.put(key, data)
    assert not store.path(key).exists()
    assert list(store.path(key).parent.iterdir()) == []


def test_a_disk_without_links_is_served_too(tmp_path, finished, monkeypatch):
    key, data = finished
    store = TrialStore(tmp_path / "store")

    def refuse(source, target):
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os, "link", refuse)
    path = store.put(key, data)
    assert path.read_bytes() == data
    (tmp_path / "kept").mkdir()
    share(path, tmp_path / "kept")
    assert (tmp_path / "kept" / path.name).read_bytes() == data


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (lambda data: data[:-1], "its checksum does not match"),
        (lambda data: data[:100] + bytes([data[100] ^ 1]) + data[101:], "its checksum does not"),
        (lambda data: b"", "it does not begin like a trial"),
        (lambda data: b"PK" + data, "it does not begin like a trial"),
    ],
)
def test_what_is_damaged_is_named_and_not_believed(tmp_path, finished, damage, said):
    key, data = finished
    store = TrialStore(tmp_path)
    path = store.put(key, data)
    path.write_bytes(damage(data))
    with pytest.raises(StorageError, match=said) as caught:
        store.get(key)
    assert str(path) in str(caught.value)


def test_a_trial_under_another_name_is_not_believed(tmp_path, finished):
    key, data = finished
    path = tmp_path / f"{'0' * len(key)}.trial"
    path.write_bytes(data)
    with pytest.raises(StorageError, match=f"it holds the trial {key}"):
        read(path)


def test_what_was_put_aside_is_kept(tmp_path, finished):
    key, data = finished
    store = TrialStore(tmp_path)
    for _ in range(2):
        store.put(key, data)
        store.path(key).write_bytes(b"broken")
        store.put_aside(key)
    names = sorted(each.name for each in store.path(key).parent.iterdir())
    assert names == [f"{key}.trial.damaged", f"{key}.trial.damaged-2"]
    assert store.get(key) is None


def test_a_place_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").write_text("", encoding="utf-8")
    with pytest.raises(StorageError, match="name a directory that can be written"):
        TrialStore(tmp_path / "file")


# Names -----------------------------------------------------------------------------------------


def test_every_setting_the_seed_and_the_code_are_in_the_name():
    others = [
        replace(TRIAL, seed=2),
        replace(TRIAL, rate=121.0),
        replace(TRIAL, protocol="multipaxos"),
        replace(TRIAL, workload="conflict:2"),
        replace(TRIAL, faults=("slow:CA@0-1,factor=2",)),
        replace(TRIAL, gate=False),
    ]
    names = {trial_key(each, "code") for each in (TRIAL, *others)} | {trial_key(TRIAL, "other")}
    assert len(names) == len(others) + 2
    assert trial_key(replace(TRIAL), "code") == trial_key(TRIAL, "code")


def test_a_topology_file_is_named_by_what_stands_in_it(tmp_path):
    def key(name, rtt_ms):
        path = tmp_path / name
        text = f"[regions.a]\n[regions.b]\n[links.a-b]\nrtt_ms = {rtt_ms}\n"
        path.write_text(text, encoding="utf-8")
        return trial_key(Trial(topology=str(path)), "code")

    assert key("one.toml", 20) == key("other.toml", 20)
    assert key("one.toml", 20) != key("one.toml", 21)


def test_a_topology_file_that_is_gone_is_named(tmp_path):
    path = tmp_path / "mine.toml"
    path.write_text("[regions.a]\n[regions.b]\n[links.a-b]\nrtt_ms = 20\n", encoding="utf-8")
    trial = Trial(topology=str(path))
    path.unlink()
    with pytest.raises(ConfigError, match=r"mine\.toml: No such file"):
        trial_key(trial, "code")


def test_somebodys_own_module_is_in_the_name(tmp_path, monkeypatch):
    package = tmp_path / "theirs_for_a_test"
    package.mkdir()
    (package / "__init__.py").write_text("", encoding="utf-8")
    (package / "own.py").write_text("RATE = 1\n", encoding="utf-8")
    monkeypatch.syspath_prepend(str(tmp_path))
    source = stored._source_of("theirs_for_a_test.own:Thing,keys=5")
    assert source == package / "own.py"
    assert stored._source_of("conflict:2") is None
    assert stored._source_of("zipf:theta=0.9") is None
    assert stored._source_of("epaxos") is None


def test_the_code_version_changes_with_what_is_run_and_not_with_what_shows_it(tmp_path):
    names = ("epaxos", "topology", "bench")
    for name in names:
        ignored = shutil.ignore_patterns("__pycache__")
        shutil.copytree(ROOT / name, tmp_path / name, ignore=ignored)

    def version():
        return stored._version_of([tmp_path / name for name in names])

    before = version()
    for name in ("bench/trials/plots.py", "epaxos/cli/output.py", "bench/drawing/style.py"):
        append(tmp_path / name)
    assert version() == before
    found = {before}
    for name in ("epaxos/core/quorum.py", "topology/data/aws.json", "epaxos/cli/serve.py"):
        append(tmp_path / name)
        found.add(version())
    assert len(found) == 4
    (tmp_path / "bench" / "new.py").write_text("", encoding="utf-8")
    assert version() not in found


def append(path):
    path.write_text(path.read_text(encoding="utf-8") + "\n", encoding="utf-8")


def test_every_file_that_only_shows_is_there():
    assert [name for name in sorted(stored._SHOWN) if not (ROOT / name).is_file()] == []
    assert (ROOT / stored._STILL).is_file()
    assert [name for name in stored._SHOWN_FOLDERS if not Path(ROOT / name).is_dir()] == []
