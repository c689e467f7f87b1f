"""Teeth as pictures that are fixed to the head or the jaw: lips slide over them, heads turn with them.

The plate of the upper ones is cut from the person's own picture where that shows teeth, else drawn (`dentition`).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property

import torch
from torch import Tensor
from torch.nn import functional

from app.render.warp.aperture import Aperture, aperture
from app.render.warp.lighting import colourfulness

LEFT, RIGHT = -0.36, 0.36
"""The plate's reach in u: teeth show as far as the corners of a wide smile."""

LONGEST = 0.125
"""Teeth are no longer than this, in units (11 mm); what a smile shows below are lower teeth."""

SHORTEST = 0.045
"""Less of them, in units, is no texture to work with."""

_DENSITY = 1.6  # plate pixels per picture pixel: keeps the picture's sharpness through two resamplings
_MOST_DENSE = 480.0  # plate pixels per unit
_LIP_SHADE = 0.018  # the first of a visible tooth is shaded by the lip and not used, in units
_LATEST_START = 0.07  # teeth that begin further below the lip are lower teeth
_GAP_BETWEEN = 0.05  # units; wider gaps in a row of teeth stay
_LOWEST_LIP_EDGE = 0.010  # nor is what touches the lower lip


@dataclass(frozen=True)
class Plate:
    """`rgba` [4, h, w], colours 0..255 and coverage 0..1, over u in LEFT..RIGHT and v in `top`..`bottom`.

    `light` [3] is the colour of the skin where it was made, to fit it to other light. `own` says whether it was cut
    from a picture of the person. `dim` is what drawn teeth must be darkened by in the picture's light, 0..1. `lower`
    are the lower teeth that go with upper ones: their v counts from where the jaw has their edges.
    """

    rgba: Tensor
    top: float
    bottom: float
    light: Tensor
    own: bool
    dim: float = 1.0
    lower: Plate | None = None

    @cached_property
    def edge(self) -> float:
        """v at which the upper incisors end."""
        middle = self.rgba[3, :, self.rgba.shape[2] * 9 // 20 : self.rgba.shape[2] * 11 // 20]
        covered = (middle > 0.5).any(1).nonzero()
        last = int(covered[-1]) + 1 if len(covered) else 0
        return self.top + (self.bottom - self.top) * last / self.rgba.shape[1]

    def to(self, device: torch.device) -> Plate:
        """The same on another device."""
        lower = None if self.lower is None else self.lower.to(device)
        return replace(self, rgba=self.rgba.to(device), light=self.light.to(device), lower=lower)

    def sample(self, u: Tensor, v: Tensor) -> Tensor:
        """Colours and coverage [B, 4, H, W] at head coordinates u, v [B, H, W]; coverage 0 beyond the plate."""
        x = (u - LEFT) / (RIGHT - LEFT) * 2 - 1
        y = (v - self.top) / (self.bottom - self.top) * 2 - 1
        rgba = self.rgba[None].expand(len(u), -1, -1, -1)
        return functional.grid_sample(rgba, torch.stack([x, y], 3), padding_mode="border", align_corners=False)


def plate_size(scale: float, height: float) -> tuple[int, int]:
    """Rows and columns of a plate `height` units high for a picture of `scale` pixels per unit."""
    density = min(max(scale * _DENSITY, 48.0), _MOST_DENSE)
    return max(8, round(height * density)), max(16, round((RIGHT - LEFT) * density))


def plate_grid(rows: int, columns: int, top: float, bottom: float) -> tuple[Tensor, Tensor]:
    """u and v [rows, columns] of the plate's pixel centres."""
    u = LEFT + (torch.arange(columns) + 0.5) / columns * (RIGHT - LEFT)
    v = top + (torch.arange(rows) + 0.5) / rows * (bottom - top)
    grid_v, grid_u = torch.meshgrid(v, u, indexing="ij")
    return grid_u, grid_v


def own_plate(
    frame: Tensor, upper: Tensor, lower: Tensor, flat: Tensor, origin: Tensor, scale: float, skin: Tensor
) -> Plate | None:
    """Cut the upper teeth out of a picture, or None where it does not show enough of them.

    frame: [3, H, W] 0..255. upper, lower: [11, 2] the lips' inner contours as they are in it, in the plate's (u, v).
    flat [2, 2], origin [2] (pixels) and scale take (u, v) to pixels. skin: [3] its colour.
    """
    top, bottom = float(upper[:, 1].min()) - 0.10, float(lower[:, 1].max()) + 0.06
    rows, columns = plate_size(scale, bottom - top)
    u, v = plate_grid(rows, columns, top, bottom)
    opening = aperture(upper[None], lower[None])
    above, below = _depths(opening, u, v)

    raw = _picture(frame, u, v, flat, origin, scale)
    teeth = _bridged(_likeness(raw, skin), columns)
    start = _start(teeth, above, below)
    # Rows hidden by the upper lip repeat the first ones that can be seen; those below end before the lower lip.
    shown = torch.minimum(torch.maximum(above, start), (above + below - _LOWEST_LIP_EDGE).clamp_min(_LIP_SHADE))
    texture = _picture(frame, u, v - above + shown, flat, origin, scale)
    run = torch.where(above < start, torch.ones_like(teeth), teeth).cummin(0).values
    room = ((above + below) / 0.03 - 0.5).clamp(0, 1)  # no teeth in the corners
    ends = ((below - _LOWEST_LIP_EDGE * 0.5) / 0.006).clamp(0, 1) * ((LONGEST - above) / 0.01).clamp(0, 1)
    cover = (run * 2).clamp_max(1) * room * ends * (start < _LATEST_START)
    visible = (cover * (above > 0) * (below > 0)).sum(0) * (bottom - top) / rows
    middle = visible[(u[0].abs() < 0.12)]
    if float(middle.median()) < SHORTEST:
        return None
    rgba = torch.cat([texture, _soften(cover)[None]], 0)
    return Plate(rgba, top, bottom, skin, own=True)


def _depths(opening: Aperture, u: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
    """How far below the upper and above the lower contour a place is."""
    x, y = opening.local(torch.stack([u, v], 2)[None])
    curves = opening.curves(x)
    return (y - curves[:, 0])[0], (curves[:, 1] - y)[0]


def _bridged(teeth: Tensor, columns: int) -> Tensor:
    """Close the dark gaps between teeth: they belong to the row of teeth, and the texture shows them."""
    reach = max(1, round(_GAP_BETWEEN / (RIGHT - LEFT) * columns / 2))
    size = (1, 2 * reach + 1)
    widened = functional.max_pool2d(teeth[None, None], size, 1, (0, reach))
    return -functional.max_pool2d(-widened, size, 1, (0, reach))[0, 0]


def _start(teeth: Tensor, above: Tensor, below: Tensor) -> Tensor:
    """How far below the lip the first clear tooth row lies in each column, [1, columns]; large where there is none."""
    usable = (teeth > 0.6) & (above >= _LIP_SHADE) & (below > _LOWEST_LIP_EDGE)
    first = torch.where(usable, above, 1.0).amin(0, keepdim=True)
    smooth = functional.avg_pool1d(first.clamp_max(_LATEST_START + 0.01)[None], 5, 1, 2, count_include_pad=False)[0]
    return torch.maximum(first.clamp_max(1.0), smooth)


def _picture(frame: Tensor, u: Tensor, v: Tensor, flat: Tensor, origin: Tensor, scale: float) -> Tensor:
    """Colours [3, rows, columns] of the picture at head coordinates."""
    place = torch.stack([u, v], 2) @ flat.mT * scale + origin
    size = place.new_tensor([frame.shape[2], frame.shape[1]])
    grid = (place + 0.5) / size * 2 - 1
    sampled = functional.grid_sample(
        frame[None], grid[None], mode="bicubic", padding_mode="border", align_corners=False
    )
    return sampled[0].clamp(0, 255)


def _likeness(texture: Tensor, skin: Tensor) -> Tensor:
    """How much a colour looks like teeth, 0..1: less red than the skin and not dark; in grey pictures, brighter."""
    red, green, blue = texture.clamp_min(1.0)
    pale = (0.7 * green + 0.3 * blue) / red / ((0.7 * skin[1] + 0.3 * skin[2]) / skin[0].clamp_min(1.0))
    bright = texture.mean(0) / skin.mean().clamp_min(1.0)
    likeness = ((pale - 1.02) / 0.08).clamp(0, 1) * ((bright - 0.45) / 0.15).clamp(0, 1)
    likeness = torch.lerp(((bright - 0.98) / 0.10).clamp(0, 1), likeness, colourfulness(skin))
    return functional.avg_pool2d(likeness[None, None], 3, 1, 1, count_include_pad=False)[0, 0]


def _soften(cover: Tensor) -> Tensor:
    return functional.avg_pool2d(cover[None, None], 3, 1, 1, count_include_pad=False)[0, 0]
