"""The last resort: a valid video of the speech's length that shows the source as it is, lips unmoved."""

from __future__ import annotations

import time
from contextlib import closing
from fractions import Fraction
from typing import ClassVar

from app.media.audio_in import audio_length
from app.render.contract import Phase, Progress, Renderer, RenderJob, RenderResult
from app.render.still.options import StillOptions
from app.render.unchanged import film, open_footage

OUTPUT_NAME = "output.mp4"

_RATE = 16_000


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
