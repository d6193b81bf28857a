"""When a decided slot of Multi-Paxos may execute: after all slots before it.

Does not know what a command does, nor why a slot is missing.
"""

from epaxos.core.errors import StorageError
from epaxos.core.replica import Decided
from epaxos.core.types import InstanceId, ReplicaId, Slot
from epaxos.execution.interface import BLOCKED_MAX


class SlotExecutor:
    """The `Executor` of protocols with one log: one column, number 0, in order of slots."""

    def __init__(self, n: int) -> None:
        self.executed: list[Slot] = [0]
        self._pending: dict[Slot, Decided] = {}

    def commit(self, decided: Decided) -> None:
        slot = decided.slot
        assert slot > self.executed[0], "what was executed is not decided again"
        assert slot not in self._pending, "a slot is decided once"
        self._pending[slot] = decided

    def ready(self) -> list[list[Decided]]:
        """The slots that may execute now, one by one, up to the first gap."""
        out = []
        slot = self.executed[0]
        while (decided := self._pending.pop(slot + 1, None)) is not None:
            slot += 1
            out.append([decided])
        self.executed[0] = slot
        return out

    def replay(self, ids: list[InstanceId]) -> list[Decided]:
        replayed = []
        for instance in ids:
            decided = self._pending.pop(instance.slot, None)
            if decided is None:
                raise StorageError(
                    f"the log says that slot {instance.slot} was executed, but not what it is"
                )
            if instance.slot != self.executed[0] + 1:
                raise StorageError(
                    f"the log says that slot {instance.slot} was executed after slot"
                    f" {self.executed[0]}"
                )
            self.executed[0] = instance.slot
            replayed.append(decided)
        return replayed

    def is_executed(self, replica: ReplicaId, slot: Slot) -> bool:
        return slot <= self.executed[0]

    def blocked(self) -> dict[InstanceId, InstanceId]:
        """The decided slots that wait, all for the first gap (a sample)."""
        gap = InstanceId(0, self.executed[0] + 1)
        return {InstanceId(0, slot): gap for slot in sorted(self._pending)[:BLOCKED_MAX]}

    def blocked_on(self, instance: InstanceId) -> InstanceId | None:
        """The first gap, for a decided slot that waits."""
        return InstanceId(0, self.executed[0] + 1) if instance.slot in self._pending else None

    def pending(self) -> list[Decided]:
        return [self._pending[slot] for slot in sorted(self._pending)]

    def statistics(self) -> dict[str, int]:
        return {}

    def held(self) -> dict[str, int]:
        return {"decided slots": len(self._pending)}
