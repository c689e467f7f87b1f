"""From articulation to the shape of the lower face: where lips, chin and cheeks are while someone says something."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from app.render.film import points
from app.render.warp.rest import RestFace, lip_offsets
from app.render.warp.skin import SkinWeights
from app.speech.channels import CLOSURE, JAW, LABIODENTAL, PROTRUSION, WIDTH

WIDEST = 0.25
"""How far the lips part at full opening, in units (about 22 mm, a clear /a/ in connected speech)."""

_JAW_SHARE = 0.78  # of the opening is the chin's drop; the rest is the lower lip alone
_UPPER_RAISE = 0.10  # of the opening is the upper lip's
_CORNER_DROP = 0.24  # of the opening, at the corners
_CORNER_IN = 0.22  # of the opening, at the corners: an open mouth is narrower
_SPREAD = 0.16  # of the mouth's width between neutral and spread lips
_ROUND = 0.16  # of the mouth's width that full protrusion takes
_ROUND_REACH = 0.62  # of the mouth's half width is open when lips are fully rounded; beyond it they touch
_ROUND_APART = 0.18  # opening, in units, from which they no longer do
_ROUND_RAISE = 0.05  # of the opening is the upper lip's besides, when they are
_ROUND_GAP = 0.05  # opening that protruded lips keep, unless they close
_FLATTEN = 0.6  # of the bend of the lips' line that full protrusion takes
_POUT = 0.16  # how much taller than at rest each lip looks in full protrusion, as a share of its height
_POUT_LEAST = 0.020  # and at least, in units: thin lips turn out what they hide at rest
_FORWARD = 0.09  # how far protruded lips come forward (seen when the head is turned)
_PRESS = 0.016  # how much of each lip is pressed out of sight in a closure
_HISS_GAP = 0.070  # opening at s and z, at least: lips are drawn apart before teeth that are nearly together
_HISS_RAISE = 0.08  # of the opening is the upper lip's besides
_HISS_SPREAD = 0.2
_BITE_GAP = 0.040  # opening at f and v, filled by the edge of the upper teeth
_BITE_RAISE = 0.55  # of it is the upper lip's
_BITE_TUCK = 0.03  # how much of the lower lip goes behind the teeth


@dataclass(frozen=True)
class LowerFace:
    """Shapes of B frames: `shape` [B, COUNT, 3] in head coordinates, `jaw` [B] the chin's drop, `opening` [B] the lips'
    distance in the middle, `spread` and `rounded` [B] 0..1 as in /i/ and in /u/, `bite` [B] the f/v contact 0..1,
    `hiss` [B] how near the teeth come as in /s/, 0..1. `amount` [B] is how much of all that a frame takes on: 0 leaves
    it as it is, between them it is on its way."""

    shape: Tensor
    jaw: Tensor
    opening: Tensor
    spread: Tensor
    rounded: Tensor
    bite: Tensor
    hiss: Tensor
    amount: Tensor

    def part(self, frames: slice) -> LowerFace:
        """The shapes of some of the frames."""
        values = (self.shape, self.jaw, self.opening, self.spread, self.rounded, self.bite, self.hiss, self.amount)
        return LowerFace(*(value[frames] for value in values))


class Animator:
    """Moves one face. `strength` scales how far the mouth opens."""

    def __init__(self, rest: RestFace, strength: float) -> None:
        self._rest = rest.shape
        self._strength = strength
        self._skin = SkinWeights(rest.shape)
        seam = rest.shape[list(points.INNER_UPPER)]
        self._middle = seam[[0, -1], 0].mean()
        outer = rest.shape[list(points.OUTER_UPPER)]
        self._seam = seam[:, 1]
        self._bend = seam[:, 1] - seam[4:7, 1].mean()
        self._across = ((outer[:, 0] - self._middle) / max(rest.half_width, 1e-3)).clamp(-1, 1)

    def pose(self, articulation: Tensor, hiss: Tensor | None = None) -> LowerFace:
        """Shapes for articulation [B, 6] (columns `app.speech.channels.CHANNELS`), and for how much the sounds hiss
        [B] 0..1, if they do."""
        a = articulation
        # A closure is complete before its curve peaks: lips that are 0.7 shut in the curve touch.
        closed = (a[:, CLOSURE] / 0.7).clamp(0, 1)
        closed = closed * closed * (3 - 2 * closed)
        bite = (a[:, LABIODENTAL] * (1 - closed)).clamp(0, 1)
        # Lips that shut or round over it hide the teeth; a jaw that is heard to be open has them apart.
        hiss = torch.zeros_like(bite) if hiss is None else hiss * (1 - closed) * (1 - bite)
        hiss = hiss * (1 - 0.8 * a[:, PROTRUSION]) * ((0.45 - a[:, JAW]) / 0.2).clamp(0, 1) * min(self._strength, 1.0)
        spread = (a[:, WIDTH] - 0.5) * 2 * self._strength + _HISS_SPREAD * hiss
        rounded = a[:, PROTRUSION] * min(self._strength, 1.0)
        jaw = a[:, JAW] * self._strength
        opening = torch.maximum(WIDEST * jaw * (1 - 0.35 * rounded), _ROUND_GAP * rounded * self._strength)
        opening = torch.maximum(opening * (1 - closed) * (1 - bite), _HISS_GAP * hiss)
        drop = WIDEST * jaw * _JAW_SHARE * (1 - 0.75 * closed) * (1 - 0.6 * bite)

        lips = self._vertical(opening, bite * _BITE_GAP * min(self._strength, 1.0), rounded, hiss)
        lips = lips + self._thickness(closed, rounded, bite)
        lips = lips + self._sideways(lips, spread, rounded, opening)
        shape = self._rest + lips + self._skin.follow(lips, drop)
        wide = (spread * (1 - closed)).clamp(0, 1)
        return LowerFace(shape, drop, opening, wide, rounded.clamp(0, 1), bite, hiss, torch.ones_like(drop))

    def _vertical(self, opening: Tensor, bite: Tensor, rounded: Tensor, hiss: Tensor) -> Tensor:
        """Lips apart by `opening` and `bite` [B]: the lower one hangs in a bow, rounder when `rounded`."""
        across = self._across.abs()
        bow = (1 - across.pow(2.5)).clamp_min(0)
        # The wider lips open, the less of them stays together.
        together = rounded * (1 - opening / _ROUND_APART).clamp(0, 1) * (1 - _ROUND_REACH)
        bow = bow + rounded[:, None] * ((1 - (across / (1 - together[:, None])).square()).clamp_min(0).pow(0.7) - bow)
        sink = opening[:, None] * (across.square() * _CORNER_DROP) - _FLATTEN * rounded[:, None] * self._bend
        raised = _UPPER_RAISE + _ROUND_RAISE * rounded + _HISS_RAISE * hiss
        upper = sink - (opening * raised + bite * _BITE_RAISE)[:, None] * bow
        lower = sink + (opening * (1 - raised) + bite * (1 - _BITE_RAISE))[:, None] * bow
        return self._columns(upper, lower)

    def _thickness(self, closed: Tensor, rounded: Tensor, bite: Tensor) -> Tensor:
        """Outer contours come nearer in a closure, part when the lips pout; only the lower one at f and v."""
        lens = (1 - self._across.square()).clamp_min(0).sqrt()
        offsets = self._rest.new_zeros(len(closed), points.COUNT, 3)
        pressed = (_PRESS * closed)[:, None] * lens
        for outer, way in ((points.OUTER_UPPER, -1), (points.OUTER_LOWER, 1)):
            height = (self._rest[list(outer), 1] - self._seam).abs()
            pouting = torch.maximum(_POUT * height, _POUT_LEAST * lens)
            offsets[:, list(outer), 1] += way * (rounded[:, None] * pouting - pressed)
        offsets[:, list(points.OUTER_LOWER), 1] -= (_BITE_TUCK * bite)[:, None] * lens
        return offsets

    def _sideways(self, lips: Tensor, spread: Tensor, rounded: Tensor, opening: Tensor) -> Tensor:
        wider = _SPREAD * spread * (1 - rounded) - _ROUND * rounded - _CORNER_IN * opening
        offsets = torch.zeros_like(lips)
        group = list(points.LIPS)
        offsets[:, group, 0] = (self._rest[group, 0] - self._middle) * wider[:, None]
        offsets[:, group, 2] = -_FORWARD * rounded[:, None]
        return offsets

    def _columns(self, upper: Tensor, lower: Tensor) -> Tensor:
        zero = torch.zeros_like(upper)
        return lip_offsets(
            self._rest.expand(len(upper), -1, -1),
            torch.stack([zero, upper, zero], dim=2),
            torch.stack([zero, lower, zero], dim=2),
        )
