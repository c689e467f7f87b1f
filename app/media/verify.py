"""Is a finished file what it should be: structure, lengths, and whether its first and last frames decode."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
from av.container import InputContainer
from PIL import Image

from app.media.boxes import declared_end, top_level_boxes
from app.media.containers import error_text, open_input
from app.media.frame_grid import as_rate
from app.media.video_in import VideoSource
from app.retry.taxonomy import CodedError, FailureCode

AAC_FRAME = 1024
"""Samples in an AAC packet: the grain of an audio stream's length."""
_TAIL_PACKETS = 600
"""Packets decoded behind the last keyframe at most; our encoder puts a keyframe every 2 s."""

_KNOWN_BOXES = frozenset(
    {"ftyp", "moov", "mdat", "free", "skip", "wide", "styp", "moof", "sidx", "mfra", "meta", "uuid"}
)


def verify_video(
    path: Path, *, width: int, height: int, fps: Fraction | float, frames: int, audio_seconds: float | None
) -> dict[str, Any]:
    """Check a finished MP4 and return the measured values by name (JSON-ready; durations in seconds).

    `audio_seconds` is the length of the speech, None where the file shall be mute. Sound and picture may differ by
    one video frame or one AAC packet, whichever is longer. Raises CodedError OUTPUT_INVALID whose detail names the
    `check` that failed (`exists, boxes, faststart, opens, streams, video_codec, pixel_format, size, frame_rate,
    frame_count, video_duration, audio_codec, audio_duration, start, decodes`) with `expected` and `found`.
    """
    rate = as_rate(fps)
    values: dict[str, Any] = {"bytes": _check_boxes(path)}
    try:
        with open_input(path) as container:
            _check_streams(container, audio_seconds is not None)
            values |= _check_video(container, width, height, rate, frames)
            if audio_seconds is not None:
                values |= _check_audio(container, frames, rate, audio_seconds)
            values["decoded_tail"] = _check_decodes(container)
    except CodedError as error:
        if error.code is FailureCode.OUTPUT_INVALID:
            raise
        raise _broken("opens", "a readable file", error.failure.message) from error
    except (av.error.FFmpegError, ValueError) as error:
        raise _broken("decodes", "a decodable file", error_text(error)) from error
    return values


def contact_sheet(path: Path, out_png: Path, columns: int = 4, rows: int = 4, thumb_width: int = 320) -> None:
    """Write a PNG of `columns` x `rows` frames, evenly spaced over the video, first and last included."""
    with VideoSource(path) as source:
        numbers = np.linspace(0, source.frame_count - 1, columns * rows).round().astype(int)
        thumb_height = max(round(source.height * thumb_width / source.width), 1)
        sheet = Image.new("RGB", (columns * thumb_width, rows * thumb_height))
        for place, number in enumerate(numbers):
            thumb = Image.fromarray(source.frame(int(number))).resize((thumb_width, thumb_height))
            sheet.paste(thumb, (place % columns * thumb_width, place // columns * thumb_height))
    sheet.save(out_png)


def _broken(check: str, expected: object, found: object) -> CodedError:
    message = f"The rendered file is broken ({check}): expected {expected}, found {found}."
    return CodedError(FailureCode.OUTPUT_INVALID, message, check=check, expected=expected, found=found)


def _expect(check: str, expected: object, found: object) -> None:
    if found != expected:
        raise _broken(check, expected, found)


def _expect_near(check: str, expected: float, found: float, tolerance: float) -> None:
    if not abs(found - expected) <= tolerance + 1e-6:
        raise _broken(check, round(expected, 4), round(found, 4))


def _check_boxes(path: Path) -> int:
    """Complete, and the index before the media, so that a browser plays while it loads. Returns the size in bytes."""
    if not path.is_file() or (size := path.stat().st_size) == 0:
        raise _broken("exists", "a file with content", "nothing")
    boxes = top_level_boxes(path)
    kinds = [box.kind for box in boxes]
    if "moov" not in kinds or "mdat" not in kinds or declared_end(boxes) != size:
        raise _broken("boxes", "ftyp, moov, mdat up to the end of the file", _named(kinds))
    if kinds.index("moov") > kinds.index("mdat"):
        raise _broken("faststart", "moov before mdat", "mdat before moov")
    return size


def _named(kinds: list[str]) -> str:
    """Box names as text that can be shown: damaged files have names of control characters."""
    if not _KNOWN_BOXES.intersection(kinds):
        return "no known box"
    return ", ".join(kind if kind in _KNOWN_BOXES else ascii(kind) for kind in kinds[:20])


def _check_streams(container: InputContainer, with_sound: bool) -> None:
    expected = ["audio", "video"] if with_sound else ["video"]
    _expect("streams", expected, sorted(stream.type for stream in container.streams))


def _check_video(container: InputContainer, width: int, height: int, rate: Fraction, frames: int) -> dict[str, Any]:
    stream = container.streams.video[0]
    context = stream.codec_context
    _expect("video_codec", "h264", context.name)
    _expect("pixel_format", "yuv420p", context.pix_fmt)
    _expect("size", f"{width}x{height}", f"{context.width}x{context.height}")
    count, start, seconds = _measure(container, stream)
    _expect("frame_count", frames, count)
    _expect_near("video_duration", frames / float(rate), seconds, float(1 / rate))
    _expect_near("frame_rate", float(rate), float(stream.average_rate or 0), 0.01 * float(rate) if frames > 1 else 1e9)
    _expect_near("start", 0.0, start, float(1 / rate))
    return {"width": width, "height": height, "fps": float(rate), "frames": count, "video_seconds": round(seconds, 4)}


def _check_audio(container: InputContainer, frames: int, rate: Fraction, audio_seconds: float) -> dict[str, Any]:
    stream = container.streams.audio[0]
    context = stream.codec_context
    _expect("audio_codec", "aac", context.name)
    _, start, seconds = _measure(container, stream)
    tolerance = max(float(1 / rate), AAC_FRAME / context.sample_rate)
    _expect_near("audio_duration", frames / float(rate), seconds, tolerance)
    _expect_near("audio_duration", audio_seconds, seconds, tolerance)
    _expect_near("start", 0.0, start, tolerance)
    return {
        "audio_seconds": round(seconds, 4),
        "sample_rate": context.sample_rate,
        "channels": context.layout.nb_channels,
    }


def _measure(container: InputContainer, stream: av.VideoStream | av.AudioStream) -> tuple[int, float, float]:
    """Packets, start and length in seconds of one stream, by reading all of its packets.

    Priming samples of the sound lie before 0 and are cut off by the file's edit list; its last packet is padded.
    """
    container.seek(0)
    tick = float(stream.time_base or 0)
    count, start, end = 0, float("inf"), 0
    for packet in container.demux(stream):
        if packet.size == 0 or packet.pts is None:
            continue
        count += 1
        start = min(start, packet.pts)
        end = max(end, packet.pts + (packet.duration or 0))
    if count == 0:
        raise _broken("streams", f"{stream.type} packets", "none")
    if stream.duration is not None:
        end = min(end, (stream.start_time or 0) + stream.duration)
    return count, max(start, 0) * tick, end * tick


def _check_decodes(container: InputContainer) -> int:
    """Decode the first frame, and everything from the last keyframe on. Returns the number of frames at the end."""
    video = container.streams.video[0]
    container.seek(0)
    if next(container.decode(video), None) is None:
        raise _broken("decodes", "a first frame", "none")
    last_shown = int((video.start_time or 0) + (video.duration or 0)) - 1
    container.seek(max(last_shown, 0), stream=video, backward=True)
    sent = tail = 0
    for packet in container.demux(video):
        sent += packet.size > 0
        if sent > _TAIL_PACKETS:
            return tail
        tail += len(packet.decode())
    if tail == 0 or tail < sent:
        raise _broken("decodes", f"{max(sent, 1)} frames at the end", tail)
    for stream in container.streams.audio:
        container.seek(0)
        if not any(frame.samples for frame in container.decode(stream)):
            raise _broken("decodes", "sound", "none")
    return tail
