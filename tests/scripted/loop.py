"""An event loop in virtual time: nothing is waited for, the clock jumps to what is due next.

It is asyncio's own loop over a selector that moves the clock. What runs is thereby a function of
the seed alone, as long as nobody asks another clock or starts a thread that says something.
"""

import asyncio
import math
import socket
from contextvars import ContextVar
from unittest import mock

from epaxos.runtime import alarm

HOST: ContextVar["Host | None"] = ContextVar("HOST", default=None)
"""The machine whose code runs; callbacks inherit it."""


class Host:
    """A machine that may die; what its code says afterwards reaches nobody."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.alive = True

    def __repr__(self) -> str:
        return self.name


class Standstill(Exception):
    """Nothing is left that could ever happen, though somebody waits."""


class _Clockwork:
    """A selector without files: to wait is to move the clock."""

    def __init__(self, loop: "VirtualLoop") -> None:
        self._loop = loop

    def select(self, timeout: float | None) -> list[object]:
        if timeout is None:
            raise Standstill("nothing is left that could ever happen")
        if timeout > 0:
            self._loop.now_us += math.ceil(timeout * 1e6)
        return []

    def close(self) -> None:
        """Nothing to release."""


class VirtualLoop(asyncio.BaseEventLoop):
    """The loop of all hosts; connections are made by its network."""

    def __init__(self, network) -> None:
        super().__init__()
        self.now_us = 1_000_000
        self._clock_resolution = 1e-6
        self._selector = _Clockwork(self)
        self._network = network
        network.loop = self

    def time(self) -> float:
        return self.now_us / 1e6

    def sleep_through(self, us: int) -> None:
        """Time passes in which no callback runs: all that is due meanwhile is late."""
        self.now_us += us

    def _process_events(self, event_list: list[object]) -> None:
        """There are none: only the clock moves."""

    def _write_to_self(self) -> None:
        """Nobody sleeps who would have to be woken."""

    async def create_server(self, factory, sock=None, **options):
        return self._network.listen(factory, sock.getsockname()[1])

    async def create_connection(self, factory, host=None, port=None, **options):
        return await self._network.connect(factory, port)


class Listener:
    """Stands for a bound socket."""

    family = socket.AF_INET

    def __init__(self, host: str, port: int) -> None:
        self._address = (host, port)

    def getsockname(self) -> tuple[str, int]:
        return self._address

    def close(self) -> None:
        """Nothing to release."""


class _Time:
    """What `epaxos.runtime.alarm` asks of the module `time`."""

    CLOCK_MONOTONIC = 1

    def __init__(self, loop: VirtualLoop) -> None:
        self._loop = loop

    def monotonic_ns(self) -> int:
        return self._loop.now_us * 1000


def virtual_clock(loop: VirtualLoop):
    """A context in which the product's clock is the loop's, and its alarms are the loop's timers:
    a timerfd would know another time."""
    return mock.patch.multiple(alarm, time=_Time(loop), _libc=None)
