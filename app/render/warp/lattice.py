"""Coarse knots over a region, and what is known at them brought to every pixel."""

from __future__ import annotations

import torch
from torch import Tensor

from app.render.film.region import Region
from app.render.warp.field import cubic_rows, lattice_size

Box = tuple[slice, slice]
"""Rows and columns of a region."""


class Lattice:
    """Knots over the boxes of B frames. `knots` [B, rows, columns, 2]: their places, in units from the head's origin;
    `at` [B, 2]: the place of each box's first pixel."""

    def __init__(self, region: Region, at: Tensor, scale: Tensor) -> None:
        """`at` [B, 2] in units, `scale` [B] pixels per unit."""
        size = float(scale.max())
        rows, columns = lattice_size(region.height, size), lattice_size(region.width, size)
        device = at.device
        x = torch.linspace(0, region.width - 1, columns, device=device)
        y = torch.linspace(0, region.height - 1, rows, device=device)
        pixels = torch.stack(torch.meshgrid(x, y, indexing="xy"), 2)
        self.knots = pixels / scale[:, None, None, None] + at[:, None, None]
        self.at = at
        self._scale = scale[:, None, None, None]
        self._half = at.new_tensor([max(region.width - 1, 1), max(region.height - 1, 1)]) / 2
        self._still = pixels / self._half - 1
        self._down = cubic_rows(torch.linspace(0, rows - 1, region.height, device=device), rows)
        self._right = cubic_rows(torch.linspace(0, columns - 1, region.width, device=device), columns).T

    def dense(self, values: Tensor, box: Box | None = None) -> Tensor:
        """Values [.., rows, columns, 2] at every pixel of the region or of a box in it, [.., h, w, 2]."""
        down, right = self._down, self._right
        if box is not None:
            down, right = down[box[0]], right[:, box[1]]
        return _last(down @ _first(values) @ right)

    def sampling(self, offsets: Tensor) -> Tensor:
        """Where `grid_sample` looks for the knots if each shows what lies `offsets` [B, .., rows, columns, 2] (units)
        away from it."""
        scale = self._scale.view(-1, *[1] * (offsets.dim() - 1))
        grid: Tensor = self._still + offsets * (scale / self._half)
        return grid

    def sampling_at(self, places: Tensor) -> Tensor:
        """Where `grid_sample` looks for places [B, h, w, 2]."""
        grid: Tensor = (places - self.at[:, None, None]) * (self._scale / self._half) - 1
        return grid


def extent(weight: Tensor) -> Box:
    """The rows and columns in which any of weight [B, rows, columns] is not 0; at least one of each."""
    touched = (weight > 0).any(0)
    rows, columns = touched.any(1).nonzero()[:, 0].tolist(), touched.any(0).nonzero()[:, 0].tolist()
    if not rows:
        return slice(0, 1), slice(0, 1)
    return slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1)


def _first(values: Tensor) -> Tensor:
    """The coordinates before rows and columns."""
    return values.movedim(-1, -3)


def _last(values: Tensor) -> Tensor:
    return values.movedim(-3, -1)
