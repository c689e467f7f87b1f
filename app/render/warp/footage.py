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
from app.media.image import load_image
from app.media.pictures import is_picture
from app.media.video_in import VideoSource

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
    def close(self) -> None:
        """Let go of files."""


class Portrait(Footage):
    """A photo."""

    still = True
    frame_count = 1

    def __init__(self, path: Path, fps: float | None) -> None:
        super().__init__()
        started = time.perf_counter()
        picture = torch.from_numpy(load_image(path, LONGEST_SIDE))
        self.height, self.width = (max(2, side // 2 * 2) for side in picture.shape[:2])
        self._picture = picture[: self.height, : self.width].contiguous()
        self.rate = PORTRAIT_RATE if fps is None else as_rate(fps)
        self.seconds += time.perf_counter() - started

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

    def close(self) -> None:
        """Nothing to do."""


class Template(Footage):
    """A video, forward and backward for as long as it takes."""

    still = False

    def __init__(self, path: Path, fps: float | None) -> None:
        super().__init__()
        started = time.perf_counter()
        self._video = VideoSource(path, fps)
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

    def close(self) -> None:
        """Close the file."""
        self._video.close()


def open_footage(path: Path, fps: float | None) -> Footage:
    """Open a picture or a video by its content. Raises CodedError where it cannot be read."""
    return Portrait(path, fps) if _is_picture(path) else Template(path, fps)


def _is_picture(path: Path) -> bool:
    try:
        with path.open("rb") as file:
            return is_picture(file.read(16))
    except FileNotFoundError:
        return False  # the video reader says it in its own words
