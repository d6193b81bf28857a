"""Zipf's law over a finite number of keys: rank r (from 0) is asked for in proportion to
1 / (r + 1)^exponent.

For an exponent theta below 1 `Gray` is the formula that YCSB's ZipfianGenerator uses (Gray et al.,
"Quickly Generating Billion-Record Synthetic Databases", SIGMOD 1994): exact for the first two
ranks, an approximation for the others (how good, is said in docs/workloads.md). For an exponent s
above 1 `Truncated` is exact for every rank. `Scrambled` is what YCSB's program asks for where its
property files say zipfian: flatter, because ranks of ten thousand million meet on few keys.

Rules of this file: a rank is a function of one number u, evenly drawn from [0, 1).
"""

from array import array
from bisect import bisect_right
from functools import cache
from math import gcd
from typing import Final

import numpy as np

_DIRECT: Final = 100_000
"""So many terms of a sum are added one by one; the rest is closed form."""
_SCRAMBLED: Final = 10_000_000_000
"""Among so many ranks YCSB draws before it hashes: those that the zeta in its source belongs to."""


@cache
def zeta(n: int, theta: float) -> float:
    """The sum of 1 / i^theta for i from 1 to n, theta below 1, to double precision for any n."""
    m = min(n, _DIRECT)
    direct = float(np.sum(np.arange(m, 0, -1, dtype=np.float64) ** -theta))
    if n == m:
        return direct
    # Euler and Maclaurin; the next term is below 1e-16.
    a, b = float(m), float(n)
    integral: float = (b ** (1 - theta) - a ** (1 - theta)) / (1 - theta)
    ends: float = (b**-theta - a**-theta) / 2
    slopes: float = theta * (a ** (-theta - 1) - b ** (-theta - 1)) / 12
    return direct + integral + ends + slopes


class Gray:
    """Ranks by the formula of Gray et al., over a number of keys that may grow."""

    def __init__(self, keys: int, theta: float) -> None:
        self.keys = keys
        self._theta = theta
        self._alpha = 1 / (1 - theta)
        self._second = 0.5**theta
        self._zeta = zeta(keys, theta)
        self._eta = self._find_eta()

    def _find_eta(self) -> float:
        if self.keys <= 2:
            return 0.0  # the first two ranks do not need it
        whole = 1 - (2 / self.keys) ** (1 - self._theta)
        return float(whole / (1 - (1 + self._second) / self._zeta))

    def rank(self, u: float) -> int:
        """From 0, the most frequent, to keys - 1."""
        scaled = u * self._zeta
        if scaled < 1:
            return 0
        if scaled < 1 + self._second:
            return 1
        rank = int(self.keys * (self._eta * u - self._eta + 1) ** self._alpha)
        return min(rank, self.keys - 1)

    def grow(self, by: int) -> None:
        """So many keys more."""
        for _ in range(by):
            self.keys += 1
            self._zeta += self.keys**-self._theta
        self._eta = self._find_eta()


class Scrambled:
    """The keys of YCSB's ScrambledZipfianGenerator: a rank among 10^10 by the formula of Gray et
    al., hashed (FNV-1a of its eight bytes), modulo the keys there are."""

    def __init__(self, keys: int, theta: float) -> None:
        self._keys = keys
        self._ranks = Gray(_SCRAMBLED, theta)

    def key(self, u: float) -> int:
        """From 0 to keys - 1; which of them are frequent follows from the hash."""
        return _hash(self._ranks.rank(u)) % self._keys


def _hash(number: int) -> int:
    """FNV-1a with 64 bits over eight bytes, the lowest first; as a signed number without sign."""
    found = 0xCBF29CE484222325
    for _ in range(8):
        found = ((found ^ (number & 0xFF)) * 1_099_511_628_211) & 0xFFFF_FFFF_FFFF_FFFF
        number >>= 8
    return found if found < 1 << 63 else (1 << 64) - found


class Truncated:
    """Ranks by Zipf(s), cut off after so many keys: the inverse of its distribution function."""

    def __init__(self, keys: int, s: float) -> None:
        self._below = _distribution(keys, s)
        self._last = keys - 1

    def rank(self, u: float) -> int:
        """From 0, the most frequent, to keys - 1."""
        return min(bisect_right(self._below, u), self._last)


@cache
def _distribution(keys: int, s: float) -> "array[float]":
    """Of each rank, the probability of it or a more frequent one."""
    sums = np.cumsum(np.arange(1, keys + 1, dtype=np.float64) ** -s)
    return array("d", (sums / sums[-1]).tobytes())


def scatter(keys: int) -> int:
    """A factor f such that rank * f mod keys is another order of all keys."""
    factor = max(1, round(keys * 0.6180339887498949))
    while gcd(factor, keys) != 1:
        factor += 1
    return factor
