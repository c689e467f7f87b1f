"""Where a series of samples is heading: a straight line through a window of time, believed only if it fits.

Pure: time comes with the samples.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

POINTS = 60
"""Samples kept per window: enough for a line, few enough to fit again with each new one."""
COVERED = 0.5
"""So much of the window must be covered before a line through it means anything."""
FIT = 0.8
"""Least share of the variation that the line explains (R squared): a single step has 0.75 at most, noise far less."""


@dataclass(frozen=True, slots=True)
class Line:
    """`slope` per second, `now` the line's value at the last sample, `fit` its R squared (0 to 1)."""

    slope: float
    now: float
    fit: float

    def seconds_until(self, level: float) -> float | None:
        """When the line meets `level`; 0 if it has, None if it never will or the samples do not follow a line."""
        if self.fit < FIT or self.slope == 0:
            return None
        return max((level - self.now) / self.slope, 0.0) if (level - self.now) * self.slope >= 0 else None


class Series:
    """The samples of one quantity over the last `window_s`, thinned to `POINTS`."""

    def __init__(self, window_s: float) -> None:
        self._window_s = window_s
        self._samples: deque[tuple[float, float]] = deque(maxlen=POINTS + 1)

    def add(self, at: float, value: float) -> None:
        """One more sample; `at` in seconds, growing."""
        samples = self._samples
        # The newest sample is always kept; the one before it stays only if it is a step away from its predecessor.
        if len(samples) >= 2 and samples[-1][0] - samples[-2][0] < self._window_s / POINTS:
            samples.pop()
        samples.append((at, value))
        while samples[0][0] < at - self._window_s:
            samples.popleft()

    def line(self) -> Line | None:
        """The line of least squares; None while too little of the window is covered."""
        samples = self._samples
        if len(samples) < 3 or samples[-1][0] - samples[0][0] < self._window_s * COVERED:
            return None
        count, end = len(samples), samples[-1][0]
        mean_t = sum(at - end for at, _ in samples) / count
        mean_v = sum(value for _, value in samples) / count
        spread_t = sum((at - end - mean_t) ** 2 for at, _ in samples)
        spread_v = sum((value - mean_v) ** 2 for _, value in samples)
        both = sum((at - end - mean_t) * (value - mean_v) for at, value in samples)
        slope = both / spread_t
        fit = both * both / (spread_t * spread_v) if spread_v > 0 else 0.0
        return Line(slope, mean_v - slope * mean_t, fit)
