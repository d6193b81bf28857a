"""Transfer of leadership: the successor first knows what is chosen, then campaigns."""

from epaxos.core.types import Micros, ReplicaId, Slot


class Transfer:
    """The leader's wish to be succeeded."""

    __slots__ = ("asked_at", "goal", "target")

    def __init__(self, target: ReplicaId, goal: Slot, asked_at: Micros) -> None:
        self.target = target
        self.goal = goal
        """The target must know so many slots chosen before it is told to campaign."""
        self.asked_at = asked_at
