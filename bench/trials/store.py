r"""Finished trials on disk, by content: what was run once is not run again.

    results/store/
      7f/7f3a….trial      one finished trial
      work/                 what clusters write while they run; kept of a trial that failed
      ….trial.damaged      put aside, never trusted

The name of a trial is a hash of everything its outcome follows from: the trial with its seed, the
code that ran it, and the files of its own that it names (topologies, workloads, protocols). Another
seed, or a changed line in a protocol, is another name. So nothing is ever written over: a file is
written beside its place, synced, and linked there whole; what already stands there stays.

    b"epaxos trial 1\n" · SHA-256 of what follows · zlib of msgpack of StoredTrial

Rules of this file: bytes and names; it runs nothing. What does not check out is named
(StorageError) and not believed.
"""

import hashlib
import os
import shutil
import zlib
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import asdict
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final

import msgspec
import orjson

import bench
import epaxos
import topology
from bench.analysis.optimum import Optimum
from bench.trials.trial import Outcome, Trial
from epaxos.core.errors import ConfigError, StorageError

SUFFIX: Final = ".trial"
_MAGIC: Final = b"epaxos trial 1\n"
_DIGEST: Final = 32
_KEY_DIGITS: Final = 32
_SHOWN: Final = frozenset(
    {
        "bench/analysis/units.py",
        "bench/progress.py",
        "bench/workers.py",
        "bench/trials/cells.py",
        "bench/trials/differences.py",
        "bench/trials/executors.py",
        "bench/trials/experiment.py",
        "bench/trials/plots.py",
        "bench/trials/results.py",
        "bench/trials/store.py",
        "bench/trials/sweep.py",
    }
)
"""Files of ours that no trial's outcome follows from; neither does it from these folders:"""
_SHOWN_FOLDERS: Final = (
    "bench/drawing/",
    "bench/experiments/",
    "bench/figures/",
    "bench/reports/",
    "epaxos/cli/",
)
_STILL: Final = "epaxos/cli/serve.py"
"""But from this: it starts a replica."""
_CODE: Final = frozenset({".py", ".json"})


class StoredTrial(msgspec.Struct, frozen=True, kw_only=True):
    """A finished trial, with all that a reader must know of it: the files it names may be gone."""

    key: str
    trial: dict[str, Any]
    """The fields of Trial."""
    leader: str | None
    """Region of the leader; None for protocols without."""
    titles: dict[str, str]
    """Of the regions with clients and of those with replicas, by name."""
    optimum: list[Optimum]
    """Per region with clients, in the order of `outcome.regions`."""
    code: str
    """`code_version` of what ran it."""
    finished: str
    """When, as ISO 8601."""
    took_s: float
    host: str
    outcome: Outcome


# Names -----------------------------------------------------------------------------------------


@cache
def code_version() -> str:
    """A hash of the source that outcomes follow from, wherever it is installed."""
    return _version_of(
        [Path(str(package.__file__)).parent for package in (epaxos, topology, bench)]
    )


def _version_of(packages: Sequence[Path]) -> str:
    digest = hashlib.sha256()
    for top in packages:
        for path in sorted(top.rglob("*")):
            name = path.relative_to(top.parent).as_posix()
            if path.suffix in _CODE and _matters(name):
                digest.update(f"{name}\0".encode() + hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()[:16]


def _matters(name: str) -> bool:
    """Whether an outcome may follow from this file of ours."""
    return name == _STILL or not (name in _SHOWN or name.startswith(_SHOWN_FOLDERS))


def trial_key(trial: Trial, code: str) -> str:
    """The name of a trial run by this code. Raises ConfigError for a topology file that cannot be
    read."""
    settings = asdict(trial)
    own: dict[str, str] = {}
    if found := topology.source_files(trial.topology):
        path, _, picked = trial.topology.partition(":")
        settings["topology"] = f"file:{picked}" if picked else "file"
        own["topology"] = _hash_of(found[0])
        if Path(path).is_dir():  # there a file's name is a region's
            own["topology"] = " ".join(f"{each.stem}={_hash_of(each)}" for each in found)
    for key in ("protocol", "workload"):
        source = _source_of(settings[key])
        if source is not None:
            own[key] = _hash_of(source)
    document = orjson.dumps(
        {"trial": settings, "own": own, "code": code}, option=orjson.OPT_SORT_KEYS
    )
    return hashlib.sha256(document).hexdigest()[:_KEY_DIGITS]


def _hash_of(path: Path) -> str:
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror}") from None


def _source_of(text: str) -> Path | None:
    """The file behind `package.module:Name`, which is somebody's own; None for what is not one."""
    module = text.partition(":")[0]
    if "." not in module and ":" not in text:
        return None
    try:
        spec = find_spec(module)
    except (ImportError, ValueError):
        return None
    return Path(spec.origin) if spec and spec.origin and Path(spec.origin).is_file() else None


# Files ----------------------------------------------------------------------------------------


def encode(stored: StoredTrial) -> bytes:
    """What stands in a file, and travels between processes."""
    body = zlib.compress(msgspec.msgpack.encode(stored))
    return _MAGIC + hashlib.sha256(body).digest() + body


def decode(data: bytes, path: Path) -> StoredTrial:
    """The trial in a file's bytes. Raises StorageError that names the file and what is wrong."""
    start = len(_MAGIC) + _DIGEST
    body = data[start:]
    if not data.startswith(_MAGIC):
        raise StorageError(f"{path} is damaged: it does not begin like a trial")
    if hashlib.sha256(body).digest() != data[len(_MAGIC) : start]:
        raise StorageError(f"{path} is damaged: its checksum does not match")
    try:
        stored = msgspec.msgpack.decode(zlib.decompress(body), type=StoredTrial)
    except (msgspec.MsgspecError, zlib.error) as error:
        raise StorageError(f"{path} was written by another version: {error}") from None
    if stored.key != path.name.removesuffix(SUFFIX):
        raise StorageError(f"{path} is damaged: it holds the trial {stored.key}")
    return stored


def read(path: Path) -> StoredTrial:
    """The trial in a file. Raises StorageError."""
    try:
        data = path.read_bytes()
    except OSError as error:
        raise StorageError(f"{path}: {error.strerror}") from None
    return decode(data, path)


class TrialStore:
    """A directory of finished trials. Raises StorageError where it cannot be written."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.work = directory / "work"
        try:
            self.work.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise StorageError(
                f"{directory}: {error.strerror}; name a directory that can be written"
            ) from None

    def path(self, key: str) -> Path:
        """Where a trial stands, or would."""
        return self.directory / key[:2] / f"{key}{SUFFIX}"

    def get(self, key: str) -> StoredTrial | None:
        """A finished trial. Raises StorageError if it is damaged."""
        path = self.path(key)
        return read(path) if path.exists() else None

    def put(self, key: str, data: bytes) -> Path:
        """Keep what `encode` gave. What stands there already stays as it is."""
        path = self.path(key)
        beside = path.with_name(f".{key}.{os.getpid()}")
        try:
            path.parent.mkdir(exist_ok=True)
            with beside.open("wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            _link(beside, path)
            _sync_directory(path.parent)
        except OSError as error:
            raise StorageError(f"{path}: {error.strerror}") from None
        finally:
            beside.unlink(missing_ok=True)
        return path

    def put_aside(self, key: str) -> Path:
        """Take a damaged trial out of the way without losing it; returns its new place."""
        path = self.path(key)
        for number in range(1, 1000):
            place = path.with_name(f"{path.name}.damaged{'' if number == 1 else f'-{number}'}")
            if not place.exists():
                path.rename(place)
                return place
        raise StorageError(f"{path} was damaged a thousand times; look at the disk")

    def keys(self) -> Iterator[str]:
        """Of all trials, in order."""
        for path in sorted(self.directory.glob(f"*/*{SUFFIX}")):
            yield path.name.removesuffix(SUFFIX)

    def sweep(self, key: str) -> None:
        """Forget what a trial wrote while it ran."""
        shutil.rmtree(self.work / key, ignore_errors=True)


def share(path: Path, directory: Path) -> None:
    """Let a trial stand in another directory too: a link where the disk can, else a copy."""
    target = directory / path.name
    try:
        os.link(path, target)
    except OSError:
        # Another disk, or one without links.
        shutil.copyfile(path, target)


def _link(source: Path, target: Path) -> None:
    """Let a whole file appear in its place, unless something stands there."""
    with suppress(FileExistsError):
        try:
            os.link(source, target)
        except PermissionError:
            # A disk without links.
            if not target.exists():
                source.rename(target)


def _sync_directory(directory: Path) -> None:
    place = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(place)
    finally:
        os.close(place)
