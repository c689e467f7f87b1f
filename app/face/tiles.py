"""Cutting a frame into the pictures that a detector looks at."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from torch import Tensor
from torch.nn import functional

SMALLEST_FACE = 64  # pixels; tiles get no smaller than is needed for it
FULL_RANGE_REACH = 12  # a tile's side over the smallest face the full-range network still finds in it, measured
TILE_OVERLAP = 1.5  # over the largest face sought in the tiles: a face at an edge is whole in the next tile
TILE_TOLERANCE = 1.3  # a level of tiles this close to the smallest one makes a further level pointless


@dataclass(frozen=True)
class Tile:
    """A part of a frame, in pixels."""

    left: int
    top: int
    width: int
    height: int


def tile_levels(width: int, height: int) -> Iterator[list[Tile]]:
    """Squares that cover the frame, each level's half as large as the one before."""
    side, smallest = max(width, height), SMALLEST_FACE * FULL_RANGE_REACH
    while side > smallest * TILE_TOLERANCE:
        overlap = TILE_OVERLAP * side / FULL_RANGE_REACH  # smaller faces are left to find than the last level's limit
        side = max(side // 2, smallest)
        stride = side - int(min(overlap, side / 2))
        lefts, tops = _starts(width, side, stride), _starts(height, side, stride)
        yield [Tile(x, y, min(side, width), min(side, height)) for y in tops for x in lefts]


def _starts(length: int, side: int, stride: int) -> list[int]:
    """Where the tiles of one row begin, evenly spread, at most ``stride`` apart."""
    steps = -(-max(length - side, 0) // stride)
    return [round(i * (length - side) / steps) for i in range(steps + 1)] if steps else [0]


def around(box: Tensor, margin: float, width: int, height: int) -> Tile:
    """The square ``margin`` times as large as a box ``[4]`` (left, top, right, bottom), cut off at the frame."""
    left, top, right, bottom = box.tolist()
    reach = margin * max(right - left, bottom - top) / 2
    x, y = min(max((left + right) / 2, 0), width), min(max((top + bottom) / 2, 0), height)
    low_x, low_y = max(int(x - reach), 0), max(int(y - reach), 0)
    high_x, high_y = min(int(x + reach) + 1, width), min(int(y + reach) + 1, height)
    low_x, low_y = min(low_x, width - 1), min(low_y, height - 1)
    return Tile(low_x, low_y, max(high_x - low_x, 1), max(high_y - low_y, 1))


def letterbox(frames: Tensor, size: int) -> tuple[Tensor, float, tuple[int, int]]:
    """Fit frames ``[B, h, w, 3]`` uint8 into squares ``[B, 3, size, size]`` in -1..1, with black around them.

    Also returns frame pixels per picture pixel, and the left and top margins in picture pixels.
    """
    height, width = frames.shape[1:3]
    scale = max(height, width) / size
    fit = (max(1, round(height / scale)), max(1, round(width / scale)))
    picture = frames.permute(0, 3, 1, 2)
    if frames.device.type != "cpu":
        picture = picture.float()  # only the CPU resamples bytes, and does so several times faster than floats
    picture = functional.interpolate(picture, fit, mode="bilinear", antialias=True).float()
    left, top = (size - fit[1]) // 2, (size - fit[0]) // 2
    picture = functional.pad(picture, (left, size - fit[1] - left, top, size - fit[0] - top))
    return picture / 127.5 - 1, scale, (left, top)
