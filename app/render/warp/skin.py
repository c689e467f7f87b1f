"""How the skin around the mouth follows the lips and the jaw."""

from __future__ import annotations

import torch
from torch import Tensor

from app.render.film import points

_REACH = 0.075
"""How far a lip draws the skin along, in units: the standard deviation of its pull."""

_HOLD = 1.2
"""How strongly skin stays where it is, against the pull of lip points that are `_REACH` apart."""

_JAW_BACK = 0.2  # the chin swings back by this share of its drop, as the jaw turns about its joint


class SkinWeights:
    """Weights of one face, from its rest `shape` [COUNT, 3] in head coordinates."""

    def __init__(self, shape: Tensor) -> None:
        skin, outer = list(points.SKIN), list(dict.fromkeys((*points.OUTER_UPPER, *points.OUTER_LOWER)))
        self._skin, self._outer = skin, outer
        distance = torch.cdist(shape[skin, :2], shape[outer, :2])
        pull = torch.exp(-0.5 * (distance / _REACH).square())
        total = pull.sum(1, keepdim=True)
        self._share = total / (total + _HOLD)
        self._pull = pull / (total + _HOLD)
        u, v = shape[skin, 0], shape[skin, 1]
        chin = shape[points.CHIN_TIP, 1].clamp_min(0.2)
        self._jaw = _smoothstep(0.0, 0.25 * chin, v) * (1 - _smoothstep(0.25, 0.78, u.abs()))

    def hold(self) -> Tensor:
        """How much each point [COUNT] keeps to the rest shape when the source's own face moves: lips and jaw wholly."""
        weight = self._share.new_zeros(points.COUNT)
        weight[list(points.LIPS)] = 1.0
        weight[self._skin] = torch.maximum(self._share[:, 0], self._jaw)
        return weight

    def follow(self, lips: Tensor, jaw: Tensor) -> Tensor:
        """Skin offsets [.., COUNT, 3] (zero on the lips) under lip offsets `lips` [.., COUNT, 3] and jaw drop [..]."""
        offsets = torch.zeros_like(lips)
        drop = (1 - self._share[:, 0]) * self._jaw * jaw[..., None]
        moved = self._pull @ lips[..., self._outer, :]
        moved[..., 1] += drop
        moved[..., 2] += drop * _JAW_BACK
        offsets[..., self._skin, :] = moved
        return offsets


def _smoothstep(low: float | Tensor, high: float | Tensor, value: Tensor) -> Tensor:
    x = ((value - low) / (high - low)).clamp(0, 1)
    return x * x * (3 - 2 * x)
