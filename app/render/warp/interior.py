"""What is seen between parted lips: cavity, tongue, lower and upper teeth, lit like the face."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from app.render.warp.lighting import Light
from app.render.warp.teeth import Plate

_CAVITY = (0.23, 0.098, 0.090)  # of the skin's brightness: wet tissue in the dark
_TONGUE = (0.74, 0.36, 0.35)
_LINE = (0.30, 0.16, 0.15)  # the line between shut lips
_RIM_ABOVE, _RIM_BELOW = 0.020, 0.012  # how far in from the lips' edges that line's colour reaches, in units
_RIM_LIT = 0.6  # how much of it the teeth take at f and v
_LOWER_EDGE = 0.0  # of the lower teeth, below the lips' line at rest, in units
_LOWER_FROM = 0.15  # opening from which they show
_BETWEEN = 0.004  # units between upper and lower edges at s and z
_MEETING = 0.8  # v per u squared by which the lower row then rises towards the back, where the teeth are together
_HISS_LIT = 0.75  # of the light reaches teeth then
_NARROW = 0.75  # of the light comes into the narrowest parts of the opening


@dataclass(frozen=True)
class MouthView:
    """Where every pixel [B, H, W] of the mouth's surroundings lies.

    `u`, `v`: head coordinates of the plane of the teeth. `x`: along the line of the corners, -1..1 between them.
    `above`, `below`: units below the upper and above the lower lip's edge. `opening` [B]: the lips' greatest
    distance; `jaw`, `spread`, `rounded`, `bite`, `hiss` [B]: as in `animation.LowerFace`. `pixel` [B]: a pixel's size
    in units.
    """

    u: Tensor
    v: Tensor
    x: Tensor
    above: Tensor
    below: Tensor
    opening: Tensor
    jaw: Tensor
    spread: Tensor
    rounded: Tensor
    bite: Tensor
    hiss: Tensor
    pixel: Tensor


def paint(view: MouthView, plate: Plate, light: Light, seam: float) -> Tensor:
    """Colours [B, 3, H, W] of the mouth's inside; `seam` is v of the shut lips' line."""
    brightness = light.skin.mean(1)[:, None, None, None]
    height = (view.above + view.below).clamp_min(1e-3)
    depth = (view.above / height).clamp(0, 1)
    colour = brightness * _row(_CAVITY, view.u) * (0.55 + 0.75 * depth * depth)[:, None]
    colour = _tongue(colour, view, brightness, depth)
    if plate.lower is not None:
        colour = _lower_teeth(colour, view, plate.lower, light, seam, plate.edge)
    colour = _upper_teeth(colour, view, plate, light)
    # Lips turn inward at their edges: into the dark above, into what the tongue and teeth reflect below.
    rim = torch.minimum(_smooth(view.above / _RIM_ABOVE), _smooth((view.below + _RIM_BELOW / 2) / (1.5 * _RIM_BELOW)))
    rim = rim + (1 - rim) * _RIM_LIT * view.bite[:, None, None]  # at f and v teeth stand before the lip
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


def _lower_teeth(colour: Tensor, view: MouthView, plate: Plate, light: Light, seam: float, upper_edge: float) -> Tensor:
    """They sink with the jaw, like the lip that covers them: their edges show in wide openings, and where they come
    near the upper ones to hiss."""
    sunk = seam + _LOWER_EDGE + view.jaw
    edge = torch.lerp(sunk, torch.full_like(sunk, upper_edge + _BETWEEN), view.hiss.sqrt())[:, None, None]
    met = _MEETING * view.hiss[:, None, None] * view.u.square()
    rgba = plate.sample(view.u, view.v - edge + met)
    gain = (light.skin / plate.light.clamp_min(1.0)).clamp(0.3, 2.0)[:, :, None, None]
    shown = torch.maximum(_smooth((view.opening - _LOWER_FROM) / 0.08), view.hiss.sqrt())
    shade = _side_light(view, light) * _sheltered(view)
    lit = rgba[:, :3] * gain * torch.stack([shade, shade.pow(1.1), shade.pow(1.2)], 1)
    return colour + (lit - colour) * (rgba[:, 3:] * shown[:, None, None, None])


def _upper_teeth(colour: Tensor, view: MouthView, plate: Plate, light: Light) -> Tensor:
    rgba = plate.sample(view.u, view.v)
    gain = (light.skin / plate.light.clamp_min(1.0)).clamp(0.3, 2.0)[:, :, None, None]
    bite = view.bite[:, None, None]
    # The lip's shadow: sharp beside its edge, soft below it; lips put forward shade more.
    close = 0.25 * torch.exp(-(view.above / 0.015).clamp_min(0)) + 0.15 * torch.exp(-(view.above / 0.06).clamp_min(0))
    shadow = 1 - close * (1 - 0.7 * bite)
    open_enough = _smooth((view.opening - 0.022 + 0.025 * view.spread) / 0.055) * (1 - 0.15 * view.rounded)
    open_enough = torch.maximum(torch.maximum(open_enough, view.bite), _HISS_LIT * view.hiss.sqrt())[:, None, None]
    shade = shadow * torch.lerp(_sheltered(view), 1 - 0.5 * view.x.square().clamp_max(1), bite)
    shade = shade * (0.35 + 0.65 * open_enough)
    if not plate.own:
        shade = shade * _side_light(view, light)
    lit = rgba[:, :3] * gain * torch.stack([shade, shade.pow(1.1), shade.pow(1.2)], 1)  # dim teeth look warm
    # Light reaches teeth through an opening, not through a slit.
    cover = rgba[:, 3:] * (0.10 + 0.90 * open_enough)[:, None]
    return colour + (lit - colour) * cover


def _sheltered(view: MouthView) -> Tensor:
    """How much of the light that falls on the face comes in, [B, H, W] 0..1: little beside the corners and in narrow
    parts of the opening."""
    height = (view.above + view.below).clamp_min(0)
    sides = 1 - 0.45 * view.x.abs().clamp(0, 1).pow(2.5)
    return sides * (_NARROW + (1 - _NARROW) * _smooth(height / 0.09))


def _side_light(view: MouthView, light: Light) -> Tensor:
    return 1 + light.slope[:, None, None] * view.u


def _row(colour: tuple[float, float, float], like: Tensor) -> Tensor:
    return like.new_tensor(colour)[None, :, None, None]


def _smooth(value: Tensor) -> Tensor:
    x = value.clamp(0, 1)
    return x * x * (3 - 2 * x)
