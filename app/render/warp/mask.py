"""The part of each frame that the warp may change: a box around the lower face, and how the change fades out in it."""

from __future__ import annotations

import torch
from torch import Tensor

from app.render.film import points
from app.render.film.pose import HeadPose
from app.render.film.region import Region

_SIDE = 0.92  # reach to either side of the mouth's middle, in units: the cheek in front of the ears
_SIDE_FADE = 0.36
_NECK = 0.46  # reach below the chin: the neck gives room for the jaw to sink
_NECK_FADE = 0.40
_NOSE_FADE = 0.11  # below the nose's base; the nostrils stay
_EVEN = 8  # box sizes are multiples of it, so that frames of a batch and most batches share one size


class LowerFaceMask:
    """Where the change is allowed, in head coordinates, for one face at rest [COUNT, 3]."""

    def __init__(self, rest: Tensor) -> None:
        self._nose = float(rest[points.NOSE_BASE, 1])
        self._chin = float(rest[points.CHIN_TIP, 1])
        self._middle = float(rest[list(points.CORNERS), 0].mean())

    def weight(self, u: Tensor, v: Tensor) -> Tensor:
        """1 where the change is full, 0 where there is none; any shape."""
        top = _smooth((v - self._nose) / _NOSE_FADE)
        bottom = _smooth((self._chin + _NECK - 0.02 - v) / _NECK_FADE)
        side = _smooth((_SIDE - 0.02 - (u - self._middle).abs()) / _SIDE_FADE)
        return top * bottom * side

    def region(self, pose: HeadPose, width: int, height: int) -> Region:
        """The boxes that hold all of the mask in frames of `width` x `height` pixels."""
        low, high = self._middle - _SIDE, self._middle + _SIDE
        bottom = self._chin + _NECK
        corners = torch.tensor([[low, self._nose], [high, self._nose], [low, bottom], [high, bottom]])
        flat = corners.to(pose.scale) @ pose.flat().mT * pose.scale[:, None, None] + pose.origin[:, None, :2]
        first, last = flat.amin(1).floor().long(), flat.amax(1).ceil().long() + 1
        sizes = (last - first).amax(0).cpu()
        box_width = min(width, _round_up(int(sizes[0])))
        box_height = min(height, _round_up(int(sizes[1])))
        left = first[:, 0].clamp(0, width - box_width)
        top = first[:, 1].clamp(0, height - box_height)
        return Region(left.cpu(), top.cpu(), box_width, box_height)


def _round_up(size: int) -> int:
    return -(-size // _EVEN) * _EVEN


def _smooth(value: Tensor) -> Tensor:
    x = value.clamp(0, 1)
    return x * x * (3 - 2 * x)
