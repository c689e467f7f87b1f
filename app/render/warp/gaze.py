"""Where someone looks who speaks to a viewer: mostly at the viewer, from place to place in small jumps, aside at times.

Stretches of looking at the other and away, and the directions of looking away, are those that Lee, Badler and Badler
measured in conversation ("Eyes Alive", ACM Transactions on Graphics 2002), and so is how long a jump takes. Jumps while
looking at someone go between places of a face, a degree or two apart (Rogers et al., Scientific Reports 2018). When the
head turns, the eyes turn back by as much, so that the viewer stays the one looked at (the vestibulo-ocular reflex).
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from app.speech.channels import ROWS_PER_SECOND

Curve = npt.NDArray[np.float64]

_FIRST = (0.7, 1.6)  # seconds until the first jump: the first picture is the photo
_AT_VIEWER = {True: (3.13, 3.16), False: (7.92, 1.57)}  # seconds, mean and deviation, while speaking and in silence
_AWAY = {True: (0.93, 0.80), False: (0.43, 0.24)}
_STAY = (0.90, 0.55)  # seconds between jumps while looking at the viewer: mean and deviation
_SHORTEST, _LONGEST = 0.3, 3.0
_DIRECTIONS = (0.1554, 0.0646, 0.1769, 0.0744, 0.1680, 0.0789, 0.2038, 0.0779)
"""Shares of eighths of the circle that looks away go to: right, up right, up and so on against the clock."""
_AWAY_SCALE = 6.9  # degrees: looks away are distributed exponentially
_NEAREST, _FARTHEST = 2.5, 8.0  # degrees; beyond that the head would turn too
_FACE = np.array([1.1, 0.8])  # degrees: deviation of the places that are looked at on a face, across and down
_JUMP = (0.5, 3.0)  # degrees between two of them
_JUMP_TIME, _JUMP_SLOWNESS = 0.025, 0.0024  # seconds, and seconds a degree
_SPEAKS = 0.5  # of the speech channel


def wander(speech: npt.NDArray[np.float32], random: np.random.Generator, amount: float) -> Curve:
    """Where the eyes look, [m, 2] in radians to the picture's right and down, 0 where they look in the photo.

    speech: [m] at 100 Hz, whether someone speaks; amount: above 0, and 1 for looking away as often as people do.
    """
    rows = len(speech)
    path = np.zeros((rows, 2))
    time, at = random.uniform(*_FIRST), np.zeros(2)
    until = time + _drawn(random, *_AT_VIEWER[True]) / amount
    away = False
    while time < rows / ROWS_PER_SECOND:
        speaking = bool(speech[min(int(time * ROWS_PER_SECOND), rows - 1)] > _SPEAKS)
        if not away and time >= until:
            away, to, stay = True, _aside(random), _clamped(_drawn(random, *_AWAY[speaking]))
        else:
            if away:
                until = time + _drawn(random, *_AT_VIEWER[speaking]) / amount
            to = _on_face(random, None if away else at)
            away, stay = False, _clamped(_drawn(random, *_STAY))
        _jump(path, time, at, to)
        time, at = time + stay, to
    return np.radians(path)


def _jump(path: Curve, time: float, start: Curve, end: Curve) -> None:
    """Look from `start` to `end` (degrees) at `time`, and stay there."""
    length = _JUMP_TIME + _JUMP_SLOWNESS * float(np.linalg.norm(end - start))
    first = math.ceil(time * ROWS_PER_SECOND)
    done = np.clip((np.arange(first, len(path)) / ROWS_PER_SECOND - time) / length, 0, 1)
    smooth = done * done * (3 - 2 * done)
    path[first:] = start + (end - start) * smooth[:, None]


def _on_face(random: np.random.Generator, before: Curve | None) -> Curve:
    """Another place of the viewer's face; `before` is where the eyes are on it."""
    while True:
        place = random.normal(0.0, _FACE)
        if before is None or _JUMP[0] <= np.linalg.norm(place - before) <= _JUMP[1]:
            return place


def _aside(random: np.random.Generator) -> Curve:
    """A place beside the viewer."""
    angle = (
        (random.choice(len(_DIRECTIONS), p=np.divide(_DIRECTIONS, sum(_DIRECTIONS))) + random.uniform(-0.5, 0.5))
        * math.pi
        / 4
    )
    far = math.inf
    while far > _FARTHEST:
        far = _NEAREST + random.exponential(_AWAY_SCALE)
    return np.array([math.cos(angle), -math.sin(angle)]) * far


def _drawn(random: np.random.Generator, mean: float, deviation: float) -> float:
    """From a log-normal distribution of that mean and standard deviation."""
    spread = math.sqrt(math.log(1 + (deviation / mean) ** 2))
    return float(np.exp(random.normal(math.log(mean) - spread**2 / 2, spread)))


def _clamped(seconds: float) -> float:
    return min(_LONGEST, max(_SHORTEST, seconds))
