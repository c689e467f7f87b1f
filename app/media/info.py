"""What the probe says of a media file, and the limits it holds files to. Plain data, no codec imports."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

MediaKind = Literal["image", "video", "audio"]


@dataclass(frozen=True, slots=True)
class MediaLimits:
    """Limits on one input file. A file over one of them is INPUT_TOO_LARGE."""

    max_bytes: int = 2 * 1024**3
    max_pixels: int = 50_000_000
    """Width x height of a picture or of one video frame, read from the header before anything is decoded."""
    max_side: int = 16_384
    max_seconds: float = 3600.0
    min_side: int = 16


@dataclass(frozen=True, slots=True)
class MediaInfo:
    """What one file is. Widths and heights are as displayed, after rotation and EXIF orientation.

    A video with sound is `video` with `audio_codec` set; a sound file with a cover picture is `audio`.
    """

    kind: MediaKind
    format: str
    bytes: int
    duration_s: float = 0.0
    """0 for a picture. For `audio` and `video`, the length of the stream in seconds."""
    width: int = 0
    height: int = 0
    rotation: int = 0
    fps: float = 0.0
    """Average frame rate of a video."""
    video_codec: str | None = None
    audio_codec: str | None = None
    audio_duration_s: float = 0.0
    sample_rate: int = 0
    channels: int = 0
