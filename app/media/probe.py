"""What is this file, really: headers are read, then checked by decoding its beginning and its end.

Runs in the sandbox's helper processes (see `app.media.sandbox`): it opens whatever a caller sent.
"""

from __future__ import annotations

import stat
from dataclasses import replace
from pathlib import Path

from av.container import InputContainer

from app.media.completeness import check_bytes, check_length, mp3_promise
from app.media.containers import audio_stream, check_boxes, invalid, is_cover, open_input, too_large, video_stream
from app.media.info import MediaInfo, MediaLimits
from app.media.pictures import clockwise_turn, is_picture, open_picture
from app.media.roles import require_audio, require_source
from app.media.stream_probe import StreamSurvey
from app.retry.taxonomy import CodedError, FailureCode

__all__ = ["probe", "require_audio", "require_source"]

_HEAD = 64
_MATROSKA = frozenset({"mkv", "webm"})
_EXACT_DURATION = frozenset({"mp4", "mov", "m4a", "flac"})
"""Formats whose duration, as FFmpeg gives it, is what the header declares, not what is left of the file."""


def probe(path: Path, limits: MediaLimits) -> MediaInfo:
    """Tell what `path` is and check it against `limits`. Durations are measured from the packets, in seconds.

    Raises CodedError with a machine-readable `reason` in its detail:
    INPUT_NOT_FOUND (`not_found`), INPUT_FORBIDDEN (`unreadable`),
    INPUT_TOO_LARGE (`too_many_bytes`, `too_many_pixels`, `side_too_long`, `too_long`; with `limit` and `measured`),
    INPUT_INVALID (`not_a_file`, `empty_file`, `unknown_format`, `truncated`, `undecodable_image`, `undecodable`,
    `unsupported_picture`, `unsupported_codec`, `unsupported_channels`, `no_streams`, `no_video_frames`, `no_samples`,
    `too_small`).
    """
    size, head = _stat_and_head(path)
    if size > limits.max_bytes:
        message = f"{path.name} has {size} bytes; the limit is {limits.max_bytes}."
        raise too_large("too_many_bytes", message, limit=limits.max_bytes, measured=size)
    if is_picture(head):
        return _probe_picture(path, size, head, limits)
    return _probe_streams(path, size, head, limits)


def _stat_and_head(path: Path) -> tuple[int, bytes]:
    try:
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):
            raise invalid("not_a_file", f"{path.name} is not a regular file.")
        if status.st_size == 0:
            raise invalid("empty_file", f"{path.name} is empty.", "The upload or the copy was cut off; send it again.")
        with path.open("rb") as file:
            return status.st_size, file.read(_HEAD)
    except (FileNotFoundError, NotADirectoryError) as error:
        raise CodedError(FailureCode.INPUT_NOT_FOUND, f"{path.name} does not exist.", reason="not_found") from error
    except OSError as error:
        raise CodedError(
            FailureCode.INPUT_FORBIDDEN, f"{path.name} cannot be read: {error.strerror}.", reason="unreadable"
        ) from error


def _probe_picture(path: Path, size: int, head: bytes, limits: MediaLimits) -> MediaInfo:
    if head[:4] == b"RIFF" and int.from_bytes(head[4:8], "little") + 8 > size:
        raise invalid("truncated", f"{path.name} is shorter than its header says.", "Send the whole file.")
    with open_picture(path, limits.max_pixels) as image:
        # Before anything else: even asking a PNG for its EXIF data decodes it.
        width, height = image.size
        _check_size(path, width, height, limits)
        kind = (image.format or "").lower()
        if image.mode == "RGB":
            # Every byte is still read, so that a truncated JPEG is seen, but only an eighth of each side is computed.
            image.draft("RGB", (width // 8, height // 8))
        image.load()
        rotation = clockwise_turn(image)
        if rotation % 180:
            width, height = height, width
    name = "jpeg" if kind == "mpo" else kind
    return MediaInfo("image", name, size, width=width, height=height, rotation=rotation, video_codec=name)


def _probe_streams(path: Path, size: int, head: bytes, limits: MediaLimits) -> MediaInfo:
    check_boxes(path)
    check_bytes(path, head)
    with open_input(path) as container:
        name = _format_name(container.format.name, container.metadata.get("major_brand", ""), head)
        info = MediaInfo("audio", name, size)
        video = audio = None
        if any(not is_cover(stream) for stream in container.streams.video):
            video = video_stream(container, path)
            _check_size(path, video.codec_context.width, video.codec_context.height, limits)
        if container.streams.audio:
            audio = audio_stream(container, path)
        if video is None and audio is None:
            raise invalid("no_streams", f"{path.name} holds neither video nor sound.")
        survey = StreamSurvey(container, path, video, audio)
        survey.read_through(limits.max_seconds)
        _check_complete(path, name, container, survey)
        survey.require_content()
        survey.decode_end()
        if video is not None:
            info = replace(
                info,
                kind="video",
                duration_s=survey.video_seconds,
                width=survey.width,
                height=survey.height,
                rotation=survey.rotation,
                fps=survey.fps,
                video_codec=video.codec_context.codec.canonical_name,
            )
            _check_size(path, survey.width, survey.height, limits)
        if audio is not None:
            info = replace(
                info,
                duration_s=info.duration_s if video is not None else survey.audio_seconds,
                audio_duration_s=survey.audio_seconds,
                audio_codec=audio.codec_context.codec.canonical_name,
                sample_rate=survey.sample_rate,
                channels=survey.channels,
            )
    return info


def _format_name(demuxer: str, brand: str, head: bytes) -> str:
    """The usual name of a container; FFmpeg's demuxers cover families."""
    if demuxer.startswith("mov,"):
        return {"qt  ": "mov", "M4A ": "m4a", "M4B ": "m4a"}.get(brand, "mp4")
    if demuxer.startswith("matroska"):
        return "webm" if b"webm" in head else "mkv"
    return demuxer


def _check_size(path: Path, width: int, height: int, limits: MediaLimits) -> None:
    if width * height > limits.max_pixels:
        message = f"{path.name} has {width}x{height} pixels; the limit is {limits.max_pixels} in all."
        raise too_large("too_many_pixels", message, limit=limits.max_pixels, measured=width * height)
    if max(width, height) > limits.max_side:
        message = f"{path.name} has {width}x{height} pixels; the limit is {limits.max_side} a side."
        raise too_large("side_too_long", message, limit=limits.max_side, measured=max(width, height))
    if min(width, height) < limits.min_side:
        message = f"{path.name} has {width}x{height} pixels; at least {limits.min_side} a side are needed."
        raise invalid("too_small", message, limit=limits.min_side, measured=min(width, height))


def _check_complete(path: Path, name: str, container: InputContainer, survey: StreamSurvey) -> None:
    """Hold what was read against what the header declares. Wav and Ogg were checked before they were opened."""
    if name in _MATROSKA:
        # Not a length but the time of the end, and of every track, subtitles too.
        check_length(path, (container.duration or 0) / 1e6, survey.end)
    elif name in _EXACT_DURATION:
        # That of the file covers tracks that are not read here, such as a second sound track.
        of_file = (container.duration or 0) / 1e6
        check_length(path, min(of_file, survey.declared_seconds or of_file), survey.seconds)
    elif name == "mp3":
        check_length(path, mp3_promise(path).declared(survey.seconds), survey.seconds)
