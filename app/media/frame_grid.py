"""Pure arithmetic of frame times: common rates, the constant-rate grid over irregular timestamps, ping-pong order."""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
import numpy.typing as npt

Indices = npt.NDArray[np.int64]

COMMON_RATES = tuple(Fraction(n) for n in (10, 12, 15, 20, 24, 25, 30, 48, 50, 60)) + tuple(
    Fraction(n * 1000, 1001) for n in (24, 30, 60)
)
SNAP = 0.0004
"""Relative distance within which a measured rate is taken for a common one; 30 and 29.97 lie 0.001 apart."""
_TICK = 0.001
"""The coarsest usual tick of timestamps in seconds (webm, mkv): the rate of a short file is no better known."""
MAX_RATE = Fraction(60)
"""Slow-motion templates (120, 240 frames/s) are played at this rate: nobody sees the difference in a talking head."""
MIN_RATE, _READABLE = Fraction(10), Fraction(20)
"""A slide show or a screen recording of fewer frames than the first is shown at a multiple of its rate, the second or
more: lips could not be read, and speech would end with a frame that is a second away."""
MAX_GRID = 24 * 3600 * 60
"""Frames of a day at 60/s. Timestamps that ask for more are broken or hostile."""


def as_rate(fps: Fraction | float) -> Fraction:
    """`fps` as an exact fraction; 29.97 and the like become 30000/1001. Raises ValueError unless 0 < fps <= 1000."""
    if not 0 < fps <= 1000:
        raise ValueError(f"a frame rate must lie in (0, 1000], not {fps}")
    if isinstance(fps, Fraction):
        return fps
    return _snap(fps, SNAP)


def _snap(fps: float, tolerance: float) -> Fraction:
    nearest = min(COMMON_RATES, key=lambda rate: abs(float(rate) - fps))
    if abs(float(nearest) - fps) <= tolerance * fps:
        return nearest
    return Fraction(fps).limit_denominator(1001)


def nominal_rate(seconds: npt.NDArray[np.float64]) -> Fraction:
    """The constant rate that suits frames shown at `seconds` (ascending), 10 to 60: by their median distance.

    Of fewer than 10 frames a second it is the least multiple that is 20 or more.
    """
    if len(seconds) < 2:
        return Fraction(25)
    # Container ticks (1 ms in webm) make single distances coarse: average over the frames near the median.
    steps = np.diff(seconds)
    median = float(np.median(steps))
    typical = steps[np.abs(steps - median) <= 0.25 * median]
    step = float(typical.mean()) if len(typical) else median
    coarseness = _TICK / float(seconds[-1] - seconds[0]) if seconds[-1] > seconds[0] else 0.0
    rate = _snap(min(max(1.0 / max(step, 1e-6), 1.0), float(MAX_RATE)), max(SNAP, coarseness))
    return rate if rate >= MIN_RATE else rate * math.ceil(_READABLE / rate)


def constant_grid(seconds: npt.NDArray[np.float64], last_duration: float, rate: Fraction) -> Indices:
    """Which source frame to show in each slot of a constant rate; `[n]`, ascending, n >= 1.

    `seconds` are the ascending presentation times, the first at 0; `last_duration` is how long the last one stays.
    A frame belongs to the slot nearest to its time and the latest frame wins, as in FFmpeg's `fps` filter, so that
    a file of that very rate maps one to one in spite of rounded timestamps. Raises ValueError beyond `MAX_GRID`.
    """
    fps = float(rate)
    slots = np.floor(seconds * fps + 0.5 + 1e-6)
    count = max(np.floor((seconds[-1] + last_duration) * fps + 0.5 + 1e-6), 1)
    if not count <= MAX_GRID:
        raise ValueError(f"timestamps ask for {count:.0f} frames")
    return np.searchsorted(slots, np.arange(int(count)), side="right").astype(np.int64) - 1


def pingpong(n: int, count: int) -> Indices:
    """`count` indices into `n` frames, forward, backward, forward ...; the turning frames are not repeated.

    `pingpong(3, 8)` is `[0, 1, 2, 1, 0, 1, 2, 1]`. Raises ValueError for n < 1 or count < 0.
    """
    if n < 1 or count < 0:
        raise ValueError(f"pingpong needs n >= 1 and count >= 0, not {n} and {count}")
    period = max(2 * (n - 1), 1)
    phase = np.arange(count, dtype=np.int64) % period
    return np.minimum(phase, period - phase) if n > 1 else np.zeros(count, np.int64)
