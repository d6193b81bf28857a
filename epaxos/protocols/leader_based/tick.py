"""Batching over one tick: what a replica puts off until its outbox is emptied."""

from collections.abc import Callable

from epaxos.core.replica import Outbox, Ready


class TickOutbox(Outbox):
    """An outbox that lets its owner say, before it is emptied, what it put off to the tick's end.

    So a tick's acknowledgements leave as runs, and its commit index once."""

    __slots__ = ("_end_tick",)

    def __init__(self, end_tick: Callable[[], None]) -> None:
        super().__init__()
        self._end_tick = end_tick

    def take(self) -> Ready:
        self._end_tick()
        return super().take()
