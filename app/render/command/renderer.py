"""Runs a program for each job: its inputs laid out, its words heard, its end judged, its video made one of ours."""

from __future__ import annotations

import re
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

import structlog

from app.health.oom import OomCounter, rose
from app.media.dubbing import dub
from app.render.command.inputs import OUTPUT_NAME, Desk, environment, find_video, lay_out
from app.render.command.judging import judge
from app.render.command.program import Program, Watch
from app.render.command.settings import CommandSettings, parse, why_absent
from app.render.command.template import fill
from app.render.contract import Phase, Progress, Renderer, RenderJob, RenderResult
from app.retry.taxonomy import CodedError, FailureCode

log = structlog.get_logger(__name__)

_TICK_S = 0.1
"""How soon a cancel is heard."""


class CommandRenderer(Renderer):
    """One program per job, in a process group of its own. Settings: `CommandSettings`."""

    name: ClassVar[str] = "command"

    def __init__(self, settings: Mapping[str, Any]) -> None:
        """Raises `pydantic.ValidationError`."""
        super().__init__(settings)
        self._own: CommandSettings = parse(settings)
        self._device = "cpu"
        self._oom = OomCounter()

    def load(self, device: str) -> None:
        """See that the program is there. Raises CodedError WORKER_START_FAILED."""
        if reason := why_absent(self.settings):
            raise CodedError(
                FailureCode.WORKER_START_FAILED,
                f"The program of this tier cannot be run: {reason}.",
                "Check argv, home and PATH of the tier.",
            )
        self._device = device

    def render(self, job: RenderJob, progress: Progress) -> RenderResult:
        """Run the program for `job`.

        Raises CodedError (what its end means, OUTPUT_INVALID, WORKER_STALLED after `silence_s`) and `Cancelled`.
        """
        started = time.perf_counter()
        progress.report(Phase.FETCH, 0, 0)
        desk = lay_out(job, self._own, self._device, progress)
        prepared = time.perf_counter()
        self._run(desk, progress, job.traceparent)
        ran = time.perf_counter()
        path = job.output_dir / OUTPUT_NAME
        video = find_video(desk)
        assert video is not None
        progress.report(Phase.ENCODE, 0, 0)
        dubbed = dub(
            video,
            job.audio,
            path,
            hold_s=self._own.hold_s,
            moved=lambda done, total: progress.report(Phase.ENCODE, done, total),
        )
        ended = time.perf_counter()
        return RenderResult(
            path=path,
            frames=dubbed.frames,
            fps=float(dubbed.rate),
            duration_s=float(dubbed.frames / dubbed.rate),
            width=dubbed.width,
            height=dubbed.height,
            seconds=ended - started,
            stages={"prepare": prepared - started, "render": ran - prepared, "encode": ended - ran},
            facts={"frames_held": dubbed.held, "picture_copied": dubbed.copied},
        )

    def _run(self, desk: Desk, progress: Progress, traceparent: str) -> None:
        """Run the program to its end, and see that it left a video."""
        own = self._own
        watch = Watch(None if own.progress is None else re.compile(own.progress))
        oom_kills = self._oom.read()
        argv = [fill(argument, desk.values) for argument in own.argv]
        program = Program(argv, cwd=self._cwd(desk), env=environment(own, desk, traceparent), on_line=watch.hear)
        try:
            exitcode = self._await(program, watch, progress)
        finally:
            program.end()
        lines = program.last_lines()
        error = judge(
            exitcode,
            lines,
            own,
            has_video=find_video(desk) is not None,
            oom_kill=rose(oom_kills, self._oom.read()),
        )
        if error is not None:
            log.warning("program_failed", program=argv[0], code=error.code, exitcode=exitcode, last_lines=lines)
            raise error
        log.info("program_ended", program=argv[0], last_lines=lines[-3:])

    def _await(self, program: Program, watch: Watch, progress: Progress) -> int:
        """Wait for the end of the program; its moves move the progress clock."""
        progress.report(Phase.LOAD, 0, 0)
        seen = 0
        while (exitcode := program.wait(_TICK_S)) is None:
            progress.check()
            quiet = time.monotonic() - watch.moved_at
            if self._own.silence_s is not None and quiet > self._own.silence_s:
                raise CodedError(
                    FailureCode.WORKER_STALLED,
                    f"The program did not move for {quiet:.0f} s; {self._own.silence_s:g} s are allowed (silence_s).",
                    last_words="\n".join(program.last_lines()),
                )
            if watch.moves != seen or self._own.silence_s is not None:
                seen = watch.moves
                progress.report(Phase.RENDER if seen else Phase.LOAD, watch.done, watch.total)
        return exitcode

    def _cwd(self, desk: Desk) -> Path:
        if self._own.cwd:
            return Path(fill(self._own.cwd, desk.values))
        return self._own.home or desk.work
