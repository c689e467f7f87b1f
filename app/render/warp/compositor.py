"""Puts the moved face into frames: warp, mouth interior, lids, and all of it back into the picture."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from app.render.film import points
from app.render.film.pose import HeadPose
from app.render.film.region import Region
from app.render.warp.animation import LowerFace
from app.render.warp.aperture import Aperture, aperture, lower_side
from app.render.warp.eyelids import Eyelids
from app.render.warp.eyewear import eyes_show
from app.render.warp.field import LATTICE_STEP, SplitField, inside_lips
from app.render.warp.gestures import Gestures
from app.render.warp.ground import Ground, ground_of, ground_of_still, planes
from app.render.warp.interior import MouthView, paint
from app.render.warp.lattice import Box, Lattice, extent
from app.render.warp.lighting import Light
from app.render.warp.mask import LowerFaceMask
from app.render.warp.rest import PARTED_GAP
from app.render.warp.skin import SkinWeights
from app.render.warp.subject import Subject, TeethPlane
from app.render.warp.teeth import Plate

_MOUTH_MARGIN = 2 * LATTICE_STEP  # around the lips' inner contours: as far as a change at a knot is felt
_EDGE = 0.007  # softness of the lips' inner edge, in units (at least a pixel)
_FOLDS_MOVE = 0.25  # units that speech moves the skin at most
_CHUNK_PIXELS = 800_000  # pixels of patches worked on at once: bounds memory, and what fits caches goes faster


class Compositor:
    """Renders one subject. Deterministic."""

    def __init__(self, subject: Subject, plate: Plate, device: torch.device, still: Tensor | None = None) -> None:
        """`subject` lies on `device`; `still` [H, W, 3] uint8 is the source where all frames show the same picture."""
        self._still = still
        self._device = device
        self._plate = plate.to(device)
        self._mask = LowerFaceMask(subject.rest.shape)
        self._field = SplitField(device)
        self._subject = subject
        self._seen = subject.rest.seen
        self._depth = subject.teeth_depth
        self._seam = float(subject.rest.shape[list(points.INNER_UPPER), 1][4:7].mean())
        self._hold = SkinWeights(subject.rest.shape).hold()
        self._grounds: dict[bool, Ground] = {}  # of a still source: with and without movements, made once
        self._lids = None if still is None else Eyelids(subject.poses, subject.pixels[0])
        self._can_blink = still is not None and eyes_show(planes(still, device), subject.pixels[0, :, :2])

    @property
    def can_blink(self) -> bool:
        """Whether this is a still picture with both eyes seen open."""
        return self._can_blink and self._lids is not None and self._lids.can_blink

    @property
    def can_look_about(self) -> bool:
        """Whether this is a still picture with irises large and clear enough to be moved."""
        ground = self._still_ground(True) if self.can_blink else None
        return ground is not None and ground.eyes is not None

    def render_into(
        self, frames: Tensor, which: Tensor, numbers: Tensor, face: LowerFace, gestures: Gestures | None = None
    ) -> None:
        """Give the faces in `frames[which]` (frames [B, H, W, 3] uint8, which [N]) the shapes `face` [N].

        numbers: [N] which frame of the source each of them is. gestures: [N], of a still source only; all calls for
        one picture have them or none has. Where it raises (a device's memory runs out, say), the frames are as they
        were.
        """
        pose = self._subject.poses.at(numbers.to(self._device))
        pixels = self._subject.pixels[numbers.to(self._device)]
        still = self._still_ground(gestures is not None)
        region = self._mask.region(pose, frames.shape[2], frames.shape[1]) if still is None else still.region
        step = max(1, _CHUNK_PIXELS // (region.width * region.height))
        drawn: list[tuple[Region, Tensor, Tensor]] = []
        for first in range(0, len(which), step):
            part = slice(first, first + step)
            rows = which[part]
            if still is None:
                here = region.part(part)
                ground = ground_of(here, here.cut(frames, rows), pixels[part], pose.part(part))
            else:
                here, ground = region.expand(len(rows)), still
            acts = None if gestures is None else gestures.part(part)
            moved = self.compose(ground, pixels[part], pose.part(part), face.part(part), acts)
            drawn.append((here, rows, moved.cpu()))
        for here, rows, moved in drawn:
            here.paste(frames, rows, moved)

    def compose(
        self, ground: Ground, pixels: Tensor, pose: HeadPose, face: LowerFace, gestures: Gestures | None = None
    ) -> Tensor:
        """New patches [B, h, w, 3] uint8.

        pixels: [B, COUNT, 3] where the points are in the source frames; pose: [B]; face: the shapes wanted, [B];
        gestures: [B], where the ground has movements.
        """
        frames = len(face.jaw)
        # Places are in units from the head's origin, axes as in the picture.
        now = (pixels[..., :2] - pose.origin[:, None, :2]) / pose.scale[:, None, None]
        seen, wanted = self._turned(pose, self._seen[None]), self._turned(pose, face.shape)
        goal = now + self._hold[:, None] * (seen - now) + (wanted - seen)

        lattice = ground.lattice
        # What each knot shows of the head that has not moved: all that follows happens there.
        places, shift = lattice.knots.expand(frames, -1, -1, -1), 0.0
        if gestures is not None and ground.movements is not None:
            moved = torch.einsum("bm,mrcx->brcx", gestures.moves, ground.movements)
            places, shift = places - moved, float(moved.abs().amax())
        mouth = aperture(goal[:, list(points.INNER_UPPER)], goal[:, list(points.INNER_LOWER)])
        fields = self._fields(mouth, goal, now, places, pose) * face.amount[:, None, None, None, None]
        box = self._mouth_box(mouth, ground, pose.scale, shift)
        near = lattice.dense(places, box)
        grid = self._grid(mouth, lattice, places, fields, near, box)
        if gestures is not None and ground.eyes is not None and bool(gestures.gaze.any()):
            ground.eyes.turn_in(grid, gestures.gaze, shift * float(pose.scale[0]))
        warped = _sampled(ground.source, grid)
        if ground.folds is not None:
            ground.folds.deepen(warped, grid, face, int((shift + _FOLDS_MOVE) * float(pose.scale[0])))
        parted = ((_lip_gaps(now) - PARTED_GAP) / 0.02).clamp(0, 1)
        self._fill(warped[:, :, box[0], box[1]], near, mouth, face, pose, ground.light.expand(frames), parted)
        if gestures is not None and bool((gestures.lids > 0).any()):
            self._blink(warped, ground, places, gestures, shift)
        return warped.add_(0.5).clamp_(0, 255).to(torch.uint8).permute(0, 2, 3, 1)

    def _still_ground(self, moving: bool) -> Ground | None:
        if self._still is not None and moving not in self._grounds:
            self._grounds[moving] = ground_of_still(self._still, self._subject, self._mask, moving=moving)
        return self._grounds.get(moving)

    def _turned(self, pose: HeadPose, shape: Tensor) -> Tensor:
        """Head coordinates [B, COUNT, 3] as seen, in units from the head's origin [B, COUNT, 2]."""
        return shape @ pose.rotation[:, :2].mT

    def _fields(self, mouth: Aperture, goal: Tensor, now: Tensor, places: Tensor, pose: HeadPose) -> Tensor:
        """Displacements of both layers at the knots, faded out towards the border: [B, 2, rows, columns, 2], units."""
        plane = TeethPlane(pose, 0.0).to_plane(places)
        weight = self._mask.weight(plane[..., 0], plane[..., 1])
        fields = places.new_zeros(len(goal), 2, *places.shape[1:])
        rows, columns = extent(weight)
        inner = places[:, rows, columns]
        source = inside_lips(now, mouth.height(), 1 / pose.scale)
        moved = self._field.displacements(goal, source, inner.flatten(1, 2))
        fields[:, :, rows, columns] = moved.view(len(goal), 2, *inner.shape[1:]) * weight[:, None, rows, columns, None]
        return fields

    def _grid(
        self, mouth: Aperture, lattice: Lattice, places: Tensor, fields: Tensor, near: Tensor, box: Box
    ) -> Tensor:
        """Where in the source each pixel comes from through the fields, [B, h, w, 2] as `grid_sample` counts.

        Away from the mouth one side's field holds, chosen at the knots; within `box`, whose places are `near`, every
        pixel chooses.
        """
        offsets = lattice.sampling(fields + (places - lattice.knots)[:, None])
        at_knots = _side(mouth, places)[..., None]
        grid = lattice.dense(torch.lerp(offsets[:, 0], offsets[:, 1], at_knots))
        both = lattice.dense(offsets, box)
        grid[:, box[0], box[1]] = torch.lerp(both[:, 0], both[:, 1], _side(mouth, near)[..., None])
        return grid

    def _blink(self, warped: Tensor, ground: Ground, places: Tensor, acts: Gestures, shift: float) -> None:
        assert self._lids is not None
        for number, box in enumerate(self._lids.boxes(ground.region, ground.lattice.at[0], shift)):
            patch = warped[:, :, box[0], box[1]]
            near = ground.lattice.dense(places, box)

            def look(there: Tensor, number: int = number) -> Tensor:
                grid = ground.lattice.sampling_at(there)
                return _sampled(
                    ground.source, grid if ground.eyes is None else ground.eyes.turn(number, grid, acts.gaze)
                )

            self._lids.shut(number, patch, near, acts.lids, look)

    def _fill(
        self,
        patch: Tensor,
        near: Tensor,
        mouth: Aperture,
        face: LowerFace,
        pose: HeadPose,
        light: Light,
        parted: Tensor,
    ) -> None:
        """Paint the mouth's inside into `patch` [B, 3, h, w], whose places are `near`."""
        x, y = mouth.local(near)
        curves = mouth.curves(x)
        above, below = y - curves[:, 0], curves[:, 1] - y
        plane = TeethPlane(pose, self._depth).to_plane(near)
        across = x / mouth.half[:, None, None]
        speaking = (mouth.height(), face.jaw, face.spread, face.rounded, face.bite, face.hiss, 1 / pose.scale)
        view = MouthView(plane[..., 0], plane[..., 1], across, above, below, *speaking)
        inside = paint(view, self._plate, light, self._seam)
        edge = (1 / pose.scale).clamp_min(_EDGE)[:, None, None]
        # Lips that were parted in the source have no line of their own where they meet now.
        line = torch.maximum(parted, (view.opening / 0.02).clamp(0, 1))[:, None, None] * 0.5
        cover = (torch.minimum(above, below) / edge + line).clamp(0, 1) * ((1 - across.abs()) / 0.06).clamp(0, 1)
        cover = cover * face.amount[:, None, None]
        patch += (inside - patch) * cover[:, None]

    def _mouth_box(self, mouth: Aperture, ground: Ground, scale: Tensor, shift: float) -> Box:
        """Rows and columns of the region that hold the mouths of the batch and what is near them, wherever in the
        reach of `shift` (units) the head's movement takes them."""
        reach_x = mouth.half * 1.1 + _MOUTH_MARGIN + shift
        reach_y = mouth.half * mouth.axis[:, 1].abs() + mouth.table.abs().amax((1, 2, 3)) + _MOUTH_MARGIN + shift
        reach = torch.stack([reach_x, reach_y], 1)
        region, at = ground.region, ground.lattice.at
        first = ((mouth.middle - reach - at) * scale[:, None]).amin(0).tolist()
        last = ((mouth.middle + reach - at) * scale[:, None]).amax(0).tolist()
        left, top = max(0, int(first[0])), max(0, int(first[1]))
        right, bottom = min(region.width, int(last[0]) + 2), min(region.height, int(last[1]) + 2)
        return slice(min(top, region.height - 1), max(bottom, top + 1)), slice(
            min(left, region.width - 1), max(right, left + 1)
        )


def _sampled(source: Tensor, grid: Tensor) -> Tensor:
    """The source [B or 1, 3, h, w] at grid [B, h, w, 2]."""
    return functional.grid_sample(
        source.expand(len(grid), -1, -1, -1), grid, mode="bicubic", padding_mode="border", align_corners=True
    )


def _side(mouth: Aperture, places: Tensor) -> Tensor:
    x, y = mouth.local(places)
    return lower_side(mouth, x, y, mouth.curves(x))


def _lip_gaps(places: Tensor) -> Tensor:
    """How far the lips are apart in the middle, [B], for `places` [B, COUNT, 2]."""
    middle = len(points.INNER_UPPER) // 2
    gap = places[:, points.INNER_LOWER[middle]] - places[:, points.INNER_UPPER[middle]]
    distance: Tensor = gap.norm(dim=1)
    return distance
