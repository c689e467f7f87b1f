"""A video that another program made, as a file of ours: its picture, the speech as it was sent, ready for browsers.

Where the picture is already what we write (H.264, a constant rate, upright, of the speech's length) its packets are
copied; otherwise it is encoded anew.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from av.container import InputContainer

from app.media.audio_in import audio_length
from app.media.containers import error_text, open_input, video_stream, write_error
from app.media.encode import VideoWriter
from app.media.soundtrack import Soundtrack
from app.media.verify import verify_video
from app.media.video_in import VideoSource
from app.retry.taxonomy import CodedError, FailureCode

_RATE = 16_000
_CACHE_BYTES = 32 * 1024**2
"""It is read once, forward."""
_BATCH_PIXELS = 8_000_000
_CRF, _PRESET = 18, "veryfast"
"""A second generation should not be seen."""


@dataclass(frozen=True, slots=True)
class Dubbed:
    """The finished file."""

    width: int
    height: int
    rate: Fraction
    frames: int
    held: int
    """Frames that repeat the last one, for the rest of the speech."""
    copied: bool
    """The picture was not encoded anew."""


def dub(video: Path, speech: Path, path: Path, *, hold_s: float, moved: Callable[[int, int], None]) -> Dubbed:
    """Write `path` from the picture of `video` and the sound of `speech`.

    A picture that is longer than the speech is cut. One that is shorter shows its last frame on, if no more than
    `hold_s` seconds are missing; else the result is too short, and checking it will say so. `moved` is told how many
    frames of how many are written, and may raise.

    Raises CodedError OUTPUT_INVALID where `video` cannot be read, DISK_FULL.
    """
    seconds = Fraction(audio_length(speech, _RATE), _RATE)
    try:
        with VideoSource(video, cache_bytes=_CACHE_BYTES) as source:
            wanted = max(1, round(seconds * source.rate))
            there = min(source.frame_count, wanted)
            missing = wanted - there
            held = missing if missing <= hold_s * source.rate else 0
            fits = held == 0 and source.frame_count - wanted <= 1
            if fits and _copy(video, source, speech, path, seconds):
                return Dubbed(source.width, source.height, source.rate, source.frame_count, 0, copied=True)
            _encode(source, speech, path, there, held, moved)
            return Dubbed(source.width, source.height, source.rate, there + held, held, copied=False)
    except CodedError as error:
        if error.code.startswith("INPUT_"):
            message = f"What the program wrote is no video that can be used: {error.failure.message}"
            raise CodedError(FailureCode.OUTPUT_INVALID, message, check="opens") from error
        raise


def _encode(
    source: VideoSource, speech: Path, path: Path, frames: int, held: int, moved: Callable[[int, int], None]
) -> None:
    size = max(1, _BATCH_PIXELS // (source.width * source.height))
    writer = VideoWriter(path, source.width, source.height, source.rate, speech, crf=_CRF, preset=_PRESET)
    with writer:
        done = 0
        for batch in source.batches(size, frames):
            writer.write(batch)
            done += len(batch)
            moved(done, frames + held)
        for _ in range(held):
            writer.write(batch[-1:])
        writer.close()


def _copy(video: Path, source: VideoSource, speech: Path, path: Path, seconds: Fraction) -> bool:
    """Copy the packets; False, and no file, where the result would not be as ours are."""
    with open_input(video) as container:
        stream = video_stream(container, video)
        context = stream.codec_context
        as_it_is = (
            context.name == "h264"
            and context.pix_fmt == "yuv420p"
            and (context.width, context.height) == (source.width, source.height)
        )
        if not as_it_is or not _is_constant(container, stream, source.rate):
            return False
        try:
            _write_packets(container, stream, source, speech, path)
            verify_video(
                path,
                width=source.width,
                height=source.height,
                fps=source.rate,
                frames=source.frame_count,
                audio_seconds=float(seconds),
            )
        except CodedError as error:
            with suppress(FileNotFoundError):
                path.unlink()
            if error.code is not FailureCode.OUTPUT_INVALID:
                raise
            return False
    return True


def _is_constant(container: InputContainer, stream: av.VideoStream, rate: Fraction) -> bool:
    """Whether the first frame is shown at 0, and each of the others one frame's time after the one before it."""
    times = sorted(packet.pts for packet in container.demux(stream) if packet.size and packet.pts is not None)
    container.seek(0)
    if not times or stream.time_base is None:
        return False
    step = float(1 / (rate * stream.time_base))
    return bool(np.all(np.abs(np.array(times) - np.arange(len(times)) * step) <= 1.0))


def _write_packets(
    container: InputContainer, stream: av.VideoStream, source: VideoSource, speech: Path, path: Path
) -> None:
    try:
        with av.open(
            str(path.absolute()),
            "w",
            format="mp4",
            container_options={"movflags": "+faststart", "fflags": "+bitexact"},
        ) as out:
            picture = out.add_stream_from_template(stream)
            picture.metadata.clear()
            sound = Soundtrack(out, speech)
            count = 0
            for packet in container.demux(stream):
                if packet.size == 0:
                    continue
                packet.stream = picture
                out.mux(packet)
                count += 1
                sound.advance(Fraction(count) / source.rate)
            sound.finish(Fraction(source.frame_count) / source.rate)
    except (av.error.FFmpegError, OSError, ValueError) as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise write_error(error, path.name) from error
        message = f"The picture cannot be copied: {error_text(error)}"
        raise CodedError(FailureCode.OUTPUT_INVALID, message, check="opens") from error
