"""Scaling by matrices: boxes with fractional edges, a whole batch in two products, on any device."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

_SHARPNESS = -0.5
"""Of the cubic kernel (Keys, 1981): third-order exact, no ringing to speak of."""


@dataclass(frozen=True)
class Resampler:
    """`rows` [B or 1, H', H] and `columns` [B or 1, W', W]: each new line as a weighted sum of old ones."""

    rows: Tensor
    columns: Tensor

    def shrink(self, pictures: Tensor) -> Tensor:
        """[B or 1, H, W, C] as a picture lies in memory to planes [B, C, H', W']; the rows first, so that nothing large
        is rearranged."""
        width, channels = pictures.shape[2:]
        fewer = self.rows @ pictures.flatten(2)
        planes = fewer.view(*fewer.shape[:2], width, channels).permute(0, 3, 1, 2)
        return planes @ self.columns.mT[:, None]

    def grow(self, planes: Tensor) -> Tensor:
        """Planes [B or 1, C, H, W] to [B, H', W', C]; the rows last, for the same reason."""
        wide = (planes @ self.columns.mT[:, None]).permute(0, 2, 3, 1)
        made = self.rows @ wide.flatten(2)
        return made.view(*made.shape[:2], *wide.shape[2:])

    def to(self, dtype: torch.dtype) -> Resampler:
        """The same in another precision."""
        return Resampler(self.rows.to(dtype), self.columns.to(dtype))

    def part(self, frames: slice) -> Resampler:
        """The matrices of some of the frames; one for all stays one for all."""
        rows = self.rows if len(self.rows) == 1 else self.rows[frames]
        columns = self.columns if len(self.columns) == 1 else self.columns[frames]
        return Resampler(rows, columns)


def lines(first: Tensor, step: Tensor, made: int, given: int) -> Tensor:
    """Matrices [B, made, given] that read `given` lines at `first + n * step`.

    first, step: [B], in lines counted from the centre of line 0. Steps above 1 average over what they leap, so that
    nothing is lost between; beyond the edges the outermost lines go on.
    """
    at = first[:, None] + step[:, None] * torch.arange(made, device=first.device)
    width = step.abs().clamp_min(1.0)[:, None, None]
    reach = int((2 * width.max()).ceil()) + 1
    near = at.round()[..., None] + torch.arange(-reach, reach + 1, device=first.device)
    weight = _cubic((near - at[..., None]) / width)
    weight = weight / weight.sum(-1, keepdim=True)
    matrix = first.new_zeros(len(first), made, given)
    return matrix.scatter_add_(2, near.long().clamp(0, given - 1), weight)


def _cubic(x: Tensor) -> Tensor:
    x = x.abs()
    inner = ((_SHARPNESS + 2) * x - (_SHARPNESS + 3)) * x * x + 1
    outer = _SHARPNESS * (((x - 5) * x + 8) * x - 4)
    return torch.where(x <= 1, inner, torch.where(x < 2, outer, torch.zeros_like(x)))
