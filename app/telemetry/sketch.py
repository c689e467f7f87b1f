"""Quantiles of very many values in little memory.

A value is counted in the bin of its logarithm, so that every quantile is off by at most `ACCURACY` of itself, however
the values are spread. Two sketches add up to the sketch of both. Source: Masson, Rim, Lee, "DDSketch", VLDB 2019,
section 2.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence

ACCURACY = 0.01
LEAST = 1e-4
"""Values up to this, in seconds, count as this."""
_GAMMA = (1 + ACCURACY) / (1 - ACCURACY)
_LOG_GAMMA = math.log(_GAMMA)


class Sketch:
    """Counts values that are not negative. A bin is kept only where something fell into it."""

    def __init__(self) -> None:
        self.count = 0
        self.total = 0.0
        self.largest = 0.0
        self._bins: Counter[int] = Counter()

    def add(self, value: float) -> None:
        """One more value."""
        value = max(value, LEAST)
        self.count += 1
        self.total += value
        self.largest = max(self.largest, value)
        self._bins[math.ceil(math.log(value) / _LOG_GAMMA)] += 1

    def merge(self, other: Sketch) -> None:
        """Add all that the other one counted."""
        self.count += other.count
        self.total += other.total
        self.largest = max(self.largest, other.largest)
        self._bins.update(other._bins)

    def quantiles(self, shares: Sequence[float]) -> list[float]:
        """The values below which the given shares (0 to 1, ascending) of all lie. Raises ValueError when empty."""
        if not self.count:
            raise ValueError("an empty sketch has no quantiles")
        found: list[float] = []
        bins = sorted(self._bins.items())
        position = reached = 0
        for share in shares:
            rank = share * (self.count - 1)
            while reached + bins[position][1] <= rank:
                reached += bins[position][1]
                position += 1
            # The middle of the bin, in the sense of the relative error; never above what was really seen.
            found.append(min(2 * _GAMMA ** bins[position][0] / (_GAMMA + 1), self.largest))
        return found
