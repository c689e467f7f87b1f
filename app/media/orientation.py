"""How coded video frames are shown: turned and mirrored by the display matrix, stretched by the pixel aspect."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from fractions import Fraction
from typing import TYPE_CHECKING, cast

from av.sidedata.sidedata import SideDataContainer, Type
from av.video.frame import VideoFrame

if TYPE_CHECKING:  # the probe reads orientations too, and starts faster without numpy
    import numpy as np
    import numpy.typing as npt

_SANE_ASPECT = (Fraction(1, 4), Fraction(4))
_MATRIX = struct.Struct("=9i")


@dataclass(frozen=True, slots=True)
class Orientation:
    """One of the eight ways to turn a picture: first swap rows and columns, then mirror."""

    transpose: bool = False
    mirror_x: bool = False
    mirror_y: bool = False

    @property
    def degrees(self) -> int:
        """Clockwise turn that it applies, in degrees (0, 90, 180, 270); mirroring aside."""
        if self.transpose:
            return 90 if self.mirror_x else 270
        return 180 if self.mirror_y else 0

    def size(self, width: int, height: int) -> tuple[int, int]:
        """Width and height after the turn."""
        return (height, width) if self.transpose else (width, height)

    def apply(self, image: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
        """Turn `[H, W, C]`; a view, not a copy."""
        if self.transpose:
            image = image.transpose(1, 0, 2)
        return image[:: -1 if self.mirror_y else 1, :: -1 if self.mirror_x else 1]


def frame_orientation(frame: VideoFrame) -> Orientation:
    """The orientation that the display matrix of a decoded frame asks for; free angles go to the nearest quarter turn.

    Source: ISO/IEC 14496-12, 6.2.2 (a, b, u, c, d, v, x, y, w in 16.16): x' = a x + c y, y' = b x + d y.
    """
    for side in cast("SideDataContainer", frame.side_data):
        if side.type == Type.DISPLAYMATRIX and len(raw := bytes(side)) == _MATRIX.size:
            a, b, _, c, d, *_ = _MATRIX.unpack(raw)
            if abs(b) + abs(c) > abs(a) + abs(d):
                return Orientation(True, mirror_x=c < 0, mirror_y=b < 0)
            return Orientation(False, mirror_x=a < 0, mirror_y=d < 0)
    return Orientation()


def square_size(width: int, height: int, aspect: Fraction) -> tuple[int, int]:
    """Width and height in square pixels, at least 2; an implausible pixel aspect is taken for a mistake."""
    low, high = _SANE_ASPECT
    stretched = round(width * aspect) if low <= aspect <= high else width
    return max(stretched, 2), max(height, 2)
