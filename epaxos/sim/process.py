"""A replica's process in the simulated world: its life, disk and clock, and what it waits for.

Rules of this file: state only; `world.py` moves it.
"""

from epaxos.core.types import Micros, ReplicaId
from epaxos.node.node import Node
from epaxos.node.requests import AskTransfer, Request
from epaxos.sim.clocks import LocalClock
from epaxos.sim.disk import Disk
from epaxos.sim.incarnation import CrashPoint, DiskFault, Incarnation
from epaxos.sim.network import Parcel
from epaxos.sim.schedule.schedule import Step


class Process:
    """One replica's process: at most one life at a time, over one disk."""

    def __init__(self, me: ReplicaId, clock: LocalClock) -> None:
        self.me = me
        self.disk = Disk(me)
        self.clock = clock
        self.boot = 0
        self.life: Incarnation | None = None
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
        self.crash_at: CrashPoint | None = None
        """Where the next step crashes."""
        self.disk_fault: DiskFault | None = None
        """What the disk does to the next step that it can do it to."""
        self.dead = False
        """Never to start again."""
        self.refused = False
        """Its last start was refused."""
        self.outside_core = False
        """Left out of the core when the world healed: runs, perhaps, but nobody hears it."""

    @property
    def node(self) -> Node | None:
        """The node of its present life."""
        return None if self.life is None else self.life.node
