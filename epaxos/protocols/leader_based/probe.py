"""Probe before an election: a member asks whether a campaign would find a majority.

Raft calls it pre-vote. Rules of this file: a probe changes nothing where it arrives; peace depends
on it and safety does not.
"""

from epaxos.core.quorum import Tally
from epaxos.core.types import ReplicaId


class Probing:
    """A follower that misses its leader asks around. Nothing depends on it but peace."""

    __slots__ = ("attempts", "number", "tally")

    def __init__(self, number: int, me: ReplicaId) -> None:
        self.number = number
        """Answers to earlier probes do not count."""
        self.tally = Tally(me)
        """Who would promise."""
        self.attempts = 0
        """How often the question was repeated."""
