"""The opening between two lips, or two lids: two curves over the line through its corners.

Pixels are described in the opening's own frame: x along that line in units, y across it (down). The contours become
functions of x, so that "how far below the upper lip" is a subtraction and needs no polygon filling.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

_COLUMNS = 128  # samples of each curve: less than a pixel apart for mouths up to 100 pixels, and the curves are smooth
_SPAN = 1.25  # the table reaches this many half widths to either side
_SOFT_BEYOND = 0.6  # past a corner, upper and lower side blend over this share of the distance to it


@dataclass(frozen=True)
class Aperture:
    """Curves of B mouths. `middle` [B, 2] and `axis` [B, 2] (unit vector to the right) in the frame of the contours
    they were made from; `half` [B] the half width; `table` [B, 2, 1, columns] y of the upper and the lower curve."""

    middle: Tensor
    axis: Tensor
    half: Tensor
    table: Tensor

    def local(self, places: Tensor) -> tuple[Tensor, Tensor]:
        """x and y [B, H, W] in the mouth's frame of places [B, H, W, 2]."""
        offset = places - self.middle[:, None, None]
        ax, ay = self.axis[:, 0, None, None], self.axis[:, 1, None, None]
        x = offset[..., 0] * ax + offset[..., 1] * ay
        return x, offset[..., 1] * ax - offset[..., 0] * ay

    def curves(self, x: Tensor) -> Tensor:
        """y of the upper and the lower curve at x [B, H, W]: [B, 2, H, W]. Both are 0 beyond the corners."""
        at = x / (self.half[:, None, None] * _SPAN)
        grid = torch.stack([at, torch.zeros_like(at)], dim=3)
        return functional.grid_sample(self.table, grid, mode="bilinear", padding_mode="border", align_corners=True)

    def expand(self, frames: int) -> Aperture:
        """One opening (B = 1) for so many frames."""
        return Aperture(
            self.middle.expand(frames, -1),
            self.axis.expand(frames, -1),
            self.half.expand(frames),
            self.table.expand(frames, -1, -1, -1),
        )

    def height(self) -> Tensor:
        """The widest distance of the curves, [B] in units."""
        return (self.table[:, 1, 0] - self.table[:, 0, 0]).amax(1)


def aperture(upper: Tensor, lower: Tensor) -> Aperture:
    """The opening between contours `upper` and `lower` [B, N, 2], left to right, which share their ends."""
    span = upper[:, -1] - upper[:, 0]
    width = span.norm(dim=1).clamp_min(1e-4)
    axis = span / width[:, None]
    middle = (upper[:, -1] + upper[:, 0]) / 2
    half = width / 2
    contours = torch.stack([upper, lower], 1) - middle[:, None, None]
    x = (contours * axis[:, None, None]).sum(3)
    y = contours[..., 1] * axis[:, None, None, 0] - contours[..., 0] * axis[:, None, None, 1]
    columns = torch.linspace(-_SPAN, _SPAN, _COLUMNS, device=upper.device)
    at = (columns * half[:, None])[:, None].expand(-1, 2, -1)
    table = _hermite(_ascending(x), y, at)
    inside = at.abs() <= half[:, None, None]
    table = torch.where(inside, table, 0.0)
    # Contours may cross by a hair where lips are shut.
    lower_curve = torch.maximum(table[:, 0], table[:, 1])
    return Aperture(middle, axis, half, torch.stack([table[:, 0], lower_curve], 1)[:, :, None])


def lower_side(mouth: Aperture, x: Tensor, y: Tensor, curves: Tensor) -> Tensor:
    """Which side of the mouth's middle line a place is on: 0 upper, 1 lower, [B, H, W].

    Between the corners there is nothing between: half way from one lip's source to the other's lie the teeth. Beyond
    them the change gets the softer, the further away.
    """
    past = (x.abs() - mouth.half[:, None, None]).clamp_min(0)
    return ((y - curves.mean(1)) / (1e-4 + _SOFT_BEYOND * past) + 0.5).clamp(0, 1)


def _ascending(x: Tensor) -> Tensor:
    """Make x strictly ascending along the last axis; heads turned far away can fold the contour."""
    steps = x.diff(dim=-1).clamp_min(1e-4)
    return torch.cat([x[..., :1], x[..., :1] + steps.cumsum(-1)], -1)


def _hermite(x: Tensor, y: Tensor, at: Tensor) -> Tensor:
    """Cubic Hermite interpolation with finite-difference tangents: x, y [B, C, N], at [B, C, M]."""
    slope = y.diff(dim=-1) / x.diff(dim=-1)
    inner = (slope[..., 1:] + slope[..., :-1]) / 2
    tangent = torch.cat([slope[..., :1], inner, slope[..., -1:]], -1)
    right = torch.searchsorted(x.contiguous(), at.contiguous()).clamp(1, x.shape[-1] - 1)
    left = right - 1
    x0, x1 = x.gather(-1, left), x.gather(-1, right)
    width = x1 - x0
    t = ((at - x0) / width).clamp(0, 1)
    t2, t3 = t * t, t * t * t
    return (
        (2 * t3 - 3 * t2 + 1) * y.gather(-1, left)
        + (t3 - 2 * t2 + t) * width * tangent.gather(-1, left)
        + (3 * t2 - 2 * t3) * y.gather(-1, right)
        + (t3 - t2) * width * tangent.gather(-1, right)
    )
