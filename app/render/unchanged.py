"""A picture or a template video filmed as it is, without torch: what is shown where nothing speaks."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Protocol

import numpy as np
import numpy.typing as npt

from app.media.encode import VideoWriter
from app.media.frame_grid import as_rate
from app.media.image import load_image, resize
from app.media.pictures import is_picture
from app.media.video_in import VideoSource
from app.render.contract import Phase, Progress

LONGEST_PICTURE_SIDE = 1920
LONGEST_CUT_SIDE = 4096
"""Photos of which a part or another size is asked are read with this many pixels at most along the longer side."""
PICTURE_RATE = Fraction(25)

_BATCH_PIXELS = 8_000_000
"""Pixels of a batch: eight frames at 720p, so that a slot's process stays small."""

Frames = npt.NDArray[np.uint8]


class Footage(Protocol):
    """Frames of even `width` x `height` pixels at a constant `rate`."""

    width: int
    height: int
    rate: Fraction

    def batches(self, batch_size: int, count: int) -> Iterator[Frames]:
        """`count` frames in all, uint8 RGB [B, height, width, 3]."""

    def close(self) -> None:
        """Let go of files."""


class Picture:
    """One picture, over and over."""

    def __init__(self, pixels: Frames, rate: Fraction) -> None:
        """`pixels` is [H, W, 3]; an odd last row or column is left out."""
        self.height, self.width = (max(2, side // 2 * 2) for side in pixels.shape[:2])
        self._pixels = pixels[: self.height, : self.width]
        self.rate = rate

    def batches(self, batch_size: int, count: int) -> Iterator[Frames]:
        """The same memory in every frame."""
        for first in range(0, count, batch_size):
            yield np.broadcast_to(self._pixels, (min(batch_size, count - first), *self._pixels.shape))

    def close(self) -> None:
        """Nothing to do."""


def open_footage(
    path: Path, fps: float | None = None, *, box: Sequence[float] | None = None, max_side: int | None = None
) -> Footage:
    """The source, cut to `box` (left, top, right, bottom in shares), with `max_side` pixels at most along its longer
    side; it is never scaled up. A template plays forward and backward for as long as it takes.

    Raises CodedError where it cannot be read.
    """
    if not _is_picture(path):
        return _template(path, fps, box, max_side)
    as_it_is = box is None and max_side is None
    pixels = load_image(path, LONGEST_PICTURE_SIDE if as_it_is else LONGEST_CUT_SIDE)
    height, width = pixels.shape[:2]
    left, top, wide, high = _pixel_box(box, width, height)
    size = _fit(wide, high, max_side or LONGEST_PICTURE_SIDE)
    part = np.ascontiguousarray(pixels[top : top + high, left : left + wide])
    return Picture(resize(part, size), PICTURE_RATE if fps is None else as_rate(fps))


def film(
    footage: Footage,
    path: Path,
    audio: Path | None,
    seconds: Fraction,
    progress: Progress,
    *,
    encoding: tuple[int, str],
) -> int:
    """Write `seconds` of `footage` to `path` with the sound of `audio` (None: mute); the number of frames, at least 1.

    `encoding`: x264's constant rate factor and preset. Raises CodedError and `Cancelled`; no file is left then.
    """
    count = max(1, round(seconds * footage.rate))
    crf, preset = encoding
    done = 0
    writer = VideoWriter(path, footage.width, footage.height, footage.rate, audio, crf=crf, preset=preset)
    with writer:
        for frames in footage.batches(max(1, _BATCH_PIXELS // (footage.width * footage.height)), count):
            writer.write(frames)
            done += len(frames)
            progress.report(Phase.RENDER, done, count)
        progress.report(Phase.ENCODE, 0, count)
        writer.close()
        progress.report(Phase.ENCODE, count, count)
    return count


def _template(path: Path, fps: float | None, box: Sequence[float] | None, max_side: int | None) -> Footage:
    whole = VideoSource(path, fps)
    if box is None and (max_side is None or max(whole.width, whole.height) <= max_side):
        return whole
    whole.close()
    part = _pixel_box(box, whole.width, whole.height)
    return VideoSource(path, fps, box=part, size=_fit(part[2], part[3], max_side))


def _pixel_box(box: Sequence[float] | None, width: int, height: int) -> tuple[int, int, int, int]:
    """Left, top, width and height in pixels; even, where there is room for it."""
    left, top, right, bottom = box or (0.0, 0.0, 1.0, 1.0)
    x, y = round(left * width), round(top * height)
    wide, high = (max(2, side // 2 * 2) for side in (round(right * width) - x, round(bottom * height) - y))
    return max(0, min(x, width - wide)), max(0, min(y, height - high)), wide, high


def _fit(width: int, height: int, max_side: int | None) -> tuple[int, int]:
    scale = 1.0 if max_side is None else min(1.0, max_side / max(width, height))
    if scale == 1:
        return width, height
    return max(2, int(width * scale / 2) * 2), max(2, int(height * scale / 2) * 2)


def _is_picture(path: Path) -> bool:
    try:
        with path.open("rb") as file:
            return is_picture(file.read(16))
    except FileNotFoundError:
        return False  # the video reader says it in its own words
