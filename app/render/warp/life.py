"""What a portrait does besides speaking: blinks, a gaze that wanders, small movements of head and brows.

All of it is drawn from one seed and from the speech, at 100 Hz and for the whole recording, before the first frame is
made: so it does not depend on how frames are batched.
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction

import numpy as np
import numpy.typing as npt

from app.render.warp.gaze import wander
from app.speech.channels import ROWS_PER_SECOND, SPEECH, FloatArray

NOD, TURN, TILT, RIGHT, DOWN, NEARER, BROWS = range(7)
"""Columns of the movements: rotations in radians (chin down, towards the picture's right, clockwise), translations
to the picture's right and down in units, growth as a share, and the brows' raise 0..1."""

_MOVEMENTS = 7
_BLINK_SPREAD = 0.55  # standard deviation of the logarithm of the intervals between blinks
_BLINK_PAUSE = 0.6  # seconds at least between two blinks, end to start
_CLOSING = (0.075, 0.105)  # seconds; lids fall about twice as fast as they rise (VanderWerf et al., 2003)
_SHUT = (0.03, 0.06)
_OPENING = (0.15, 0.23)
_FIRST_BLINK = 1.0  # seconds from the start at least: the first picture is the photo

_REACH = np.array([0.012, 0.026, 0.014, 0.010, 0.007, 0.006, 0.10])
"""Standard deviation of each idle movement while someone speaks: head motion of speakers is a few degrees (Hadar et
al., Human Movement Science 1983)."""
_LIMIT = np.array([0.040, 0.062, 0.040, 0.030, 0.022, 0.020, 1.0])
"""Movements approach but never pass these."""
_SLOW, _QUICK = 0.50, 0.17  # seconds: standard deviations of the filters over slow and over quick movements
_QUICK_SHARE = 0.35
_NOD_ON_STRESS = 0.030  # radians
_BROWS_ON_STRESS = 0.9
_CALM = 0.40  # of the movement is left in silence
_RAMP = 0.9  # seconds from stillness to full movement at the start

Curve = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Life:
    """Curves at 100 Hz: `lids` [m] 0 open .. 1 shut; `moves` [m, 7], see `NOD` and its neighbours; `gaze` [m, 2]
    how far the eyes are turned in the head, in radians to the picture's right and down; `blinks` counts."""

    lids: FloatArray
    moves: FloatArray
    gaze: FloatArray
    blinks: int

    def at(self, first: int, count: int, rate: Fraction) -> tuple[FloatArray, FloatArray, FloatArray]:
        """Lids [count], movements [count, 7] and gaze [count, 2] in frames `first` to `first + count - 1`, at their
        middles."""
        times = (np.arange(first, first + count) + 0.5) / float(rate) * ROWS_PER_SECOND
        low = min(int(times[0]), len(self.lids) - 1)
        part = slice(low, int(times[-1]) + 2)
        rows = np.arange(low, low + len(self.lids[part]))
        lids = np.interp(times, rows, self.lids[part])
        moves, gaze = (
            np.stack([np.interp(times, rows, column) for column in curves[part].T], 1)
            for curves in (self.moves, self.gaze)
        )
        return lids.astype(np.float32), moves.astype(np.float32), gaze.astype(np.float32)


def live(
    articulation: FloatArray, loudness: FloatArray, seed: int, *, blinks_per_minute: float, motion: float, gaze: float
) -> Life:
    """Make up the life of a portrait.

    articulation: [m, 6] at 100 Hz; loudness: [m] root mean square of the same instants; seed: any non-negative number;
    motion: 0 none .. 1 lively; gaze: 0 fixed .. 1 looks away as often as people do. The same arguments give the same
    life.
    """
    rows = max(1, len(articulation))
    of_blinks, of_moves, of_gaze = (np.random.default_rng([seed, part]) for part in (1, 2, 3))
    lids, count = _blinks(rows, of_blinks, blinks_per_minute)
    moves = _movements(articulation, loudness, of_moves) * motion if motion else np.zeros((rows, _MOVEMENTS))
    eyes = np.zeros((rows, 2))
    if gaze:
        eyes = wander(articulation[:, SPEECH], of_gaze, gaze) - moves[:, [TURN, NOD]]
        eyes[:, 1] *= 1 - lids  # a shutting lid goes its own way
    return Life(lids.astype(np.float32), moves.astype(np.float32), eyes.astype(np.float32), count)


def _blinks(rows: int, random: np.random.Generator, per_minute: float) -> tuple[Curve, int]:
    lids = np.zeros(rows)
    if per_minute <= 0:
        return lids, 0
    mean = 60.0 / per_minute
    # The mean of a log-normal variable is exp(mu + sigma^2 / 2).
    typical = np.log(mean) - _BLINK_SPREAD**2 / 2
    end = rows / ROWS_PER_SECOND
    # Someone has been blinking before the video starts: the first interval is a rest of one.
    start = max(_FIRST_BLINK, random.uniform(0.3, 1.0) * np.exp(random.normal(typical, _BLINK_SPREAD)))
    count = 0
    while True:
        closing, shut, opening = (random.uniform(*limits) for limits in (_CLOSING, _SHUT, _OPENING))
        length = closing + shut + opening
        if start + length > end:
            return lids, count
        first, last = int(start * ROWS_PER_SECOND), int((start + length) * ROWS_PER_SECOND) + 1
        t = np.arange(first, last + 1) / ROWS_PER_SECOND - start
        falling = _smooth(t / closing)
        rising = 1 - _smooth((t - closing - shut) / opening) ** 0.8
        part = lids[first : last + 1]
        np.maximum(part, np.minimum(falling, rising)[: len(part)], out=part)
        count += 1
        start += max(np.exp(random.normal(typical, _BLINK_SPREAD)), length + _BLINK_PAUSE)


def _movements(articulation: FloatArray, loudness: FloatArray, random: np.random.Generator) -> Curve:
    rows = len(articulation)
    slow = _filtered(random, rows, _SLOW)
    quick = _filtered(random, rows, _QUICK)
    speaking = _lowpass(articulation[:, SPEECH].astype(np.float64), 0.35)[:, None]
    moves = _REACH * (slow + _QUICK_SHARE * speaking * quick) * (_CALM + (1 - _CALM) * speaking)
    stress = _stress(loudness)
    moves[:, NOD] += _NOD_ON_STRESS * _lowpass(stress, 0.09)
    # Not every stressed word lifts the brows: slow chance decides which do.
    willing = 1 / (1 + np.exp(-2.5 * slow[:, BROWS]))
    moves[:, BROWS] += _BROWS_ON_STRESS * _lowpass(stress, 0.13) * willing
    ramp = _smooth(np.arange(rows) / ROWS_PER_SECOND / _RAMP)[:, None]
    limited: Curve = _LIMIT * np.tanh(moves / _LIMIT) * ramp
    limited[:, BROWS] = np.clip(limited[:, BROWS], -0.15, 1.0)
    return limited


def _stress(loudness: FloatArray) -> Curve:
    """How much each instant stands out of what is said around it, 0..1, [m]."""
    level = _lowpass(loudness.astype(np.float64), 0.05)
    heard = level[level > 1e-3]
    if not len(heard):
        return np.zeros(len(level))
    level = level / np.percentile(heard, 90)
    stress: Curve = np.clip((_lowpass(level, 0.10) - _lowpass(level, 0.9)) / 0.6, 0, 1)
    return stress


def _filtered(random: np.random.Generator, rows: int, seconds: float) -> Curve:
    """Noise of unit variance for each movement, [rows, 7], smoothed by a Gaussian of that standard deviation."""
    deviation = seconds * ROWS_PER_SECOND
    noise: Curve = random.standard_normal((rows, _MOVEMENTS))
    smooth: Curve = np.stack([_lowpass(column, seconds) for column in noise.T], 1)
    # A Gaussian filter leaves 1 / (2 sigma sqrt(pi)) of white noise's variance.
    smooth *= np.sqrt(2 * deviation * np.sqrt(np.pi))
    return smooth


def _lowpass(curve: Curve, seconds: float) -> Curve:
    """Filter [m] by a Gaussian of that standard deviation; the ends are held."""
    deviation = seconds * ROWS_PER_SECOND
    reach = int(3 * deviation) + 1
    kernel = np.exp(-0.5 * (np.arange(-reach, reach + 1) / deviation) ** 2)
    padded = np.pad(curve, reach, mode="edge")
    smooth: Curve = np.convolve(padded, kernel / kernel.sum(), mode="valid")
    return smooth


def _smooth(value: Curve) -> Curve:
    x: Curve = np.clip(value, 0.0, 1.0)
    smooth: Curve = x * x * (3 - 2 * x)
    return smooth
