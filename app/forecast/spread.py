"""A duration that is not known exactly: a lognormal distribution, by its median and the spread of its logarithm."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from statistics import NormalDist

_NORMAL = NormalDist()
LEAST_SIGMA = 0.03
"""Nothing on a real machine is foretold better than this."""
_NOTHING = 1e-9
"""A share of a duration that is none: its logarithm says nothing."""
_TAIL = 4.0
"""Standard deviations from where on the asymptotic form of the normal tail is used: the exact one loses all digits."""
_TOGETHER = 0.08
"""Errors of several guesses do not cancel out altogether: a machine that is slow today is slow for all tasks."""


@dataclass(frozen=True, slots=True)
class Spread:
    """A duration in seconds: half of the time it is below `mid`; `sigma` is the standard deviation of its logarithm."""

    mid: float
    sigma: float

    def left(self, elapsed: float, share: float = 0.5) -> float:
        """Seconds that are left after `elapsed`, given that it is not over: with the chance `share` it is less.

        Never negative. What takes longer than was thought is expected to take ever longer.
        """
        if elapsed <= self.mid * _NOTHING:
            return self.mid * math.exp(self.sigma * _NORMAL.inv_cdf(share))
        z = math.log(elapsed / self.mid) / self.sigma
        if z > _TAIL:
            later = z - math.log(1.0 - share) / z
        else:
            later = _NORMAL.inv_cdf(1.0 - (1.0 - _NORMAL.cdf(z)) * (1.0 - share))
        return max(self.mid * math.exp(self.sigma * later) - elapsed, 0.0)

    def strain(self, elapsed: float) -> float:
        """The cumulative hazard at `elapsed`: minus the logarithm of the chance that it is not over by then."""
        if elapsed <= self.mid * _NOTHING:
            return 0.0
        z = math.log(elapsed / self.mid) / self.sigma
        if z > _TAIL:
            return 0.5 * z * z + math.log(z * math.sqrt(2.0 * math.pi))
        return -math.log(0.5 * math.erfc(z / math.sqrt(2.0)))


def known(seconds: float) -> Spread:
    """A duration that hardly varies."""
    return Spread(max(seconds, 1e-3), LEAST_SIGMA)


def spread_of(mid: float, deviation: float) -> Spread:
    """From a median and a standard deviation, both in seconds."""
    mid = max(mid, 1e-3)
    return Spread(mid, max(math.sqrt(math.log1p((deviation / mid) ** 2)), LEAST_SIGMA))


def total(parts: Iterable[Spread]) -> Spread:
    """The sum of durations one after the other."""
    mid, variance = 0.0, 0.0
    for part in parts:
        mid += part.mid
        variance += (part.mid * part.sigma) ** 2
    return spread_of(mid, max(math.sqrt(variance), _TOGETHER * mid))


def combine(one: Spread, other: Spread) -> Spread:
    """Two independent guesses of one duration, each with the weight of its certainty."""
    trust, other_trust = one.sigma**-2, other.sigma**-2
    log = (math.log(one.mid) * trust + math.log(other.mid) * other_trust) / (trust + other_trust)
    return Spread(math.exp(log), max((trust + other_trust) ** -0.5, LEAST_SIGMA))


def remaining(whole: Spread, elapsed: float) -> Spread:
    """What is left of a duration after `elapsed` seconds, as a duration of its own."""
    low, mid, high = (whole.left(elapsed, share) for share in (0.16, 0.5, 0.84))
    return spread_of(mid, (high - low) / 2.0)
