"""What of drawn teeth differs from person to person, read from the face: the same face gives the same teeth."""

from __future__ import annotations

import math
from dataclasses import dataclass

from torch import Tensor

from app.render.film import points

_TEETH = 5  # of a side
_USUAL_WIDTH = 0.57  # of a mouth, in units
_USUAL_PHILTRUM = 0.165  # height of the skin between nose and lip
_USUAL_LIPS = 0.18  # height of both lips together
_USUAL_FACE = 1.25  # width of the face over its height from the eyes to the chin
_LENGTHS_VARY = 0.0035  # units
_LOWER = 8  # incisors, canines and a premolar on each side
_CROWDED = (0.003, 0.006)  # units by which the edges of lower teeth stand out of line, from straight to crowded rows
_TURNED = 0.16  # of their brightness from side to side, by how much each is turned out of the row


@dataclass(frozen=True)
class Build:
    """`tooth_width` scales widths; `shown` is how far below the lip at rest the incisors end, in units; `roundness`
    scales how round edges are; `uneven` how much shorter than the incisors their neighbours are; `lengths` [10], in
    units, adds to each tooth's, the right five from the middle, then the left; `tint` [3] scales colours.

    Of the lower ones, the right four from the middle, then the left: `lower_width` scales widths, `lower_heights` [8]
    adds to the height of each, in units, `lower_turns` [8] are their slopes of brightness, `lower_middle` is u between
    the first two."""

    tooth_width: float
    shown: float
    roundness: float
    uneven: float
    lengths: tuple[float, ...]
    tint: tuple[float, float, float]
    lower_width: float
    lower_heights: tuple[float, ...]
    lower_turns: tuple[float, ...]
    lower_middle: float


def build_of(shape: Tensor, dim: float) -> Build:
    """The teeth that go with a face at rest, `shape` [COUNT, 3] in head coordinates, whose whites of the eyes say that
    teeth are `dim`: dull ones look yellower.

    Widths go with the mouth's; incisors are as round or square as the face (Williams' old rule of prosthetics), and
    show the less, the longer the upper lip. All measures are continuous: a slightly different photo gives slightly
    different teeth.
    """
    first, last = points.CORNERS
    width = float((shape[last] - shape[first])[:2].norm()) / _USUAL_WIDTH
    upper, lower = points.OUTER_UPPER[5], points.OUTER_LOWER[5]
    philtrum = float(shape[upper, 1] - shape[points.NOSE_BASE, 1])
    lips = float(shape[lower, 1] - shape[upper, 1])
    oval = shape[list(points.FACE_OVAL)]
    tall = float(shape[points.CHIN_TIP, 1] - shape[list(points.EYE_CORNERS), 1].mean())
    broad = float(oval[:, 0].amax() - oval[:, 0].amin()) / max(tall, 0.1) / _USUAL_FACE
    phase = 9 * width + 40 * philtrum + 30 * lips + 12 * broad
    waves = [math.sin(phase * (1 + 0.37 * number) + 1.3 * number) for number in range(2 * _TEETH)]
    yellow = 0.01 + 0.015 * math.sin(1.7 * phase) + 0.06 * (1 - dim)
    crowded = _CROWDED[0] + (_CROWDED[1] - _CROWDED[0]) * (0.5 + 0.5 * math.sin(0.8 * phase + 1)) ** 1.5
    below, askew = (
        [math.sin(phase * (first + 0.31 * number) + 2.1 * number) for number in range(_LOWER)] for first in (1.1, 0.7)
    )
    return Build(
        tooth_width=_within(0.90, 1 + 0.6 * (width - 1), 1.10),
        shown=_within(0.030, 0.040 - 0.10 * (philtrum - _USUAL_PHILTRUM) + 0.02 * (lips - _USUAL_LIPS), 0.050),
        roundness=_within(0.6, 1 + 2.5 * (1 - broad), 2.0),
        uneven=_within(0.5, 1 + 0.5 * waves[0], 1.5),
        lengths=tuple(_LENGTHS_VARY * wave for wave in waves),
        tint=(1.0, 1 - 0.3 * yellow, 1 - yellow),
        lower_width=_within(0.90, 1 + 0.5 * (width - 1) + 0.04 * waves[3], 1.10),
        lower_heights=tuple(crowded * wave for wave in below),
        lower_turns=tuple(_TURNED * crowded / _CROWDED[1] * wave for wave in askew),
        lower_middle=0.008 * waves[5],
    )


def _within(low: float, value: float, high: float) -> float:
    return min(high, max(low, value))
