"""Broken variants of what runs above the node: each must be caught by some seed."""

from collections.abc import Callable
from contextlib import AbstractContextManager, contextmanager
from unittest import mock

from epaxos.runtime import binary, driver, identity, transport, wal
from epaxos.runtime.framing import FrameBuffer


class _SendsFirst(driver.Driver):
    """Lets messages and answers leave before the sync."""

    def _step(self, now):
        self._feed(now)
        ready = self._node.take(now)
        if ready.messages:
            self._send(ready.messages)
        self._answer(ready)
        self._append(ready)


def _does_not_sync(self):
    self._synced = self._sequence - 1


def _trusts_what_it_read(self, end):
    """The last segment goes on as it is; what a failed sync covered is only in memory."""
    fd = wal.os.open(end.path, wal.os.O_RDWR)
    wal.os.fdatasync(fd)
    return fd


def _answers_by_arrival(self, reply, now):
    """An answer's number is that of the request, wherever in it the run stands."""
    committed = reply.flight.committed_at or now
    self.connection.answer(
        binary.ClientAnswer(
            self.first,
            reply.results,
            int(reply.flight.path),
            committed - reply.arrived,
            now - reply.arrived,
        ),
        reply.results.count,
    )


_cut = FrameBuffer.cut


def _loses_the_joined(self, received):
    """Of frames that arrive joined only the first is taken."""
    return _cut(self, received)[:1]


def _a_counter_will_do(remembered, said, shown):
    if said.boot == remembered.boot:
        return "known" if said == remembered else "twin"
    return "newer" if said.boot > remembered.boot else "regressed"


@contextmanager
def _counts_lives():
    """Peers compare the counter of a life, and a refused start counts."""
    with (
        mock.patch.object(identity, "judge_life", _a_counter_will_do),
        mock.patch.object(transport, "judge_life", _a_counter_will_do),
        mock.patch.object(transport, "descends", return_value=True),
        mock.patch.object(identity.DataDirectory, "refuse"),
    ):
        yield


VARIANTS: dict[str, Callable[[], AbstractContextManager[object]]] = {
    "a counter is taken for a memory": _counts_lives,
    "sends before the sync": lambda: mock.patch.object(driver.Driver, "_step", _SendsFirst._step),
    "a log that does not sync": lambda: mock.patch.object(wal.Wal, "sync", _does_not_sync),
    "a log that trusts what a failed sync left": lambda: mock.patch.object(
        wal.Wal, "_rewrite", _trusts_what_it_read
    ),
    "answers to the wrong command": lambda: mock.patch.object(
        binary._RequestWaiter, "reply", _answers_by_arrival
    ),
    "an alarm that is never set": lambda: mock.patch.object(driver.Driver, "_arm"),
    "joined frames are lost": lambda: mock.patch.object(FrameBuffer, "cut", _loses_the_joined),
    "a peer's earlier link lives on": lambda: mock.patch.object(
        transport.Transport, "forget", lambda self, link: self._inbound.pop(link.source, None)
    ),
}
