"""The rehearsal renderer: a small moving picture with the task's real sound, and one fault on cue."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from app.media.audio_in import audio_length
from app.media.encode import VideoWriter
from app.render.batching import Batch
from app.render.contract import Cancelled, Phase, Progress, Renderer, RenderJob, RenderResult
from app.render.rehearsal.faults import commit, require_memory, start_daemon
from app.render.rehearsal.options import Fault, RehearsalOptions

_RATE = 16_000


@dataclass(frozen=True, slots=True)
class _Made:
    """A finished video of this process, and what it was made from."""

    key: tuple[object, ...]
    frames: int
    video: bytes

    @staticmethod
    def key_of(job: RenderJob, options: RehearsalOptions) -> tuple[object, ...]:
        sound = job.audio.stat()
        return job.audio, sound.st_size, sound.st_mtime_ns, options.fps, options.size


class RehearsalRenderer(Renderer):
    """Fails on cue. Only where rehearsals are enabled.

    Its setting `event_pipe` is the descriptor on which its process speaks to the service, for those faults. Among the
    facts of a result are the moments of its first and its last line, `began_at` and `ended_at` (epoch seconds), and
    that there are no lips to look for in its picture.
    """

    name = "rehearsal"

    def __init__(self, settings: Mapping[str, str]) -> None:
        """`settings`: `event_pipe`, or nothing."""
        super().__init__(settings)
        self._last: _Made | None = None

    def load(self, device: str) -> None:
        """Nothing to load."""

    def render(self, job: RenderJob, progress: Progress) -> RenderResult:
        """Render the rehearsal that the job's options describe."""
        began_at, began = time.time(), time.monotonic()
        options = RehearsalOptions.model_validate(dict(job.options))
        armed = options.fault is not Fault.NONE and (options.times is None or job.attempt <= options.times)
        same = _Made.key_of(job, options)
        ready = self._last if options.reuse and not armed and self._last and self._last.key == same else None
        total = ready.frames if ready else max(1, round(audio_length(job.audio, _RATE) / _RATE * options.fps))
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
        if options.daemon:
            start_daemon(job.output_dir)
        path = job.output_dir / "rehearsal.mp4"
        batch = Batch(options.batch, job.batch_scale)
        if armed and options.fault is Fault.UNPLAYABLE:
            path.write_bytes(b"this is no video" * 64)
        elif ready:
            path.write_bytes(ready.video)
            progress.report(Phase.RENDER, total, total)
        else:
            self._write(path, job, options, made, armed, batch, progress, cue)
            if options.reuse and not armed:
                self._last = _Made(same, total, path.read_bytes())
        return RenderResult(
            path=path,
            frames=total,
            fps=options.fps,
            duration_s=total / options.fps,
            width=options.size,
            height=options.size,
            seconds=time.monotonic() - began,
            stages={"render": time.monotonic() - began},
            facts={"lips_follow": False, "batch": batch.size, "began_at": began_at, "ended_at": time.time()},
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
