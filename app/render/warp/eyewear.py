"""What a picture shows where the eyes are: eyes, the frame of glasses, or neither."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from app.render.film import points
from app.render.film.pose import HeadPose

BRIDGE_CONTRAST = 0.15
"""Steps down and up, as a share of the mean brightness, that the bridge of glasses makes along the nose's root. Bare
faces stay below 0.10, thick rims make 0.3."""

EYE_CONTRAST = 1.35
"""The whites of eyes are at least so much brighter than iris and lashes; dark lenses and skin are even."""

_BELOW_EYES = 0.12  # units to which the nose's root is looked at
_ROOT_HALF_WIDTH = 0.06
_ROOT_DEPTH = -0.2  # w of the nose's root
_STEPS, _ACROSS = 50, 9
_RISE = 3  # steps over which brightness must change


def inside_eyes(picture: Tensor, pixels: Tensor) -> Tensor:
    """Brightness [N] of places between the lids. picture: [3, H, W] 0..255; pixels: [COUNT, 2]."""
    down = torch.linspace(0.25, 0.75, 7, device=pixels.device)[:, None, None]
    rows = [torch.lerp(pixels[list(upper)], pixels[list(lower)], down)[:, 1:-1] for upper, lower in points.LIDS]
    return _brightness(picture, torch.cat(rows, 1)).flatten()


def eyes_show(picture: Tensor, pixels: Tensor) -> bool:
    """Whether there are eyes between the lids, and not dark lenses, say."""
    dark, bright = inside_eyes(picture, pixels).quantile(pixels.new_tensor([0.3, 0.95])).tolist()
    return bool(bright >= EYE_CONTRAST * max(dark, 1.0))


def has_glasses(picture: Tensor, pose: HeadPose, shape: Tensor) -> bool:
    """Whether something dark or bright crosses the root of the nose. pose: B = 1; shape: [COUNT, 3] in head
    coordinates. Thin rims and rimless glasses are not seen."""
    top = float(torch.stack([shape[list(brow), 1].mean() for brow in points.BROWS]).mean())
    bottom = float(shape[list(points.EYE_CORNERS), 1].mean()) + _BELOW_EYES
    v = torch.linspace(top, bottom, _STEPS, device=shape.device)
    u = torch.linspace(-_ROOT_HALF_WIDTH, _ROOT_HALF_WIDTH, _ACROSS, device=shape.device)
    grid_v, grid_u = torch.meshgrid(v, u, indexing="ij")
    head = torch.stack([grid_u, grid_v, torch.full_like(grid_u, _ROOT_DEPTH)], -1)
    profile = _brightness(picture, pose.to_pixels(head.view(1, -1, 3))[0, :, :2].view(_STEPS, _ACROSS, 2)).mean(1)
    steps = (profile[_RISE:] - profile[:-_RISE]) / profile.mean().clamp_min(1.0)
    return bool((steps.amax() > BRIDGE_CONTRAST) & (steps.amin() < -BRIDGE_CONTRAST))


def _brightness(picture: Tensor, places: Tensor) -> Tensor:
    """At places [h, w, 2] in pixels."""
    extent = places.new_tensor([picture.shape[2] - 1, picture.shape[1] - 1]).clamp_min(1)
    grid = (places / extent * 2 - 1)[None]
    grey = picture.mean(0)[None, None]
    return functional.grid_sample(grey, grid, padding_mode="border", align_corners=True)[0, 0]
