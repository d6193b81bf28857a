"""One replica's process in the simulated world: a node, its disk, its clock, and what it waits for.

Rules of this file: state only; `world.py` moves it.
"""

from enum import Enum

from epaxos.core.replica import Decided, Executed
from epaxos.core.types import InstanceId, Micros, ReplicaId, Slot
from epaxos.execution.interface import Executor
from epaxos.node.node import Node
from epaxos.node.requests import AskTransfer, Request
from epaxos.sim.clocks import LocalClock
from epaxos.sim.disk import Disk
from epaxos.sim.network import Parcel
from epaxos.sim.schedule.schedule import Step


class CrashPoint(Enum):
    """Where in a step a crash falls."""

    BEFORE_APPEND = "before the append"
    BEFORE_SYNC = "between append and sync"
    BEFORE_SEND = "after the sync, before any send"
    AMID_SENDS = "amid the sends"


class Watched:
    """An executor that tells the checkers what was decided and executed."""

    def __init__(self, inner: Executor) -> None:
        self._inner = inner
        self.executed: list[Slot] = inner.executed
        self.is_executed = inner.is_executed
        self.blocked = inner.blocked
        self.blocked_on = inner.blocked_on
        self.pending = inner.pending
        self.statistics = inner.statistics
        self.decided: list[Decided] = []
        """Decided since the last release."""
        self.done: list[Decided] = []
        """Executed since the last release."""
        self.components: list[list[Decided]] = []
        """The components of `done` that have more than one member."""

    def commit(self, decided: Decided) -> None:
        self.decided.append(decided)
        self._inner.commit(decided)

    def ready(self) -> list[list[Decided]]:
        found = self._inner.ready()
        for component in found:
            self.done += component
            if len(component) > 1:
                self.components.append(component)
        return found

    def replay(self, ids: list[InstanceId]) -> list[Decided]:
        found = self._inner.replay(ids)
        self.done += found
        return found

    def clear(self) -> None:
        """Everything was told."""
        self.decided.clear()
        self.done.clear()
        self.components.clear()


class Process:
    """One replica's process: at most one node at a time, over one disk."""

    def __init__(self, me: ReplicaId, clock: LocalClock) -> None:
        self.me = me
        self.disk = Disk(me)
        self.noted: list[Executed] = []
        """What the unsynced tail of the log says was executed."""
        self.clock = clock
        self.boot = 0
        self.node: Node | None = None
        self.watched: Watched
        self.inbox: list[Parcel | Request | AskTransfer] = []
        self.ticking = False
        """Whether a tick is scheduled."""
        self.syncing = False
        """Between the take and the release of a step."""
        self.step: Step | None = None
        """The step under way, when recording."""
        self.paused_until: Micros = 0
        self.stall_us: Micros = 0
        """The next release comes so much later."""
        self.deadline: Micros | None = 0
        """The node's, on its own clock, as of its last release."""
        self.armed: Micros | None = None
        self.doom: CrashPoint | None = None
        """Where the next step crashes."""
        self.dead = False
        """Never to start again."""
        self.apart = False
        """Left out of the core when the world healed: runs, perhaps, but nobody hears it."""
