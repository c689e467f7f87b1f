"""The last resort: a valid video of the speech's length that shows the source as it is, lips unmoved."""

from __future__ import annotations

import time
from contextlib import closing
from fractions import Fraction
from pathlib import Path
from typing import ClassVar

from app.media.audio_in import audio_length
from app.media.encode import VideoWriter
from app.render.contract import Phase, Progress, Renderer, RenderJob, RenderResult
from app.render.still.footage import Footage, open_footage
from app.render.still.options import StillOptions

OUTPUT_NAME = "output.mp4"

_RATE = 16_000
_BATCH_PIXELS = 8_000_000
"""Pixels of a batch: eight frames at 720p, so that a slot's process stays small."""


class StillRenderer(Renderer):
    """Needs no model, no device and no torch."""

    name: ClassVar[str] = "still"

    def load(self, device: str) -> None:
        """Nothing to load."""

    def render(self, job: RenderJob, progress: Progress) -> RenderResult:
        """Render `job`. Raises CodedError (unreadable input, full disk ...) and `Cancelled`."""
        options = StillOptions.model_validate(dict(job.options))
        started = time.perf_counter()
        path = job.output_dir / OUTPUT_NAME
        progress.report(Phase.ANALYSE, 0, 0)
        seconds = Fraction(audio_length(job.audio, _RATE), _RATE)
        with closing(open_footage(job.source, options.fps, box=options.box, max_side=options.max_side)) as footage:
            frames = film(footage, path, job.audio, seconds, progress, encoding=options.encoding)
        took = time.perf_counter() - started
        return RenderResult(
            path=path,
            frames=frames,
            fps=float(footage.rate),
            duration_s=float(frames / footage.rate),
            width=footage.width,
            height=footage.height,
            seconds=took,
            stages={"render": took},
        )


def film(
    footage: Footage,
    path: Path,
    audio: Path | None,
    seconds: Fraction,
    progress: Progress,
    *,
    encoding: tuple[int, str],
) -> int:
    """Write `seconds` of `footage` to `path` with the sound of `audio` (None: mute); the number of frames, at least 1.

    `encoding`: x264's constant rate factor and preset. Raises CodedError and `Cancelled`; no file is left then.
    """
    count = max(1, round(seconds * footage.rate))
    crf, preset = encoding
    done = 0
    writer = VideoWriter(path, footage.width, footage.height, footage.rate, audio, crf=crf, preset=preset)
    with writer:
        for frames in footage.batches(max(1, _BATCH_PIXELS // (footage.width * footage.height)), count):
            writer.write(frames)
            done += len(frames)
            progress.report(Phase.RENDER, done, count)
        progress.report(Phase.ENCODE, 0, count)
        writer.close()
        progress.report(Phase.ENCODE, count, count)
    return count
