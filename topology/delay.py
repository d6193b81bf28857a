"""How a delay varies: a constant floor plus a gamma-distributed rest with a longest value.

Measured links spread by 0.3 to 1.7 % of their round trip; a shifted gamma with the floor at the
minimum, the mean at the mean and the scale from the mean deviation reproduces that, and the
measured maximum bounds its tail (data/SOURCES.md). The means are kept: whoever adds a sample to a
floor takes `mean_us` off the floor first.
"""

import random
from dataclasses import dataclass
from functools import cached_property
from math import exp, lgamma, log

DEFAULT_SHARE = 0.002
"""Mean of the rest as a share of the one-way delay, where a source has no figures."""


@dataclass(frozen=True)
class Jitter:
    """What is added to a floor, message by message: min(gamma, longest)."""

    shape: float
    """Shape of the gamma distribution; 1 is exponential, larger is narrower."""
    scale_us: float
    """Its scale; 0: nothing is ever added."""
    longest_us: float
    """What is added at most."""

    @cached_property
    def mean_us(self) -> float:
        if self.scale_us <= 0:
            return 0.0
        cut = self.longest_us / self.scale_us
        below = self.shape * self.scale_us * _gamma_share(self.shape + 1, cut)
        return below + self.longest_us * (1 - _gamma_share(self.shape, cut))

    def sample(self, rng: random.Random) -> int:
        """Microseconds to add, >= 0."""
        if self.scale_us <= 0:
            return 0
        return int(min(rng.gammavariate(self.shape, self.scale_us), self.longest_us))


NO_JITTER = Jitter(1.0, 0.0, 0.0)
"""Nothing is added."""


def mild_jitter(mean_us: float) -> Jitter:
    """An exponential of that mean, cut at five means."""
    return Jitter(1.0, mean_us, 5 * mean_us)


def default_jitter(rtt_ms: float) -> Jitter:
    """For a round trip whose spread nobody measured."""
    return mild_jitter(rtt_ms / 2 * 1000 * DEFAULT_SHARE)


def measured_jitter(
    mean_ms: float, least_ms: float, deviation_ms: float, most_ms: float | None
) -> Jitter:
    """From a ping's mean, minimum, mean deviation and maximum of the round trip, all in ms.

    Both ways share the spread: half the mean, and variances that add up to the round trip's. A
    gamma of mean m and standard deviation s has shape (m / s)^2 and scale s^2 / m."""
    rest_us = max(0.0, mean_ms - least_ms) / 2 * 1000
    if rest_us == 0:
        return default_jitter(mean_ms)
    spread_us = max(deviation_ms, 1e-3) / 2**0.5 * 1000
    shape = min(50.0, max(0.05, (rest_us / spread_us) ** 2))
    longest_us = rest_us + 4 * spread_us if most_ms is None else (most_ms - least_ms) / 2 * 1000
    return Jitter(shape, rest_us / shape, max(longest_us, rest_us))


def _gamma_share(shape: float, x: float) -> float:
    """The share of a gamma distribution of scale 1 below x (its series expansion)."""
    if x <= 0:
        return 0.0
    term = total = 1 / shape
    step = shape
    while term > total * 1e-12:
        step += 1
        term *= x / step
        total += term
    return min(1.0, total * exp(-x + shape * log(x) - lgamma(shape)))
