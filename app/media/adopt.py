"""A video that another program made, as a result of ours: H.264 and AAC in a faststart MP4 without foreign metadata.

Its pictures are kept as they are coded where they can be, and coded anew where not. Its sound is always the task's own:
what other programs write there has been resampled, padded or cut.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import cast

import av
from av.container import InputContainer

from app.media.audio_in import audio_length
from app.media.containers import decoding, open_input, video_stream, write_error
from app.media.encode import VideoWriter
from app.media.frame_grid import MAX_RATE, as_rate
from app.media.orientation import Orientation, frame_orientation
from app.media.soundtrack import Soundtrack
from app.media.verify import AAC_FRAME, verify_video
from app.media.video_in import VideoSource
from app.retry.taxonomy import CodedError, FailureCode

_RATE = 16_000
_SHORT_S = 0.5
"""What may lack at the end, in seconds: programs round to their own steps of sound. The last frames fill it."""
_BATCH = 16

Report = Callable[[int, int], None]
"""Called with frames done and frames in all."""


@dataclass(frozen=True, slots=True)
class Adopted:
    """What was written."""

    frames: int
    rate: Fraction
    width: int
    height: int
    kept: bool
    """Whether the coded pictures are the foreign file's own."""


def adopt(path: Path, out: Path, audio: Path, report: Report) -> Adopted:
    """Write the pictures of `path` with the sound of `audio` to `out`, as long as that sound within one frame.

    A longer video is cut off. Raises CodedError OUTPUT_INVALID where `path` is no readable video, or ends more than
    half a second before the sound (reason `unreadable`, `too_short`); what `report` raises passes through.
    """
    speech_s = audio_length(audio, _RATE) / _RATE
    try:
        with open_input(path) as container:
            rate = _copyable(container, path, speech_s)
        if rate is not None:
            kept = _copy(path, out, audio, rate, report)
            if _is_sound(out, kept, speech_s):
                return kept
        return _encode(path, out, audio, speech_s, report)
    except CodedError as error:
        if error.code not in (FailureCode.INPUT_INVALID, FailureCode.INPUT_NOT_FOUND):
            raise
        # Not the caller's input but what came back for it.
        raise _broken("unreadable", f"The video that came back cannot be read: {error.failure.message}") from error


def _broken(reason: str, message: str) -> CodedError:
    return CodedError(FailureCode.OUTPUT_INVALID, message, check="adopt", reason=reason)


def _copyable(container: InputContainer, path: Path, speech_s: float) -> Fraction | None:
    """The frame rate of a video whose packets can be taken as they are; None where they cannot.

    They can if every player shows them (H.264, 4:2:0, even, upright, square) at a constant rate from a keyframe on,
    and if they are as long as the speech.
    """
    stream = video_stream(container, path)
    context = stream.codec_context
    if (context.name, context.pix_fmt) != ("h264", "yuv420p") or context.width % 2 or context.height % 2:
        return None
    if (stream.sample_aspect_ratio or 1) != 1:
        return None
    packets = [packet for packet in _packets(container, stream, path) if packet.pts is not None]
    if not packets or not packets[0].is_keyframe or any(packet.dts is None for packet in packets):
        return None
    tick = float(stream.time_base or 0)
    shown = sorted(cast(int, packet.pts) for packet in packets)
    if stream.average_rate is None or not 0 < stream.average_rate <= MAX_RATE:
        return None
    rate = as_rate(float(stream.average_rate))
    steps = [(at - shown[0]) * tick - n / float(rate) for n, at in enumerate(shown)]
    if max(map(abs, steps)) > 0.25 / float(rate):
        return None
    grain = max(1 / float(rate), AAC_FRAME / 48_000)
    if abs(len(packets) / float(rate) - speech_s) > grain:
        return None
    container.seek(0)
    with decoding(path):
        first = next(container.decode(stream), None)
    return rate if first is not None and frame_orientation(first) == Orientation() else None


def _packets(container: InputContainer, stream: av.VideoStream, path: Path) -> Iterator[av.Packet[av.VideoStream]]:
    with decoding(path):
        for packet in container.demux(stream):
            if packet.size > 0:
                yield packet


def _copy(path: Path, out: Path, audio: Path, rate: Fraction, report: Report) -> Adopted:
    options = {"movflags": "+faststart", "fflags": "+bitexact"}
    try:
        with (
            open_input(path) as source,
            av.open(str(out.absolute()), "w", format="mp4", container_options=options) as target,
        ):
            theirs = video_stream(source, path)
            ours = target.add_stream_from_template(theirs)
            ours.metadata.clear()
            sound = Soundtrack(target, audio)
            total = theirs.frames or 0
            done = 0
            # Each frame gets its exact place: theirs may be rounded to a coarse tick.
            first = min(cast(int, p.pts) for p in _packets(source, theirs, path))
            source.seek(0)
            grid, ticks = 1 / rate, theirs.time_base or Fraction(1, 1000)
            for packet in _packets(source, theirs, path):
                packet.pts = round((cast(int, packet.pts) - first) * ticks * rate)
                packet.dts = round((cast(int, packet.dts) - first) * ticks * rate)
                packet.duration, packet.time_base, packet.stream = 1, grid, ours
                target.mux(packet)
                done += 1
                sound.advance(Fraction(done) / rate)
                if done % _BATCH == 0:
                    report(done, max(total, done))
            sound.finish(Fraction(done) / rate)
            context = theirs.codec_context
            return Adopted(done, rate, context.width, context.height, kept=True)
    except (av.error.FFmpegError, OSError) as error:
        raise write_error(error, out.name) from error


def _is_sound(out: Path, made: Adopted, speech_s: float) -> bool:
    try:
        verify_video(
            out, width=made.width, height=made.height, fps=made.rate, frames=made.frames, audio_seconds=speech_s
        )
    except CodedError:
        out.unlink(missing_ok=True)
        return False
    return True


def _encode(path: Path, out: Path, audio: Path, speech_s: float, report: Report) -> Adopted:
    with VideoSource(path) as source:
        there_s = source.frame_count / source.fps
        if there_s < speech_s - _SHORT_S:
            raise _broken(
                "too_short", f"The video that came back lasts {there_s:.2f} s, where the speech lasts {speech_s:.2f} s."
            )
        frames = max(1, round(speech_s * source.fps))
        with VideoWriter(out, source.width, source.height, source.rate, audio) as writer:
            for batch in source.batches(_BATCH, frames):
                writer.write(batch)
                report(writer.frames, frames)
            writer.close()
        return Adopted(frames, source.rate, source.width, source.height, kept=False)
