"""When the stages of one batch's journey began and ended, at the replica that made the batch.

Only sampled batches carry stamps. The node, the replica and the driver write what each of them
sees; nobody decides anything by them. All times are of one clock, the maker's own: stamps of two
replicas are never compared. `epaxos.node.sampling` turns them into stages.

Rules of this file: plain data and its writing; None is "not yet".
"""

from typing import NamedTuple

from epaxos.core.types import Deps, InstanceId, Micros, ReplicaId


class MemberAnswer(NamedTuple):
    """One member's answer to a question about the batch."""

    member: ReplicaId
    at: Micros
    also: tuple[InstanceId, ...]
    """The latest id of every column in which it named later dependencies than the question."""


class Blocker(NamedTuple):
    """An instance that execution of the batch waited for, and since when."""

    instance: InstanceId
    """Not committed here then."""
    since: Micros


class Stamps:
    """The stamps of one batch."""

    __slots__ = (
        "accept_at",
        "accepts",
        "answers",
        "arrived_at",
        "batched_at",
        "commands",
        "committed_at",
        "deadline",
        "decided_at",
        "executed_at",
        "forwarded",
        "held",
        "instance",
        "leader",
        "left_at",
        "nop",
        "path",
        "proposed_at",
        "replied_at",
        "requests",
        "shown",
    )

    def __init__(
        self,
        arrived_at: Micros,
        proposed_at: Micros,
        deadline: Micros,
        commands: int,
        shown: list[tuple[int, bytes]],
    ) -> None:
        self.arrived_at = arrived_at
        """When its first command arrived."""
        self.proposed_at = proposed_at
        """When the batch was cut."""
        self.deadline = deadline
        """When the last of its clients stops waiting."""
        self.commands = commands
        """How many it carries."""
        self.shown = shown
        """Operation and key of the first few."""
        self.requests: list[str] = []
        """What its clients call their requests, as far as they named them."""
        self.instance: InstanceId | None = None
        """Where it was proposed, or decided."""
        self.leader: ReplicaId | None = None
        """Who led when it was made; None: the protocol has no leader."""
        self.forwarded = False
        """Whether it went to the leader instead of being proposed here."""
        self.batched_at: Micros | None = None
        """When it was encoded and proposed: the log's turn."""
        self.left_at: Micros | None = None
        """When its proposal was durable and left."""
        self.answers: list[MemberAnswer] = []
        """Of the first round of EPaxos, in the order of arrival, until it was over."""
        self.accept_at: Micros | None = None
        """When the second round of EPaxos began."""
        self.accepts: list[MemberAnswer] = []
        """Votes in the Accept round, in the order of arrival, until it was decided."""
        self.decided_at: Micros | None = None
        self.path = 0
        """How: `Path`."""
        self.nop = False
        """Whether its instance was decided without it; its commands were then proposed again."""
        self.committed_at: Micros | None = None
        """When an answer could have left if answers left at commit."""
        self.held: list[Blocker] = []
        """What execution waited for, in the order of time."""
        self.executed_at: Micros | None = None
        self.replied_at: Micros | None = None
        """When its answers were given."""

    def answered(self, member: ReplicaId, now: Micros, deps: Deps, asked: Deps) -> None:
        """A member answered the first round with these dependencies; asked were others, perhaps."""
        also: tuple[InstanceId, ...] = ()
        if deps != asked:
            also = tuple(
                InstanceId(column, slot)
                for column, slot in enumerate(deps)
                if column >= len(asked) or slot > asked[column]
            )
        self.answers.append(MemberAnswer(member, now, also))

    def accepted(self, member: ReplicaId, now: Micros) -> None:
        """A member voted in the Accept round."""
        self.accepts.append(MemberAnswer(member, now, ()))
