"""What two replicas say to each other before messages flow, and whether they may talk.

Rules of this file: values and judgements alone; who says what when is the transport's.
"""

import msgspec

from epaxos.core.command import UNDECODABLE
from epaxos.core.errors import CodecError
from epaxos.core.lineage import Life, Verdict
from epaxos.core.types import ReplicaId, replica_name


class LinkHello(msgspec.Struct, frozen=True, array_like=True, tag=1, gc=False):
    """Both directions, first frame of a link."""

    version: int
    """PROTOCOL_VERSION."""
    cluster: str
    """The cluster's id."""
    replica: ReplicaId
    """Who speaks."""
    target: ReplicaId
    """Whom it means."""
    boot: int
    """The speaker's boot counter (R11)."""
    nonce: str
    """Tells two processes with the same counter apart."""
    protocol: str
    """By what they agree."""
    n: int
    """How many members."""
    settings: str
    """Hash of all settings that must be equal."""
    remembered_boot: int = 0
    """Boot counter of the target's life that the speaker accepted last; 0: none."""
    remembered_nonce: str = ""
    """Nonce of that life; empty where only the counter is known."""
    shown: str = ""
    """In an answer: the nonce of the speaker's own life that the other said it remembers."""

    @property
    def life(self) -> Life:
        """The speaker's life."""
        return Life(self.boot, self.nonce)

    @property
    def remembered(self) -> Life:
        """The target's life that the speaker accepted last."""
        return Life(self.remembered_boot, self.remembered_nonce)


class LinkProof(msgspec.Struct, frozen=True, array_like=True, tag=3, gc=False):
    """Sender -> receiver after both hellos; messages follow."""

    shown: str
    """The nonce of the sender's own life that the receiver said it remembers."""


class LinkRefusal(msgspec.Struct, frozen=True, array_like=True, tag=2, gc=False):
    """Receiver → sender instead of a hello; the link ends."""

    code: str
    """`mismatch`; `regressed` and `twin`: the sender must not go on."""
    detail: str
    """A sentence with both values."""


Greeting = LinkHello | LinkRefusal | LinkProof
"""What is said on a link before messages."""
_decoder: msgspec.msgpack.Decoder[Greeting] = msgspec.msgpack.Decoder(Greeting)


def decode_greeting(body: memoryview) -> Greeting:
    """One of the first frames of a link. Raises CodecError."""
    try:
        return _decoder.decode(body)
    except UNDECODABLE as error:
        raise CodecError(f"a hello does not decode: {error}") from None


def judge_hello(mine: LinkHello, theirs: LinkHello) -> str | None:
    """Why these two must not talk, in a sentence with both values and the fix; None if they may."""
    same_file = "start both from the same file"
    for field, what, fix in (
        ("version", "wire version", "run the same release"),
        ("cluster", "cluster", same_file),
        ("protocol", "protocol", same_file),
        ("n", "number of replicas", same_file),
        ("settings", "settings hash", same_file),
    ):
        here, there = getattr(mine, field), getattr(theirs, field)
        if here != there:
            return (
                f"{what} differs: {here!r} at {replica_name(mine.replica)}, {there!r} at the "
                f"other; {fix}"
            )
    if theirs.target != mine.replica:
        return (
            f"this is {replica_name(mine.replica)}, not {replica_name(theirs.target)}; "
            "an address is wrong"
        )
    if not 0 <= theirs.replica < mine.n or theirs.replica == mine.replica:
        return f"a peer cannot be replica {theirs.replica}"
    return None


def say_verdict(verdict: Verdict, hello: LinkHello, remembered: Life) -> str:
    """Why a peer's life is not accepted, in a sentence with both lives."""
    name, boot = replica_name(hello.replica), hello.boot
    if verdict == "twin":
        return f"boot {boot} of {name} is another process"
    if verdict == "regressed":
        return f"{name} was in boot {remembered.boot} before and says boot {boot} now"
    return f"boot {boot} of {name} does not show that it remembers boot {remembered.boot}"
