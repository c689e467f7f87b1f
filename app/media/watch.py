"""Watching a finished video once, from first to last: all frames small and grey, chosen ones in colour."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import numpy as np
import numpy.typing as npt
from av.codec.context import ThreadType
from av.video.frame import VideoFrame

from app.media.containers import decoding, open_input, video_stream

SIDE = 320
"""Grey frames are thinned out to so many pixels at most along the longer side: a mouth still shows, at little cost."""

_ITU709 = 1


@dataclass(frozen=True)
class Seen:
    """One frame: its `number`, `grey` [h, w] uint8 (every `step`-th pixel's luma, 16 black to 235 white), and `colour`
    [H, W, 3] uint8 RGB where it was asked for."""

    number: int
    step: int
    grey: npt.NDArray[np.uint8]
    colour: npt.NDArray[np.uint8] | None


def watch(path: Path, in_colour: Collection[int]) -> Iterator[Seen]:
    """All frames of the video in `path`, in order. `in_colour` are numbers of frames.

    `grey` is only good until the next frame. Raises CodedError INPUT_INVALID where a frame cannot be decoded.
    """
    wanted = frozenset(in_colour)
    with open_input(path) as container:
        stream = video_stream(container, path)
        stream.codec_context.thread_type = ThreadType.FRAME | ThreadType.SLICE
        frames = container.decode(stream)
        number = 0
        while True:
            with decoding(path, number):
                frame = next(frames, None)
                if frame is None:
                    return
                step = -(-max(frame.width, frame.height) // SIDE)
                seen = Seen(number, step, _grey(frame, step), _colour(frame) if number in wanted else None)
            yield seen
            number += 1


def _grey(frame: VideoFrame, step: int) -> npt.NDArray[np.uint8]:
    plane = frame.planes[0]
    rows = np.frombuffer(plane, np.uint8).reshape(-1, plane.line_size)  # type: ignore[call-overload]
    return np.ascontiguousarray(rows[: frame.height : step, : frame.width : step])


def _colour(frame: VideoFrame) -> npt.NDArray[np.uint8]:
    return cast("npt.NDArray[np.uint8]", frame.reformat(format="rgb24", src_colorspace=_ITU709).to_ndarray())


def luma(pixels: npt.NDArray[np.uint8], step: int) -> npt.NDArray[np.float32]:
    """The luma (BT.709, 16..235) of every `step`-th pixel of RGB [H, W, 3], as `Seen.grey` has it."""
    thinned = pixels[::step, ::step].astype(np.float32)
    return 16 + (219 / 255) * (thinned @ np.array([0.2126, 0.7152, 0.0722], np.float32))
