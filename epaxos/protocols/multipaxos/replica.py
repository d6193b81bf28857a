"""One member of a Multi-Paxos cluster: the interface, phase 2, forwarding, catch-up, heartbeats,
and what a leader does. How it becomes one is in election.py.

Rules of this file: a promise is recorded before it is said, a vote before it is acknowledged or
counted by others (1.12). Replicas are counted, never messages. A commit index makes a vote chosen
only where that vote was cast in the very ballot of the leader that says so; everything else is
fetched. What a peer sends is never trusted to be fresh or well formed: it is ignored by name, and
counted. What is put off to the end of a tick is said in `_end_tick`.

It knows nothing of commands, execution, disks and clients.
Source: Paxos Made Simple, section 2 and 3; docs/protocol.md 5.1, 1.12, 1.14.
"""

from collections.abc import Callable
from typing import Any

from epaxos.core.command import Footprint, Operation, Payload
from epaxos.core.errors import Definite, StorageError
from epaxos.core.replica import Message, Path, Record, Setup, Tables
from epaxos.core.stamps import Stamps
from epaxos.core.types import (
    Ballot,
    Deps,
    InstanceId,
    Micros,
    ReplicaId,
    Slot,
    ballot_name,
    ballot_replica,
    replica_name,
)
from epaxos.protocols.leader_based.transfer import Transfer
from epaxos.protocols.multipaxos.election import Elector
from epaxos.protocols.multipaxos.log import (
    CHUNK_BYTES,
    CHUNK_SLOTS,
    SLOTS_AHEAD_MAX,
    Entry,
    encoded_size,
)
from epaxos.protocols.multipaxos.messages import (
    Accept,
    AcceptOk,
    Chosen,
    CommitIndex,
    Fetch,
    Forgotten,
    Forward,
    Heartbeat,
    Learn,
    Learned,
    Nack,
    Prepare,
    Probe,
    ProbeOk,
    Promise,
    Promised,
    Returned,
    TakeOver,
    Voted,
)
from epaxos.protocols.multipaxos.stages import Leading, Preparing

PROGRESS_SLOTS = 32
"""So many newly executed slots are worth a Heartbeat of their own."""

NOTED_SLOTS = 64
"""What is forgotten is noted in the log when it is so many slots more."""

PROGRESS_DELAY_US = 50_000
"""The first change not yet told waits at most so long."""


class MultiPaxosReplica(Elector):
    """A member without I/O; see `epaxos.core.replica.Replica`."""

    def __init__(self, setup: Setup) -> None:
        super().__init__(setup)
        self.floor: Deps = (0,)
        self.live_bytes = 0
        """As of the end of the last tick."""
        self._preferred = setup.leader
        self._started = False
        self._told: tuple[Ballot, Slot] = (0, 0)
        """The commit index last heard from a leader, and its ballot."""
        self._wanted: Slot = 0
        """Somebody knows that every slot up to it is chosen;"""
        self._wanted_from: ReplicaId = setup.me
        """whom to ask for them."""
        self._fetches = 0
        """How often the present question was repeated."""
        self._fetched: tuple[ReplicaId, Micros] = (setup.me, 0)
        """Who was asked last, and when."""
        self._floor_noted: Slot = 0
        """The floor as last noted in the log."""
        self._noted: Slot = 0
        """The commit index as last noted in the log."""
        self._ack: tuple[Ballot, Slot, Slot] | None = None
        """A run of votes not yet acknowledged: ballot, first and last slot."""
        self._advertised: Slot = 0
        """What the last Heartbeat said of our executed."""
        self._returned: dict[int, Ballot] = {}
        """Batches of ours, by number, that were not proposed, and by which ballot they were
        forwarded."""
        self._accepted = 0
        self._chosen = 0
        self._handlers: dict[type[Message], Callable[[ReplicaId, Any, Micros], None]] = {
            Probe: self._on_probe,
            ProbeOk: self._on_probe_ok,
            Prepare: self._on_prepare,
            Promise: self._on_promise,
            Accept: self._on_accept,
            AcceptOk: self._on_accept_ok,
            CommitIndex: self._on_commit_index,
            Nack: self._on_nack,
            Fetch: self._on_fetch,
            Learn: self._on_learn,
            Forward: self._on_forward,
            TakeOver: self._on_take_over,
            Heartbeat: self._on_heartbeat,
            Returned: self._on_returned,
        }
        self._alarms: dict[str, Callable[[Micros], None]] = {
            "election": self._election_due,
            "campaign": self._campaign_due,
            "check": self._check_due,
            "resend": self._resend_due,
            "transfer": self._transfer_due,
            "fetch": self._fetch_due,
            "heartbeat": self._send_heartbeat,
            "changed": self._send_heartbeat,
        }

    # The interface.

    def propose(self, payload: Payload, now: Micros) -> InstanceId | None:
        """Put a batch made here into the next slot, or forward it to the leader, once."""
        if isinstance(self.stage, Leading):
            return InstanceId(0, self._propose(self.stage, payload, now))
        if self.leader is None:
            raise Definite("no leader is known; try again when one is elected")
        self._counts["forwarded"] += 1
        self.out.send(self.leader, Forward(self.promised, payload))
        return None

    def observe(self, instance: InstanceId, stamps: Stamps) -> None:
        """Write into `stamps`, from here on, who votes for a slot just proposed here."""
        self.log.entries[instance.slot].stamps = stamps

    def dependencies(self, footprint: Footprint) -> Deps:
        """Slots are ordered, so nothing is ever contended."""
        return ()

    def executed(self, durable: Deps, now: Micros) -> None:
        """Take over what may be advertised."""
        members = self.members
        if durable[0] <= members.executed[self.me]:
            return
        members.executed[self.me] = durable[0]
        self._renew_floor()
        if self.n == 1:
            return
        if durable[0] - self._advertised >= PROGRESS_SLOTS:
            self._send_heartbeat(now)
        elif "changed" not in self._timers:
            self._timers.set("changed", now + PROGRESS_DELAY_US)

    def receive(self, source: ReplicaId, message: Message, now: Micros) -> None:
        """Dispatch by type."""
        self.members.heard[source] = now
        self._handlers[type(message)](source, message, now)

    def wake(self, now: Micros) -> None:
        """Start, and whatever is due."""
        if not self._started:
            self._started = True
            self._start(now)
        for key in self._timers.due(now):
            self._alarms[str(key)](now)

    def deadline(self) -> Micros | None:
        """0 before the start."""
        return self._timers.next() if self._started else 0

    def restore(self, record: Record) -> None:
        """Votes and promises as recorded; chosen is what a note says is chosen."""
        if isinstance(record, Promised):
            self.promised = max(self.promised, record.ballot)
        elif isinstance(record, Voted):
            self.promised = max(self.promised, record.ballot)
            self.log.vote(record.slot, record.ballot, record.payload, 1 << self.me)
        elif isinstance(record, Learned):
            for slot, payload in enumerate(record.payloads, record.first):
                self._choose(slot, self.log.learn(slot, payload))
        elif isinstance(record, Chosen):
            for slot in range(self.log.chosen + 1, record.up_to + 1):
                entry = self.log.entries.get(slot)
                if entry is None:
                    raise StorageError(f"the log says that slot {slot} is chosen but not as what")
                self._choose(slot, entry)
        elif isinstance(record, Forgotten):
            self._forget(min(record.floor, self.log.chosen))
            self._floor_noted = low = self.floor[0]
            # What was noted was executed durably here too, and known to be so everywhere.
            members, me = self.members, self.me
            members.executed[me] = max(members.executed[me], low)
            members.stable[me] = max(members.stable[me], low)
        self._noted = self.log.chosen
        self.live_bytes = self.log.live_bytes

    @property
    def leadership(self) -> Ballot:
        """The ballot of the leader that we follow, or are."""
        return 0 if self.leader is None else self.promised

    def transfer(self, target: ReplicaId, now: Micros) -> None:
        """Hand leadership over: `target` campaigns as soon as it knows what is chosen now. We go on
        proposing until we promise its ballot, and our promise brings it all we proposed."""
        stage = self.stage
        if not isinstance(stage, Leading):
            where = "nobody is" if self.leader is None else f"{replica_name(self.leader)} is"
            raise Definite(f"this replica is not the leader, {where}; ask the leader")
        if not 0 <= target < self.n:
            raise Definite(f"there is no replica {target}; write 0 to {self.n - 1}")
        if target == self.me:
            return
        heard = self.members.heard[target]
        if heard is None or now - heard > self.patience.us:
            raise Definite(f"{replica_name(target)} has not been heard of lately")
        stage.transfer = Transfer(target, self.log.chosen, now)
        self._transfer_due(now)

    def unready(self) -> str | None:
        """Without a leader nothing is decided."""
        return None if self.leader is not None else "no leader is known"

    def slowest_member(self) -> ReplicaId | None:
        """Who has executed least, if anybody is behind us; then who knows least of the others."""
        if self.floor[0] >= self.members.executed[self.me]:
            return None
        return self.members.slowest()

    def describe(self, instance: InstanceId) -> dict[str, Any] | None:
        """One slot for people."""
        slot = instance.slot
        entry = self.log.entries.get(slot)
        if instance.replica != 0 or entry is None:
            return None
        document: dict[str, Any] = {
            "slot": slot,
            "status": "chosen" if entry.chosen else "voted",
            "promised": ballot_name(self.promised),
            "voted": ballot_name(entry.ballot) if entry.ballot else None,
            "leader": None if self.leader is None else replica_name(self.leader),
            "nop": entry.payload is None,
        }
        if entry.payload is not None:
            batch = entry.payload.batch
            document["origin"] = replica_name(batch.origin)
            document["number"] = batch.number
            document["commands"] = [
                {"operation": Operation(code).name.lower(), "key": key.decode("utf-8", "replace")}
                for code, key in zip(batch.operations, batch.keys)
            ]
        return document

    def statistics(self) -> dict[str, int]:
        """Counters since the start."""
        return {"accepted": self._accepted, "chosen": self._chosen, **self._counts}

    def held(self) -> Tables:
        """Its tables. A vote for a slot that is not chosen stays: it may be needed at any time."""
        chosen = sum(slot <= self.log.chosen for slot in self.log.entries)
        return Tables({"returned batches": len(self._returned)}, {"chosen slots": chosen})

    # Phase 2 and the commit index.

    def _propose(self, stage: Leading, payload: Payload | None, now: Micros) -> Slot:
        slot = stage.next
        assert slot > self.log.last, "no slot is used twice (MP4)"
        stage.next = slot + 1
        self._start_accept(stage, slot, payload, now)
        return slot

    def _start_accept(
        self, stage: Leading, slot: Slot, payload: Payload | None, now: Micros
    ) -> None:
        assert self.stage is stage, "only a leader proposes"
        ballot = stage.ballot
        entry = self.log.vote(slot, ballot, payload, 1 << self.me)
        self.out.record(Voted(ballot, slot, payload))
        self._accepted += 1
        if self.majority == 1:
            self._choose(slot, entry)
            return
        commit = self.log.chosen
        self.out.broadcast(Accept(ballot, slot, payload, commit))
        stage.told = commit
        if "resend" not in self._timers:
            self._arm_resend(stage, now)

    def _on_accept(self, source: ReplicaId, m: Accept, now: Micros) -> None:
        """Phase 2 at an acceptor.  [Paxos Made Simple 2.2, phase 2b].

        Requires: m.ballot >= promised, and the sender owns it; otherwise Nack, or nothing.
        Ensures:  the vote for the slot is m.payload in m.ballot; the sender is our leader.
        Records:  Voted, and Promised if the ballot is new.     Sends: AcceptOk at the tick's end.
        """
        ballot, slot, log = m.ballot, m.slot, self.log
        if not self._follow(source, ballot, now):
            return
        entry = log.entries.get(slot)
        if entry is None or entry.ballot != ballot:
            if slot <= log.floor:
                return self._ignored("forgotten")
            if slot > log.last + SLOTS_AHEAD_MAX:
                return self._ignored("far")
            if entry is not None and entry.chosen and entry.payload != m.payload:
                return self._ignored("contradiction")
            assert ballot == self.promised, "no vote outside the ballot promised (MP1)"
            log.vote(slot, ballot, m.payload, 0)
            self.out.record(Voted(ballot, slot, m.payload))
            self._accepted += 1
        self._acknowledge(ballot, slot)
        self._learn_commit(source, ballot, m.commit, now)

    def _acknowledge(self, ballot: Ballot, slot: Slot) -> None:
        ack = self._ack
        if ack is not None and (ack[0] != ballot or ack[2] + 1 != slot):
            self._send_ack(ack)
            ack = None
        self._ack = (ballot, slot if ack is None else ack[1], slot)

    def _send_ack(self, ack: tuple[Ballot, Slot, Slot]) -> None:
        self.out.send(ballot_replica(ack[0]), AcceptOk(*ack))

    def _on_accept_ok(self, source: ReplicaId, m: AcceptOk, now: Micros) -> None:
        """Phase 2 at the leader.

        Requires: we lead by m.ballot.
        Ensures:  a slot with votes of a majority of replicas is chosen.
        Records:  Chosen at the tick's end, as a note.      Sends: CommitIndex at the tick's end.
        """
        stage = self.stage
        if not isinstance(stage, Leading) or m.ballot != stage.ballot:
            return self._ignored("stale_vote")
        entries = self.log.entries
        bit = 1 << source
        for slot in range(max(m.first, self.log.chosen + 1), min(m.last, stage.next - 1) + 1):
            entry = entries[slot]
            if entry.chosen:
                continue
            entry.votes |= bit
            if entry.stamps is not None:
                entry.stamps.accepted(source, now)
            if entry.votes.bit_count() >= self.majority:
                self._choose(slot, entry)
                if stage.attempts:
                    # Somebody answers again: what else is open need not wait for the long pause.
                    stage.attempts = 0
                    self._arm_resend(stage, now)

    def _on_commit_index(self, source: ReplicaId, m: CommitIndex, now: Micros) -> None:
        """The leader's commit index at a follower.

        Requires: the sender owns m.ballot. One below `promised` still tells the truth about the
                  votes cast in it: a leader that hands over has its last words heard.
        Ensures:  slots up to m.commit are chosen as far as our votes are of m.ballot.
        Records:  Chosen at the tick's end, as a note.      Sends: Fetch for the rest.
        """
        if m.ballot < self.promised:
            if ballot_replica(m.ballot) != source:
                return self._ignored("foreign")
            return self._choose_voted(m.ballot, m.commit)
        if self._follow(source, m.ballot, now):
            self._learn_commit(source, m.ballot, m.commit, now)

    def _learn_commit(self, source: ReplicaId, ballot: Ballot, commit: Slot, now: Micros) -> None:
        told = self._told
        if ballot != told[0] or commit > told[1]:
            self._told = (ballot, commit)
        if self.log.chosen < max(commit, self._wanted):
            self._catch_up(source, commit, now)

    def _catch_up(self, source: ReplicaId, chosen: Slot, now: Micros) -> None:
        if chosen > self._wanted:
            self._wanted = chosen
            self._wanted_from = source
        if chosen > self.log.chosen and self._is_unheard(*self._fetched, now):
            # Whoever speaks of what we lack is asked, and not waited for as for the dead.
            self._wanted_from = source
            self._timers.cancel("fetch")
        self._advance(now)

    def _is_unheard(self, member: ReplicaId, asked_at: Micros, now: Micros) -> bool:
        """Whether nothing was heard of a member since it was asked, for longer than an answer
        takes."""
        heard = self.members.heard[member]
        silent = heard is None or heard < asked_at
        return silent and now - asked_at >= self.members.wait(0)

    def _advance(self, now: Micros) -> None:
        """Choose what the commit index covers, and ask for what it names but we lack."""
        self._choose_voted(*self._told)
        if self.log.chosen < self._wanted and "fetch" not in self._timers:
            self._fetches = 0
            self._fetch(now)

    def _choose_voted(self, ballot: Ballot, commit: Slot) -> None:
        log = self.log
        while log.chosen < commit:
            slot = log.chosen + 1
            entry = log.entries.get(slot)
            if entry is None or entry.ballot != ballot:
                return
            self._choose(slot, entry)

    def _choose(self, slot: Slot, entry: Entry) -> None:
        """Ensures: the slot is chosen, and was handed to execution once."""
        if not entry.chosen:
            self._chosen += 1
            self.log.choose(slot, entry)
            self.out.commit(0, slot, (), entry.payload, Path.LEADER)

    def _end_tick(self) -> None:
        """What a tick puts off: acknowledgements, the Chosen note, the commit index."""
        if self._ack is not None:
            self._send_ack(self._ack)
            self._ack = None
        if self._returned:
            self._give_back()
        chosen = self.log.chosen
        if chosen != self._noted:
            self._noted = chosen
            self.out.note(Chosen(chosen))
            stage = self.stage
            if isinstance(stage, Leading) and stage.told != chosen and self.n > 1:
                stage.told = chosen
                self.out.broadcast(CommitIndex(stage.ballot, chosen))
        self.live_bytes = self.log.live_bytes

    def _arm_resend(self, stage: Leading, now: Micros) -> None:
        stage.marker = stage.next
        self._timers.set("resend", now + self.members.wait(stage.attempts))

    def _resend_due(self, now: Micros) -> None:
        """Send again what is open since the last look, to those that have not voted for it."""
        stage = self.stage
        if not isinstance(stage, Leading):
            return
        chosen = self.log.chosen
        stage.attempts = stage.attempts + 1 if stage.resent_at == chosen else 0
        stage.resent_at = chosen
        room = CHUNK_BYTES
        for slot, entry in self.log.open(stage.marker - 1):
            accept = Accept(stage.ballot, slot, entry.payload, chosen)
            for member in self._others:
                if not entry.votes >> member & 1:
                    self.out.send(member, accept)
                    self._counts["retransmissions"] += 1
                    room -= encoded_size(entry.payload)
            if room <= 0:
                break
        if stage.next - 1 > chosen:
            self._arm_resend(stage, now)

    # Forwarding.

    def _on_forward(self, source: ReplicaId, m: Forward, now: Micros) -> None:
        """A follower's batch at the leader.

        Requires: we lead by m.ballot and have not seen this batch in this leadership; a copy that
                  meets anything else is dropped. Who led by m.ballot before and never saw the batch
                  says so: nobody else could propose it, and it never will. Else the origin's
                  clients hear that the outcome is unknown.
        Ensures:  the batch is proposed in exactly one slot, or returned and proposed in none.
        Records:  Voted.        Sends: Accept, or Returned.
        """
        stage, batch = self.stage, m.payload.batch
        if batch.origin != source:
            return self._ignored("foreign")
        leads = isinstance(stage, Leading) and m.ballot == stage.ballot
        led = stage if leads else self.former
        if not isinstance(led, Leading) or m.ballot != led.ballot:
            return self._ignored("misdirected")
        if not led.first_sight(source, batch.number):
            return self._ignored("repeated")
        if leads:
            self._propose(led, m.payload, now)
        else:
            self.out.send(source, Returned(m.ballot, batch.number))

    def _on_returned(self, source: ReplicaId, m: Returned, now: Micros) -> None:
        """A batch of ours that the former leader did not propose.

        Requires: the sender owns m.ballot.
        Ensures:  as soon as we follow another leader, the node proposes its commands again, in
                  another batch.
        Records:  nothing.      Sends: nothing.
        """
        if ballot_replica(m.ballot) != source:
            return self._ignored("foreign")
        self._counts["returned"] += 1
        self._returned[m.number] = m.ballot

    def _give_back(self) -> None:
        if self.leader is None:
            return
        for number, ballot in list(self._returned.items()):
            if self.promised > ballot:
                del self._returned[number]
                self.out.give_back(number)

    # Catching up.

    def _fetch(self, now: Micros) -> None:
        """Ask for the run of slots from the first unchosen one on that our votes do not give."""
        log, (ballot, commit) = self.log, self._told
        first = last = log.chosen + 1
        end = min(self._wanted, first + CHUNK_SLOTS - 1)
        while last < end:
            entry = log.entries.get(last + 1)
            if entry is not None and entry.ballot == ballot and last < commit:
                break
            last += 1
        self._counts["fetches"] += 1
        self._fetched = (self._wanted_from, now)
        self.out.send(self._wanted_from, Fetch(first, last))
        self._timers.set("fetch", now + self.members.wait(self._fetches))

    def _fetch_due(self, now: Micros) -> None:
        """No answer: ask the next member that says it knows more than we do."""
        if self.log.chosen >= self._wanted:
            return
        self._fetches += 1
        chosen = self.members.chosen
        for step in range(1, self.n + 1):
            member = (self._wanted_from + step) % self.n
            if member != self.me and chosen[member] > self.log.chosen:
                self._wanted_from = member
                break
        self._fetch(now)

    def _on_fetch(self, source: ReplicaId, m: Fetch, now: Micros) -> None:
        """Somebody lacks chosen slots.

        Requires: we hold the first of them.
        Ensures:  nothing changes here.
        Records:  nothing.      Sends: Learn.
        """
        if m.first <= self.log.floor:
            return self._ignored("forgotten")
        payloads = self.log.values(m.first, m.last)
        if not payloads:
            return self._ignored("unknown")
        self.out.send(source, Learn(m.first, payloads))

    def _on_learn(self, source: ReplicaId, m: Learn, now: Micros) -> None:
        """Chosen slots that we asked for.

        Requires: they begin at or before our first unchosen slot and end behind it; a leader has
                  nothing to learn.
        Ensures:  they are chosen; the next range is asked for.
        Records:  Learned, as a note.       Sends: Fetch, if we are still behind.
        """
        skip = self.log.chosen + 1 - m.first
        if isinstance(self.stage, Leading) or skip < 0 or skip >= len(m.payloads):
            return self._ignored("stale_learn")
        payloads = m.payloads[skip:] if skip else m.payloads
        first = m.first + skip
        self.out.note(Learned(first, payloads))
        self._counts["learned"] += len(payloads)
        for slot, payload in enumerate(payloads, first):
            self._choose(slot, self.log.learn(slot, payload))
        self._timers.cancel("fetch")
        self._advance(now)
        if isinstance(self.stage, Preparing):
            self._campaign_moves(self.stage, now)
            self._try_lead(now)

    # Heartbeats, vectors, forgetting.

    def _send_heartbeat(self, now: Micros) -> None:
        members = self.members
        executed, stable = members.executed[self.me], members.stable[self.me]
        self._advertised = executed
        leads = isinstance(self.stage, Leading)
        commit = self.log.chosen
        self.out.broadcast(
            Heartbeat(self.promised, leads, commit, (executed,), (stable,), members.echo(now), now)
        )
        self._timers.cancel("changed")
        self._timers.set("heartbeat", now + members.rtt_max * 5 // 4)

    def _on_heartbeat(self, source: ReplicaId, m: Heartbeat, now: Micros) -> None:
        """Another member's heartbeat.

        Requires: vectors of our shape.
        Ensures:  floor is renewed; a leader is followed; one with a lower ballot is refused; we
                  lead no longer if somebody joined a higher ballot; a leader that says it leads no
                  longer is believed; without a leader we learn from anybody.
        Records:  Promised if we follow a new ballot.       Sends: Nack, Fetch.
        """
        if len(m.executed) != 1 or len(m.stable) != 1 or len(m.echo) != self.n:
            self.out.distrust(source)
            return self._ignored("malformed")
        self.members.advance(source, m.executed[0], m.stable[0], m.commit)
        self.members.measure(source, m.stamp, m.echo[self.me], now)
        self._renew_floor()
        if m.leads:
            if self._follow(source, m.ballot, now):
                self._learn_commit(source, m.ballot, m.commit, now)
        elif m.ballot > self.promised:
            self._superseded(m.ballot, now)
        elif source == self.leader and m.ballot == self.promised:
            self.leader = None
            self.patience.heard_at = None
        if self.leader is None and m.commit > self.log.chosen:
            self._catch_up(source, m.commit, now)

    def _renew_floor(self) -> None:
        self._forget(self.members.renew_floor())
        if self.floor[0] >= self._floor_noted + NOTED_SLOTS:
            self._floor_noted = self.floor[0]
            self.out.note(Forgotten(self.floor[0]))

    def _forget(self, floor: Slot) -> None:
        if floor > self.floor[0]:
            self.log.forget(floor)
            self.floor = (floor,)
            self.live_bytes = self.log.live_bytes

    # Start, leadership, handing it over.

    def _start(self, now: Micros) -> None:
        if self.n == 1:
            self._campaign(now, None)
            return
        self._send_heartbeat(now)
        self._draw_timeout(now)
        if self.promised == 0 and self._preferred is not None:
            if self._preferred == self.me:
                self._start_probe(now)
            else:
                self._timers.set("election", now + self.patience.timeout + 2 * self.patience.us)

    def _lead(self, prepared: Preparing, now: Micros) -> None:
        """Propose in every open slot what phase 1 demands, and say that we lead.

        Records: Voted.     Sends: Accept, Heartbeat.
        """
        assert prepared is self.stage, "only a candidate becomes the leader"
        assert prepared.ballot == self.promised, "a leader leads by the ballot it promised (MP3)"
        proposals = prepared.proposals(self.log)
        last = max(proposals[-1][0] if proposals else 0, self.log.chosen, self.log.last)
        stage = Leading(prepared.ballot, last + 1, now)
        self.stage = stage
        self.leader = self.me
        self._counts["leaderships"] += 1
        self._timers.cancel("campaign")
        self._timers.cancel("election")
        for slot, payload in proposals:
            self._counts["noops"] += payload is None
            self._start_accept(stage, slot, payload, now)
        if self.n > 1:
            stage.told = self.log.chosen
            self._send_heartbeat(now)
            self._timers.set("check", now + self.patience.us // 2)

    def _check_due(self, now: Micros) -> None:
        """A leader that has not heard a majority for T steps down (check-quorum)."""
        stage = self.stage
        if not isinstance(stage, Leading):
            return
        patience = self.patience.us
        if stage.check.is_lost(self.members, self.majority, patience, now):
            self._step_down(now)
            return
        self._timers.set("check", now + patience // 2)

    def _transfer_due(self, now: Micros) -> None:
        """Tell the successor to campaign once it has caught up; give up after T."""
        stage = self.stage
        if not isinstance(stage, Leading) or stage.transfer is None:
            return
        transfer = stage.transfer
        if now - transfer.asked_at >= self.patience.us:
            stage.transfer = None
            return
        if self.members.chosen[transfer.target] >= transfer.goal:
            self.out.send(transfer.target, TakeOver(stage.ballot))
        self._timers.set("transfer", now + self.members.wait(0))

    def _on_take_over(self, source: ReplicaId, m: TakeOver, now: Micros) -> None:
        """Our leader wants us to succeed it.

        Requires: we follow it by m.ballot.
        Ensures:  we campaign, and wait for its promise too.
        Records:  Promised.     Sends: Prepare.
        """
        if source != self.leader or m.ballot != self.promised:
            return self._ignored("stale_take_over")
        self._counts["transfers"] += 1
        self._campaign(now, source)
