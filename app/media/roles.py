"""What a file must be to serve as the source or as the audio of a task. Pure: imports no codec."""

from __future__ import annotations

from app.media.info import MediaInfo
from app.retry.taxonomy import CodedError, FailureCode


def require_source(info: MediaInfo) -> None:
    """Check that `info` can be a source: a picture or a video. Raises INPUT_INVALID, reason `audio_as_source`."""
    if info.kind == "audio":
        raise CodedError(
            FailureCode.INPUT_INVALID,
            "The source is a sound file; it must be a portrait photo or a video.",
            "Give the sound as `audio` and a picture or a video as `source`.",
            reason="audio_as_source",
        )


def require_audio(info: MediaInfo) -> None:
    """Check that `info` has sound. Raises INPUT_INVALID, reason `image_as_audio`, `no_audio_stream` or `no_samples`."""
    if info.kind == "image":
        raise CodedError(
            FailureCode.INPUT_INVALID,
            "The audio is a picture; it must be a sound file or a video with sound.",
            reason="image_as_audio",
        )
    if info.audio_codec is None:
        raise CodedError(
            FailureCode.INPUT_INVALID,
            "The audio has no audio stream.",
            "Send a sound file, or a video that has sound.",
            reason="no_audio_stream",
        )
    if info.audio_duration_s <= 0:
        raise CodedError(FailureCode.INPUT_INVALID, "The audio stream holds no samples.", reason="no_samples")
