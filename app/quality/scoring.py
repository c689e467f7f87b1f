"""From measurements to scores: pure arithmetic, with every limit of the gate in one place.

A score is 0..1, and `ACCEPTED` parts right from wrong in each of them. The limits were set by `evaluation/gate.py`,
which renders good videos, breaks them on purpose, and reports how far apart both lie (docs/quality-gate.md).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from app.quality.sound import correlation
from app.quality.speech import Demand

ACCEPTED = 0.6
"""The confidence below which a video is not passed on, unless the settings say otherwise (`confidence_threshold`)."""

_LAGS_S = np.arange(-50, 51) / 100
_IN_TIME_S = 0.03
"""Lips this early or late are in time: less than one frame at 25/s. Further off, it counts how much better they fit."""
_LEAST_FRAMES = 12
_LEAST_SPEECH_S = 0.5
"""With less there is nothing that could be told from chance."""

Values = npt.NDArray[np.float64]

Limits = tuple[float, float]
"""Where a score is 0, and where it is 1."""

LIPS_FOLLOW: Limits = (0.20, 0.64)
LIPS_IN_TIME: Limits = (0.10, 0.02)
MOUTH_MOVES: Limits = (0.004, 0.016)
RESTS: Limits = (1.0, 0.55)
FACE: Limits = (0.4, 0.9)
FREEZE_S: Limits = (1.4, 0.4)
BLACK: Limits = (0.25, 0.02)
SOUND: Limits = (0.5, 0.85)
SOUND_DELAY_S: Limits = (0.12, 0.03)
SURROUNDINGS_DB: Limits = (18.0, 28.0)


def ramp(value: float, limits: Limits) -> float:
    """0 at the first limit, 1 at the second, a straight line between them."""
    zero, one = limits
    return float(np.clip((value - zero) / (one - zero), 0.0, 1.0))


@dataclass(frozen=True)
class LipSync:
    """How the lips agree with the speech.

    `agreement` is the correlation where they are in time, `lag_s` how late the lips are where it is best, `gain` how
    much better it is there, `travel` how far the mouth moves while it speaks (in eye distances), and `unrest` how far
    it stands open in silence, as a share of that travel (None: there is no silence).
    """

    agreement: float
    lag_s: float
    gain: float
    travel: float
    unrest: float | None

    def scores(self) -> dict[str, float]:
        """Of each, 0..1."""
        scores = {
            "lips_follow": ramp(self.agreement, LIPS_FOLLOW),
            "lips_in_time": ramp(self.gain, LIPS_IN_TIME),
            "mouth_moves": ramp(self.travel, MOUTH_MOVES),
        }
        return scores if self.unrest is None else scores | {"mouth_rests": ramp(self.unrest, RESTS)}


def lip_sync(demand: Demand, seconds: Values, openings: Values) -> LipSync | None:
    """Compare openings [n] seen at `seconds` [n] with what the speech asks for; None where there is too little."""
    spoken = demand.is_spoken(seconds)
    if len(seconds) < _LEAST_FRAMES or spoken.sum() < _LEAST_FRAMES // 2 or demand.spoken_s < _LEAST_SPEECH_S:
        return None
    curve = np.array([correlation(openings, demand.at(seconds, lag)) for lag in _LAGS_S])
    in_time = np.abs(_LAGS_S) <= _IN_TIME_S + 1e-9
    agreement, best = float(curve[in_time].max()), int(curve.argmax())
    low, high = np.percentile(openings[spoken], [10, 90])
    travel = float(high - low)
    quiet = openings[demand.is_quiet(seconds)]
    unrest = None
    if len(quiet) >= 3:
        unrest = float(np.clip((np.median(quiet) - low) / max(travel, 1e-3), 0.0, 9.0))
    return LipSync(agreement, float(_LAGS_S[best]), float(curve[best]) - agreement, travel, unrest)


def confidence(scores: Mapping[str, float]) -> float:
    """The weakest score: a video with black frames is no better for its lips being in time. 1 where none was taken."""
    return min(scores.values(), default=1.0)
