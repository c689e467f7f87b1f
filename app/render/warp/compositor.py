"""Puts the moved lower face into frames: warp, mouth interior, and both back into the picture."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from app.render.warp import points
from app.render.warp.animation import LowerFace
from app.render.warp.aperture import Aperture, aperture, lower_side
from app.render.warp.field import LATTICE_STEP, SplitField, cubic_rows, inside_lips, lattice_size
from app.render.warp.interior import MouthView, paint
from app.render.warp.lighting import Light, read_light
from app.render.warp.pose import HeadPose
from app.render.warp.region import LowerFaceMask, Region
from app.render.warp.rest import PARTED_GAP
from app.render.warp.skin import SkinWeights
from app.render.warp.subject import Subject, TeethPlane
from app.render.warp.teeth import Plate

_MOUTH_MARGIN = 2 * LATTICE_STEP  # around the lips' inner contours: as far as a change at a knot is felt
_EDGE = 0.007  # softness of the lips' inner edge, in units (at least a pixel)
_CHUNK_PIXELS = 400_000  # pixels of patches worked on at once: bounds memory, and what fits caches goes faster
_FIRST = torch.zeros(1, dtype=torch.long)


class Compositor:
    """Renders one subject. Deterministic."""

    def __init__(self, subject: Subject, plate: Plate, device: torch.device, still: Tensor | None = None) -> None:
        """`subject` lies on `device`; `still` [H, W, 3] uint8 is the source where all frames show the same picture."""
        self._still = None if still is None else still[None]
        self._device = device
        self._plate = Plate(plate.rgba.to(device), plate.top, plate.bottom, plate.light.to(device), plate.own)
        self._mask = LowerFaceMask(subject.rest.shape)
        self._field = SplitField(device)
        self._subject = subject
        self._seen = subject.rest.seen
        self._depth = subject.teeth_depth
        self._seam = float(subject.rest.shape[list(points.INNER_UPPER), 1][4:7].mean())
        self._hold = SkinWeights(subject.rest.shape).hold()

    def render_into(self, frames: Tensor, which: Tensor, numbers: Tensor, face: LowerFace) -> None:
        """Give the faces in `frames[which]` (frames [B, H, W, 3] uint8, which [N]) the shapes `face` [N].

        numbers: [N] which frame of the source each of them is. Where it raises (a device's memory runs out, say), the
        frames are as they were.
        """
        height, width = frames.shape[1:3]
        pose = self._subject.poses.at(numbers.to(self._device))
        pixels = self._subject.pixels[numbers.to(self._device)]
        region = self._mask.region(pose, width, height)
        step = max(1, _CHUNK_PIXELS // (region.width * region.height))
        drawn: list[tuple[Region, Tensor, Tensor]] = []
        for first in range(0, len(which), step):
            part = slice(first, first + step)
            rows = which[part]
            here = region.part(part)
            patches = here.cut(frames, rows) if self._still is None else here.part(slice(1)).cut(self._still, _FIRST)
            moved = self.compose(patches.to(self._device), here, pixels[part], pose.part(part), face.part(part))
            drawn.append((here, rows, moved.cpu()))
        for here, rows, moved in drawn:
            here.paste(frames, rows, moved)

    def compose(self, patches: Tensor, region: Region, pixels: Tensor, pose: HeadPose, face: LowerFace) -> Tensor:
        """New patches [B, h, w, 3] uint8.

        patches: [B, h, w, 3] uint8 cut from the source frames, B may be 1 for a still source; pixels: [B, COUNT, 3]
        where the points are in the source frames; pose: [B]; face: the shapes wanted, [B].
        """
        frames = len(face.jaw)
        source = patches.permute(0, 3, 1, 2).float()
        corner = torch.stack([region.left, region.top], 1).to(self._device, torch.float32)
        # Places in units from the head's origin, axes as in the picture.
        at = (corner - pose.origin[:, :2]) / pose.scale[:, None]
        now = (pixels[..., :2] - pose.origin[:, None, :2]) / pose.scale[:, None, None]
        seen, wanted = self._turned(pose, self._seen[None]), self._turned(pose, face.shape)
        goal = now + self._hold[:, None] * (seen - now) + (wanted - seen)

        mouth = aperture(goal[:, list(points.INNER_UPPER)], goal[:, list(points.INNER_LOWER)])
        lattice = self._lattice(region, at, pose.scale)
        fields = self._fields(mouth, goal, now, lattice, pose)
        box = self._mouth_box(mouth, at, region, pose.scale)
        x, y = (torch.arange(part.start, part.stop, device=self._device) for part in (box[1], box[0]))
        near = torch.stack(torch.meshgrid(x, y, indexing="xy"), 2) / pose.scale[:, None, None, None] + at[:, None, None]
        warped = self._warp(source, mouth, fields, lattice, near, box, pose.scale)
        parted = ((_lip_gaps(now) - PARTED_GAP) / 0.02).clamp(0, 1)
        light = read_light(source, pixels[..., :2] - corner[:, None], pose.scale)
        self._fill(warped[:, :, box[0], box[1]], near, mouth, face, pose, light.expand(frames), parted)
        return warped.permute(0, 2, 3, 1).round_().clamp_(0, 255).to(torch.uint8)

    def _turned(self, pose: HeadPose, shape: Tensor) -> Tensor:
        """Head coordinates [B, COUNT, 3] as seen, in units from the head's origin [B, COUNT, 2]."""
        return shape @ pose.rotation[:, :2].mT

    def _lattice(self, region: Region, at: Tensor, scale: Tensor) -> Tensor:
        """Places of the lattice's knots over the region, [B, rows, columns, 2] in units."""
        size = float(scale.max())
        rows, columns = lattice_size(region.height, size), lattice_size(region.width, size)
        x = torch.linspace(0, region.width - 1, columns, device=self._device)
        y = torch.linspace(0, region.height - 1, rows, device=self._device)
        knots = torch.stack(torch.meshgrid(x, y, indexing="xy"), 2)
        return knots / scale[:, None, None, None] + at[:, None, None]

    def _fields(self, mouth: Aperture, goal: Tensor, now: Tensor, lattice: Tensor, pose: HeadPose) -> Tensor:
        """Displacements of both layers at the knots, faded out towards the border: [B, 2, rows, columns, 2], units."""
        source = inside_lips(now, mouth.height(), 1 / pose.scale)
        moved = self._field.displacements(goal, source, lattice.flatten(1, 2))
        plane = TeethPlane(pose, 0.0).to_plane(lattice)
        weight = self._mask.weight(plane[..., 0], plane[..., 1])
        return moved.view(len(goal), 2, *lattice.shape[1:]) * weight[:, None, :, :, None]

    def _warp(
        self,
        source: Tensor,
        mouth: Aperture,
        fields: Tensor,
        lattice: Tensor,
        near: Tensor,
        box: tuple[slice, slice],
        scale: Tensor,
    ) -> Tensor:
        """The source [B or 1, 3, h, w] seen through the fields, [B, 3, h, w].

        Away from the mouth one side's field holds, chosen at the knots; within `box`, whose places are `near`, every
        pixel chooses.
        """
        height, width = source.shape[2:]
        rows, columns = lattice.shape[1:3]
        half = scale.new_tensor([max(width - 1, 1), max(height - 1, 1)]) / 2
        fields = fields * (scale[:, None, None, None, None] / half)
        ends = torch.linspace(-1, 1, columns, device=self._device), torch.linspace(-1, 1, rows, device=self._device)
        fields = (fields + torch.stack(torch.meshgrid(*ends, indexing="xy"), 2)).permute(0, 1, 4, 2, 3)
        down = cubic_rows(torch.linspace(0, rows - 1, height, device=self._device), rows)
        right = cubic_rows(torch.linspace(0, columns - 1, width, device=self._device), columns).T

        at_knots = _side(mouth, lattice)[:, None]
        grid = down @ torch.lerp(fields[:, 0], fields[:, 1], at_knots) @ right
        both = down[box[0]] @ fields @ right[:, box[1]]
        grid[:, :, box[0], box[1]] = torch.lerp(both[:, 0], both[:, 1], _side(mouth, near)[:, None])
        return functional.grid_sample(
            source.expand(len(grid), -1, -1, -1),
            grid.permute(0, 2, 3, 1),
            mode="bicubic",
            padding_mode="border",
            align_corners=True,
        )

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
        speaking = (mouth.height(), face.jaw, face.spread, face.bite)
        view = MouthView(plane[..., 0], plane[..., 1], across, above, below, *speaking)
        inside = paint(view, self._plate, light, self._seam)
        edge = (1 / pose.scale).clamp_min(_EDGE)[:, None, None]
        # Lips that were parted in the source have no line of their own where they meet now.
        line = torch.maximum(parted, (view.opening / 0.02).clamp(0, 1))[:, None, None] * 0.5
        cover = (torch.minimum(above, below) / edge + line).clamp(0, 1) * ((1 - across.abs()) / 0.06).clamp(0, 1)
        patch += (inside - patch) * cover[:, None]

    def _mouth_box(self, mouth: Aperture, at: Tensor, region: Region, scale: Tensor) -> tuple[slice, slice]:
        """Rows and columns of the region that hold the mouths of the batch and what is near them."""
        reach_x = mouth.half * 1.1 + _MOUTH_MARGIN
        reach_y = mouth.half * mouth.axis[:, 1].abs() + mouth.table.abs().amax((1, 2, 3)) + _MOUTH_MARGIN
        reach = torch.stack([reach_x, reach_y], 1)
        first = ((mouth.middle - reach - at) * scale[:, None]).amin(0).tolist()
        last = ((mouth.middle + reach - at) * scale[:, None]).amax(0).tolist()
        left, top = max(0, int(first[0])), max(0, int(first[1]))
        right, bottom = min(region.width, int(last[0]) + 2), min(region.height, int(last[1]) + 2)
        return slice(min(top, region.height - 1), max(bottom, top + 1)), slice(
            min(left, region.width - 1), max(right, left + 1)
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
