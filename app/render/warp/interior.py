"""What is seen between parted lips: cavity, tongue, lower and upper teeth, lit like the face."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from app.render.warp.dentition import enamel, lower_teeth
from app.render.warp.lighting import Light
from app.render.warp.teeth import Plate

_CAVITY = (0.20, 0.085, 0.080)  # of the skin's brightness: wet tissue in the dark
_TONGUE = (0.74, 0.36, 0.35)
_LINE = (0.30, 0.16, 0.15)  # the line between shut lips


@dataclass(frozen=True)
class MouthView:
    """Where every pixel [B, H, W] of the mouth's surroundings lies.

    `u`, `v`: head coordinates of the plane of the teeth. `x`: along the line of the corners, -1..1 between them.
    `above`, `below`: units below the upper and above the lower lip's edge. `opening` [B]: the lips' greatest
    distance; `jaw`, `spread`, `bite` [B]: as in `animation.LowerFace`.
    """

    u: Tensor
    v: Tensor
    x: Tensor
    above: Tensor
    below: Tensor
    opening: Tensor
    jaw: Tensor
    spread: Tensor
    bite: Tensor


def paint(view: MouthView, plate: Plate, light: Light, seam: float) -> Tensor:
    """Colours [B, 3, H, W] of the mouth's inside; `seam` is v of the shut lips' line."""
    brightness = light.skin.mean(1)[:, None, None, None]
    height = (view.above + view.below).clamp_min(1e-3)
    depth = (view.above / height).clamp(0, 1)
    colour = brightness * _row(_CAVITY, view.u) * (0.55 + 0.75 * depth * depth)[:, None]
    colour = _tongue(colour, view, brightness, depth)
    colour = _lower_teeth(colour, view, light, seam, plate.dim)
    colour = _upper_teeth(colour, view, plate, light)
    rim = _smooth(torch.minimum(view.above, view.below) / 0.022)
    rim = rim + (1 - rim) * 0.75 * view.bite[:, None, None]  # at f and v the teeth stand before the lip, in the light
    small = _smooth(view.opening / 0.05)[:, None, None]
    line = brightness * _row(_LINE, view.u) * (1 - 0.45 * small)[:, None]
    colour = line + (colour - line) * (rim * small + (1 - rim) * small * 0.35)[:, None]
    grey = colour.mean(1, keepdim=True)
    return grey + (colour - grey) * light.colourful[:, None, None, None]


def _tongue(colour: Tensor, view: MouthView, brightness: Tensor, depth: Tensor) -> Tensor:
    rise = _smooth((view.opening - 0.05) / 0.10)[:, None, None]
    top = 0.46 + 0.30 * view.x.square()
    body = _smooth((depth - top) / 0.45) * _smooth((0.85 - view.x.abs()) / 0.55) * rise
    groove = 1 - 0.14 * torch.exp(-(view.x / 0.10).square())
    lit = brightness * _row(_TONGUE, view.u) * (groove * (0.68 + 0.7 * (depth - top).clamp(0, 1)))[:, None]
    return colour + (lit - colour) * body[:, None]


def _lower_teeth(colour: Tensor, view: MouthView, light: Light, seam: float, dim: float) -> Tensor:
    """They sink with the jaw, a little less than the lip that covers them: they show in wide openings only."""
    edge = seam + 0.055 + view.jaw[:, None, None] * 1.0
    shade, cover = lower_teeth(view.u, view.v - edge)
    cover = cover * _smooth((view.opening - 0.10) / 0.10)[:, None, None]
    lit = enamel(light.skin)[:, :, None, None] * (0.70 * dim) * (shade * _side_light(view, light))[:, None]
    return colour + (lit - colour) * cover[:, None]


def _upper_teeth(colour: Tensor, view: MouthView, plate: Plate, light: Light) -> Tensor:
    rgba = plate.sample(view.u, view.v)
    gain = (light.skin / plate.light.clamp_min(1.0)).clamp(0.3, 2.0)[:, :, None, None]
    shadow = 0.55 + 0.45 * _smooth(torch.maximum(view.above / 0.040, view.bite[:, None, None]))  # the lip's
    open_enough = _smooth((view.opening - 0.03 + 0.025 * view.spread) / 0.055)
    open_enough = torch.maximum(open_enough, view.bite)[:, None, None]
    sides = 1 - 0.45 * view.x.abs().clamp(0, 1).pow(3)
    shade = shadow * sides * (0.35 + 0.65 * open_enough)
    if not plate.own:
        shade = shade * _side_light(view, light)
    lit = rgba[:, :3] * gain * torch.stack([shade, shade.pow(1.2), shade.pow(1.35)], 1)  # dim teeth look warm
    # Light reaches teeth through an opening, not through a slit.
    cover = rgba[:, 3:] * (0.10 + 0.90 * open_enough)[:, None]
    return colour + (lit - colour) * cover


def _side_light(view: MouthView, light: Light) -> Tensor:
    return 1 + light.slope[:, None, None] * view.u


def _row(colour: tuple[float, float, float], like: Tensor) -> Tensor:
    return like.new_tensor(colour)[None, :, None, None]


def _smooth(value: Tensor) -> Tensor:
    x = value.clamp(0, 1)
    return x * x * (3 - 2 * x)
