"""The data directory: whose it is, that one process has it, and that no life comes twice."""

import stat

import msgspec
import pytest

from epaxos.core.errors import StorageError
from epaxos.runtime.identity import DataDirectory, MemoryIdentity, Owner, PeerBoots

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
    peers = PeerBoots(path)
    assert peers.judge(2, 1, "aa") == "newer"
    assert peers.judge(2, 1, "aa") == "known"
    assert peers.judge(2, 1, "bb") == "twin"
    assert peers.judge(2, 3, "cc") == "newer"
    if kept:
        peers = PeerBoots(path)
    assert peers.judge(2, 2, "dd") == "regressed"
    assert peers.judge(2, 3, "dd") == "twin"
    assert peers.judge(2, 3, "cc") == "known"
    assert (peers.highest(2), peers.highest(0)) == (3, 0)


def test_in_memory_a_second_life_is_another_nonce():
    first, second = MemoryIdentity(), MemoryIdentity()
    peers = PeerBoots(None)
    assert peers.judge(0, first.boot, first.nonce) == "newer"
    assert peers.judge(0, second.boot, second.nonce) == "twin"
