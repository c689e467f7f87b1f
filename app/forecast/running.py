"""What is left of an attempt that runs: what was learned of its kind, and how it goes itself."""

from __future__ import annotations

import math
from dataclasses import dataclass

from app.forecast.durations import Expected
from app.forecast.spread import Spread, combine

_DOUBT = 0.12
"""The first frames tell little: after a quarter of them the whole is known to about a half, near the end closely."""


@dataclass(frozen=True, slots=True)
class Frames:
    """The render loop at one moment: `done` of `total` frames, begun `since` seconds after the attempt."""

    done: int
    total: int
    since: float


def whole(expected: Expected | None, frames: Frames | None, elapsed: float) -> Spread | None:
    """How long the attempt takes in all, now that it has run for `elapsed` seconds; None where nothing is known.

    The pace of its own frames counts the more the more of them are done, and the less the better its kind is known.
    """
    own = None if frames is None else _projected(frames, elapsed, 0.0 if expected is None else expected.after_frames)
    if own is None or expected is None:
        return own if expected is None else expected.took
    # A kind that is contradicted is not as well known as it seemed.
    apart = abs(math.log(own.mid / expected.took.mid))
    return combine(Spread(expected.took.mid, max(expected.took.sigma, apart / 2.0)), own)


def _projected(frames: Frames, elapsed: float, after_frames: float) -> Spread | None:
    """From the pace of its frames so far."""
    spent = elapsed - frames.since
    if not 0 < frames.done <= frames.total or spent <= 0.0:
        return None
    share = frames.done / frames.total
    mid = (frames.since + spent / share) / (1.0 - after_frames)
    return Spread(mid, _DOUBT * (1.0 - share) / share**0.5 + 0.05)
