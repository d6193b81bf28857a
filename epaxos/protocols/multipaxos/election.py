"""How a member becomes the leader, and when it stops being one: the half of a replica that knows
ballots.

A follower that hears no leader for U(T, 2T) probes; with a majority that hears none either it
campaigns: phase 1 for all slots at once. Whoever joins a higher ballot neither leads nor campaigns
by a lower one. Rules of this file: a ballot is recorded before anything is said in it; a member is
asked, never counted on; a probe changes nothing where it arrives, so peace depends on it and safety
does not. Source: Paxos Made Simple, section 2.2 and 3; docs/protocol.md 5.1, 1.14.
"""

from epaxos.core.quorum import quorums
from epaxos.core.replica import Outbox, Setup, Timers
from epaxos.core.types import (
    LAST_ROUND,
    Ballot,
    Micros,
    ReplicaId,
    Slot,
    ballot_replica,
    next_ballot,
)
from epaxos.protocols.leader_based.members import Members
from epaxos.protocols.leader_based.patience import Patience
from epaxos.protocols.leader_based.probe import Probing
from epaxos.protocols.leader_based.tick import TickOutbox
from epaxos.protocols.multipaxos.log import SLOTS_AHEAD_MAX, SlotLog
from epaxos.protocols.multipaxos.messages import (
    Nack,
    Prepare,
    Probe,
    ProbeOk,
    Promise,
    Promised,
)
from epaxos.protocols.multipaxos.stages import Leading, Preparing

LEADING_TIMERS = ("check", "resend", "transfer")
"""What only a leader waits for."""


class Elector:
    """The state of a member as far as elections need it, and their handlers."""

    def __init__(self, setup: Setup) -> None:
        self.me = setup.me
        self.n = setup.n
        self.majority = quorums(setup.n).slow
        self.patience = Patience(setup.rtt_us, setup.random)
        """How long a silence we bear."""
        self.out: Outbox = TickOutbox(self._end_tick)
        self.log = SlotLog()
        self.members = Members(setup.me, setup.rtt_us)
        self.promised: Ballot = 0
        """The highest ballot joined; durable before anybody hears of it. Invariants MP1, MP6."""
        self.leader: ReplicaId | None = None
        """Whom we believe to lead. Invariant MP3: if known, `promised` is its ballot."""
        self.stage: Probing | Preparing | Leading | None = None
        """None: we follow."""
        self.former: Leading | None = None
        """As what we led before, in this life."""
        self._others = tuple(q for q in range(setup.n) if q != setup.me)
        self._random = setup.random
        self._timers = Timers()
        self._highest: Ballot = 0
        """The highest ballot heard of without joining it; the next campaign goes above it."""
        self._counts: dict[str, int] = dict.fromkeys(COUNTERS, 0)

    # What the other half of the replica does.

    def _end_tick(self) -> None:
        raise NotImplementedError

    def _lead(self, prepared: Preparing, now: Micros) -> None:
        """Phase 1 is complete."""
        raise NotImplementedError

    def _catch_up(self, source: ReplicaId, chosen: Slot, now: Micros) -> None:
        """`source` knows slots up to `chosen`, which are more than ours."""
        raise NotImplementedError

    # Elections.

    def _draw_timeout(self, now: Micros) -> None:
        """A new election time-out, from now."""
        self._timers.set("election", self.patience.draw(now))

    def _election_due(self, now: Micros) -> None:
        """Missing a leader, or stuck in an attempt to become one: ask around (again)."""
        if isinstance(self.stage, Leading):
            return
        ends_at = self.patience.ends_at()
        if ends_at is not None and now < ends_at:
            self._timers.set("election", ends_at)
            return
        self._start_probe(now)

    def _start_probe(self, now: Micros) -> None:
        assert not isinstance(self.stage, Leading), "a leader misses nobody"
        self.leader = None
        self.patience.heard_at = None
        self.stage = Probing(now, self.me)
        self._counts["probes"] += 1
        self.out.broadcast(Probe(now))
        self._timers.set("campaign", now + self.members.wait(0))
        self._draw_timeout(now)

    def _campaign_due(self, now: Micros) -> None:
        """Repeat the question of the stage to those that have not answered it."""
        stage = self.stage
        if isinstance(stage, Probing):
            for member in self._others:
                if member not in stage.tally:
                    self.out.send(member, Probe(stage.number))
        elif isinstance(stage, Preparing):
            stage.predecessor = None
            for member in self._others:
                if member not in stage.done:
                    self.out.send(member, Prepare(stage.ballot, stage.position(member)))
        else:
            return
        stage.attempts += 1
        self._timers.set("campaign", now + self.members.wait(stage.attempts))
        self._try_lead(now)

    def _on_probe(self, source: ReplicaId, m: Probe, now: Micros) -> None:
        """Somebody misses the leader.

        Requires: we neither lead nor campaign, and heard neither a leader nor a candidate within
                  T, unless it was the prober itself.
        Ensures:  nothing changes here.
        Records:  nothing.      Sends: ProbeOk.
        """
        if isinstance(self.stage, Leading | Preparing):
            return self._ignored("probe")
        if self.patience.is_heard(now) and ballot_replica(self.promised) != source:
            return self._ignored("probe")
        self.out.send(source, ProbeOk(m.number, self.promised))

    def _on_probe_ok(self, source: ReplicaId, m: ProbeOk, now: Micros) -> None:
        """Another one misses the leader, too.

        Requires: it answers our present probe.
        Ensures:  with a majority we campaign.
        Records:  Promised.     Sends: Prepare.
        """
        stage = self.stage
        if not isinstance(stage, Probing) or m.number != stage.number:
            return self._ignored("stale_probe")
        self._hear_of(m.promised)
        stage.tally.add(source)
        if stage.tally.count >= self.majority:
            self._campaign(now, None)

    def _hear_of(self, ballot: Ballot) -> None:
        """Somebody joined it; the next campaign goes above, if anybody can."""
        if ballot >= LAST_ROUND:
            return self._ignored("exhausted")
        self._highest = max(self._highest, ballot)

    def _campaign(self, now: Micros, predecessor: ReplicaId | None) -> None:
        """Start phase 1 with a ballot above all that we know."""
        assert not isinstance(self.stage, Leading), "a leader does not campaign"
        if self.promised >= LAST_ROUND:
            return self._ignored("exhausted")
        self._counts["elections"] += 1
        ballot = next_ballot(max(self.promised, self._highest), self.me)
        self._promise(ballot)
        first = self.log.chosen + 1
        self.stage = Preparing(ballot, first, self.me, self.n, predecessor)
        if self.n > 1:
            self.out.broadcast(Prepare(ballot, first))
            self._timers.set("campaign", now + self.members.wait(0))
            self._draw_timeout(now)
        self._try_lead(now)

    def _promise(self, ballot: Ballot) -> None:
        """Join a higher ballot; nobody leads by it yet."""
        assert ballot > self.promised, "only a higher ballot is joined (MP6)"
        self.promised = ballot
        self.leader = None
        self.patience.heard_at = None
        self.out.record(Promised(ballot))

    def _on_prepare(self, source: ReplicaId, m: Prepare, now: Micros) -> None:
        """Phase 1 at an acceptor.  [Paxos Made Simple 2.2, phase 1b].

        Requires: m.ballot >= promised, and the sender owns it; otherwise Nack, or nothing.
        Ensures:  promised = m.ballot; we neither lead nor campaign.
        Records:  Promised, if it is new.       Sends: Promise.
        """
        ballot = m.ballot
        if ballot_replica(ballot) != source or m.first < 1:
            return self._ignored("foreign")
        if ballot < self.promised:
            return self._refuse(source)
        if ballot > self.promised:
            self._step_down(now)
            self._promise(ballot)
        elif self.leader is not None:
            return self._ignored("stale_prepare")
        self.patience.heard_at = now
        votes, until = self.log.votes(m.first)
        self.out.send(source, Promise(ballot, m.first, until, self.log.chosen, votes))

    def _on_promise(self, source: ReplicaId, m: Promise, now: Micros) -> None:
        """One chunk of a promise at the candidate.

        Requires: we campaign by m.ballot, and the chunk is the one we wait for.
        Ensures:  when a majority's promises are complete, and nobody of it knows more chosen slots
                  than we do, we lead.
        Records:  nothing.      Sends: Prepare for the next chunk; Fetch; see _lead.
        """
        stage = self.stage
        if not isinstance(stage, Preparing) or m.ballot != stage.ballot:
            return self._ignored("stale_promise")
        top = self.log.last + SLOTS_AHEAD_MAX
        if m.until > top or any(vote.slot > top for vote in m.votes):
            return self._ignored("far")
        if not stage.absorb(source, m):
            return self._ignored("stale_promise")
        if m.until:
            self.out.send(source, Prepare(stage.ballot, stage.position(source)))
            self._campaign_moves(stage, now)
        self._try_lead(now)

    def _campaign_moves(self, stage: Preparing, now: Micros) -> None:
        """A campaign that gets on is neither given up nor slowed down."""
        stage.attempts = 0
        self._timers.set("campaign", now + self.members.wait(0))
        self._draw_timeout(now)

    def _try_lead(self, now: Micros) -> None:
        """Lead if phase 1 is complete; catch up if that is all that is missing."""
        stage = self.stage
        if not isinstance(stage, Preparing):
            return
        if stage.complete(self.majority, self.log.chosen):
            self._lead(stage, now)
        elif stage.done.count >= self.majority and stage.chosen > self.log.chosen:
            self._catch_up(stage.chosen_at, stage.chosen, now)

    def _follow(self, source: ReplicaId, ballot: Ballot, now: Micros) -> bool:
        """Whether `source` leads by `ballot` as far as we may know; if so we follow it."""
        if ballot == self.promised and source == self.leader:
            self.patience.heard_at = now
            return True
        if ballot_replica(ballot) != source:
            self._ignored("foreign")
            return False
        if ballot < self.promised:
            self._refuse(source)
            return False
        self._step_down(now)
        if ballot > self.promised:
            self._promise(ballot)
        self.leader = source
        self.patience.heard_at = now
        return True

    def _refuse(self, source: ReplicaId) -> None:
        self._counts["nacks"] += 1
        self.out.send(source, Nack(self.promised))

    def _on_nack(self, source: ReplicaId, m: Nack, now: Micros) -> None:
        """An acceptor promised a higher ballot than one of ours.

        Requires: it is above all that we know.
        Ensures:  we neither lead nor campaign by a lower one.
        Records:  nothing.      Sends: nothing.
        """
        if m.promised <= max(self.promised, self._highest):
            return self._ignored("stale_nack")
        self._superseded(m.promised, now)

    def _superseded(self, ballot: Ballot, now: Micros) -> None:
        """Somebody joined a higher ballot. Whether it is led, or was only ever tried, a probe will
        tell; it waits until a live candidate would have been heard."""
        self._hear_of(ballot)
        if not isinstance(self.stage, Leading | Preparing):
            return
        self._step_down(now)
        rtt_max = self.members.rtt_max
        self._timers.set("election", now + self.members.wait(0) + self._random.randint(0, rtt_max))

    def _step_down(self, now: Micros) -> None:
        """Follow nobody in particular, and give others the time to lead."""
        if isinstance(self.stage, Leading):
            self.former = self.stage
            self._counts["step_downs"] += 1
            for key in LEADING_TIMERS:
                self._timers.cancel(key)
        self._timers.cancel("campaign")
        self.stage = None
        self.leader = None
        self.patience.heard_at = None
        self._draw_timeout(now)

    def _ignored(self, reason: str) -> None:
        self._counts[f"ignored_{reason}"] += 1


COUNTERS = (
    "elections",
    "fetches",
    "forwarded",
    "leaderships",
    "learned",
    "nacks",
    "noops",
    "probes",
    "retransmissions",
    "returned",
    "step_downs",
    "transfers",
    "ignored_contradiction",
    "ignored_exhausted",
    "ignored_far",
    "ignored_foreign",
    "ignored_forgotten",
    "ignored_malformed",
    "ignored_misdirected",
    "ignored_probe",
    "ignored_repeated",
    "ignored_stale_learn",
    "ignored_stale_nack",
    "ignored_stale_prepare",
    "ignored_stale_probe",
    "ignored_stale_promise",
    "ignored_stale_take_over",
    "ignored_stale_vote",
    "ignored_unknown",
)
"""The names in `statistics`, beside `accepted` and `chosen`."""
