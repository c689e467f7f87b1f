"""Decoded frames of a video file by number, in display order, with a bounded cache."""

from __future__ import annotations

import os
from collections import OrderedDict
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import numpy.typing as npt
from av.codec.context import ThreadType
from av.container import InputContainer
from av.video.frame import VideoFrame

from app.media.containers import decoding, invalid, open_input, video_stream

CHUNKS_CACHED = 2
"""One being played and one being filled; at a turning point both are still there."""
MIN_CHUNK, MAX_CHUNK = 4, 512
MAX_THREADS = 8
"""Decoder threads; each holds a frame of its own, and more bring nothing at the sizes of talking heads."""


class FrameReader:
    """Random access to decoded frames. Sequential reading decodes once; reading backward decodes chunk by chunk."""

    def __init__(self, path: Path, cache_bytes: int) -> None:
        """Open `path` and read its packet index. Raises CodedError INPUT_NOT_FOUND or INPUT_INVALID."""
        self._path = path
        self._container = open_input(path)
        try:
            self._stream = video_stream(self._container, path)
            self._pts, self._keys, last_ticks = _packet_index(self._container, self._stream, path)
            self._tick = float(self._stream.time_base or Fraction(1, 1000))
            self.last_duration: float = self._last_duration(last_ticks)
            """Seconds for which the last frame is shown."""
            context = self._stream.codec_context
            context.thread_type = ThreadType.FRAME | ThreadType.SLICE
            context.thread_count = min(os.cpu_count() or 1, MAX_THREADS)
        except BaseException:
            self._container.close()
            raise
        self._chunks: OrderedDict[int, list[VideoFrame]] = OrderedDict()
        self._decoded: Iterator[VideoFrame] = iter(())
        self._ahead: tuple[int, VideoFrame] | None = None
        """A decoded frame that lies beyond the one asked for: frames between are missing in the file."""
        self._next = -1
        """Number of the frame that the decoder delivers next; -1 = unknown, seek first."""
        self._chunk_size = self._fit(cache_bytes)

    @property
    def seconds(self) -> npt.NDArray[np.float64]:
        """Presentation time of each frame in seconds, ascending; the first is 0."""
        seconds: npt.NDArray[np.float64] = (self._pts - self._pts[0]) * self._tick
        return seconds

    @property
    def sample_aspect(self) -> Fraction:
        """Width of a pixel over its height; 1 where the file says nothing."""
        return self._stream.sample_aspect_ratio or self._stream.codec_context.sample_aspect_ratio or Fraction(1)

    def frame(self, number: int) -> VideoFrame:
        """Frame `number` in display order. Raises CodedError INPUT_INVALID with that number in the detail."""
        chunk_number, offset = divmod(number, self._chunk_size)
        chunk = self._chunks.get(chunk_number)
        if chunk is None:
            while len(self._chunks) >= CHUNKS_CACHED:
                self._chunks.popitem(last=False)
            chunk = self._chunks[chunk_number] = []
        self._chunks.move_to_end(chunk_number)
        while len(chunk) <= offset:
            chunk.append(self._decode(chunk_number * self._chunk_size + len(chunk)))
        return chunk[offset]

    def close(self) -> None:
        """Close the file and drop the cache. Safe to repeat."""
        self._chunks = OrderedDict()
        self._decoded = iter(())
        self._ahead = None
        self._container.close()

    def _fit(self, cache_bytes: int) -> int:
        context = self._stream.codec_context
        bytes_each = max(context.width * context.height * 3 // 2, 1)
        return min(max(cache_bytes // (CHUNKS_CACHED * bytes_each), MIN_CHUNK), MAX_CHUNK)

    def _last_duration(self, ticks: int) -> float:
        if 0 < ticks * self._tick <= 1.0:
            return ticks * self._tick
        return float(np.median(np.diff(self._pts))) * self._tick if len(self._pts) > 1 else 0.04

    def _decode(self, number: int) -> VideoFrame:
        """Decode frame `number`: the next one if the decoder stands before it, else from the keyframe before it."""
        with decoding(self._path, number):
            if self._next != number:
                self._seek(number)
            frame = self._take(number)
        self._next = number + 1
        return frame

    def _take(self, number: int) -> VideoFrame:
        """Advance the decoder to `number`. A frame that the decoder leaves out is replaced by its successor."""
        while True:
            if self._ahead is None:
                frame = next(self._decoded, None)
                if frame is None:
                    raise invalid("undecodable", f"{self._path.name} ends before frame {number}.", frame=number)
                self._ahead = (self._number(frame), frame)
            found, frame = self._ahead
            if found > number:
                return frame
            self._ahead = None
            if found == number:
                return frame

    def _seek(self, number: int) -> None:
        """Position the decoder on a frame not after `number`.

        Containers seek by decoding time, so that they can land on a keyframe shown after `number`; then go back.
        """
        key = int(np.searchsorted(self._keys, self._pts[number], side="right")) - 1
        back = 0
        while True:
            start = max(key - back, 0)
            target = int(self._keys[start]) if len(self._keys) else int(self._pts[0])
            self._container.seek(target, stream=self._stream, backward=True)
            self._decoded = self._frames()
            frame = next(self._decoded, None)
            self._ahead = None if frame is None else (self._number(frame), frame)
            if start == 0 or (self._ahead is not None and self._ahead[0] <= number):
                return
            back = 2 * back + 1

    def _frames(self) -> Iterator[VideoFrame]:
        for packet in self._container.demux(self._stream):
            yield from packet.decode()

    def _number(self, frame: VideoFrame) -> int:
        pts = frame.pts if frame.pts is not None else frame.dts
        if pts is None:
            return self._next
        return max(int(np.searchsorted(self._pts, pts, side="right")) - 1, 0)


def _packet_index(
    container: InputContainer, stream: av.VideoStream, path: Path
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64], int]:
    """Ascending presentation times of all frames, those of the keyframes, and the last one's duration, in ticks."""
    shown: list[int] = []
    keys: list[int] = []
    last = (-1, 0)
    with decoding(path):
        for packet in container.demux(stream):
            pts = packet.pts if packet.pts is not None else packet.dts
            if pts is None or packet.size == 0:
                continue
            if packet.is_keyframe:
                keys.append(pts)
            if not packet.is_discard:
                shown.append(pts)
                last = max(last, (pts, packet.duration or 0))
    if not shown:
        raise invalid("no_video_frames", f"{path.name} has a video stream, but not one frame in it.")
    return np.unique(np.array(shown, np.int64)), np.unique(np.array(keys, np.int64)), last[1]
