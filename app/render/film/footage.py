"""The picture that is made to talk: a still portrait or a template video, behind one face."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from app.media.frame_grid import as_rate
from app.media.image import load_image, resize
from app.media.pictures import is_picture
from app.media.video_in import VideoSource
from app.render.film.framing import View

LONGEST_SIDE = 1920
"""Portraits are scaled down to it: beyond Full HD a talking photo costs more and shows nothing more."""

PORTRAIT_RATE = Fraction(25)

Numbers = npt.NDArray[np.int64]


class Footage(ABC):
    """Frames of even `width` x `height` at a constant `rate`. `seconds` is the time spent waiting for frames."""

    width: int
    height: int
    rate: Fraction
    still: bool
    frame_count: int
    """Frames of one forward pass; 1 for a still."""
    reuses_frames: bool
    """Whether the memory of a batch is that of the next one, too."""

    def __init__(self) -> None:
        self.seconds = 0.0

    @abstractmethod
    def batches(self, batch_size: int, count: int) -> Iterator[tuple[Tensor, Numbers]]:
        """Yield `count` frames [B, H, W, 3] uint8 that the caller may change until the next batch, with the number
        of each in the forward pass."""

    @abstractmethod
    def frame(self, number: int) -> Tensor:
        """One frame [H, W, 3] of the forward pass; costs decoding up to it."""

    @abstractmethod
    def seen_through(self, view: View) -> Footage:
        """The same footage as `view` shows it. This one must be closed as well."""

    @abstractmethod
    def close(self) -> None:
        """Let go of files."""


class Portrait(Footage):
    """A photo."""

    still = True
    reuses_frames = True
    frame_count = 1

    def __init__(self, picture: Tensor, fps: float | Fraction | None) -> None:
        """`picture` is [H, W, 3] uint8."""
        super().__init__()
        self.height, self.width = (max(2, side // 2 * 2) for side in picture.shape[:2])
        self._picture = picture[: self.height, : self.width].contiguous()
        self.rate = PORTRAIT_RATE if fps is None else as_rate(fps)

    def batches(self, batch_size: int, count: int) -> Iterator[tuple[Tensor, Numbers]]:
        """The photo over and over, in one buffer: what was pasted into the last batch is still there."""
        buffer = self._picture.expand(min(batch_size, count), -1, -1, -1).contiguous()
        for first in range(0, count, batch_size):
            frames = buffer[: min(batch_size, count - first)]
            yield frames, np.zeros(len(frames), np.int64)

    def frame(self, number: int) -> Tensor:
        """The photo."""
        if number != 0:
            raise IndexError(number)
        return self._picture

    def seen_through(self, view: View) -> Footage:
        """Cut and scaled by averaging areas."""
        part = self._picture[view.top : view.top + view.height, view.left : view.left + view.width]
        return Portrait(torch.from_numpy(resize(part.numpy(), view.size)), self.rate)

    def close(self) -> None:
        """Nothing to do."""


class Template(Footage):
    """A video, forward and backward for as long as it takes."""

    still = False
    reuses_frames = False

    def __init__(self, path: Path, fps: float | Fraction | None, view: View | None = None) -> None:
        super().__init__()
        started = time.perf_counter()
        self._path = path
        box = None if view is None else (view.left, view.top, view.width, view.height)
        self._video = VideoSource(path, fps, box=box, size=None if view is None else view.size)
        self.width, self.height = self._video.width, self._video.height
        self.rate = self._video.rate
        self.frame_count = self._video.frame_count
        self.seconds += time.perf_counter() - started

    def batches(self, batch_size: int, count: int) -> Iterator[tuple[Tensor, Numbers]]:
        """Decoded frames, each batch an array of its own."""
        numbers = self._video.indices(count)
        batches = self._video.batches(batch_size, count)
        first = 0
        while True:
            started = time.perf_counter()
            batch = next(batches, None)
            self.seconds += time.perf_counter() - started
            if batch is None:
                return
            yield torch.from_numpy(batch), numbers[first : first + len(batch)]
            first += len(batch)

    def frame(self, number: int) -> Tensor:
        """Decode from the start; meant for numbers not far from it."""
        last: Tensor | None = None
        for frames, _ in self.batches(8, number + 1):
            last = frames[-1]
        assert last is not None
        return last

    def seen_through(self, view: View) -> Footage:
        """The file once more, cut and scaled while it is decoded."""
        return Template(self._path, self.rate, view)

    def close(self) -> None:
        """Close the file."""
        self._video.close()


def open_footage(path: Path, fps: float | None, max_side: int = LONGEST_SIDE) -> Footage:
    """Open a picture or a video by its content; of a picture the longer side has `max_side` pixels at most.

    Raises CodedError where it cannot be read.
    """
    if not _is_picture(path):
        return Template(path, fps)
    started = time.perf_counter()
    footage = Portrait(torch.from_numpy(load_image(path, max_side)), fps)
    footage.seconds += time.perf_counter() - started
    return footage


def _is_picture(path: Path) -> bool:
    try:
        with path.open("rb") as file:
            return is_picture(file.read(16))
    except FileNotFoundError:
        return False  # the video reader says it in its own words
