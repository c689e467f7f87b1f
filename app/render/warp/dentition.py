"""Teeth drawn for faces that show none: in a colour that fits skin and light, in a shape that fits the face."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from app.render.warp.teeth import Plate, plate_grid, plate_size
from app.render.warp.teeth_build import Build

_WIDTHS = (0.094, 0.072, 0.078, 0.070, 0.066)
"""Central incisor, lateral incisor, canine, two premolars as seen from the front, in units (8.5 mm = 0.094; Ash &
Nelson, Wheeler's Dental Anatomy), the hindmost foreshortened by the arch."""
_FORESHORTENED = (1.0, 0.97, 0.86, 0.66, 0.48)
_SHORTER = (0.0, 0.010, 0.002, 0.012, 0.018)  # how much higher each edge ends than the central incisors'
_ROUNDED = (0.008, 0.011, 0.018, 0.012, 0.012)  # how much higher each edge ends at the tooth's sides
_SMILE_ARC = 0.16  # edges rise towards the back: v per u squared
_ENAMEL = (1.0, 0.955, 0.875)
_WHITE_LIT_SKIN = (1.15, 0.98, 0.87)  # colour of skin under white light over its brightness
_LOWER_WIDTH = 0.058  # the four lower incisors are nearly equal
_FINE = 3  # teeth are drawn so many times as densely as they are kept: no steps along their edges


def drawn_plate(lip: Tensor, scale: float, skin: Tensor, dim: float, build: Build) -> Plate:
    """Upper teeth behind an upper lip at rest, whose edge is `lip` [11, 2] in the plate's (u, v).

    scale: pixels per unit of the picture; skin: [3] its colour; dim: as in `Plate`; build: whose teeth they are.
    """
    middle = float(lip[4:7, 1].mean())
    top, bottom = middle - 0.14, middle + 0.10
    rows, columns = plate_size(scale, bottom - top)
    u, v = plate_grid(rows * _FINE, columns * _FINE, top, bottom)
    centre = float(lip[[0, -1], 0].mean())
    across = (u - centre).abs()
    widths = torch.tensor(_WIDTHS) * torch.tensor(_FORESHORTENED) * build.tooth_width
    ends = widths.cumsum(0)
    tooth = torch.bucketize(across, ends).clamp_max(len(_WIDTHS) - 1)
    begin = ends[tooth] - widths[tooth]
    within = ((across - begin) / widths[tooth]).clamp(0, 1)
    round_off = (2 * within - 1).abs()
    shorter = torch.tensor(_SHORTER) * build.uneven
    edge = middle + build.shown - shorter[tooth] - _SMILE_ARC * across.square()
    edge = edge + torch.tensor(build.lengths).view(2, -1)[(u > centre).long(), tooth]
    edge = edge - build.roundness * torch.tensor(_ROUNDED)[tooth] * round_off.pow(5)
    cover = ((edge - v) / 0.006 + 0.5).clamp(0, 1) * ((ends[-1] - across) / 0.02).clamp(0, 1)
    below = ((edge - v) / 0.10).clamp(0, 1)  # 0 at the edge, 1 near the gum
    colour = enamel(skin)[:, None, None] * dim * skin.new_tensor(build.tint)[:, None, None]
    body = 1 - 0.24 * round_off.pow(10) - 0.05 * round_off.square()  # narrow shadows between teeth
    body = body * (1 - 1.9 * across.square()).clamp(0.5, 1)  # the arch turns away from the light
    body = body * (0.91 + 0.09 * (below / 0.3).clamp_max(1))  # edges let light through
    warm = below[None] * colour.new_tensor([0.0, 0.01, 0.035])[:, None, None]  # dentine shows towards the gum
    shine = 0.05 * torch.exp(-((round_off / 0.5).square() + ((below - 0.45) / 0.18).square()))
    fine = torch.cat([colour * (1 - warm) * (body + shine), cover[None]], 0)
    return Plate(functional.avg_pool2d(fine[None], _FINE)[0], top, bottom, skin, own=False, dim=dim)


def enamel(skin: Tensor) -> Tensor:
    """The colour [.., 3] of teeth in the light that falls on skin of colour [.., 3]: ivory, tinted and dimmed alike.

    Dark skin in good light and light skin in dim light look alike in brightness; teeth are kept between the two. Skin
    that is paler than usual says nothing of the light: teeth do not turn green beside it.
    """
    mean = skin.mean(-1, keepdim=True)
    brightness = (mean * 0.57 + 95.0).clamp(60.0, 215.0)
    cast = (skin / mean.clamp_min(1.0) / skin.new_tensor(_WHITE_LIT_SKIN)).clamp(0.8, 1.25).sqrt()
    cast = torch.minimum(cast, torch.stack([cast[..., 0], cast[..., 0], cast[..., 2]], -1))
    return brightness * cast * skin.new_tensor(_ENAMEL)


def lower_teeth(u: Tensor, depth: Tensor, pixel: Tensor) -> tuple[Tensor, Tensor]:
    """Shade and coverage [B, H, W] of the lower incisors at u and at `depth` below their edge (both in units).

    pixel: [B, 1, 1] the size of a pixel in units: what is finer than it fades.
    """
    within = torch.remainder(u / _LOWER_WIDTH, 1.0)
    round_off = (2 * within - 1).abs()
    depth = depth - 0.005 * round_off.pow(4) - 0.5 * u.square()
    cover = (depth / pixel.clamp_min(0.008) + 0.5).clamp(0, 1) * ((0.20 - u.abs()) / 0.05).clamp(0, 1)
    gaps = 0.2 * (_LOWER_WIDTH / (6 * pixel)).clamp_max(1.0)
    return (1 - gaps * round_off.pow(6)) * (1 - 4.0 * u.square()).clamp(0.4, 1), cover
