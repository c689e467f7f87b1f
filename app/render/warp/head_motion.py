"""How small movements of the head show in a still picture: a field that fades out into the background.

The head turns about the joint below the skull as a solid body whose depth is a bowl fitted to the mesh: so a turn moves
the nose further than the ears. Movements are small (a few degrees), so that the field is linear in them, and the fields
of unit movements are made once per job. Hair goes with the head, neck and shoulders less the further down, the
background and the picture's border stay where they are.
"""

from __future__ import annotations

import torch
from torch import Tensor

from app.render.film import points
from app.render.film.pose import HeadPose
from app.render.film.region import Region
from app.render.warp.life import BROWS, DOWN, NEARER, NOD, RIGHT, TILT, TURN

_JOINT = (0.0, 0.30, 0.75)
"""Where the head turns, in head coordinates: between the ears' lobes, behind the jaw."""

_HEAD_CENTRE = -0.62  # v of the head's middle, hair included
_HEAD_HALF_WIDTH, _HEAD_HALF_HEIGHT = 0.92, 1.35
_FADE = 0.40  # how far outside that ellipse (as a share of it) the movement ends
_NECK_START, _NECK_END = -0.05, 0.70  # below the chin, in units: from all of the movement to none; shoulders are still
_NECK_WIDTH = 0.62  # of the head's width: what moves below the chin, collars stay
_BORDER = 0.45  # units from the picture's border within which the movement fades: no gap opens there
_BROW_LIFT = 0.034  # units at full raise
_FOREHEAD = 0.30  # units above the brows to which the skin follows


class HeadMotion:
    """Fields of one face in one still picture."""

    def __init__(self, pose: HeadPose, shape: Tensor, width: int, height: int) -> None:
        """pose: of the picture, B = 1; shape: [COUNT, 3] in head coordinates; size of the picture in pixels."""
        self._pose = pose
        self._shape = shape
        self._size = width, height
        self._chin = float(shape[points.CHIN_TIP, 1])
        self._bowl = _fit_bowl(shape)

    def region(self) -> Region:
        """The box of all that may move."""
        width, height = self._size
        reach = 1 + _FADE
        low, high = -_HEAD_HALF_WIDTH * reach, _HEAD_HALF_WIDTH * reach
        top, bottom = _HEAD_CENTRE - _HEAD_HALF_HEIGHT * reach, self._chin + _NECK_END
        corners = self._shape.new_tensor([[low, top], [high, top], [low, bottom], [high, bottom]])
        pose = self._pose
        flat = (corners @ pose.flat()[0].T * pose.scale[0] + pose.origin[0, :2]).cpu()
        first, last = flat.amin(0).floor().long(), flat.amax(0).ceil().long() + 1
        left, above = int(first[0].clamp(0, width - 1)), int(first[1].clamp(0, height - 1))
        right, below = int(last[0].clamp(left + 1, width)), int(last[1].clamp(above + 1, height))
        return Region(torch.tensor([left]), torch.tensor([above]), right - left, below - above)

    def fields(self, knots: Tensor) -> Tensor:
        """Fields of unit movements, [7, rows, columns, 2] in units, at knots [rows, columns, 2] (units from the
        head's origin, axes as in the picture): how far what is there moves."""
        pose = self._pose
        rotation = pose.rotation[0]
        flat = knots @ torch.linalg.inv(rotation[:2, :2]).T
        u, v = flat[..., 0], flat[..., 1]
        head = torch.stack([u, v, self._depth(u, v)], -1)
        arm = (head - head.new_tensor(_JOINT)) @ rotation.T
        fields = knots.new_zeros(7, *knots.shape)
        # Axes of a nod (chin down), a turn (to the picture's right) and a tilt (clockwise), in head coordinates.
        for movement, axis in ((NOD, (1.0, 0.0, 0.0)), (TURN, (0.0, -1.0, 0.0)), (TILT, (0.0, 0.0, 1.0))):
            turned = rotation @ rotation.new_tensor(axis)
            fields[movement] = torch.linalg.cross(turned.expand_as(arm), arm)[..., :2]
        fields[RIGHT, ..., 0] = 1.0
        fields[DOWN, ..., 1] = 1.0
        fields[NEARER] = arm[..., :2]
        fields *= (self._weight(u, v) * self._inside(knots))[..., None]
        lift = rotation[:2, :2] @ rotation.new_tensor([0.0, -_BROW_LIFT])
        fields[BROWS] = self._brows(u, v)[..., None] * lift
        return fields

    def _depth(self, u: Tensor, v: Tensor) -> Tensor:
        """w of the head's front at u, v."""
        base, rise = self._bowl
        return base + rise * _radius(u, v).square().clamp_max(1.4)

    def _weight(self, u: Tensor, v: Tensor) -> Tensor:
        # Below the mouth the head becomes neck: it gets narrower, and fades downward, where the neck bends.
        width = 1 - (1 - _NECK_WIDTH) * _smooth((v - 0.3 * self._chin) / (0.7 * self._chin))
        sideways = _smooth((1 + _FADE - _radius(u / width, v.clamp_max(_HEAD_CENTRE))) / _FADE)
        below = _smooth((self._chin + _NECK_END - v) / (_NECK_END - _NECK_START))
        return sideways * below

    def _inside(self, knots: Tensor) -> Tensor:
        """0 at the picture's border, 1 well inside."""
        scale, origin = self._pose.scale[0], self._pose.origin[0, :2]
        pixels = knots * scale + origin
        far = torch.minimum(pixels, pixels.new_tensor(self._size) - 1 - pixels).amin(-1) / scale
        return _smooth(far / _BORDER)

    def _brows(self, u: Tensor, v: Tensor) -> Tensor:
        """1 at the brows, fading to the forehead, and to nothing at the lids."""
        weight = torch.zeros_like(u)
        for brow, (lid, _) in zip(points.BROWS, points.LIDS, strict=True):
            at = self._shape[list(brow)]
            line = at[:, 1].mean()
            gap = (self._shape[list(lid), 1].amin() - line).clamp_min(0.06)
            middle, half = at[:, 0].mean(), (at[-1, 0] - at[0, 0]) / 2 + 0.10
            across = _smooth((1.5 - (u - middle).abs() / half) / 0.8)
            above = torch.exp(-0.5 * ((v - line).clamp_max(0) / _FOREHEAD).square())
            below = _smooth(1 - (v - line).clamp_min(0) / (0.85 * gap))
            weight = torch.maximum(weight, across * above * below)
        return weight


def _radius(u: Tensor, v: Tensor) -> Tensor:
    """Distance from the head's middle as a share of the head's ellipse."""
    return ((u / _HEAD_HALF_WIDTH).square() + ((v - _HEAD_CENTRE) / _HEAD_HALF_HEIGHT).square()).sqrt()


def _fit_bowl(shape: Tensor) -> tuple[float, float]:
    """Least squares w = base + rise * radius² through the mesh."""
    squared = _radius(shape[:, 0], shape[:, 1]).square().double()
    system = torch.stack([torch.ones_like(squared), squared], 1)
    base, rise = torch.linalg.lstsq(system, shape[:, 2].double()[:, None]).solution[:, 0].tolist()
    return base, rise


def _smooth(value: Tensor) -> Tensor:
    x = value.clamp(0, 1)
    return x * x * (3 - 2 * x)
