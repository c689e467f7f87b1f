"""The rehearsal renderer: a small moving picture with the task's real sound, and one fault on cue."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import numpy as np
import numpy.typing as npt

from app.media.audio_in import audio_length
from app.media.encode import VideoWriter
from app.render.batching import Batch
from app.render.contract import Cancelled, Phase, Progress, Renderer, RenderJob, RenderResult
from app.render.rehearsal.faults import commit, require_memory
from app.render.rehearsal.options import Fault, RehearsalOptions

_RATE = 16_000


class RehearsalRenderer(Renderer):
    """Fails on cue. Only where rehearsals are enabled.

    Its setting `event_pipe` is the descriptor on which its process speaks to the service, for those faults.
    """

    name = "rehearsal"

    def load(self, device: str) -> None:
        """Nothing to load."""

    def render(self, job: RenderJob, progress: Progress) -> RenderResult:
        """Render the rehearsal that the job's options describe."""
        began = time.monotonic()
        options = RehearsalOptions.model_validate(dict(job.options))
        armed = options.fault is not Fault.NONE and (options.times is None or job.attempt <= options.times)
        seconds = audio_length(job.audio, _RATE) / _RATE
        total = max(1, round(seconds * options.fps))
        pipe = self.settings.get("event_pipe")
        made = total // 2 if armed and options.fault is Fault.SHORT else total

        def cue(phase: Phase, frame: int) -> None:
            if (
                armed
                and options.phase is phase
                and (phase is not Phase.RENDER or frame == min(options.frame, made - 1))
            ):
                commit(options, job.output_dir, progress, total, None if pipe is None else int(pipe))

        for phase in (Phase.LOAD, Phase.FETCH, Phase.ANALYSE):
            progress.report(phase, 1, 1)
            cue(phase, 0)
        path = job.output_dir / "rehearsal.mp4"
        batch = Batch(options.batch, job.batch_scale)
        if armed and options.fault is Fault.UNPLAYABLE:
            path.write_bytes(b"this is no video" * 64)
        else:
            self._write(path, job, options, made, armed, batch, progress, cue)
        return RenderResult(
            path=path,
            frames=total,
            fps=options.fps,
            duration_s=total / options.fps,
            width=options.size,
            height=options.size,
            seconds=time.monotonic() - began,
            stages={"render": time.monotonic() - began},
            facts={"batch": batch.size},
        )

    def _write(
        self,
        path: Path,
        job: RenderJob,
        options: RehearsalOptions,
        frames: int,
        armed: bool,
        batch: Batch,
        progress: Progress,
        cue: Callable[[Phase, int], None],
    ) -> None:
        mute = armed and options.fault is Fault.MUTE
        deaf = armed and options.fault is Fault.IGNORE_CANCEL
        fits = options.fits if armed and options.fault is Fault.OUT_OF_MEMORY else frames
        with VideoWriter(path, options.size, options.size, options.fps, None if mute else job.audio) as writer:

            def make(part: slice) -> None:
                require_memory(part.stop - part.start, fits)
                pictures = []
                for number in range(part.start, part.stop):
                    with suppress(*((Cancelled,) if deaf else ())):
                        progress.report(Phase.RENDER, number, frames)
                    cue(Phase.RENDER, number)
                    if options.frame_s:
                        time.sleep(options.frame_s)
                    pictures.append(_picture(number, options.size, options.fault if armed else Fault.NONE))
                writer.write(np.stack(pictures))

            batch.over(frames, make)
            with suppress(*((Cancelled,) if deaf else ())):
                progress.report(Phase.ENCODE, frames, frames)
            cue(Phase.ENCODE, frames)
            writer.close()


def _picture(number: int, size: int, fault: Fault) -> npt.NDArray[np.uint8]:
    """One frame [size, size, 3] uint8: a gradient that moves by two pixels a frame, unless it is black or frozen."""
    if fault is Fault.BLACK:
        return np.zeros((size, size, 3), np.uint8)
    if fault is Fault.FROZEN:
        number = 0
    ramp = (np.arange(size) * 255 // size).astype(np.uint8)
    rows = np.roll(ramp, 2 * number)
    return np.stack(np.broadcast_arrays(rows[None, :], ramp[:, None], rows[:, None]), axis=-1).astype(np.uint8)
