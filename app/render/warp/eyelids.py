"""Eyes that blink: the skin between brow and lid is drawn down over the eye, with the lashes on its edge.

In the frame of each eye (x along the line of its corners, y down) every column is its own: the skin above the lid's
edge is stretched from a line that stays (the fold, somewhat below the brow: rims of glasses above it stay too), the
skin below the lower lid's edge a little upward; between the edges the eye itself stays as it is. Lashes that point up
before the lid's skin in the photo turn over as it falls: they are left out of that skin, and hang mirrored below it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from app.render.film import points
from app.render.film.pose import HeadPose
from app.render.film.region import Region
from app.render.warp.aperture import Aperture, aperture

SHUT_ALREADY = 0.045
"""Eyes less open than this (units) do not blink: they are shut or squint."""

_UPPER_TRAVEL = 0.88  # of the opening; the lower lid comes the rest of the way
_LASHES = 0.014  # below the mesh's line, in units, still belongs to the lid: the dark root of the lashes
_LASH_LENGTH = 0.055  # above the mesh's line, in units, lashes stand before the lid
_BEYOND = 1.35  # of the eye's half width: where the lid's movement ends
_ROOTS = 0.036  # as far above the lid's edge, in units, a shut lid shows no more: lashes, and iris that the mesh missed
_MOST_ROOTS = 0.33  # of the skin down to the lid's edge at most: the rest must be enough to stretch
_WET = 0.013  # below the mesh's lower line, in units, still belongs to the eye: the wet edge and its glints
_WETTER = 0.006  # and what more of it shows no more in shut ones: its last glints
_FOLD = 0.72  # of the way from the lid to the brow takes part
_FOLD_LIMITS = (0.06, 0.16)  # units
_BELOW = 0.10  # units of skin below the lower lid that take part
_SHADOW = 0.22  # how much the lid darkens the eye right under its edge
_SHADOW_REACH = 0.022  # units
_CREASE = 0.010  # a shut lid's fold lies so far above where its edge was, in units
_CREASE_DEPTH, _CREASE_WIDTH = 0.07, 0.014  # how dark it is, and half how wide, in units
_BULGE = 0.03  # how much lighter the lid is over the eyeball than at the sides
_LASH_LINE = 0.008  # half the thickness, in units, of the dark line in which shut lids meet
_LASH_BRIGHTNESS = 0.42  # of the skin's: shadow and lashes hide what the mesh's line left of the eye
_LINE_FROM = 0.55  # closure from which the line is drawn
_MARGIN = 0.05  # units around the eye's box: as far as the head's movement and the blend reach


@dataclass(frozen=True)
class _Eye:
    opening: Aperture
    fold: float


class Eyelids:
    """The lids of one face in one still picture."""

    def __init__(self, pose: HeadPose, pixels: Tensor) -> None:
        """pose: of the picture, B = 1; pixels: [COUNT, 3] where the points are in it."""
        self._scale = float(pose.scale[0])
        places = (pixels[:, :2] - pose.origin[0, :2]) / pose.scale[0]
        self._eyes = [
            eye
            for (upper, lower), brow in zip(points.LIDS, points.BROWS, strict=True)
            if (eye := _eye(places[list(upper)], places[list(lower)], places[list(brow)])) is not None
        ]

    @property
    def can_blink(self) -> bool:
        """Whether both eyes are seen open."""
        return len(self._eyes) == len(points.LIDS)

    def boxes(self, region: Region, at: Tensor, shift: float) -> list[tuple[slice, slice]]:
        """Rows and columns of the region in which each eye's lids move; `at` [2] are the units of its first pixel,
        `shift` how far the head's movement may take them."""
        found = []
        for eye in self._eyes:
            half = float(eye.opening.half[0])
            reach_y = half * abs(float(eye.opening.axis[0, 1])) + max(eye.fold + half * 0.5, _BELOW)
            reach = at.new_tensor([half * 1.1, reach_y]) + _MARGIN + shift
            first = ((eye.opening.middle[0] - reach - at) * self._scale).tolist()
            last = ((eye.opening.middle[0] + reach - at) * self._scale).tolist()
            rows = slice(max(0, int(first[1])), min(region.height, int(last[1]) + 2))
            columns = slice(max(0, int(first[0])), min(region.width, int(last[0]) + 2))
            found.append((rows, columns))
        return found

    def shut(self, number: int, patch: Tensor, near: Tensor, closure: Tensor, look: Callable[[Tensor], Tensor]) -> None:
        """Draw the lids of eye `number` over `patch` [B, 3, h, w] whose pixels show the places `near` [B, h, w, 2].

        closure: [B] 0 as in the picture .. 1 shut; look: colours [B, 3, h, w] of the picture at places.
        """
        eye = self._eyes[number]
        opening = eye.opening.expand(len(patch))
        x, y = opening.local(near)
        upper, lower = opening.curves(x).unbind(1)
        gap = lower - upper
        share = gap / opening.height().clamp_min(1e-3)[:, None, None]
        edge, lower = upper + _LASHES * share, lower + (_WET + _WETTER * closure[:, None, None]) * share
        travelled = closure[:, None, None]
        turned = _smooth((travelled - 0.2) / 0.6)  # how far lashes have
        # Lashes, and the lid's dark line, are as long beside the corners, and go on a little beyond them.
        along = turned * _smooth((_BEYOND - x.abs() / opening.half[:, None, None]) / 0.4)
        meeting = edge + (lower - edge) * _UPPER_TRAVEL
        new_edge = edge + travelled * (meeting - edge)
        new_lower = lower + travelled * (meeting - lower)

        top = -eye.fold + upper
        lid = _stretched(y, top, new_edge, edge - along * min(_ROOTS, _MOST_ROOTS * eye.fold))
        bottom = lower + _BELOW
        under = torch.where(y > new_lower, -_stretched(-y, -bottom, -new_lower, -lower), y)
        axis = opening.axis[:, None, None]
        down = torch.stack([-axis[..., 1], axis[..., 0]], -1)
        skin = look(near + (lid - y)[..., None] * down)
        below = look(near + (under - y)[..., None] * down)
        under_lid = (y - new_edge).clamp_min(0) / _SHADOW_REACH
        shade = 1 - _SHADOW * travelled.clamp_max(0.3) / 0.3 * torch.exp(-under_lid) * (y < new_lower)
        below = below * shade[:, None]
        hanging = y - new_edge
        mirrored = look(near + (upper - hanging - y)[..., None] * down)
        below = below * _lash_shade(mirrored, hanging, along * _LASH_LENGTH)[:, None]
        skin = skin * _relief(x, y, opening, upper, new_edge, turned, share)[:, None]
        cover = ((new_edge - y) * self._scale + 0.5).clamp(0, 1)[:, None]
        blended = _lined(torch.lerp(below, skin, cover), hanging / _LASH_LINE, closure, share, patch)
        moving = (closure > 0)[:, None, None, None]
        patch.copy_(torch.where(moving, blended, patch))


def _eye(upper: Tensor, lower: Tensor, brow: Tensor) -> _Eye | None:
    opening = aperture(upper[None], lower[None])
    if float(opening.height()[0]) < SHUT_ALREADY:
        return None
    above = float((upper[2:-2] - brow[1:].mean(0)).norm(dim=1).mean())
    low, high = _FOLD_LIMITS
    return _Eye(opening, min(max(above * _FOLD, low), high))


def _lash_shade(mirrored: Tensor, hanging: Tensor, length: Tensor) -> Tensor:
    """How much lashes leave of what is `hanging` [B, h, w] below the lid's edge, [B, h, w] 0..1.

    mirrored: [B, 3, h, w] what the photo shows so far above the edge; length: [B, h, w] of the lashes there (units).
    The brightest of each column counts as skin without lashes.
    """
    grey = mirrored.mean(1)
    within = (hanging >= 0) & (hanging < length)
    bare = torch.where(within, grey, 0.0).amax(1, keepdim=True).clamp_min(1.0)
    fade = (1 - hanging / length.clamp_min(1e-4)).clamp(0, 1).sqrt()
    return torch.where(within, 1 + fade * ((grey / bare).clamp(0.25, 1) - 1), 1.0)


def _relief(
    x: Tensor, y: Tensor, opening: Aperture, upper: Tensor, edge: Tensor, turned: Tensor, share: Tensor
) -> Tensor:
    """Light on a lid that falls to `edge`, as a factor [B, h, w]: the crease that forms above it, and the eyeball's
    bulge below that."""
    crease = upper - _CREASE
    away = (y - crease) / _CREASE_WIDTH
    fold = _CREASE_DEPTH * torch.exp(-torch.where(away < 0, away * 0.6, away).square())
    within = ((y - crease) / (edge - crease).clamp_min(1e-3)).clamp(0, 1)
    across = (x / opening.half[:, None, None]).square()
    bulge = _BULGE * (4 * within * (1 - within)) * (1 - 1.5 * across)
    return 1 + turned * (2 * share).clamp_max(1) * (bulge - fold)


def _lined(picture: Tensor, away: Tensor, closure: Tensor, share: Tensor, around: Tensor) -> Tensor:
    """`picture` [B, 3, h, w] with nothing brighter than lashes where `away` [B, h, w] from the lids' meeting is small.

    Glints and the white of the eye in the seam of shut lids give a drawn blink away. share: [B, h, w] how far the eye
    was open there; around: [B, 3, h, w] where the skin's colour is read.
    """
    dark = around.mean((2, 3), keepdim=True) * _LASH_BRIGHTNESS
    amount = ((closure - _LINE_FROM) / (1 - _LINE_FROM)).clamp(0, 1)[:, None, None] * (3 * share).clamp(0, 1)
    weight = (amount * torch.exp(-away.square().square()))[:, None]
    return torch.lerp(picture, torch.minimum(picture, dark), weight)


def _stretched(y: Tensor, fixed: Tensor, moved: Tensor, origin: Tensor) -> Tensor:
    """Where y between a line that stays (`fixed`) and one that has moved from `origin` to `moved` (all growing along
    y) comes from: a cubic that meets both lines without a kink and keeps the skin next to the edge unstretched."""
    span = (moved - fixed).clamp_min(1e-4)
    t = ((y - fixed) / span).clamp(0, 1)
    length = (origin - fixed).clamp_min(1e-4)
    slope = (span / length).clamp(0, 2.6)
    t2, t3 = t * t, t * t * t
    value = (-2 * t3 + 3 * t2) + (t3 - 2 * t2 + t) * slope + (t3 - t2) * slope
    beyond = y - moved + origin
    return torch.where(y < fixed, y, torch.where(y > moved, beyond, fixed + length * value))


def _smooth(value: Tensor) -> Tensor:
    x = value.clamp(0, 1)
    return x * x * (3 - 2 * x)
