"""Teeth drawn for faces that show none, in a colour that fits skin and light."""

from __future__ import annotations

import torch
from torch import Tensor

from app.render.warp.teeth import Plate, plate_grid, plate_size

_WIDTHS = (0.094, 0.072, 0.078, 0.070, 0.066)
"""Central incisor, lateral incisor, canine, two premolars as seen from the front, in units (8.5 mm = 0.094; Ash &
Nelson, Wheeler's Dental Anatomy), the hindmost foreshortened by the arch."""
_FORESHORTENED = (1.0, 0.97, 0.86, 0.66, 0.48)
_SHORTER = (0.0, 0.010, 0.002, 0.012, 0.018)  # how much higher each edge ends than the central incisors'
_SHOWN_AT_REST = 0.040  # of the incisors below the upper lip's edge, were the lips apart (3 to 4 mm)
_SMILE_ARC = 0.16  # edges rise towards the back: v per u squared
_ENAMEL = (1.0, 0.955, 0.875)
_WHITE_LIT_SKIN = (1.15, 0.98, 0.87)  # colour of skin under white light over its brightness
_LOWER_WIDTH = 0.058  # the four lower incisors are nearly equal


def drawn_plate(lip: Tensor, scale: float, skin: Tensor, dim: float) -> Plate:
    """Upper teeth behind an upper lip at rest, whose edge is `lip` [11, 2] in the plate's (u, v).

    scale: pixels per unit of the picture; skin: [3] its colour; dim: as in `Plate`.
    """
    middle = float(lip[4:7, 1].mean())
    top, bottom = middle - 0.14, middle + 0.10
    rows, columns = plate_size(max(scale, 120.0), bottom - top)
    u, v = plate_grid(rows, columns, top, bottom)
    centre = float(lip[[0, -1], 0].mean())
    across = (u - centre).abs()
    widths = torch.tensor(_WIDTHS) * torch.tensor(_FORESHORTENED)
    ends = widths.cumsum(0)
    tooth = torch.bucketize(across, ends).clamp_max(len(_WIDTHS) - 1)
    begin = ends[tooth] - widths[tooth]
    within = ((across - begin) / widths[tooth]).clamp(0, 1)
    round_off = (2 * within - 1).abs()
    edge = middle + _SHOWN_AT_REST - torch.tensor(_SHORTER)[tooth] - _SMILE_ARC * across.square()
    edge = edge - 0.014 * round_off.pow(4)
    cover = ((edge - v) / 0.008 + 0.5).clamp(0, 1) * ((ends[-1] - across) / 0.02).clamp(0, 1)
    colour = enamel(skin)[:, None, None] * dim
    body = 1 - 0.16 * round_off.pow(6) - 0.05 * round_off.square()  # narrow shadows between teeth
    body = body * (1 - 1.9 * across.square()).clamp(0.5, 1)  # the arch turns away from the light
    body = body * (0.93 + 0.07 * ((edge - v) / 0.10).clamp(0, 1))  # edges are more translucent
    return Plate(torch.cat([colour * body, cover[None]], 0), top, bottom, skin, own=False, dim=dim)


def enamel(skin: Tensor) -> Tensor:
    """The colour [.., 3] of teeth in the light that falls on skin of colour [.., 3]: ivory, tinted and dimmed alike.

    Dark skin in good light and light skin in dim light look alike in brightness; teeth are kept between the two. Skin
    that is paler than usual says nothing of the light: teeth do not turn green beside it.
    """
    mean = skin.mean(-1, keepdim=True)
    brightness = (mean * 0.55 + 85.0).clamp(60.0, 205.0)
    cast = (skin / mean.clamp_min(1.0) / skin.new_tensor(_WHITE_LIT_SKIN)).clamp(0.8, 1.25).sqrt()
    cast = torch.minimum(cast, torch.stack([cast[..., 0], cast[..., 0], cast[..., 2]], -1))
    return brightness * cast * skin.new_tensor(_ENAMEL)


def lower_teeth(u: Tensor, depth: Tensor) -> tuple[Tensor, Tensor]:
    """Shade and coverage [B, H, W] of the lower incisors at u and at `depth` below their edge (both in units)."""
    within = torch.remainder(u / _LOWER_WIDTH, 1.0)
    round_off = (2 * within - 1).abs()
    depth = depth - 0.008 * round_off.pow(4) - 0.5 * u.square()
    cover = (depth / 0.008 + 0.5).clamp(0, 1) * ((0.20 - u.abs()) / 0.05).clamp(0, 1)
    return (1 - 0.2 * round_off.pow(6)) * (1 - 4.0 * u.square()).clamp(0.4, 1), cover
