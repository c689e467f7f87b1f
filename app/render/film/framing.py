"""What part of the source the result shows, and at which size."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from app.render.film import points
from app.retry.taxonomy import CodedError, FailureCode

_FACE_SIDE = 3.3
"""Side of a face crop, in distances of the outer eye corners: head, hair and the neck's base."""

_FACE_MIDDLE = -0.45
"""Where its middle lies above (negative) the mouth, in the same unit."""


@dataclass(frozen=True)
class View:
    """A box of a picture, in its pixels, shown at `size` (width, height), both even."""

    left: int
    top: int
    width: int
    height: int
    size: tuple[int, int]

    @property
    def scale(self) -> tuple[float, float]:
        """Pixels of the result per pixel of the picture, across and down."""
        return self.size[0] / self.width, self.size[1] / self.height

    def shows_all_of(self, width: int, height: int) -> bool:
        """Whether it leaves a picture of that size as it is."""
        return (self.left, self.top, self.width, self.height) == (0, 0, width, height) and self.size == (width, height)

    def points(self, pixels: Tensor) -> Tensor:
        """Mesh points [T, N, 3] of the picture where the view shows them. Pixels are counted from their centres."""
        across, down = self.scale
        factor = pixels.new_tensor([across, down, (across + down) / 2])
        half = pixels.new_tensor([0.5, 0.5, 0.0])
        corner = pixels.new_tensor([self.left, self.top, 0.0])
        return (pixels - corner + half) * factor - half


def choose_view(
    crop: str | list[float], max_side: int | None, width: int, height: int, pixels: Tensor, present: Tensor
) -> View:
    """The view that options ask for, of a picture of `width` x `height` with a face at `pixels` [T, COUNT, 3] in the
    frames that `present` [T] names (at least one). Raises CodedError INPUT_INVALID for a box without the face."""
    if crop == "none":
        box = (0, 0, width, height)
    elif crop == "face":
        box = _around(pixels[present], width, height)
    else:
        assert not isinstance(crop, str)
        left, right = (round(share * width) for share in (crop[0], crop[2]))
        top, bottom = (round(share * height) for share in (crop[1], crop[3]))
        box = (left, top, right - left, bottom - top)
    left, top, wide, high = box
    wide, high = max(2, wide // 2 * 2), max(2, high // 2 * 2)
    scale = 1.0 if max_side is None else min(1.0, max_side / max(wide, high))
    size = wide, high
    if scale < 1:
        size = max(2, int(wide * scale / 2) * 2), max(2, int(high * scale / 2) * 2)
    view = View(min(left, width - wide), min(top, height - high), wide, high, size)
    if not _shows_face(view, pixels[present]):
        message = "The crop box leaves out the face that shall speak: its mouth lies outside in every frame."
        hint = 'Choose a box that holds the face, "crop": "face", or "crop": "none".'
        raise CodedError(FailureCode.INPUT_INVALID, message, hint, reason="crop_without_face")
    return view


def _shows_face(view: View, pixels: Tensor) -> bool:
    """Whether the mouth's middle lies in the view in any frame."""
    mouth = view.points(pixels[:, list(points.CORNERS)]).mean(1)
    x, y = mouth[:, 0], mouth[:, 1]
    return bool(((x >= 0) & (y >= 0) & (x < view.size[0]) & (y < view.size[1])).any())


def _around(pixels: Tensor, width: int, height: int) -> tuple[int, int, int, int]:
    """A square around the head wherever it goes, as far as the picture reaches."""
    eyes = pixels[:, list(points.OUTER_EYES), :]
    unit = (eyes[:, 1] - eyes[:, 0]).norm(dim=1)
    mouth = pixels[:, list(points.CORNERS), :2].mean(1)
    up = eyes[..., :2].mean(1) - mouth
    middle = mouth + up / up.norm(dim=1, keepdim=True).clamp_min(1e-6) * (-_FACE_MIDDLE * unit)[:, None]
    reach = (unit * _FACE_SIDE / 2)[:, None]
    first, last = (middle - reach).amin(0), (middle + reach).amax(0)
    centre, side = (first + last) / 2, float((last - first).max())
    limits = torch.tensor([width, height], dtype=torch.float32)
    extent = limits.clamp_max(side)
    corner = torch.minimum((centre.cpu() - extent / 2).clamp_min(0), limits - extent)
    left, top = (int(value) for value in corner.round().tolist())
    return left, top, int(extent[0]), int(extent[1])
