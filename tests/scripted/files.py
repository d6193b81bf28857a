"""The file system of a host: real files, and a memory of what was not synced.

A power loss takes back, of what was written and not synced, whatever a seed says: all, some, or the
end of one write; renames whose directory was not synced likewise. What a failed sync covered can be
read, and no later sync makes it durable. The product's modules see this through the name `os`.
"""

import asyncio
import errno
import os
import random
import threading
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from unittest import mock

from epaxos.runtime import identity, wal
from tests.scripted.loop import Host

SECTOR = 512
_MAIN = threading.main_thread()


class PowerLoss(OSError):
    """The host died in the middle of this call."""


class Write:
    """Bytes of a file that were replaced."""

    def __init__(self, path: Path, offset: int, before: bytes, size: int) -> None:
        self.path = path
        self.offset = offset
        self.before = before
        self.size = size
        self.doomed = False
        """A sync that was to make it durable failed."""


class Rename:
    """A name that was changed."""

    def __init__(
        self, path: Path, target: Path, before: bytes | None, replaced: list[Write]
    ) -> None:
        self.path = path
        self.target = target
        self.before = before
        self.replaced = replaced
        """Unsynced writes to the file that had the name before."""


class Disk:
    """What one host wrote and has not synced."""

    def __init__(
        self,
        host: Host,
        root: Path,
        seed: object,
        pending: list[Write | Rename],
        on_death: Callable[[], object],
    ) -> None:
        self.host = host
        self.root = root
        self.random = random.Random(f"disk {seed} {host}")
        self.pending = pending
        self.dies_in: int | None = None
        """After so many calls that write or sync the host dies."""
        self.sync_fails_in: int | None = None
        """So many syncs later one fails."""
        self.full_in: int | None = None
        """So many writes later the disk is full, in the middle of one."""
        self.slow_us = 0
        """A sync takes up to so long, and the whole host waits."""
        self._on_death = on_death

    def heal(self) -> None:
        """Nothing fails from here on."""
        self.dies_in = self.sync_fails_in = self.full_in = None
        self.slow_us = 0

    def step(self) -> None:
        """A call that writes or syncs. Raises PowerLoss when the host dies at it."""
        if not self.host.alive:
            raise PowerLoss(errno.EIO, "the host is dead")
        if self.dies_in is not None:
            self.dies_in -= 1
            if self.dies_in < 0:
                self.dies_in = None
                self.host.alive = False
                self._on_death()
                raise PowerLoss(errno.EIO, "power loss")

    def begun(self, path: Path) -> None:
        """A file was emptied: what was written to it before concerns nobody."""
        self.pending = [
            each for each in self.pending if not isinstance(each, Write) or each.path != path
        ]

    def synced(self, path: Path) -> None:
        self.pending = [
            each
            for each in self.pending
            if not isinstance(each, Write) or each.path != path or each.doomed
        ]

    def sync_failed(self, path: Path) -> None:
        for each in self.pending:
            if isinstance(each, Write) and each.path == path:
                each.doomed = True

    def directory_synced(self, path: Path) -> None:
        self.pending = [
            each
            for each in self.pending
            if not isinstance(each, Rename) or each.target.parent != path
        ]

    def lose_power(self) -> int:
        """Take back what was not synced, as the seed says; returns how many writes."""
        rng = self.random
        lost = 0
        keeps = rng.choice((0.0, 0.5, 0.9))
        for each in reversed(self.pending):
            if rng.random() < keeps and not (isinstance(each, Write) and each.doomed):
                continue
            lost += 1
            if isinstance(each, Write):
                self._take_back(each)
            elif each.before is not None:
                each.target.write_bytes(each.before)
                for write in reversed(each.replaced):
                    self._take_back(write)
            elif each.target.exists():
                os.rename(each.target, each.path)
        self.pending.clear()
        return lost

    def _take_back(self, write: Write) -> None:
        if not write.path.exists():
            return
        kept = 0
        if self.random.random() < 0.3 and not write.doomed:
            kept = min(self.random.randrange(0, write.size + 1, SECTOR), write.size)
        with write.path.open("r+b") as file:
            file.seek(write.offset + kept)
            file.write(write.before[kept:])


class ScriptedOs:
    """Stands where the module `os` stands in the product's modules that write."""

    def __init__(self) -> None:
        self._disks: list[Disk] = []
        self._paths: dict[int, Path] = {}

    def __getattr__(self, name: str):
        return getattr(os, name)

    def add(self, disk: Disk) -> None:
        self._disks.append(disk)

    def remove(self, disk: Disk) -> None:
        self._disks.remove(disk)

    def disk_of(self, path: Path) -> Disk | None:
        return next((d for d in self._disks if path.is_relative_to(d.root)), None)

    def open(self, path, flags, mode=0o777, **options) -> int:
        path = Path(path)
        disk = self.disk_of(path)
        if disk is not None and not disk.host.alive:
            raise PowerLoss(errno.EIO, "the host is dead")
        if disk is not None and flags & os.O_TRUNC:
            disk.begun(path)
        fd = os.open(path, flags, mode, **options)
        self._paths[fd] = path
        return fd

    def close(self, fd: int) -> None:
        self._paths.pop(fd, None)
        os.close(fd)

    def pwrite(self, fd: int, data, offset: int) -> int:
        path = self._paths[fd]
        disk = self.disk_of(path)
        if disk is None:
            return os.pwrite(fd, data, offset)
        disk.step()
        if disk.full_in is not None:
            disk.full_in -= 1
            if disk.full_in < 0:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            if disk.full_in == 0 and len(data) > 1:
                data = data[: disk.random.randint(1, len(data) - 1)]
        size = len(data)
        with path.open("rb") as file:
            file.seek(offset)
            before = file.read(size).ljust(size, b"\0")
        written = os.pwrite(fd, data, offset)
        assert written == size
        disk.pending.append(Write(path, offset, before, size))
        return size

    def fdatasync(self, fd: int) -> None:
        self._sync(fd)

    def fsync(self, fd: int) -> None:
        self._sync(fd)

    def _sync(self, fd: int) -> None:
        path = self._paths.get(fd)
        disk = None if path is None else self.disk_of(path)
        if disk is None or path is None or threading.current_thread() is not _MAIN:
            return  # The thread that fills a spare file writes nothing that anybody reads.
        disk.step()
        if path.is_dir():
            disk.directory_synced(path)
            return
        if disk.sync_fails_in is not None:
            disk.sync_fails_in -= 1
            if disk.sync_fails_in < 0:
                disk.sync_fails_in = None
                disk.sync_failed(path)
                raise OSError(errno.EIO, os.strerror(errno.EIO))
        if disk.slow_us:
            asyncio.get_running_loop().sleep_through(disk.random.randint(0, disk.slow_us))
        # Nothing is really synced: the machine that runs this does not lose power.
        disk.synced(path)

    def renamed(self, rename):
        def scripted(path: Path, target):
            disk = self.disk_of(path)
            if disk is None:
                return rename(path, target)
            disk.step()
            target = Path(target)
            before = target.read_bytes() if target.exists() else None
            found = rename(path, target)
            replaced = [e for e in disk.pending if isinstance(e, Write) and e.path == target]
            disk.begun(target)
            for each in disk.pending:
                if isinstance(each, Write) and each.path == path:
                    each.path = target
            for fd, known in self._paths.items():
                if known == path:
                    self._paths[fd] = target
            disk.pending.append(Rename(path, target, before, replaced))
            return found

        return scripted


def scripted_files(system: ScriptedOs) -> ExitStack:
    """A context in which the product's log and data directory write through `system`."""
    stack = ExitStack()
    for module in (wal, identity):
        stack.enter_context(mock.patch.object(module, "os", system))
    stack.enter_context(mock.patch.object(Path, "rename", system.renamed(Path.rename)))
    return stack
