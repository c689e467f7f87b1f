"""Eyes that look about: the iris slides between the lids, the white gives way, the upper lid goes along up and down.

In the frame of each eye (x along the line of its corners, y down) two fields are made once per picture: how far what is
seen at a place has come when the gaze turns by one radian to the right, and down. For small turns the movement is
linear in them. The iris moves as a whole; the white beside it is stretched or pressed together towards the corners,
which stay. Sideways the eye slides behind both lids; up and down the upper lid keeps its place on the iris (lids and
eyes move by the same angles: Becker & Fuchs, J Neurophysiol 1988) and the lower one follows by a quarter (Leite et al.,
Braz J Med Biol Res 2010).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from app.render.film import points
from app.render.film.pose import HeadPose
from app.render.film.region import Region
from app.render.warp.aperture import Aperture, aperture
from app.render.warp.lattice import Lattice

LEAST_RADIUS = 3.0
"""Pixels; smaller irises stay where they are: they would move by less than anyone sees."""

_ARM = 1.7  # from the eye's centre of rotation to the iris, in radii of the iris (10 of 5.9 mm)
_RADII = (0.05, 0.085)  # units: what else the mesh calls an iris is none
_HIDDEN = 0.6  # of the iris's height at least lies between the lids
_INSIDE = 0.93  # of the way to the corners is eyeball
_LIMBUS = 1.08  # radii of the iris move as one
_YIELD = 0.55  # of its width, the white is pressed together or stretched at most
_UP, _DOWN = 0.07, 0.10  # radians at most: further up and down lids would have to fold anew
_ABOVE, _WET = 0.016, 0.008  # units above the mesh's upper line and below its lower one to which the eye is seen
_SEAM = 0.008  # half as wide as the change from eye to lid, in units
_ALONG, _ALONG_IRIS = 0.035, 0.008  # this near a lid, what slides behind it keeps its distance from it
_LID, _BELOW = 0.07, 0.08  # units of skin above the upper and below the lower lid that go along
_LOWER_SHARE = 0.25
_MARGIN = 0.02  # units around what moves


@dataclass(frozen=True)
class _Field:
    """Where the field lies in the region (`box`, in pixels: left, top, right, bottom), and its values
    [1, 4, h, w]: right and down for a turn to the right, right and down for one down, as `grid_sample` counts."""

    box: tuple[int, int, int, int]
    values: Tensor


class Eyeballs:
    """The eyes of one face in one still picture."""

    def __init__(self, fields: list[_Field], limits: Tensor, region: Region) -> None:
        """limits: [2, 2] the least and the greatest turn to the right and down, in radians."""
        self._fields, self._limits = fields, limits
        self._half = limits.new_tensor([max(region.width - 1, 1), max(region.height - 1, 1)]) / 2
        self._size = region.width, region.height

    def turn_in(self, grid: Tensor, gaze: Tensor, shift: float) -> None:
        """Turn both eyes in the whole region's `grid` [B, H, W, 2] as `turn` does; the head's movement takes them no
        further than `shift` pixels away."""
        reach, (width, height) = int(shift) + 1, self._size
        for number, field in enumerate(self._fields):
            left, top, right, bottom = field.box
            rows = slice(max(0, top - reach), min(height, bottom + reach))
            columns = slice(max(0, left - reach), min(width, right + reach))
            grid[:, rows, columns] = self.turn(number, grid[:, rows, columns], gaze)

    def turn(self, number: int, grid: Tensor, gaze: Tensor) -> Tensor:
        """Where pixels that see the places `grid` [B, h, w, 2] of the picture (as `grid_sample` counts) see them when
        eye `number` has turned by `gaze` [B, 2] radians to the right and down."""
        field = self._fields[number]
        left, top, right, bottom = field.box
        first, last = grid.new_tensor([left, top]), grid.new_tensor([right - 1, bottom - 1])
        within = (grid + 1) * (2 * self._half / (last - first)) - (last + first) / (last - first)
        values = field.values.expand(len(grid), -1, -1, -1)
        moved = functional.grid_sample(values, within, align_corners=True)
        turned = torch.minimum(torch.maximum(gaze, self._limits[0]), self._limits[1])
        return grid - torch.einsum("bg,bgchw->bhwc", turned, moved.view(len(grid), 2, 2, *moved.shape[2:]))


@dataclass(frozen=True)
class _Eye:
    """`centre` [2] of the iris in the opening's own frame, and its radius, in units."""

    opening: Aperture
    centre: Tensor
    radius: float

    @property
    def half(self) -> float:
        """Half the width of the opening."""
        return float(self.opening.half[0])

    def room(self) -> tuple[float, float]:
        """Width of the white that can be seen left and right of the iris."""
        reach, middle, iris = self.half * _INSIDE, float(self.centre[0]), self.radius * _LIMBUS
        return max(0.0, middle - iris + reach), max(0.0, reach - middle - iris)

    def limits(self) -> Tensor:
        """[2, 2] the least and the greatest turn to the right and down, in radians."""
        # A smooth step is one and a half times as steep in its middle as on average.
        left, right = (_YIELD / 1.5 * room / (_ARM * self.radius) for room in self.room())
        return self.centre.new_tensor([[-left, -_UP], [right, _DOWN]])


def find_eyeballs(pose: HeadPose, pixels: Tensor, region: Region, lattice: Lattice) -> Eyeballs | None:
    """The eyes in a picture, or None where it does not show two irises that could move.

    pose: of the picture, B = 1; pixels: [COUNT, 3] the mesh's points in it; region, lattice: as of its `Ground`.
    """
    scale = float(pose.scale[0])
    places = (pixels[:, :2] - pose.origin[0, :2]) / scale
    fields, limits = [], []
    for (upper, lower), iris in zip(points.LIDS, points.IRISES, strict=True):
        opening = aperture(places[list(upper)][None], places[list(lower)][None])
        eye = _eye(opening, places[list(iris)])
        if eye is None or eye.radius * scale < LEAST_RADIUS:
            return None
        fields.append(_field(eye, region, lattice, scale))
        limits.append(eye.limits())
    low, high = torch.stack(limits).unbind(1)
    return Eyeballs(fields, torch.stack([low.amax(0), high.amin(0)]), region)


def _eye(opening: Aperture, iris: Tensor) -> _Eye | None:
    """iris: [5, 2] places of its centre and four places of its edge."""
    radius = float((iris[1:] - iris[0]).norm(dim=1).mean())
    x, y = (value[0, 0, 0] for value in opening.local(iris[None, None, :1]))
    upper, lower = opening.curves(x.view(1, 1, 1))[0, :, 0, 0]
    seen = float((lower - upper) / (2 * radius))
    inside = float(upper) < float(y) < float(lower) and abs(float(x)) < float(opening.half[0])
    if not (_RADII[0] < radius < _RADII[1] and inside and seen > 1 - _HIDDEN):
        return None
    return _Eye(opening, torch.stack([x, y]), radius)


def _field(eye: _Eye, region: Region, lattice: Lattice, scale: float) -> _Field:
    half = eye.half
    reach = torch.tensor([half, half * abs(float(eye.opening.axis[0, 1])) + 0.1 + max(_LID, _BELOW)]) + _MARGIN
    middle = (eye.opening.middle[0] - lattice.at[0]).cpu()
    left, top = ((middle - reach) * scale).floor().long().tolist()
    right, bottom = ((middle + reach) * scale).ceil().long().tolist()
    left, top, right, bottom = max(0, left), max(0, top), min(region.width, right), min(region.height, bottom)
    rows, columns = torch.meshgrid(torch.arange(top, bottom), torch.arange(left, right), indexing="ij")
    seen = torch.stack([columns, rows], 2).to(lattice.at)[None] / scale + lattice.at[0]
    across, down = _turns(eye, seen)
    axis = eye.opening.axis[0]
    turned = torch.stack([axis, torch.stack([-axis[1], axis[0]])])  # from the eye's frame to the picture's
    size = lattice.at.new_tensor([max(region.width - 1, 1), max(region.height - 1, 1)]) / 2
    values = torch.cat([field @ turned for field in (across, down)], 3) * (scale * _ARM * eye.radius)
    values = values * torch.cat([1 / size, 1 / size])
    return _Field((left, top, right, bottom), values.permute(0, 3, 1, 2).contiguous())


def _turns(eye: _Eye, seen: Tensor) -> tuple[Tensor, Tensor]:
    """How far what is seen at `seen` [1, h, w, 2] (units) goes with a turn to the right and one down, [1, h, w, 2] in
    the eye's frame; 1 is as far as the iris."""
    opening, half = eye.opening, eye.half
    x, y = opening.local(seen)
    upper, lower = opening.curves(x).unbind(1)
    share = ((lower - upper) / opening.height()).clamp(0, 1)
    upper, lower = upper - _ABOVE * share, lower + _WET * share
    above, below = y - upper, lower - y
    left, right = eye.room()
    gap = torch.where(x < eye.centre[0], left, right)
    aside = 1 - _smooth(((x - eye.centre[0]).abs() - eye.radius * _LIMBUS) / gap.clamp_min(1e-3))
    inside = _smooth((above / _SEAM + 1) / 2) * _smooth((below / _SEAM + 1) / 2)
    step = 0.01
    slopes = (opening.curves(x + step) - opening.curves(x - step)) / (2 * step)
    # The iris and what is mirrored in it keep their shape.
    iris = torch.stack([x - eye.centre[0], y - eye.centre[1]]).norm(dim=0) / eye.radius
    reach = torch.lerp(torch.full_like(iris, _ALONG_IRIS), torch.full_like(iris, _ALONG), _smooth((iris - 1) / 0.4))
    rise = slopes[:, 0] * _smooth(1 - above / reach) + slopes[:, 1] * _smooth(1 - below / reach)
    across = torch.stack([inside * aside, inside * aside * rise], 3)

    lid = 1 - _smooth((x.abs() / half - 0.35) / 0.65)
    eyeball = torch.lerp(lid * 0.5, torch.ones_like(lid), aside)
    low = _smooth((y - eye.centre[1] - 0.2 * eye.radius) / (lower - eye.centre[1] - 0.2 * eye.radius).clamp_min(0.01))
    down = torch.lerp(eyeball, lid * _LOWER_SHARE, low)
    down = torch.where(above < 0, lid * _smooth(1 + above / _LID), torch.lerp(lid, down, _smooth(above / 0.02)))
    down = torch.where(below < 0, lid * _LOWER_SHARE * _smooth(1 + below / _BELOW), down)
    return across, torch.stack([torch.zeros_like(down), down], 3)


def _smooth(value: Tensor) -> Tensor:
    x = value.clamp(0, 1)
    return x * x * (3 - 2 * x)
