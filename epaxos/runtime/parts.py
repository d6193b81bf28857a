"""The parts of a running replica, for whoever tells of them or changes their settings."""

from dataclasses import dataclass

from epaxos.core.types import Micros
from epaxos.node.node import Node
from epaxos.runtime.binary import ClientPort
from epaxos.runtime.config import ServeConfig
from epaxos.runtime.driver import Driver
from epaxos.runtime.transport import Transport
from epaxos.runtime.wal import Wal


@dataclass(frozen=True)
class Parts:
    """A replica that was put together, taken apart."""

    config: ServeConfig
    boot: int
    node: Node
    driver: Driver
    transport: Transport
    log: Wal | None
    """None in memory mode."""
    clients: ClientPort
    started: Micros
    """When it was put together, on `clock`."""
