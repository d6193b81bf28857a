"""Bugs of Multi-Paxos: elections, votes, and what a leader proposes."""

from collections.abc import Callable
from functools import partial
from typing import Any

from epaxos.core.command import Payload
from epaxos.core.replica import Record, Setup
from epaxos.core.types import Ballot, Micros, ReplicaId, Slot
from epaxos.protocols.leader_based.tick import TickOutbox
from epaxos.protocols.multipaxos.log import SlotLog
from epaxos.protocols.multipaxos.messages import Accept, Forward, Promise, Promised, Voted
from epaxos.protocols.multipaxos.replica import MultiPaxosReplica
from epaxos.protocols.multipaxos.stages import Leading, Preparing
from epaxos.sim.check.checkers import AGREEMENT, ONCE, READABLE
from epaxos.sim.museum.exhibit import Directed, Exhibit, Swarm, in_place_of, in_replica
from epaxos.sim.schedule.stage import Stage

LONG_US: Micros = 5_000_000
"""After so long without a leader everybody misses it."""


class _NotesPromises(TickOutbox):
    def record(self, record: Record) -> None:
        if isinstance(record, Promised):
            self.note(record)
        else:
            super().record(record)


class _ForgetsPromises(MultiPaxosReplica):
    def __init__(self, setup: Setup) -> None:
        super().__init__(setup)
        self.out = _NotesPromises(self._end_tick)


class _NotesVotes(TickOutbox):
    def record(self, record: Record) -> None:
        if isinstance(record, Voted):
            self.note(record)
        else:
            super().record(record)


class _AnswersBeforeItSyncs(MultiPaxosReplica):
    def __init__(self, setup: Setup) -> None:
        super().__init__(setup)
        self.out = _NotesVotes(self._end_tick)


class _SmallMajority(MultiPaxosReplica):
    def __init__(self, setup: Setup) -> None:
        super().__init__(setup)
        self.majority -= 1


class _BelievesAnyVote(MultiPaxosReplica):
    def _choose_voted(self, ballot: Ballot, commit: Slot) -> None:
        while self.log.chosen < commit:
            slot = self.log.chosen + 1
            entry = self.log.entries.get(slot)
            if entry is None:
                return
            self._choose(slot, entry)


class _TakesEveryForward(MultiPaxosReplica):
    def _on_forward(self, source: ReplicaId, m: Forward, now: Micros) -> None:
        if isinstance(self.stage, Leading):
            self.stage._seen.clear()
        super()._on_forward(source, m, now)


class _AcceptsBelowItsPromise(MultiPaxosReplica):
    def _on_accept(self, source: ReplicaId, m: Accept, now: Micros) -> None:
        if m.ballot < self.promised and self.log.floor < m.slot:
            entry = self.log.entries.get(m.slot)
            if entry is None or (not entry.chosen and entry.ballot <= m.ballot):
                self.log.vote(m.slot, m.ballot, m.payload, 0)
                self.out.record(Voted(m.ballot, m.slot, m.payload))
                self._acknowledge(m.ballot, m.slot)
                return
        super()._on_accept(source, m, now)


def _gaps_everywhere(
    proposals: Any, stage: Preparing, log: SlotLog
) -> list[tuple[Slot, Payload | None]]:
    return [(slot, None) for slot, _ in proposals(stage, log)]


def _last_heard(absorb: Any, stage: Preparing, source: ReplicaId, m: Promise) -> bool:
    taken: bool = absorb(stage, source, m)
    if taken:
        for vote in m.votes:
            stage._best[vote.slot] = (1 << 60, vote.payload)
    return taken


def elect(stage: Stage, candidate: str, *members: str) -> None:
    """`candidate` misses the leader, and these members promise it their votes."""
    stage.wait(candidate, LONG_US)
    for member in members:
        stage.deliver(f"{candidate}>{member}", "Probe")
        stage.deliver(f"{member}>{candidate}", "ProbeOk")
    for member in members:
        stage.deliver(f"{candidate}>{member}", "Prepare")
        stage.deliver(f"{member}>{candidate}", "Promise")


def accept(stage: Stage, leader: str, *members: str) -> None:
    """These members get the leader's oldest Accept, and it their answers."""
    for member in members:
        stage.deliver(f"{leader}>{member}", "Accept")
        stage.deliver(f"{member}>{leader}", "AcceptOk|Nack")


def _a_vote_is_left(stage: Stage) -> None:
    """A leads and decides with B, and dies. C is elected by B."""
    stage.deliver_all()
    stage.put("A", "x")
    accept(stage, "A", "B")
    stage.crash("A")
    stage.drop_all()
    elect(stage, "C", "B")
    stage.deliver_all("BC")


def _an_old_vote_is_heard_last(stage: Stage) -> None:
    """A leads and votes alone. B is elected by C, decides another batch in the slot with C, and
    dies. C is elected by A."""
    stage.deliver_all()
    stage.put("A", "x")
    stage.drop_all()
    elect(stage, "B", "C")
    stage.put("B", "x")
    stage.deliver("B>A", "Prepare")
    accept(stage, "B", "C")
    stage.crash("B")
    stage.drop_all()
    elect(stage, "C", "A")
    stage.deliver_all("AC")


def _an_index_meets_an_old_vote(stage: Stage) -> None:
    """A leads and votes alone. B is elected by C and decides another batch in the slot with C. A
    hears of B's commit index before it hears of the batch."""
    stage.deliver_all()
    stage.put("A", "x")
    stage.drop_all()
    elect(stage, "B", "C")
    stage.put("B", "x")
    stage.drop("B>A")
    accept(stage, "B", "C")
    stage.deliver("B>A", "CommitIndex")


def _an_accept_meets_a_promise(stage: Stage) -> None:
    """A leads; its Accept is on its way to C when C elects B. B proposes another batch in the
    slot."""
    stage.deliver_all()
    stage.put("A", "x")
    stage.drop("A>B")
    elect(stage, "B", "C")
    stage.put("B", "x")
    accept(stage, "A", "C")
    accept(stage, "B", "C")


def _a_promise_meets_a_crash(stage: Stage) -> None:
    """A leads; its Accept is on its way to C when C elects B. C crashes and comes back from its
    disk. B proposes another batch in the slot."""
    stage.deliver_all()
    stage.put("A", "x")
    stage.drop("A>B")
    elect(stage, "B", "C")
    stage.put("B", "x")
    stage.crash("C")
    stage.restart("C")
    accept(stage, "A", "C")
    accept(stage, "B", "C")


def _a_vote_meets_a_crash(stage: Stage) -> None:
    """A leads and decides with B, which crashes and comes back from its disk. A dies, and C is
    elected by B."""
    stage.deliver_all()
    stage.put("A", "x")
    stage.deliver("A>B", "Accept")
    stage.crash("B")
    stage.restart("B")
    stage.deliver("B>A", "AcceptOk")
    stage.crash("A")
    stage.drop_all()
    elect(stage, "C", "B")
    stage.put("C", "x")
    stage.deliver_all("BC")


def _two_of_five(stage: Stage) -> None:
    """A leads; B accepts its batch. C is elected by D and E, and has another batch accepted."""
    stage.deliver_all()
    stage.put("A", "x")
    accept(stage, "A", "B")
    stage.drop_all()
    elect(stage, "C", "D", "E")
    stage.put("C", "x")
    stage.drop("C>", "Prepare|Probe")
    accept(stage, "C", "D", "E")


_exhibit = partial(Exhibit, protocol="multipaxos")


def _adds_then_looks(
    true: Callable[..., list[Payload | None]], log: SlotLog, first: Slot, last: Slot
) -> list[Payload | None]:
    payloads = true(log, first, last)
    following = first + len(payloads)
    if following <= min(last, log.chosen):
        payloads.append(log.entries[following].payload)
    return payloads


EXHIBITS = (
    _exhibit(
        name="leader-forgets-promise",
        title="A promise is said before it is on the disk",
        source="Paxos Made Simple, section 2.5; protocol.md 5.1",
        story="A replica promised a candidate that it takes part in no lower ballot, crashed, and "
        "came back without it. The old leader is still there, and its Accepts are welcome again.",
        plant=in_replica(_ForgetsPromises),
        properties=(AGREEMENT,),
        search=Directed(3, _a_promise_meets_a_crash),
    ),
    _exhibit(
        name="follower-answers-first",
        title="A follower acknowledges a vote before it is on the disk",
        source="protocol.md 5.1",
        story="The leader counts a vote that a crash takes away. With one more crash nobody of "
        "the majority is left that knows what was decided, and the next leader fills the slot "
        "with something else.",
        plant=in_replica(_AnswersBeforeItSyncs),
        properties=(AGREEMENT,),
        search=Directed(3, _a_vote_meets_a_crash),
    ),
    _exhibit(
        name="small-majority",
        title="A leader counts one vote too few",
        source="protocol.md 5.1",
        story="Two of five replicas are no majority: two leaders can each have two, in elections "
        "and in slots, and decide different things. With three replicas "
        "one vote too few is none but the leader's own.",
        plant=in_replica(_SmallMajority),
        properties=(AGREEMENT,),
        search=Directed(5, _two_of_five),
    ),
    _exhibit(
        name="gap-over-a-vote",
        title="A new leader fills every open slot with a no-op",
        source="protocol.md 5.1",
        story="Open slots must be closed before new ones count. Only those for which nobody of "
        "the majority has voted may be closed with a no-op; a vote can be all that is left of a "
        "decision that the old leader has already answered.",
        plant=in_place_of(Preparing, "proposals", _gaps_everywhere),
        properties=(AGREEMENT,),
        search=Directed(3, _a_vote_is_left),
    ),
    _exhibit(
        name="last-vote-heard",
        title="A new leader takes the vote it heard last, not the one in the highest ballot",
        source="Paxos Made Simple, section 2.2; swiftpaxos issue 3",
        story="Old votes never go away by themselves: a replica that was cut off still has one "
        "from two leaders ago. It answers late, and its vote replaces a newer one that was "
        "decided.",
        plant=in_place_of(Preparing, "absorb", _last_heard),
        properties=(AGREEMENT,),
        search=Directed(3, _an_old_vote_is_heard_last),
    ),
    _exhibit(
        name="index-over-any-vote",
        title="A commit index makes votes of any ballot decided",
        source="protocol.md 5.1",
        story="The leader says that slots up to seven are decided. A follower has a vote for slot "
        "seven, from a leader before, and takes that for what was decided.",
        plant=in_replica(_BelievesAnyVote),
        properties=(AGREEMENT,),
        search=Directed(3, _an_index_meets_an_old_vote),
    ),
    _exhibit(
        name="accepts-below",
        title="A follower votes in a ballot below the one it promised",
        source="Paxos Made Simple, section 2.2, phase 2b",
        story="A candidate was promised that no older leader will get a vote. A check is missing, "
        "and the older leader completes its majority with a replica whose promise told the new "
        "one that the slot is free.",
        plant=in_replica(_AcceptsBelowItsPromise),
        properties=(AGREEMENT,),
        search=Directed(3, _an_accept_meets_a_promise),
    ),
    _exhibit(
        name="forwarded-twice",
        title="A leader proposes a forwarded batch as often as it arrives",
        source="protocol.md 1.14 and 5.1; jetcd 0.8.2 (retries of what is not idempotent)",
        story="A follower hands its clients' batch to the leader, and the link delivers it twice. "
        "The leader finds a slot for each copy, and every command in it runs twice.",
        plant=in_replica(_TakesEveryForward),
        properties=(ONCE,),
        search=Swarm((3,), faults={"duplication": 0.3}),
        budget=20,
    ),
    _exhibit(
        name="adds-then-looks",
        title="What a follower lacks is packed until it is over the bound of a message",
        source="this project, fixed in 2716bf0",
        story="A follower asks for the slots that it missed, and the answer takes them in until it "
        "has reached a megabyte. The one that reached it may be as large as a frame. The follower "
        "closes the link because of the frame, asks again, and gets the same: it never catches "
        "up.",
        plant=in_place_of(SlotLog, "values", _adds_then_looks),
        properties=(READABLE,),
        search=Swarm(
            (3,), faults={"loss": 0.3}, options={"limits": (("payload_bytes", 2_000),), "reads": 0}
        ),
        budget=60,
    ),
)
