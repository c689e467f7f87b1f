"""The face at rest: what the lower face of this person looks like with the lips shut and nobody speaking.

A photo may smile with parted lips and a template may speak: the rest shape is what the warp takes them back to, so
that nothing of the original motion is left, and what speech then starts from.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from app.render.film import points
from app.render.warp.skin import SkinWeights

NATURAL_WIDTH = 0.60
"""Width of a relaxed mouth in units of the outer eye distance (about 52 of 88 mm, Farkas 1994)."""

SMILE_GAP = 0.13
"""Lips further apart than this are apart because the jaw is open; below it, because they smile over shut teeth."""

PARTED_GAP = 0.015
"""Below this the lips count as shut: it is the mesh's own error on shut mouths."""

_UPPER_SHARE = 0.45  # of a smile's gap is closed by the upper lip coming down
_NARROWED = 0.75  # of what a smile adds to the mouth's width is taken back
_LOWERED = 0.7  # of what it lifts the corners
_JAW_SHARE = 0.8  # of the rest of the gap is closed by the jaw
_SHUT_SHARE = 0.2  # of a template's frames, the most closed ones, show what the shut mouth looks like


@dataclass(frozen=True)
class RestFace:
    """`shape` [COUNT, 3] in head coordinates, lips shut. `seen` is the shape it was made from, with the lips as they
    were; `gap` is how far these were apart (units)."""

    shape: Tensor
    seen: Tensor
    gap: float

    def to(self, device: torch.device) -> RestFace:
        """The same on another device."""
        return RestFace(self.shape.to(device), self.seen.to(device), self.gap)

    @property
    def half_width(self) -> float:
        """Half the width of the mouth at rest."""
        corners = self.shape[list(points.CORNERS)]
        return float((corners[1] - corners[0])[:2].norm() / 2)


def rest_face(head: Tensor, present: Tensor) -> RestFace:
    """The rest shape of a track `head` [T, COUNT, 3] in head coordinates; `present` [T] says which frames count."""
    seen = _most_shut(head[present])
    gaps = _gaps(seen)
    gap = float(gaps.max())
    smile = _smoothstep(PARTED_GAP, 0.06, gap)
    return RestFace(_shut(_relaxed(seen, smile), gap), seen, gap)


def lip_gaps(head: Tensor) -> Tensor:
    """How far the lips are apart in the middle, [T] in units, for `head` [T, COUNT, 3]."""
    middle = len(points.INNER_UPPER) // 2
    return (head[:, points.INNER_LOWER[middle], 1] - head[:, points.INNER_UPPER[middle], 1]).clamp_min(0)


def lip_offsets(shape: Tensor, upper: Tensor, lower: Tensor) -> Tensor:
    """Offsets [.., COUNT, 3] from ones for the eleven columns of the upper and the lower lip, [.., 11, 3] each.

    Inner and outer contours move together; the corners, which they share, take the upper lip's.
    """
    offsets = torch.zeros_like(shape)
    for group in (points.OUTER_LOWER, points.INNER_LOWER):
        offsets[..., list(group), :] = lower
    for group in (points.OUTER_UPPER, points.INNER_UPPER):
        offsets[..., list(group), :] = upper
    return offsets


def _most_shut(head: Tensor) -> Tensor:
    gaps = lip_gaps(head)
    shut = gaps <= torch.quantile(gaps[:100_000], _SHUT_SHARE) + 1e-4
    return head[shut].median(0).values


def _gaps(shape: Tensor) -> Tensor:
    upper, lower = shape[list(points.INNER_UPPER)], shape[list(points.INNER_LOWER)]
    return (lower[:, 1] - upper[:, 1]).clamp_min(0)


def _relaxed(shape: Tensor, amount: float) -> Tensor:
    """Draw the corners of a smile in and down by `amount` 0..1."""
    relaxed = shape.clone()
    corners = shape[list(points.CORNERS)]
    width = float((corners[1] - corners[0])[:2].norm())
    factor = 1 - amount * _NARROWED * max(0.0, width - NATURAL_WIDTH) / width
    seam = (shape[list(points.INNER_UPPER)] + shape[list(points.INNER_LOWER)]) / 2
    lift = max(0.0, float(seam[4:7, 1].mean() - corners[:, 1].mean()) - 0.01)
    lips = list(points.LIPS)
    middle = corners[:, 0].mean()
    across = (shape[lips, 0] - middle) / (width / 2)
    relaxed[lips, 0] = middle + (shape[lips, 0] - middle) * factor
    relaxed[lips, 1] += amount * _LOWERED * lift * across.square()
    return relaxed


def _shut(shape: Tensor, gap: float) -> Tensor:
    """Bring the inner contours together."""
    gaps = _gaps(shape)
    smiled = gaps * min(1.0, SMILE_GAP / max(gap, 1e-6))
    down = smiled * _UPPER_SHARE
    upper, lower = torch.zeros(len(gaps), 3), torch.zeros(len(gaps), 3)
    upper[:, 1], lower[:, 1] = down, down - gaps
    shut = shape + lip_offsets(shape, upper, lower)
    seam = (shut[list(points.INNER_UPPER)] + shut[list(points.INNER_LOWER)]) / 2
    shut[list(points.INNER_UPPER)] = seam
    shut[list(points.INNER_LOWER)] = seam
    jaw = _JAW_SHARE * max(0.0, gap - SMILE_GAP)
    skin = SkinWeights(shape)
    return shut + skin.follow(shut - shape, torch.tensor(-jaw))


def _smoothstep(low: float, high: float, value: float) -> float:
    x = min(1.0, max(0.0, (value - low) / (high - low)))
    return x * x * (3 - 2 * x)
