"""The clock, and an alarm that is exact to some ten microseconds.

Event loops round their timers to milliseconds, which is too coarse for an emulated link: measured
against the clock, uvloop is up to 0.5 ms early or late, asyncio up to 2 ms late. A Linux timerfd
wakes 0.04 ms late. Where there is none, the loop's timers have to do.
"""

import asyncio
import ctypes
import os
import sys
import time
from collections.abc import Callable
from typing import Final

from epaxos.core.types import Micros

LATENESS_US: Final = 40
"""How late a timerfd wakes at the median; what is due within it is taken as due."""


def clock() -> Micros:
    """Microseconds on the machine's monotonic clock; the same for all processes on it."""
    return time.monotonic_ns() // 1000


class Alarm:
    """Calls back once, at a time that can be moved."""

    def __init__(self, loop: asyncio.AbstractEventLoop, ring: Callable[[], None]) -> None:
        self._loop = loop
        self._ring = ring
        self._at: Micros | None = None
        self._handle: asyncio.TimerHandle | None = None
        self._fd = timerfd_create()
        if self._fd >= 0:
            loop.add_reader(self._fd, self._expired)

    def set(self, at: Micros | None) -> None:
        """Ring at `at`, or not at all. A time that has passed rings at once."""
        if at == self._at:
            return
        self._at = at
        if self._fd >= 0:
            timerfd_settime(self._fd, 0 if at is None else max(at, 1))
            return
        if self._handle is not None:
            self._handle.cancel()
            self._handle = None
        if at is not None:
            self._handle = self._loop.call_later(max(0, at - clock()) / 1e6, self._call)

    def close(self) -> None:
        """Never ring again."""
        self.set(None)
        if self._fd >= 0:
            self._loop.remove_reader(self._fd)
            os.close(self._fd)
            self._fd = -1

    def _expired(self) -> None:
        try:
            os.read(self._fd, 8)
        except BlockingIOError:
            return
        self._call()

    def _call(self) -> None:
        self._at = None
        self._ring()


class _Spec(ctypes.Structure):
    _fields_ = [
        ("interval_s", ctypes.c_long),
        ("interval_ns", ctypes.c_long),
        ("value_s", ctypes.c_long),
        ("value_ns", ctypes.c_long),
    ]


_libc: Final = ctypes.CDLL(None, use_errno=True) if sys.platform == "linux" else None


def timerfd_create() -> int:
    """The file of a new timer, which can be read once it has rung; -1 where there are none."""
    if _libc is None:
        return -1
    return int(_libc.timerfd_create(time.CLOCK_MONOTONIC, os.O_NONBLOCK | os.O_CLOEXEC))


def timerfd_settime(fd: int, at: Micros) -> None:
    """Let a timer ring at an absolute time of `clock`; 0: not at all."""
    assert _libc is not None
    spec = _Spec(0, 0, at // 1_000_000, at % 1_000_000 * 1000)
    if _libc.timerfd_settime(fd, 1, ctypes.byref(spec), None) != 0:
        raise OSError(ctypes.get_errno(), "timerfd_settime failed")
