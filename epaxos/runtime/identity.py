"""Who this process is: the data directory's owner, its lock, its boot counter, and its peers'.

    DATA/             mode 0700
      lock            held with flock for as long as the process lives
      identity.json   format, cluster, replica, n, protocol, boot, nonces of all lives, refusal
      peers.json      the latest life that was accepted, per peer
      wal/            the log

A replica that lost its log, or came back with an older copy of it, would vote as if it had never
voted (R11). So every start is a new life (`epaxos.core.lineage`): its boot counter and nonce are
durable before anything is said, the counter in the log first and then both here. Peers remember the
latest life they accepted; a directory that cannot show that life among its own is refused. It then
says so itself, durably, and no later start from it gets as far as a counter. Where nothing is
written (memory mode) there is one life: a second is refused as long as any peer remembers the
first.
"""

import fcntl
import os
import secrets
from contextlib import suppress
from pathlib import Path
from typing import Final, TypeVar

import msgspec

from epaxos.core.command import UNDECODABLE
from epaxos.core.errors import StorageError
from epaxos.core.lineage import NO_LIFE, Life, Verdict, judge_life
from epaxos.core.types import ReplicaId, replica_name
from epaxos.runtime.segments import FORMAT
from epaxos.runtime.wal import sync_directory

T = TypeVar("T")

_REPLACE: Final = 'replace this replica (docs/operating.md, "lost disk")'
_DIRECTORY_MODE: Final = 0o700
_FILE_MODE: Final = 0o600


class Owner(msgspec.Struct, frozen=True):
    """Whose data a directory holds."""

    cluster: str
    replica: ReplicaId
    n: int
    protocol: str


class _IdentityFile(msgspec.Struct, forbid_unknown_fields=True):
    format: int
    cluster: str
    replica: ReplicaId
    n: int
    protocol: str
    boot: int
    lives: list[str] = []
    """Nonces of all lives, the first life's first; empty strings for those of releases that kept
    none."""
    refused: str = ""
    """Why no process may start from this directory again; empty: it may."""


class _PeerLife(msgspec.Struct, frozen=True):
    """As `peers.json` keeps a `Life`. Files of releases before lineage say nothing of it: their
    nonces were given to processes that did not keep them, so only the number can be asked for."""

    boot: int
    nonce: str
    lineage: bool = False


class PeerLives:
    """The latest life accepted of each peer; kept in a file unless in memory mode."""

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self._lives: dict[ReplicaId, Life] = {}
        if path is not None and path.exists():
            for peer, life in _load(path, dict[ReplicaId, _PeerLife]).items():
                self._lives[peer] = Life(life.boot, life.nonce if life.lineage else "")
            # What a failed sync left is read from memory only (`epaxos.runtime.wal`).
            self._keep()

    def remembered(self, peer: ReplicaId) -> Life:
        """The latest life accepted; `NO_LIFE` of a peer never met."""
        return self._lives.get(peer, NO_LIFE)

    def judge(self, peer: ReplicaId, said: Life, shown: str) -> Verdict:
        """What the peer is (`judge_life`). A newer life is remembered, durably, before this
        returns. Raises StorageError if it cannot be."""
        verdict = judge_life(self.remembered(peer), said, shown)
        if verdict == "newer":
            self._lives[peer] = said
            self._keep()
        return verdict

    def _keep(self) -> None:
        if self._path is not None:
            kept = {peer: _PeerLife(*life, bool(life.nonce)) for peer, life in self._lives.items()}
            _save(self._path, kept)


class MemoryIdentity:
    """A replica that writes nothing and therefore lives once."""

    def __init__(self) -> None:
        self.boot = 1
        self.nonce = secrets.token_hex(8)
        self.lives = [self.nonce]
        self.peers = PeerLives(None)

    def refuse(self, why: str) -> None:
        """Nothing remembers it."""

    def close(self) -> None:
        """Nothing to release."""


class DataDirectory:
    """A data directory, locked for this process.

    Raises StorageError, with a sentence for a person, when it is another's, in use, or unsafe."""

    def __init__(self, path: Path, owner: Owner) -> None:
        self.path = path
        self.nonce = secrets.token_hex(8)
        try:
            _make_directory(path)
            _check_mode(path)
            self._lock = self._take_lock()
        except FileExistsError:
            raise StorageError(f"data directory {path} is a file; name a directory") from None
        except OSError as error:
            raise StorageError(f"data directory {path}: {error.strerror or error}") from error
        try:
            self._identity = self._load_or_create(owner)
            self.peers = PeerLives(path / "peers.json")
        except BaseException:
            self.close()
            raise
        self.boot = self._identity.boot + 1
        """The counter of this life."""
        unknown = self._identity.boot - len(self._identity.lives)
        self.lives = [*self._identity.lives, *[""] * unknown, self.nonce]
        """Nonces of all lives, this one's last."""

    @property
    def wal_path(self) -> Path:
        """Where the log is."""
        return self.path / "wal"

    def check_log(self, logged: int) -> None:
        """Compare with the boot counter that the log recorded last.

        The log records a start first, the directory second, and only then anything is said. So the
        log is at most one start ahead, and never behind: then it is not the log of this
        directory. Raises StorageError."""
        if not self._identity.boot <= logged <= self._identity.boot + 1:
            raise StorageError(
                f"data directory {self.path}: the log ends in boot {logged}, the directory is in "
                f"boot {self._identity.boot}: one of them was lost or replaced by an old copy. "
                "This replica has voted and would forget its votes; "
                'replace it (docs/operating.md, "lost disk")'
            )

    def advance(self) -> None:
        """Make `boot` the counter of this life, durably. From here on it may speak."""
        self._identity.boot = self.boot
        self._identity.lives = self.lives
        _save(self.path / "identity.json", self._identity)

    def refuse(self, why: str) -> None:
        """Mark the directory, durably: no process starts from it again. Raises StorageError."""
        self._identity.refused = why
        _save(self.path / "identity.json", self._identity)

    def close(self) -> None:
        """Release the lock."""
        if self._lock >= 0:
            os.close(self._lock)
            self._lock = -1

    def _take_lock(self) -> int:
        flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
        entries = sorted(p.name for p in self.path.iterdir())
        if entries and not {"lock", "identity.json"} & set(entries):
            raise StorageError(
                f"directory {self.path} is not a data directory: it holds {entries[0]!r}; "
                "give an empty or a new one"
            )
        fd = os.open(self.path / "lock", flags, _FILE_MODE)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.pread(fd, 32, 0).decode("ascii", "replace").strip() or "unknown"
            os.close(fd)
            raise StorageError(
                f"data directory {self.path} is in use by process {holder}; stop it first, or "
                "give this replica its own directory"
            ) from None
        os.ftruncate(fd, 0)
        os.pwrite(fd, str(os.getpid()).encode(), 0)
        return fd

    def _load_or_create(self, owner: Owner) -> _IdentityFile:
        path = self.path / "identity.json"
        if not path.exists():
            if (self.path / "wal").exists():
                raise StorageError(
                    f"data directory {self.path} has a log but no identity.json: restore the file "
                    f"of the last stop, or {_REPLACE}"
                )
            identity = _IdentityFile(
                FORMAT, owner.cluster, owner.replica, owner.n, owner.protocol, 0
            )
            _save(path, identity)
            return identity
        identity = _load(path, _IdentityFile)
        _check_owner(self.path, identity, owner)
        if identity.refused:
            raise StorageError(f"data directory {self.path} was refused before: {identity.refused}")
        if len(identity.lives) > identity.boot:
            raise StorageError(
                f"{path} is damaged (boot {identity.boot}, yet {len(identity.lives)} lives); "
                f"{_REPLACE}"
            )
        return identity


def _check_owner(path: Path, found: _IdentityFile, owner: Owner) -> None:
    if found.format != FORMAT:
        raise StorageError(
            f"data directory {path} has format {found.format}; this version reads format {FORMAT}"
        )
    if (found.cluster, found.replica) != (owner.cluster, owner.replica):
        me = replica_name(owner.replica)
        raise StorageError(
            f"data directory {path} belongs to cluster {found.cluster}, replica "
            f"{replica_name(found.replica)}; this is replica {me} of cluster {owner.cluster}. "
            f"Start the replica it belongs to, or give replica {me} an empty directory and "
            'replace it (docs/operating.md, "lost disk")'
        )
    for field in ("n", "protocol"):
        if getattr(found, field) != getattr(owner, field):
            raise StorageError(
                f"data directory {path} was made with {field} = {getattr(found, field)}, the "
                f"configuration says {field} = {getattr(owner, field)}; it cannot change in a "
                "running cluster: use a new cluster id and new directories"
            )


def _make_directory(path: Path) -> None:
    """Make a directory and those above it, where they are missing, each name durable before
    anything is put behind it. A first start that was cut short may have left a name that is not."""
    if not path.parent.exists():
        _make_directory(path.parent)
    path.mkdir(mode=_DIRECTORY_MODE, exist_ok=True)
    if not (path / "identity.json").exists():
        # Whoever may not read a directory cannot sync it.
        with suppress(PermissionError):
            sync_directory(path.parent)


def _check_mode(path: Path) -> None:
    mode = path.stat().st_mode & 0o777
    if mode & 0o022:
        raise StorageError(
            f"data directory {path} can be written by others (mode {mode:04o}); "
            f"run: chmod 700 {path}"
        )


def _load(path: Path, kind: type[T]) -> T:
    try:
        return msgspec.json.decode(path.read_bytes(), type=kind, strict=False)
    except OSError as error:
        raise StorageError(f"cannot read {path}: {error.strerror or error}") from error
    except UNDECODABLE as error:
        raise StorageError(
            f"{path} is damaged ({error}); restore it from the moment of the last stop, or "
            f"{_REPLACE}"
        ) from None


def _save(path: Path, value: object) -> None:
    """Replace a file durably: it holds the old or the new content, whatever happens."""
    fresh = path.with_suffix(".tmp")
    try:
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW
        fd = os.open(fresh, flags, _FILE_MODE)
        with os.fdopen(fd, "wb") as file:
            file.write(msgspec.json.format(msgspec.json.encode(value), indent=2) + b"\n")
            file.flush()
            os.fsync(fd)
        fresh.rename(path)
        sync_directory(path.parent)
    except OSError as error:
        raise StorageError(f"cannot write {path}: {error.strerror or error}") from error
