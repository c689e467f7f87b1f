"""Puts the moved lower face into frames: warp, mouth interior, and both back into the picture."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from app.render.warp import points
from app.render.warp.animation import LowerFace
from app.render.warp.aperture import Aperture, aperture, lower_side
from app.render.warp.field import SplitField, cubic_rows, inside_lips, lattice_size
from app.render.warp.interior import MouthView, paint
from app.render.warp.lighting import Light, read_light
from app.render.warp.pose import HeadPose
from app.render.warp.region import LowerFaceMask, Region
from app.render.warp.rest import PARTED_GAP
from app.render.warp.skin import SkinWeights
from app.render.warp.subject import Subject, TeethPlane
from app.render.warp.teeth import Plate

_MOUTH_MARGIN = 0.04  # around the contours of the lips, in units
_EDGE = 0.007  # softness of the lips' inner edge, in units (at least a pixel)
_CHUNK_PIXELS = 1_000_000  # pixels of patches worked on at once: bounds memory, and what fits caches goes faster
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

        numbers: [N] which frame of the source each of them is.
        """
        height, width = frames.shape[1:3]
        pose = self._subject.poses.at(numbers.to(self._device))
        pixels = self._subject.pixels[numbers.to(self._device)]
        region = self._mask.region(pose, width, height)
        step = max(1, _CHUNK_PIXELS // (region.width * region.height))
        for first in range(0, len(which), step):
            part = slice(first, first + step)
            rows = which[part]
            here = region.part(part)
            patches = here.cut(frames, rows) if self._still is None else here.part(slice(1)).cut(self._still, _FIRST)
            moved = self.compose(patches.to(self._device), here, pixels[part], pose.part(part), face.part(part))
            here.paste(frames, rows, moved.cpu())

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
        places = self._places(region, at, pose.scale)
        warped = self._warp(source, places, mouth, goal, now, region, at, pose)
        parted = ((lip_gaps_flat(now) - PARTED_GAP) / 0.02).clamp(0, 1)
        light = read_light(source, pixels[..., :2] - corner[:, None], pose.scale)
        self._fill(warped, places, mouth, face, pose, light.expand(frames), parted)
        return warped.permute(0, 2, 3, 1).round_().clamp_(0, 255).to(torch.uint8)

    def _turned(self, pose: HeadPose, shape: Tensor) -> Tensor:
        """Head coordinates [B, COUNT, 3] as seen, in units from the head's origin [B, COUNT, 2]."""
        return shape @ pose.rotation[:, :2].mT

    def _places(self, region: Region, at: Tensor, scale: Tensor) -> Tensor:
        """Units of every pixel of the region, [B, h, w, 2]."""
        x = torch.arange(region.width, device=self._device) / scale[:, None] + at[:, :1]
        y = torch.arange(region.height, device=self._device) / scale[:, None] + at[:, 1:]
        size = (len(scale), region.height, region.width)
        return torch.stack([x[:, None].expand(size), y[:, :, None].expand(size)], 3)

    def _warp(
        self,
        source: Tensor,
        places: Tensor,
        mouth: Aperture,
        goal: Tensor,
        now: Tensor,
        region: Region,
        at: Tensor,
        pose: HeadPose,
    ) -> Tensor:
        size = float(pose.scale.max())
        rows, columns = lattice_size(region.height, size), lattice_size(region.width, size)
        extent = at.new_tensor([region.width - 1, region.height - 1]) / pose.scale[:, None]
        steps_x = torch.linspace(0, 1, columns, device=self._device)
        steps_y = torch.linspace(0, 1, rows, device=self._device)
        step = torch.stack(torch.meshgrid(steps_x, steps_y, indexing="xy"), 2).view(1, -1, 2)
        lattice = at[:, None] + step * extent[:, None]
        moved = self._field.displacements(goal, inside_lips(now, mouth.height(), 1 / pose.scale), lattice)
        plane = TeethPlane(pose, 0.0).to_plane(lattice[:, None])[:, 0]
        moved = moved * self._mask.weight(plane[..., 0], plane[..., 1])[:, None, :, None]
        moved = moved.view(len(at), 2, rows, columns, 2).permute(0, 1, 4, 2, 3) * pose.scale[:, None, None, None, None]
        fine = cubic_rows(region.height, rows, self._device) @ moved @ cubic_rows(region.width, columns, self._device).T

        x, y = mouth.local(places)
        side = lower_side(mouth, x, y, mouth.curves(x))[:, None]
        shift = fine[:, 0] + (fine[:, 1] - fine[:, 0]) * side
        half = shift.new_tensor([max(region.width - 1, 1), max(region.height - 1, 1)]) / 2
        base_x = torch.arange(region.width, device=self._device)
        base_y = torch.arange(region.height, device=self._device)
        grid = torch.stack([shift[:, 0] + base_x, shift[:, 1] + base_y[:, None]], 3) / half - 1
        return F.grid_sample(
            source.expand(len(grid), -1, -1, -1), grid, mode="bicubic", padding_mode="border", align_corners=True
        )

    def _fill(
        self,
        warped: Tensor,
        places: Tensor,
        mouth: Aperture,
        face: LowerFace,
        pose: HeadPose,
        light: Light,
        parted: Tensor,
    ) -> None:
        """Paint the mouth's inside into `warped` [B, 3, h, w], in the box around the mouths of the batch."""
        rows, columns = self._mouth_box(mouth, places, pose)
        near = places[:, rows, columns]
        x, y = mouth.local(near)
        curves = mouth.curves(x)
        above, below = y - curves[:, 0], curves[:, 1] - y
        plane = TeethPlane(pose, self._depth).to_plane(near)
        across = x / mouth.half[:, None, None]
        view = MouthView(plane[..., 0], plane[..., 1], across, above, below, mouth.height(), face.jaw, face.bite)
        inside = paint(view, self._plate, light, self._seam)
        edge = (1 / pose.scale).clamp_min(_EDGE)[:, None, None]
        # Lips that were parted in the source have no line of their own where they meet now.
        line = torch.maximum(parted, (view.opening / 0.02).clamp(0, 1))[:, None, None] * 0.5
        cover = (torch.minimum(above, below) / edge + line).clamp(0, 1) * ((1 - across.abs()) / 0.06).clamp(0, 1)
        patch = warped[:, :, rows, columns]
        patch += (inside - patch) * cover[:, None]

    def _mouth_box(self, mouth: Aperture, places: Tensor, pose: HeadPose) -> tuple[slice, slice]:
        reach_x = mouth.half + _MOUTH_MARGIN
        reach_y = mouth.half * mouth.axis[:, 1].abs() + mouth.table.abs().amax((1, 2, 3)) + _MOUTH_MARGIN
        first = ((mouth.middle - torch.stack([reach_x, reach_y], 1) - places[:, 0, 0]) * pose.scale[:, None]).amin(0)
        last = ((mouth.middle + torch.stack([reach_x, reach_y], 1) - places[:, 0, 0]) * pose.scale[:, None]).amax(0)
        height, width = places.shape[1:3]
        left, top = (max(0, int(n)) for n in first.tolist())
        right, bottom = (int(n) + 2 for n in last.tolist())
        return slice(min(top, height - 1), min(height, max(bottom, 1))), slice(
            min(left, width - 1), min(width, max(right, 1))
        )


def lip_gaps_flat(places: Tensor) -> Tensor:
    """How far the lips are apart in the middle, [B], for `places` [B, COUNT, 2]."""
    middle = len(points.INNER_UPPER) // 2
    return (places[:, points.INNER_LOWER[middle]] - places[:, points.INNER_UPPER[middle]]).norm(dim=1)
