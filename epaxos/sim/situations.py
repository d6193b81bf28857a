"""The situations that a soak must have met: a run without them proves nothing about them.

Each has a name, the protocol it belongs to (None: both) and a sentence. Most are counted by the
replicas themselves; what only an outside observer can see is counted by the world.

Rules of this file: names are stable. A situation of a feature that does not exist is not here.
"""

from collections import Counter
from collections.abc import Iterable
from typing import Any, NamedTuple, cast

from epaxos.core.command import BATCH_ENVELOPE_BYTES, commands_bytes
from epaxos.core.quorum import quorums
from epaxos.core.replica import Decided, Message, Path
from epaxos.core.types import ReplicaId
from epaxos.node.node import Node
from epaxos.node.requests import Refusal, Reply, Request
from epaxos.protocols.epaxos.recovery import RULES
from epaxos.sim.options import RunOptions


class Situation(NamedTuple):
    """Something that must have happened in a soak."""

    name: str
    protocol: str | None
    counter: str
    """The counter that says how often."""
    sentence: str


SITUATIONS: tuple[Situation, ...] = (
    Situation("fast path", "epaxos", "fast", "decided after one round trip"),
    Situation("slow path", "epaxos", "slow", "decided after PreAccept and Accept"),
    *(
        Situation(f"recovery rule {rule}", "epaxos", f"recover_rule_{rule}", sentence)
        for rule, sentence in RULES.items()
    ),
    Situation("Nop", "epaxos", "nop", "an instance was decided without its batch"),
    Situation("re-submission", "epaxos", "resubmitted", "a command went into a new instance"),
    Situation("two recoverers", "epaxos", "nacks", "a recoverer met another's higher ballot"),
    Situation(
        "recovery of the leader's own",
        "epaxos",
        "own_recovered",
        "the command leader was told the fate of its own instance by somebody else",
    ),
    Situation("component of 2", "epaxos", "components_2", "two instances executed as one"),
    Situation("component of 3 or 4", "epaxos", "components_3_4", "three or four did"),
    Situation("component of 5 or more", "epaxos", "components_5", "five or more did"),
    Situation(
        "component across 3 leaders",
        "epaxos",
        "components_3_leaders",
        "a component had instances of three replicas",
    ),
    Situation("dependency on a Nop", "epaxos", "dependency_on_nop", "somebody waited for a Nop"),
    Situation("blocked execution", "epaxos", "blocked", "a committed instance had to wait"),
    Situation("contended key", "epaxos", "queued", "a command waited for its key"),
    Situation("forgotten", "epaxos", "forgotten", "instances fell below floor"),
    Situation("leadership", "multipaxos", "leaderships", "somebody became the leader"),
    Situation("second leader", "multipaxos", "second_leaders", "somebody else led after the first"),
    Situation("step down", "multipaxos", "step_downs", "a leader stepped down"),
    Situation("gap filled", "multipaxos", "noops", "a new leader filled a gap with a no-op"),
    Situation("refused ballot", "multipaxos", "nacks", "a lower ballot was refused"),
    Situation("catch-up", "multipaxos", "learned", "a follower fetched what it lacked"),
    Situation("forwarded", "multipaxos", "forwarded", "a follower passed a batch on"),
    Situation("returned", "multipaxos", "returned", "a former leader gave a batch back"),
    Situation("hand-over", "multipaxos", "transfers", "leadership was handed over on request"),
    Situation("retransmission", "multipaxos", "retransmissions", "an Accept was sent again"),
    Situation("asked again", "epaxos", "resends", "a question was repeated"),
    Situation(
        "crash with unsynced records", None, "unsynced_at_crash", "a crash put records at risk"
    ),
    Situation("torn tail", None, "torn_tails", "sectors of the tail survived in any order"),
    Situation(
        "full amid a step", None, "full_amid_step", "a full disk kept the first part of a step"
    ),
    Situation("failed sync", None, "failed_syncs", "what a failed sync covered could be read"),
    Situation("failed sync, then power loss", None, "unsynced_lost", "and was gone afterwards"),
    Situation(
        "power loss of a quorum",
        None,
        "quorum_lost",
        "so many crashed at once that the others were no quorum",
    ),
    Situation("refused start", None, "refused_starts", "a rotten, foreign or older disk came back"),
    Situation("restart", None, "restarts", "a replica came back from its disk"),
    Situation(
        "late message after restart",
        None,
        "late_after_restart",
        "a message of an earlier life arrived",
    ),
    Situation(
        "overtaking", None, "overtaken", "a message arrived before an earlier one of its link"
    ),
    Situation("slow links", None, "spikes", "all links of a replica were slow for a while"),
    Situation("pause", None, "pauses", "a process stood still and went on"),
    Situation("stall", None, "stalls", "the event loop or a sync stood still"),
    Situation("clock jump", None, "clock_jumps", "a clock was suddenly ahead"),
    Situation("vanished client", None, "vanished", "a client was gone before the answer"),
    Situation("duplicate", None, "duplicated", "a message arrived twice"),
    Situation("replay", None, "replayed", "a message of the past arrived once more"),
    Situation("loss", None, "lost", "a message never arrived"),
    Situation("definite failure", None, "definite", "a client was told that it did not happen"),
    Situation("ambiguous failure", None, "ambiguous", "a client was told that it may have"),
    Situation("retry elsewhere", None, "retried", "a client tried another replica"),
    Situation(
        "expired in the queue",
        "epaxos",
        "expired_queued",
        "a command was refused before it was proposed",
    ),
    Situation("bound: memory for instances", None, "bound_live_bytes", "refused, overloaded"),
    Situation("bound: queue of contended keys", "epaxos", "bound_queued", "refused, overloaded"),
    Situation(
        "bound: commands of a batch", None, "bound_batch", "a request became several batches"
    ),
    Situation(
        "bound: slots of a question",
        "epaxos",
        "bound_slots",
        "a question or recovery could not name all slots",
    ),
    Situation(
        "bound: commits of an answer",
        "epaxos",
        "bound_commits",
        "an answer to a question ended early",
    ),
    Situation(
        "bound: bytes of a batch",
        None,
        "bound_batch_bytes",
        "a request became several batches because of its size",
    ),
    Situation(
        "bound: bytes of a payload",
        None,
        "bound_payload",
        "a command was refused for its size",
    ),
    Situation(
        "bound: bytes of commits",
        "epaxos",
        "commits_cut",
        "an answer to a question ended early because of its size",
    ),
    Situation(
        "bound: bytes of votes",
        "epaxos",
        "votes_cut",
        "the answer to a recovery came in several messages",
    ),
    Situation(
        "bound: repeats of a question",
        "epaxos",
        "questions_given_up",
        "a recovery asked often enough, and began anew in a higher ballot",
    ),
    Situation(
        "bound: repeats of a wait",
        "epaxos",
        "waits_given_up",
        "a recovery waited long enough, and began anew in a higher ballot",
    ),
    Situation(
        "bound: slots ahead",
        "multipaxos",
        "ignored_far",
        "a vote too far beyond all that a follower holds was ignored",
    ),
    Situation(
        "bound: chunk of a promise",
        "multipaxos",
        "bound_chunk",
        "a promise or a catch-up came in parts",
    ),
)
"""Of them all at least one must have been met for each protocol in a soak."""


_NO_BOUND = 1 << 30


class Meter:
    """Counts what only somebody outside the replicas can see."""

    def __init__(self, options: RunOptions) -> None:
        self.met: Counter[str] = Counter()
        self.seen: list[Counter[str]] = [Counter() for _ in range(options.replicas)]
        """Per replica what its present life released, by the names of the replica's own counters;
        and how many commands it was asked and answered."""
        self._slow: list[set[int]] = [set() for _ in range(options.replicas)]
        """Per replica which of its slots its present life sent into the second phase."""
        self.past: list[dict[str, int]] = []
        """What replicas counted in lives that have ended."""
        limits = dict(options.limits)
        self._batch_max = limits.get("batch_commands", _NO_BOUND)
        self._batch_bytes_max = limits.get("batch_bytes", _NO_BOUND)
        tunables = dict(options.tunables)
        self._slots_max = tunables.get("epaxos.SLOTS_PER_QUESTION")
        self._commits_max = tunables.get("epaxos.COMMITS_PER_ANSWER")
        self._watches_messages = bool(tunables)

    def started(self, member: ReplicaId, boot: int) -> None:
        self.seen[member].clear()
        self._slow[member].clear()
        self.met["restarts"] += boot > 1

    def crashed(self, statistics: dict[str, int], running: int, n: int) -> None:
        """A process life ended; so many still run."""
        self.past.append(statistics)
        self.met["quorum_lost"] += running < quorums(n).slow

    def requested(self, member: ReplicaId, request: Request) -> None:
        commands = len(request.keys)
        self.seen[member]["requested"] += commands
        self.met["bound_batch"] += commands > self._batch_max
        if commands > 1:
            size = BATCH_ENVELOPE_BYTES + commands_bytes(request.keys, request.arguments)
            self.met["bound_batch_bytes"] += size > self._batch_bytes_max

    def healed(self) -> None:
        """Bounds and constants are the defaults again, which no run reaches."""
        self._batch_max = self._batch_bytes_max = _NO_BOUND
        self._watches_messages = False

    def answered(self, member: ReplicaId, reply: Reply) -> None:
        self.seen[member]["answered"] += reply.results.count

    def refused(self, refusal: Refusal) -> None:
        self.met["bound_payload"] += refusal.code == "invalid"
        if refusal.code == "overloaded":
            kind = "live_bytes" if str(refusal.error).startswith("live") else "queued"
            self.met[f"bound_{kind}"] += 1

    def decided(self, member: ReplicaId, decided: Decided) -> None:
        seen, path = self.seen[member], decided.path
        seen["chosen"] += 1
        seen["nop"] += decided.payload is None
        if path is Path.FAST:
            seen["fast"] += 1
        elif path is Path.RECOVERED:
            seen["recovered"] += 1
            self.met["own_recovered"] += decided.replica == member

    def restored(self, member: ReplicaId, count: int) -> None:
        """A replica knows from its log that so many instances are decided."""
        self.seen[member]["chosen"] += count

    def executed(self, member: ReplicaId, count: int) -> None:
        self.seen[member]["components"] += count

    def component(self, member: ReplicaId, component: list[Decided]) -> None:
        """Several of them as one."""
        seen, size = self.seen[member], len(component)
        seen["components"] -= size - 1
        name = "components_2" if size == 2 else "components_3_4" if size < 5 else "components_5"
        seen[name] += 1
        if len(component) > 2 and len({decided.replica for decided in component}) > 2:
            self.met["components_3_leaders"] += 1

    def sent(self, source: ReplicaId, message: Message) -> None:
        kind = type(message).__name__
        if kind == "AcceptShort":
            slow = self._slow[source]
            slow.add(cast("Any", message).slot)
            self.seen[source]["slow"] = len(slow)
        elif not self._watches_messages:
            return
        elif kind in ("Recover", "CommitReq"):
            slots = len(getattr(message, "slots", ()))
            self.met["bound_slots"] += slots == self._slots_max
            if kind == "CommitReq" and self._commits_max is not None:
                self.met["bound_commits"] += slots > self._commits_max
        elif kind == "Promise":
            self.met["bound_chunk"] += getattr(message, "until", 0) > 0

    def situations(
        self, protocol: str, counts: dict[str, int], living: Iterable[Node]
    ) -> dict[str, int]:
        """At the end of a run: how often each situation of its protocol was met. `counts` is what
        world, clients and replicas counted."""
        forgotten = sum(sum(node.replica.floor) > 0 for node in living)
        self.met["forgotten"] += forgotten
        found = {**counts, **self.met}
        found["second_leaders"] = max(0, counts.get("leaderships", 0) - 1)
        return {
            each.name: found.get(each.counter, 0)
            for each in SITUATIONS
            if each.protocol in (None, protocol)
        }
