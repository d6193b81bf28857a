"""The data directory: whose it is, that one process has it, and that no life comes twice."""

import errno
import os
import shutil
import stat

import msgspec
import pytest

from epaxos.core.errors import StorageError
from epaxos.core.lineage import NO_LIFE, Life, descends
from epaxos.runtime import identity
from epaxos.runtime.identity import DataDirectory, MemoryIdentity, Owner, PeerLives
from tests.scripted.files import Disk, ScriptedOs, scripted_files
from tests.scripted.loop import Host

OWNER = Owner("c1", 1, 3, "epaxos")


def opened(path, owner=OWNER):
    return DataDirectory(path, owner)


def test_a_new_directory_is_private(tmp_path):
    data = opened(tmp_path / "d")
    assert stat.S_IMODE((tmp_path / "d").stat().st_mode) == 0o700
    for name in ("lock", "identity.json"):
        assert stat.S_IMODE((tmp_path / "d" / name).stat().st_mode) == 0o600
    data.close()


def test_the_boot_counter_grows_and_agrees_with_the_log(tmp_path):
    data = opened(tmp_path)
    assert data.boot == 1
    data.check_log(0)
    data.advance()
    data.close()
    data = opened(tmp_path)
    assert data.boot == 2
    # The log may have recorded boot 2 when the process ended before the directory knew.
    data.check_log(1)
    data.check_log(2)
    for logged in (0, 3):
        with pytest.raises(StorageError, match="replaced by an old copy"):
            data.check_log(logged)
    data.close()


def test_a_second_process_is_refused(tmp_path):
    data = opened(tmp_path)
    with pytest.raises(StorageError, match="in use by process"):
        opened(tmp_path)
    data.close()
    opened(tmp_path).close()


@pytest.mark.parametrize(
    ("owner", "sentence"),
    [
        (Owner("c2", 1, 3, "epaxos"), "belongs to cluster c1, replica B; this is replica B of c"),
        (Owner("c1", 0, 3, "epaxos"), "this is replica A of cluster c1"),
        (Owner("c1", 1, 5, "epaxos"), "n = 3"),
        (Owner("c1", 1, 3, "multipaxos"), "protocol = epaxos"),
    ],
)
def test_another_owner_is_refused_with_both_values(tmp_path, owner, sentence):
    opened(tmp_path).close()
    with pytest.raises(StorageError, match=sentence):
        opened(tmp_path, owner)
    opened(tmp_path).close()


def test_a_directory_of_something_else_is_refused(tmp_path):
    (tmp_path / "photos").mkdir()
    with pytest.raises(StorageError, match="not a data directory: it holds 'photos'"):
        opened(tmp_path)


def test_a_file_is_no_data_directory(tmp_path):
    (tmp_path / "d").write_text("")
    with pytest.raises(StorageError, match="is a file; name a directory"):
        opened(tmp_path / "d")


def test_a_directory_that_others_can_write_is_refused(tmp_path):
    path = tmp_path / "d"
    path.mkdir()
    path.chmod(0o777)
    with pytest.raises(StorageError, match="chmod 700"):
        opened(path)


@pytest.mark.parametrize(
    "content", [b"", b"{", b'{"format": 1}', b'{"format": "x"}', b'{"cluster": "\xff"}']
)
def test_a_damaged_identity_is_refused(tmp_path, content):
    opened(tmp_path).close()
    (tmp_path / "identity.json").write_bytes(content)
    with pytest.raises(StorageError, match=r"identity\.json is damaged"):
        opened(tmp_path)


def test_a_log_without_identity_is_refused(tmp_path):
    opened(tmp_path).close()
    (tmp_path / "identity.json").unlink()
    (tmp_path / "wal").mkdir()
    with pytest.raises(StorageError, match=r"no identity\.json.*replace this replica"):
        opened(tmp_path)


def test_a_newer_format_is_refused(tmp_path):
    opened(tmp_path).close()
    path = tmp_path / "identity.json"
    content = msgspec.json.decode(path.read_bytes())
    path.write_bytes(msgspec.json.encode({**content, "format": 9}))
    with pytest.raises(StorageError, match="format 9"):
        opened(tmp_path)


@pytest.mark.parametrize("kept", [True, False])
def test_peers_lives_are_remembered(tmp_path, kept):
    path = tmp_path / "peers.json" if kept else None
    peers = PeerLives(path)
    assert peers.judge(2, Life(1, "aa"), "") == "newer"
    assert peers.judge(2, Life(1, "aa"), "") == "known"
    assert peers.judge(2, Life(1, "bb"), "aa") == "twin"
    assert peers.judge(2, Life(3, "cc"), "") == "stranger"
    assert peers.judge(2, Life(3, "cc"), "aa") == "newer"
    if kept:
        peers = PeerLives(path)
    assert peers.judge(2, Life(2, "dd"), "cc") == "regressed"
    assert peers.judge(2, Life(3, "dd"), "cc") == "twin"
    assert peers.judge(2, Life(3, "cc"), "") == "known"
    assert peers.remembered(2) == Life(3, "cc")
    assert peers.remembered(0) == NO_LIFE


def test_in_memory_a_second_life_is_another_nonce():
    first, second = MemoryIdentity(), MemoryIdentity()
    peers = PeerLives(None)
    assert peers.judge(0, Life(first.boot, first.nonce), "") == "newer"
    assert peers.judge(0, Life(second.boot, second.nonce), "") == "twin"
    assert not descends(second.lives, peers.remembered(0))


def test_a_directory_keeps_the_nonces_of_all_its_lives(tmp_path):
    lives = []
    for boot in (1, 2, 3):
        data = opened(tmp_path)
        lives.append(Life(boot, data.nonce))
        assert all(descends(data.lives, life) for life in (NO_LIFE, *lives))
        assert not descends(data.lives, Life(boot, "other"))
        assert not descends(data.lives, Life(boot + 1, "later"))
        data.advance()
        data.close()


def test_an_older_copy_does_not_descend_from_later_lives_however_often_it_starts(tmp_path):
    opened(tmp_path / "d").close()
    shutil.copytree(tmp_path / "d", tmp_path / "copy")
    data = opened(tmp_path / "d")
    later = Life(data.boot, data.nonce)
    data.close()
    for _ in range(5):
        copy = opened(tmp_path / "copy")
        assert not descends(copy.lives, later)
        copy.advance()
        copy.close()


def test_a_refused_directory_stays_refused(tmp_path):
    data = opened(tmp_path)
    data.advance()
    data.refuse("B remembers another life")
    data.close()
    before = (tmp_path / "identity.json").read_bytes()
    for _ in range(3):
        with pytest.raises(StorageError, match="refused before: B remembers another life"):
            opened(tmp_path)
    assert (tmp_path / "identity.json").read_bytes() == before


def test_directories_of_releases_before_lineage_start(tmp_path):
    """They kept no nonces: those lives can be told by their number alone, as they were then."""
    data = opened(tmp_path)
    data.close()
    path = tmp_path / "identity.json"
    content = msgspec.json.decode(path.read_bytes())
    old = {key: value for key, value in content.items() if key not in ("lives", "refused")}
    path.write_bytes(msgspec.json.encode({**old, "boot": 4}))
    (tmp_path / "peers.json").write_bytes(b'{"2": {"boot": 7, "nonce": "aa"}}')
    data = opened(tmp_path)
    assert data.boot == 5
    assert descends(data.lives, Life(4, ""))
    assert not descends(data.lives, Life(5, ""))
    assert not descends(data.lives, Life(4, "aa"))
    assert data.peers.remembered(2) == Life(7, "")
    assert data.peers.judge(2, Life(7, "aa"), "") == "twin"
    assert data.peers.judge(2, Life(8, "bb"), "") == "newer"
    assert data.peers.judge(2, Life(9, "cc"), "") == "stranger"
    data.close()


def test_more_lives_than_starts_is_damage(tmp_path):
    opened(tmp_path).close()
    path = tmp_path / "identity.json"
    content = msgspec.json.decode(path.read_bytes())
    path.write_bytes(msgspec.json.encode({**content, "lives": ["a", "b", "c"]}))
    with pytest.raises(StorageError, match="damaged"):
        opened(tmp_path)


def test_a_peers_life_whose_sync_failed_is_durable_before_it_is_relied_upon(tmp_path, monkeypatch):
    system = ScriptedOs()
    disk = Disk(Host("a host"), tmp_path, 1, [], lambda: None)
    system.add(disk)
    path = tmp_path / "peers.json"
    with scripted_files(system):
        lives = PeerLives(path)
        lives.judge(1, Life(1, "a"), "")

        def fail(directory):
            raise OSError(errno.EIO, os.strerror(errno.EIO))

        with monkeypatch.context() as patch:
            patch.setattr(identity, "sync_directory", fail)
            with pytest.raises(StorageError):
                lives.judge(1, Life(2, "b"), "a")
        again = PeerLives(path)
        known = again.remembered(1)
        assert again.judge(1, known, "") == "known"
        disk.lose_power()
        assert PeerLives(path).remembered(1) == known


def test_the_names_of_new_directories_are_durable_before_anything_is_behind_them(
    tmp_path, monkeypatch
):
    synced = []
    sync_directory = identity.sync_directory

    def sync(path):
        synced.append(path)
        sync_directory(path)

    monkeypatch.setattr(identity, "sync_directory", sync)
    opened(tmp_path / "a" / "d").close()
    assert synced[:3] == [tmp_path, tmp_path / "a", tmp_path / "a" / "d"]
    synced.clear()
    opened(tmp_path / "a" / "d").close()
    assert not synced, "a directory that has an identity has a name"
