"""Where the generator's square lies in each frame, what it sees there, and how its answer is laid into the frame."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from app.render.film.pose import HeadPose, fit_poses
from app.render.film.region import Region
from app.render.wav2lip.profile import GeneratorProfile
from app.render.wav2lip.resampling import Resampler, lines

_SIDES = 0.02
"""Added to either side of the face, as a share of its width: the mesh ends just before the ears."""
_FADE = 0.12
"""Of the crop's height, above the hidden half: there the generator repeats what it sees, and the two can mix."""
_EDGE = 0.18
"""Width of the fade along the jaw, as a share of the distance from the middle."""
_ROUNDNESS = 2.6
"""Exponent of the curve that the jaw is taken for: 2 is an ellipse, more is squarer."""


@dataclass(frozen=True)
class Boxes:
    """`left`, `top`, `width`, `height` [T] in pixels, fractional: the face from forehead to below the chin."""

    left: Tensor
    top: Tensor
    width: Tensor
    height: Tensor

    def at(self, index: Tensor) -> Boxes:
        """The boxes of the frames `index` [B]."""
        return Boxes(self.left[index], self.top[index], self.width[index], self.height[index])

    def part(self, frames: slice) -> Boxes:
        """The boxes of consecutive frames."""
        return Boxes(self.left[frames], self.top[frames], self.width[frames], self.height[frames])


def face_boxes(pixels: Tensor, present: Tensor, chin: float) -> Boxes:
    """Boxes of a track: pixels [T, COUNT, 3], present [T] bool with at least one true.

    They follow the pose of the head and its size and nothing else, so that a mouth that opens in the source, or a
    trembling point, does not move them. `chin` is the room below the chin, as a share of the face's height.
    """
    poses: HeadPose = fit_poses(pixels, present)
    shape = poses.to_head(pixels)[present].median(0).values
    seen = poses.to_pixels(shape)[:, :, :2]
    first, last = seen.amin(1), seen.amax(1)
    size = last - first
    aside = size[:, 0] * _SIDES
    return Boxes(first[:, 0] - aside, first[:, 1], size[:, 0] + 2 * aside, size[:, 1] * (1 + chin))


def answer_mask(profile: GeneratorProfile) -> Tensor:
    """How much of the answer counts, [crop, crop] in 0..1: the lower face, faded out above it and along the jaw."""
    at = (torch.arange(profile.crop) + 0.5) / profile.crop
    down = _smooth((at - profile.masked_from + _FADE) / _FADE)
    across, along = (at * 2 - 1).abs()[None, :], (at * 2 - 1).abs()[:, None]
    from_middle = (across**_ROUNDNESS + along**_ROUNDNESS) ** (1 / _ROUNDNESS)
    return down[:, None] * _smooth((1 - from_middle) / _EDGE)


class Placement:
    """The crops of B frames with boxes [B], or of one still frame for all of them with boxes [1]."""

    def __init__(
        self,
        boxes: Boxes,
        width: int,
        height: int,
        profile: GeneratorProfile,
        device: torch.device,
        dtype: torch.dtype = torch.float32,
    ) -> None:
        """`dtype` is the precision of the crops; what is laid into frames is always float32."""
        self._crop, self._dtype = profile.crop, dtype
        whole, into = self._reading(boxes, width, height, 0.0, device)
        self.whole, self._into = whole, into.to(dtype)
        self.lower, back = self._writing(boxes, width, height, profile.masked_from - _FADE, device)
        # The upper part of the answer is not laid into the frame, so that half of the work is none.
        self._first = int(back.rows.any(0).any(0).nonzero()[0, 0])
        self._back = Resampler(back.rows[:, :, self._first :], back.columns)

    def __len__(self) -> int:
        return len(self.whole.left)

    def crops(self, patches: Tensor) -> Tensor:
        """Squares [B, 3, crop, crop] in 0..255 of patches [B, h, w, 3] uint8 cut by `whole`."""
        return self._into.shrink(patches.to(self._dtype)).clamp_(0, 255)

    def blend(self, patches: Tensor, answer: Tensor, mask: Tensor, part: slice) -> Tensor:
        """New patches [B, h, w, 3] uint8.

        patches: [B or 1, h, w, 3] uint8 cut by `lower`; answer: [B, 3, crop, crop] in 0..255, of the frames `part`;
        mask: [crop, crop].
        """
        back = self._back.part(part)
        new = back.grow(answer[:, :, self._first :])
        weight = back.grow(mask[None, None, self._first :]).clamp_(0, 1)
        return torch.lerp(patches.float(), new, weight).round_().clamp_(0, 255).to(torch.uint8)

    def _reading(
        self, boxes: Boxes, width: int, height: int, share: float, device: torch.device
    ) -> tuple[Region, Resampler]:
        region = _region(boxes, width, height, share)
        top, left = boxes.top - region.top, boxes.left - region.left
        # Pixel n of the crop stands for the middle of the n-th part of the box; lines are counted from their centres.
        down, right = boxes.height / self._crop, boxes.width / self._crop
        rows = lines(top + down / 2 - 0.5, down, self._crop, region.height)
        columns = lines(left + right / 2 - 0.5, right, self._crop, region.width)
        return region, Resampler(rows.to(device), columns.to(device))

    def _writing(
        self, boxes: Boxes, width: int, height: int, share: float, device: torch.device
    ) -> tuple[Region, Resampler]:
        region = _region(boxes, width, height, share)
        top, left = region.top - boxes.top, region.left - boxes.left
        down, right = self._crop / boxes.height, self._crop / boxes.width
        rows = lines((top + 0.5) * down - 0.5, down, region.height, self._crop)
        columns = lines((left + 0.5) * right - 0.5, right, region.width, self._crop)
        return region, Resampler(rows.to(device), columns.to(device))


def _region(boxes: Boxes, width: int, height: int, share: float) -> Region:
    """The whole pixels that hold all boxes below `share` of their height, of one size, inside the frame."""
    top, bottom = boxes.top + boxes.height * share, boxes.top + boxes.height
    first = torch.stack([boxes.left, top], 1).floor().long()
    last = torch.stack([boxes.left + boxes.width, bottom], 1).ceil().long()
    wide, high = (last - first).amax(0).tolist()
    wide, high = min(wide, width), min(high, height)
    return Region(first[:, 0].clamp(0, width - wide), first[:, 1].clamp(0, height - high), wide, high)


def _smooth(value: Tensor) -> Tensor:
    x = value.clamp(0, 1)
    return x * x * (3 - 2 * x)
