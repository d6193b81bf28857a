"""What a node asks of whatever orders its decided instances."""

from typing import Protocol

from epaxos.core.replica import Decided
from epaxos.core.types import InstanceId, ReplicaId, Slot

BLOCKED_MAX = 1000
"""How many entries `blocked` shows at most."""


class Executor(Protocol):
    """Orders decided instances; applies nothing itself.

    Never waits: what cannot execute yet is remembered under what it is blocked on, and comes out of
    a later `ready`."""

    executed: list[Slot]
    """Per column: every slot up to it has executed. Slot protocols have one column."""

    def commit(self, decided: Decided) -> None:
        """Take in one decided instance; each id at most once."""
        ...

    def ready(self) -> list[list[Decided]]:
        """Components that may execute now, dependencies first; each inner list is atomic (R5) and
        in its final order. The executor counts them as executed from here on. Nops are included."""
        ...

    def replay(self, ids: list[InstanceId]) -> list[Decided]:
        """During restore: these ids were executed in this order before; returns what to apply.

        Each must have been given to `commit` before. Raises StorageError if one was not."""
        ...

    def is_executed(self, replica: ReplicaId, slot: Slot) -> bool:
        """Whether that very id has executed here, also beyond the contiguous vector."""
        ...

    def blocked(self) -> dict[InstanceId, InstanceId]:
        """Which committed ids wait, each for one id that is not committed here (a sample of at most
        1,000, for people)."""
        ...

    def blocked_on(self, instance: InstanceId) -> InstanceId | None:
        """The id, not committed here, that a committed one waits for; None: it waits for none."""
        ...

    def pending(self) -> list[Decided]:
        """Committed and not executed, in order of id."""
        ...

    def statistics(self) -> dict[str, int]:
        """Counters since the start, such as `components`, `component_max`."""
        ...

    def held(self) -> dict[str, int]:
        """How much each table holds, by its name: nothing once all is executed."""
        ...
