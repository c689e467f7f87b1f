"""Opening untrusted containers: what may be opened at all, and how FFmpeg's errors become coded ones.

FFmpeg opens hundreds of formats, and some of them (playlists, `concat` scripts, image sequences) name further files
or addresses. Every file of a caller goes through `open_input`, which admits only the listed formats, decoders and
plain local files.
"""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import av
from av.container import InputContainer
from av.stream import Disposition

from app.media.boxes import PICTURE_BRANDS, Box, brand, declared_end, is_isobmff, top_level_boxes
from app.retry.taxonomy import CodedError, FailureCode

FORMATS = ("mov", "mp4", "m4a", "3gp", "3g2", "mj2", "matroska", "webm", "wav", "w64", "mp3", "aac", "flac", "ogg")
"""Demuxers that may be opened: the formats of the product and their closest kin. None of them follows references."""

VIDEO_DECODERS = frozenset(
    (
        "h264", "hevc", "vp8", "libvpx", "vp9", "libvpx-vp9", "av1", "libdav1d", "mpeg4", "h263", "mjpeg",
        "prores", "dnxhd", "theora", "mpeg2video", "png",
    )
)  # fmt: skip
AUDIO_DECODERS = frozenset(
    (
        "aac", "aac_fixed", "aac_latm", "mp3", "mp3float", "mp2", "mp2float", "opus", "libopus", "vorbis",
        "libvorbis", "flac", "alac", "ac3", "eac3", "amrnb", "amrwb", "libopencore_amrnb",
        "libopencore_amrwb", "adpcm_ms", "adpcm_ima_wav",
    )
)  # fmt: skip
PCM_PREFIX = "pcm_"

DISK_FULL_ERRNOS = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})

_SUPPORTED = (
    "Supported: jpg, png, webp, gif (of an animated png, webp or gif, the first frame); "
    "mp4, mov, webm, mkv; wav, mp3, m4a, flac, ogg, opus."
)


def invalid(reason: str, message: str, hint: str = "", **detail: Any) -> CodedError:
    """An INPUT_INVALID error with its machine-readable `reason` in the detail."""
    return CodedError(FailureCode.INPUT_INVALID, message, hint, reason=reason, **detail)


def too_large(reason: str, message: str, *, limit: float, measured: float) -> CodedError:
    """An INPUT_TOO_LARGE error that names the limit and what was measured against it."""
    return CodedError(FailureCode.INPUT_TOO_LARGE, message, reason=reason, limit=limit, measured=measured)


def is_admitted_decoder(name: str) -> bool:
    """Whether streams may be decoded by the FFmpeg decoder `name`."""
    return name in VIDEO_DECODERS or name in AUDIO_DECODERS or name.startswith(PCM_PREFIX)


def open_input(path: Path) -> InputContainer:
    """Open a local media file for reading; the caller closes it.

    Raises CodedError: INPUT_NOT_FOUND, or INPUT_INVALID with reason `truncated` or
    `unknown_format`.
    """
    # An absolute path cannot be taken for a protocol name ("concat:…", "http:…") by FFmpeg.
    name = str(path.absolute())
    options = {"protocol_whitelist": "file", "format_whitelist": ",".join(FORMATS)}
    try:
        return av.open(name, "r", container_options=options, metadata_errors="replace")
    except av.error.FileNotFoundError as error:
        raise CodedError(FailureCode.INPUT_NOT_FOUND, f"{path.name} does not exist.", reason="not_found") from error
    except (av.error.FFmpegError, ValueError, OSError) as error:
        if isinstance(error, MemoryError):
            raise
        raise _why_not_opened(path, error) from error


def check_boxes(path: Path) -> None:
    """Refuse what FFmpeg would play somehow: MP4 and MOV files whose boxes reach beyond the end (`truncated`), and
    HEIC and AVIF pictures, which share that layout (`unsupported_picture`).
    """
    if not is_isobmff(path):
        return
    if brand(path) in PICTURE_BRANDS:
        raise invalid("unsupported_picture", f"{path.name} is a HEIC or AVIF picture.", "Convert it to JPEG or PNG.")
    if declared_end(boxes := top_level_boxes(path)) > path.stat().st_size:
        raise _cut_off(path, boxes)


def _cut_off(path: Path, boxes: list[Box]) -> CodedError:
    return invalid(
        "truncated",
        f"{path.name} is incomplete: its index is missing or it ends in the middle of a box.",
        "The upload or the recording was cut off; send the whole file.",
        boxes=[box.kind for box in boxes[:20]],
    )


def _why_not_opened(path: Path, error: Exception) -> CodedError:
    """Name the cause of a failed open more precisely than FFmpeg's "Invalid data found" does."""
    if is_isobmff(path):
        boxes = top_level_boxes(path)
        if all(box.kind != "moov" for box in boxes) or declared_end(boxes) > path.stat().st_size:
            return _cut_off(path, boxes)
    return invalid(
        "unknown_format", f"{path.name} is not a media file that can be read ({error_text(error)}).", _SUPPORTED
    )


def error_text(error: BaseException) -> str:
    """FFmpeg's own words for an error, without path and number."""
    return getattr(error, "strerror", None) or str(error) or type(error).__name__


def audio_stream(container: InputContainer, path: Path) -> av.AudioStream:
    """The first audio stream, with a decoder that is admitted. Raises `no_audio_stream` or `unsupported_codec`."""
    if not container.streams.audio:
        raise invalid("no_audio_stream", f"{path.name} has no audio stream.", "Send a file with a voice in it.")
    stream = container.streams.audio[0]
    _check_decoder(stream, path)
    return stream


def video_stream(container: InputContainer, path: Path) -> av.VideoStream:
    """The first moving video stream, cover pictures aside. Raises `no_video_stream` or `unsupported_codec`."""
    moving = [s for s in container.streams.video if not is_cover(s)]
    if not moving:
        raise invalid("no_video_stream", f"{path.name} has no video stream.")
    _check_decoder(moving[0], path)
    return moving[0]


def is_cover(stream: av.VideoStream) -> bool:
    """Whether a video stream is the cover picture of a sound file."""
    return bool(stream.disposition & Disposition.attached_pic)


def _check_decoder(stream: av.VideoStream | av.AudioStream, path: Path) -> None:
    context = stream.codec_context
    name = "unknown" if context is None else context.name
    if not is_admitted_decoder(name):
        message = f"The {stream.type} codec of {path.name} ({name}) is not supported."
        raise invalid("unsupported_codec", message, "Convert it, for example to H.264 with AAC in mp4.", codec=name)


@contextmanager
def decoding(path: Path, frame: int | None = None) -> Iterator[None]:
    """Turn decoder errors inside the block into CodedError INPUT_INVALID, reason `undecodable`."""
    try:
        yield
    except (av.error.FFmpegError, ValueError) as error:
        raise undecodable(path, error, frame) from error


def undecodable(path: Path, error: Exception, frame: int | None = None) -> Exception:
    """The error for a file whose content cannot be decoded, at `frame` where known. MemoryError stays itself."""
    if isinstance(error, MemoryError):
        return MemoryError(error_text(error))
    where = "" if frame is None else f" at frame {frame}"
    detail: dict[str, Any] = {} if frame is None else {"frame": frame}
    return invalid("undecodable", f"{path.name} cannot be decoded{where}: {error_text(error)}.", **detail)


def write_error(error: BaseException, what: str) -> CodedError:
    """The error for a failed write: DISK_FULL where the disk is, else INTERNAL."""
    if getattr(error, "errno", None) in DISK_FULL_ERRNOS:
        return CodedError(FailureCode.DISK_FULL, f"{what} could not be written: {error_text(error)}.")
    return CodedError(
        FailureCode.INTERNAL, f"{what} could not be written: {error_text(error)}.", error_type=type(error).__name__
    )
