"""The result file: RGB frames in, an MP4 with H.264 video and AAC sound out, written while rendering goes on."""

from __future__ import annotations

import queue
import threading
import time
from contextlib import suppress
from fractions import Fraction
from functools import lru_cache
from pathlib import Path
from types import TracebackType
from typing import Self

import av
import numpy as np
import numpy.typing as npt
from av.codec.context import ThreadType
from av.container import OutputContainer
from av.video.frame import VideoFrame
from av.video.reformatter import Interpolation

from app.media.containers import write_error
from app.media.frame_grid import as_rate
from app.media.soundtrack import Soundtrack
from app.retry.taxonomy import CodedError

QUEUED_BATCHES = 2
"""Batches that may wait for the encoder: enough to overlap, little enough to keep memory flat."""
KEYFRAME_SECONDS = 2
"""Distance of keyframes: players can seek that finely."""

_BT709 = 1
_LIMITED_RANGE = 1
_EXACT = Interpolation.BILINEAR | Interpolation.FULL_CHR_H_INP | Interpolation.ACCURATE_RND
"""Averages the chroma of all pixels and rounds; costs no more than swscale's default here."""
_SOFTWARE = "libx264"
_NVENC = "h264_nvenc"


@lru_cache(maxsize=8)
def h264_encoder(device: str) -> str:
    """The H.264 encoder to use beside `device` (`"cpu"`, `"cuda:0"`): `h264_nvenc` where it opens, else `libx264`.

    NVENC is listed even where no driver or no encoder unit is there (data-centre cards have none), so it is tried.
    """
    if not device.startswith("cuda"):
        return _SOFTWARE
    try:
        context = av.CodecContext.create(_NVENC, "w")
        assert isinstance(context, av.VideoCodecContext)
        context.width, context.height, context.pix_fmt = 256, 256, "yuv420p"
        context.time_base = Fraction(1, 25)
        context.options = {"gpu": device.partition(":")[2] or "0"}
        context.open()
        context.encode(VideoFrame(256, 256, "yuv420p"))
    except (av.error.FFmpegError, ValueError, AttributeError):
        return _SOFTWARE
    return _NVENC


class VideoWriter:
    """Writes one MP4: `write` batches, then `close`; or `abort`. In a `with` block an exception aborts.

    Encoding runs in a thread of its own. An error of that thread is raised by the next `write` or by `close`, as
    CodedError: DISK_FULL, INPUT_INVALID (the audio cannot be decoded) or INTERNAL; the file is then removed.
    """

    def __init__(
        self,
        path: Path,
        width: int,
        height: int,
        fps: Fraction | float,
        audio_path: Path | None,
        *,
        crf: int = 20,
        preset: str = "veryfast",
        encoder: str = _SOFTWARE,
    ) -> None:
        """Create `path` for frames of `width` x `height` pixels at `fps`, with the sound of `audio_path` (None = mute).

        Raises ValueError for odd or non-positive sizes or a bad rate, CodedError for a bad audio file or a full disk.
        """
        if width <= 0 or height <= 0 or width % 2 or height % 2:
            raise ValueError(f"H.264 with 4:2:0 colour needs even sizes, not {width}x{height}")
        self.path = path
        self.rate = as_rate(fps)
        self.frames = 0
        """Frames handed over so far."""
        self.encode_seconds = 0.0
        """Time that the encoder thread was busy, in seconds."""
        self._shape = (height, width, 3)
        self._queue: queue.Queue[npt.NDArray[np.uint8] | None] = queue.Queue(QUEUED_BATCHES)
        self._stop = threading.Event()
        self._error: BaseException | None = None
        self._ended = False
        try:
            path.touch()  # FFmpeg opens the file with the first packet; a bad path is better known now
            self._container: OutputContainer = av.open(
                str(path.absolute()),
                "w",
                format="mp4",
                container_options={"movflags": "+faststart", "fflags": "+bitexact"},
            )
        except (av.error.FFmpegError, OSError) as error:
            raise write_error(error, path.name) from error
        try:
            self._video = self._add_video(encoder, crf, preset)
            self._sound = None if audio_path is None else Soundtrack(self._container, audio_path)
        except BaseException:
            self._discard()
            raise
        self._thread = threading.Thread(target=self._encode_all, name="encode", daemon=True)
        self._thread.start()

    def write(self, frames: npt.NDArray[np.uint8], *, copy: bool = True) -> None:
        """Queue uint8 RGB frames `[B, H, W, 3]`. Waits while the encoder is behind.

        They are copied; with `copy=False` they are the writer's own from now on, and the caller must not change them.

        Raises ValueError for another shape or type, CodedError for an earlier error of the encoder.
        """
        if frames.ndim != 4 or frames.shape[1:] != self._shape or frames.dtype != np.uint8:
            raise ValueError(f"expected uint8 frames [B, {self._shape}], not {frames.dtype} {frames.shape}")
        if self._ended:
            raise ValueError("the writer is closed")
        self._put(np.array(frames, copy=copy or None, order="C"))
        self.frames += len(frames)

    def close(self) -> None:
        """Finish the file: the rest of the sound, cut or padded with silence to the length of the video.

        Raises ValueError where no frame was written, CodedError for an error of the encoder or the disk.
        """
        if self._ended:
            return
        if self.frames == 0:
            self.abort()
            raise ValueError("no frame was written")
        try:
            self._put(None)
            self._thread.join()
            self._raise_error()
        except BaseException:
            self.abort()
            raise
        self._ended = True

    def abort(self) -> None:
        """Stop the encoder and remove the file. Safe to repeat and after an error; not after `close`."""
        if self._ended:
            return
        self._ended = True
        self._stop.set()
        with suppress(queue.Full):  # then there is something to wake up for already
            self._queue.put_nowait(None)
        self._thread.join()
        self._discard()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            self.close()
        else:
            self.abort()

    def _add_video(self, encoder: str, crf: int, preset: str) -> av.VideoStream:
        stream = self._container.add_stream(encoder, rate=self.rate)
        assert isinstance(stream, av.VideoStream)
        height, width, _ = self._shape
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        context = stream.codec_context
        context.time_base = 1 / self.rate
        context.gop_size = max(round(self.rate * KEYFRAME_SECONDS), 1)
        # PyAV asks for slice threads, with which x264 compresses worse and runs slower.
        context.thread_type = ThreadType.FRAME
        context.colorspace = context.color_primaries = context.color_trc = _BT709
        context.color_range = _LIMITED_RANGE
        if encoder == _NVENC:
            stream.options = {"preset": "p4", "rc": "vbr", "cq": str(crf), "b": "0"}
        else:
            stream.options = {"preset": preset, "crf": str(crf)}
        return stream

    def _put(self, batch: npt.NDArray[np.uint8] | None) -> None:
        while True:
            self._raise_error()
            try:
                self._queue.put(batch, timeout=0.2)
            except queue.Full:
                continue
            return

    def _raise_error(self) -> None:
        if self._error is None:
            return
        error = self._error
        self.abort()
        if isinstance(error, CodedError):
            raise error
        raise write_error(error, self.path.name) from error

    def _encode_all(self) -> None:
        """The encoder thread: frames and the sound that belongs beside them, until the end mark."""
        try:
            done = 0
            while True:
                batch = self._queue.get()
                if self._stop.is_set():
                    return
                started = time.perf_counter()
                if batch is None:
                    self._finish(done)
                    self.encode_seconds += time.perf_counter() - started
                    return
                for image in batch:
                    if self._stop.is_set():
                        return
                    self._encode(image, done)
                    done += 1
                    if self._sound is not None:
                        self._sound.advance(Fraction(done) / self.rate)
                self.encode_seconds += time.perf_counter() - started
        except Exception as error:  # noqa: BLE001 - handed to the caller's thread
            self._error = error

    def _encode(self, image: npt.NDArray[np.uint8], number: int) -> None:
        rgb = VideoFrame.from_ndarray(image, format="rgb24")
        frame = rgb.reformat(
            format="yuv420p", dst_colorspace=_BT709, dst_color_range=_LIMITED_RANGE, interpolation=_EXACT
        )
        frame.color_primaries = frame.color_trc = _BT709
        frame.pts, frame.time_base = number, 1 / self.rate
        self._container.mux(self._video.encode(frame))

    def _finish(self, frames: int) -> None:
        self._container.mux(self._video.encode(None))
        if self._sound is not None:
            self._sound.finish(Fraction(frames) / self.rate)
        self._container.close()

    def _discard(self) -> None:
        with suppress(Exception):  # the file is thrown away; a half-written container may refuse in any way
            self._container.close()
        self.path.unlink(missing_ok=True)
