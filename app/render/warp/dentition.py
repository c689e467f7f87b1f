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
_LOWER_WIDTHS = (0.057, 0.061, 0.074, 0.076)
"""Central and lateral incisor, canine, premolar of the lower jaw (5.3, 5.7, 6.8 and 7 mm; Ash & Nelson)."""
_LOWER_FORESHORTENED = (1.0, 0.95, 0.78, 0.55)
_LOWER_HIGHER = (0.0, 0.0, 0.006, -0.004)  # units that each ends above the incisors
_LOWER_ROUNDED = (0.004, 0.005, 0.012, 0.010)
_LOWER_ARC = 0.5  # v per u squared by which the row sinks towards the back
_LOWER_SHADE = (0.68, 0.57, 0.52)  # of the upper teeth's colour: in shade, lit by tongue and lip
_LOWER_TOP, _LOWER_BOTTOM = -0.03, 0.11  # v, from the edges
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


def lower_plate(upper: Plate, scale: float, build: Build) -> Plate:
    """Lower teeth drawn to go with upper ones, in their colour; v counts from the incisors' edges down.

    scale: pixels per unit of the picture; build: whose teeth they are.
    """
    rows, columns = plate_size(scale, _LOWER_BOTTOM - _LOWER_TOP)
    u, v = plate_grid(rows * _FINE, columns * _FINE, _LOWER_TOP, _LOWER_BOTTOM)
    aside = u - build.lower_middle
    across, side = aside.abs(), (aside > 0).long()
    widths = torch.tensor(_LOWER_WIDTHS) * torch.tensor(_LOWER_FORESHORTENED) * build.lower_width
    ends = widths.cumsum(0)
    tooth = torch.bucketize(across, ends).clamp_max(len(_LOWER_WIDTHS) - 1)
    within = ((across - ends[tooth] + widths[tooth]) / widths[tooth]).clamp(0, 1)
    round_off = (2 * within - 1).abs()
    higher = torch.tensor(_LOWER_HIGHER)[tooth] + torch.tensor(build.lower_heights).view(2, -1)[1 - side, tooth]
    edge = _LOWER_ARC * across.square() - higher + torch.tensor(_LOWER_ROUNDED)[tooth] * round_off.pow(4)
    depth = v - edge
    cover = (depth / 0.008 + 0.5).clamp(0, 1) * ((ends[-1] - across) / 0.05).clamp(0, 1)
    turned = 1 + torch.tensor(build.lower_turns).view(2, -1)[1 - side, tooth] * (2 * within - 1) * (2 * side - 1)
    body = (1 - 0.26 * round_off.pow(8)) * turned * (1 - 4.0 * u.square()).clamp(0.4, 1)
    body = body * (0.90 + 0.10 * (depth / 0.02).clamp(0, 1))  # edges let light through
    colour = _usual_colour(upper, build) * upper.light.new_tensor(_LOWER_SHADE)
    fine = torch.cat([colour[:, None, None] * body, cover[None]], 0)
    rgba = functional.avg_pool2d(fine[None], _FINE)[0]
    return Plate(rgba, _LOWER_TOP, _LOWER_BOTTOM, upper.light, own=False, dim=upper.dim)


def _usual_colour(plate: Plate, build: Build) -> Tensor:
    """The colour [3] of upper teeth: what is brighter than half of one's own, the enamel of drawn ones."""
    if not plate.own:
        return enamel(plate.light) * plate.dim * plate.light.new_tensor(build.tint)
    shown = plate.rgba[:3, plate.rgba[3] > 0.9]
    bright = shown.mean(0)
    return shown[:, bright >= bright.median()].mean(1)
