"""Checks of a finished video, before anybody is told of it. Runs in the slot's process, right after the render."""

from __future__ import annotations

from typing import Any

from app.media.audio_in import audio_length
from app.media.verify import verify_video
from app.render.contract import RenderJob, RenderResult

_RATE = 16_000


def check_output(result: RenderResult, job: RenderJob) -> dict[str, Any]:
    """The checks' measured values by name, JSON-ready.

    Raises `CodedError` OUTPUT_INVALID, naming the check that failed, for a file that is not the whole video that the
    renderer says it is, or not as long as the speech within one frame.
    """
    return verify_video(
        result.path,
        width=result.width,
        height=result.height,
        fps=result.fps,
        frames=result.frames,
        audio_seconds=audio_length(job.audio, _RATE) / _RATE,
    )
