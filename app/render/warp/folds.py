"""Lines of the skin that come and go with speech: from nose to mouth, and below the lower lip.

They are the photo's own. What a band along each line has of finer shading than its surroundings is taken out once; of
that a frame gets more where the cheek is drawn into a fold, and less where the skin is stretched smooth.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from app.render.film import points
from app.render.warp.animation import WIDEST, LowerFace
from app.render.warp.lattice import Box, extent

_NOSE_TO_MOUTH = ((203, 206, 216, 212), (423, 426, 436, 432))
_BAND = 0.05  # standard deviation of a band's width, in units
_BELOW_LIP = 0.45  # of the way from the lower lip to the chin's middle lies the hollow
_HOLLOW = (0.17, 0.045)  # standard deviations of its width and height
_NOTHING = 0.02  # of the full depth counts as none
_FINE, _COARSE = 0.012, 0.09  # units: sides of the squares between whose means a line is told from its surroundings
_STRONGEST = 30.0  # levels of 255: what is stronger is no fold, but a beard, say
_POUT_SHADE = 0.06  # of the skin's brightness is what a pouting lip keeps from the hollow below it

_WIDE, _ROUND, _OPEN = 0.7, -0.6, -0.4  # how much of a line from nose to mouth comes or goes
_HOLLOW_ROUND, _HOLLOW_OPEN = 0.8, -0.6
_SMILE = -0.4  # where the photo smiles and the face does not


@dataclass(frozen=True)
class Folds:
    """`relief` [1, 2, h, w] levels to add for full depth of the lines from nose to mouth and of the hollow below the
    lip; `box` are the rows and columns that hold all of it; `smile` 0..1 is how much the photo smiles."""

    relief: Tensor
    box: Box
    smile: float

    def deepen(self, warped: Tensor, grid: Tensor, face: LowerFace, reach: int) -> None:
        """Draw them into `warped` [B, 3, h, w], which shows the source at `grid` [B, h, w, 2].

        reach: how many pixels what is in `box` may have moved out of it.
        """
        rows, columns = (
            slice(max(0, part.start - reach), min(size, part.stop + reach))
            for part, size in zip(self.box, warped.shape[2:], strict=True)
        )
        depths = self._depths(face)
        if not bool(depths.any()):
            return
        relief = functional.grid_sample(
            self.relief.expand(len(grid), -1, -1, -1), grid[:, rows, columns], padding_mode="border", align_corners=True
        )
        warped[:, :, rows, columns] += torch.einsum("bkrc,bk->brc", relief, depths)[:, None]

    def _depths(self, face: LowerFace) -> Tensor:
        """How much of each kind B frames get in addition, [B, 2]; -1 smooths a line away."""
        opened = (face.opening / WIDEST).clamp(0, 1)
        lines = _WIDE * face.spread + _ROUND * face.rounded + _OPEN * opened + _SMILE * self.smile * (1 - face.spread)
        hollow = _HOLLOW_ROUND * face.rounded + _HOLLOW_OPEN * opened
        return torch.stack([lines.clamp(-1, 1), hollow.clamp(-1, 1)], 1) * face.amount[:, None]


def find_folds(source: Tensor, places: Tensor, allowed: Tensor, points_at: Tensor, scale: float, gap: float) -> Folds:
    """The lines of a picture.

    source: [1, 3, h, w] 0..255; places: [h, w, 2] where its pixels are and points_at: [COUNT, 2] where the face's
    points are, in units; allowed: [h, w] 0..1 where it may change; scale: pixels per unit; gap: how far a smile parts
    the lips in it (units).
    """
    grey = source.mean(1, keepdim=True)
    detail = (_mean(grey, _FINE * scale) - _mean(grey, _COARSE * scale)).clamp(-_STRONGEST, _STRONGEST)
    lines = torch.zeros_like(places[..., 0])
    for line in _NOSE_TO_MOUTH:
        at = points_at[[points.MESH.index(number) for number in line]]
        away = torch.stack([_distance(places, a, b) for a, b in itertools.pairwise(at)]).amin(0)
        lines = torch.maximum(lines, torch.exp(-0.5 * (away / _BAND).square()))
    lip, chin = points_at[points.OUTER_LOWER[5]], points_at[points.MESH.index(200)]
    off = (places - torch.lerp(lip, chin, _BELOW_LIP)) / places.new_tensor(_HOLLOW)
    hollow = torch.exp(-0.5 * off.square().sum(-1))
    shade = detail.clamp_max(0) - _POUT_SHADE * _mean(grey, _COARSE * scale)
    masks = torch.stack([lines, hollow])
    masks = torch.where(masks > _NOTHING, masks, 0.0) * allowed
    relief = torch.cat([detail, shade], 1) * masks
    return Folds(relief, extent(masks), min(1.0, max(0.0, (gap - 0.015) / 0.045)))


def _mean(grey: Tensor, side: float) -> Tensor:
    """Twice the mean over squares: about a Gaussian."""
    reach = max(1, round(side / 2))
    for _ in range(2):
        grey = functional.avg_pool2d(grey, 2 * reach + 1, 1, reach, count_include_pad=False)
    return grey


def _distance(places: Tensor, a: Tensor, b: Tensor) -> Tensor:
    """Of places [h, w, 2] from the line between two points [2]."""
    along = b - a
    share = ((places - a) @ along / along.square().sum().clamp_min(1e-8)).clamp(0, 1)
    away: Tensor = (places - a - share[..., None] * along).norm(dim=-1)
    return away
