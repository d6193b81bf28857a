"""Lives of a replica, and how one proves that it remembers the ones before it (R11).

A life is one start of a process. It has a number, the boot counter, and a nonce that no other life
has. A data directory keeps the nonces of all its lives; each peer remembers the latest life that it
accepted. A process that cannot show, among the lives of its own directory, the one that a peer
remembers has forgotten what that life promised and voted: its directory was emptied, or is an older
copy. A counter alone proves nothing: every refused start would raise it, until it passes.

Rules of this file: pure; the runtime and the simulator judge by the same functions.
"""

from collections.abc import Sequence
from typing import Final, Literal, NamedTuple


class Life(NamedTuple):
    """One life of one replica."""

    boot: int
    """1 for the first start of a data directory, then one more each time."""
    nonce: str
    """Tells two lives with the same number apart. Empty where only the number is known: releases
    before lineage kept no more."""


NO_LIFE: Final = Life(0, "")
"""What somebody remembers who never met that replica."""

Verdict = Literal["known", "newer", "regressed", "twin", "stranger"]
"""Of a peer's life: the one remembered, a later one of the same lineage, an earlier one, another
one with the same number, or a later one that does not show the one remembered."""


def descends(lives: Sequence[str], remembered: Life) -> bool:
    """Whether the life that a peer remembers is among `lives`: the nonces of one's own, the first
    life's first, the present one's last."""
    boot, nonce = remembered
    if boot == 0:
        return True
    if boot > len(lives):
        return False
    return lives[boot - 1] == nonce if nonce else boot < len(lives)


def judge_life(remembered: Life, said: Life, shown: str) -> Verdict:
    """What a peer is that says it is in life `said`, and shows the nonce `shown` where its earlier
    life `remembered` is asked for."""
    if said.boot < remembered.boot:
        return "regressed"
    if said.boot == remembered.boot:
        return "known" if said == remembered else "twin"
    return "newer" if shown == remembered.nonce else "stranger"
