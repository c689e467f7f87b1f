"""A template video as upright RGB frames at a constant rate, forward and backward, in bounded memory.

Three layers: the index (one pass over the packets: when is each frame shown), the reader (decoded frames by their
number, in chunks, from the preceding keyframe) and the source (constant-rate grid, ping-pong, RGB batches).
"""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from fractions import Fraction
from pathlib import Path
from types import TracebackType
from typing import Any, Self, cast

import numpy as np
import numpy.typing as npt
from av.video.frame import VideoFrame
from av.video.reformatter import Interpolation

from app.media.containers import invalid
from app.media.frame_grid import Indices, as_rate, constant_grid, nominal_rate, pingpong
from app.media.frame_reader import FrameReader
from app.media.hdr import is_hdr, to_srgb
from app.media.image import resize
from app.media.orientation import Orientation, frame_orientation, square_size

RgbBatch = npt.NDArray[np.uint8]

CACHE_BYTES = 192 * 1024**2
"""Decoded frames kept, in the codec's own pixel format: 140 frames of 1280x720, 60 of 1920x1080. Playing backward
decodes each keyframe interval once per chunk, so that half of this should hold a usual interval."""

_ITU709 = 1
_UNSPECIFIED = 2
_EXACT = Interpolation.BILINEAR | Interpolation.FULL_CHR_H_INT | Interpolation.ACCURATE_RND
"""swscale's default darkens by more than one level of 255, at every pass; this costs 5 ms of a core at 720p."""
_HD_HEIGHT = 720
"""Untagged video of at least this height is BT.709 by convention, below it BT.601."""


class VideoSource:
    """A template video at a constant frame rate. Use it from one thread; close it, or use it in a `with` block."""

    def __init__(
        self,
        path: Path,
        fps: Fraction | float | None = None,
        *,
        box: tuple[int, int, int, int] | None = None,
        size: tuple[int, int] | None = None,
        cache_bytes: int = CACHE_BYTES,
    ) -> None:
        """Open `path`; `fps` is the constant rate to deliver, None = the file's own (at most 60).

        `box` (left, top, width, height) cuts the displayed picture, `size` (width, height) is what the box or the
        whole is scaled down to, averaging areas. Raises CodedError INPUT_NOT_FOUND or INPUT_INVALID (reason
        `no_video_frames`, `undecodable`, ...).
        """
        self._path = path
        self._reader = FrameReader(path, cache_bytes)
        try:
            seconds = self._reader.seconds
            self.rate: Fraction = nominal_rate(seconds) if fps is None else as_rate(fps)
            try:
                self._grid = constant_grid(seconds, self._reader.last_duration, self.rate)
            except ValueError as error:
                raise invalid("implausible_timestamps", f"{path.name} has broken timestamps: {error}.") from error
            first = self._reader.frame(0)
            self._orientation: Orientation = frame_orientation(first)
            self._coded_size = square_size(first.width, first.height, self._reader.sample_aspect)
        except BaseException:
            self._reader.close()
            raise
        width, height = self._orientation.size(*self._coded_size)
        left, top, width, height = box or (0, 0, width, height)
        self._shown = slice(top, top + height // 2 * 2), slice(left, left + width // 2 * 2)
        width, height = size or (width, height)
        self.width: int = width // 2 * 2
        """Displayed width in pixels, even."""
        self.height: int = height // 2 * 2
        """Displayed height in pixels, even."""

    @property
    def fps(self) -> float:
        """The constant rate in frames/s; `rate` is the exact fraction."""
        return float(self.rate)

    @property
    def frame_count(self) -> int:
        """Frames of one forward pass at the constant rate, at least 1."""
        return len(self._grid)

    def indices(self, count: int) -> Indices:
        """For each of `count` delivered frames, its number in the forward pass; `[count]`, in `0..frame_count-1`."""
        return pingpong(self.frame_count, count)

    def batches(self, batch_size: int, count: int) -> Iterator[RgbBatch]:
        """Yield exactly `count` frames in ping-pong order as uint8 RGB `[B, height, width, 3]`, B <= batch_size.

        The next batch is decoded while the caller works on this one; each batch is a fresh array. Memory does not
        grow with `count`. Raises CodedError INPUT_INVALID naming the frame where the file cannot be decoded.
        """
        order = self.indices(count)
        parts = [order[start : start + batch_size] for start in range(0, count, batch_size)]
        with ThreadPoolExecutor(1, thread_name_prefix="template-decode") as ahead:
            pending = ahead.submit(self._batch, parts[0]) if parts else None
            for following in [*parts[1:], None]:
                if pending is None:
                    return
                batch = pending.result()
                pending = None if following is None else ahead.submit(self._batch, following)
                yield batch

    def frame(self, number: int) -> npt.NDArray[np.uint8]:
        """Frame `number` of the forward pass as uint8 RGB `[height, width, 3]`. Not while `batches` is under way."""
        image: npt.NDArray[np.uint8] = self._batch(np.array([number], np.int64))[0]
        return image

    def close(self) -> None:
        """Close the file and drop the cached frames. Safe to repeat."""
        self._reader.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _batch(self, numbers: Indices) -> RgbBatch:
        batch = np.empty((len(numbers), self.height, self.width, 3), np.uint8)
        shown = -1
        for row, number in enumerate(self._grid[numbers]):
            if row and number == shown:
                batch[row] = batch[row - 1]
            else:
                batch[row] = self._rgb(self._reader.frame(int(number)))
            shown = number
        return batch

    def _rgb(self, frame: VideoFrame) -> npt.NDArray[np.uint8]:
        untagged_hd = frame.colorspace == _UNSPECIFIED and frame.height >= _HD_HEIGHT
        width, height = self._coded_size
        space = _ITU709 if untagged_hd else None
        rgb: npt.NDArray[Any]
        if is_hdr(frame.color_trc):
            # Not `_EXACT`: with it swscale makes stripes of blue where there are 16 bits.
            codes = frame.reformat(width, height, "rgb48le", src_colorspace=space).to_ndarray()
            rgb = to_srgb(cast("npt.NDArray[np.uint16]", codes), frame.color_trc)
        else:
            rgb = frame.reformat(width, height, "rgb24", src_colorspace=space, interpolation=_EXACT).to_ndarray()
        upright = self._orientation.apply(cast("npt.NDArray[np.uint8]", rgb))
        return resize(upright[self._shown], (self.width, self.height))
