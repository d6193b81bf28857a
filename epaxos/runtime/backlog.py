"""What peers sent and the node was not told yet: bounded per peer, and taken in fair shares.

A peer whose backlog is full is not read (`Transport`) until half of it is gone. Since everybody who
waits has a share of each step, and any message is a sign of life, a peer is never suspected for
what waits here: neither the one whose backlog it is nor another that said little.
"""

from collections import deque
from collections.abc import Callable, Iterator
from typing import Final, Protocol

from epaxos.core.replica import Message
from epaxos.core.types import ReplicaId

BACKLOG_MESSAGES_MAX: Final = 16 * 1024
BACKLOG_BYTES_MAX: Final = 16 * 1024 * 1024
"""Messages of one peer, and their bytes on the wire, beyond which it is not read. What was read
already is taken."""


class Backlog:
    """The messages of all peers."""

    def __init__(self) -> None:
        self._peers: dict[ReplicaId, _PeerBacklog] = {}
        self.total = 0
        """How many messages wait."""
        self.drained: Callable[[ReplicaId], None] = lambda source: None
        """Called when there is room again for a peer whose backlog was full."""

    def add(self, source: ReplicaId, messages: list[Message], size: int) -> None:
        """Messages that arrived, `size` bytes together."""
        peer = self._peers.get(source)
        if peer is None:
            peer = self._peers[source] = _PeerBacklog()
        peer.add(messages, size)
        self.total += len(messages)

    def has_room(self, source: ReplicaId) -> bool:
        """Whether more of a peer may be read."""
        peer = self._peers.get(source)
        return peer is None or not peer.is_full

    def messages(self, source: ReplicaId) -> int:
        """How many messages of a peer wait."""
        peer = self._peers.get(source)
        return 0 if peer is None else peer.messages

    def take(self, budget: int) -> Iterator[tuple[ReplicaId, list[Message]]]:
        """The next messages of each peer in their order, about `budget` together: what one does
        not need of its share is for the others, and everybody who waits has one at least."""
        waiting = [(source, peer) for source, peer in self._peers.items() if peer.messages]
        while waiting and budget > 0:
            share = max(1, budget // len(waiting))
            for source, peer in waiting:
                left = share
                while left > 0 and peer.messages:
                    group = peer.take(left)
                    left -= len(group)
                    yield source, group
                budget -= share - left
                self.total -= share - left
                if peer.is_full and peer.is_half_empty():
                    peer.is_full = False
                    self.drained(source)
            waiting = [(source, peer) for source, peer in waiting if peer.messages]


class Receiver(Protocol):
    """Whoever takes what peers send."""

    def deliver(self, source: ReplicaId, messages: list[Message], size: int) -> None:
        """Messages from a peer, `size` bytes together."""
        ...

    @property
    def backlog(self) -> Backlog:
        """What it has not dealt with yet."""
        ...


class _PeerBacklog:
    """The messages of one peer."""

    __slots__ = ("_groups", "bytes", "is_full", "messages")

    def __init__(self) -> None:
        self._groups: deque[tuple[list[Message], int]] = deque()
        self.messages = 0
        self.bytes = 0
        self.is_full = False

    def add(self, messages: list[Message], size: int) -> None:
        self._groups.append((messages, size))
        self.messages += len(messages)
        self.bytes += size
        if self.messages > BACKLOG_MESSAGES_MAX or self.bytes > BACKLOG_BYTES_MAX:
            self.is_full = True

    def take(self, most: int) -> list[Message]:
        """The first messages that arrived together, or the first of them. The bytes of a group go
        with its last message."""
        group, size = self._groups.popleft()
        if len(group) > most:
            self._groups.appendleft((group[most:], size))
            group = group[:most]
        else:
            self.bytes -= size
        self.messages -= len(group)
        return group

    def is_half_empty(self) -> bool:
        return self.messages <= BACKLOG_MESSAGES_MAX // 2 and self.bytes <= BACKLOG_BYTES_MAX // 2
