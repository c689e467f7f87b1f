"""`greenroom render`: one video, in this process, without a service."""

from __future__ import annotations

import asyncio
import json
import signal
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Annotated, Any

import typer

from app.cli.errors import EXIT_INTERRUPTED, CommandError, exit_code_for, shown
from app.cli.options import ConfigFile, Debug, RendererOption, Set, renderer_options, require_writable, settings_from
from app.loading import uncollected

if TYPE_CHECKING:
    from app.cli.progress import ProgressView
    from app.config import Settings
    from app.render.contract import Phase, RenderResult


def render(
    source: Annotated[Path, typer.Argument(help="Portrait or template video.")],
    audio: Annotated[Path, typer.Argument(help="Speech.")],
    output: Annotated[Path, typer.Option("-o", "--output", help="The mp4 to write.")],
    option: RendererOption = None,
    device: Annotated[str | None, typer.Option(help="auto, cuda or cpu. [default: auto]")] = None,
    more: Set = None,
    config: ConfigFile = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print frames, seconds and seconds per stage as the last line on stdout.")
    ] = False,
    debug: Debug = False,
) -> None:
    """Render a video right here: no service, no queue, one file."""
    with shown(debug):
        settings = settings_from({"device": device}, more, config).settings
        _check(source, audio, output, settings)
        result, size = _render(source, audio, output, renderer_options(option), settings)
        if as_json:
            seconds = {"frames": result.frames, "seconds": result.seconds, "stages": dict(result.stages)}
            typer.echo(json.dumps(seconds))
        else:
            speed = f", {result.frames / result.seconds:.1f} frames/s" if result.seconds > 0 else ""
            typer.echo(
                f"{output}: {result.duration_s:.2f} s, {result.frames} frames of {result.width}x{result.height}, "
                f"{size / 1e6:.1f} MB, rendered in {result.seconds:.1f} s{speed}"
            )


def _check(source: Path, audio: Path, output: Path, settings: Settings) -> None:
    """Refuse unusable inputs before anything heavy is loaded, by the same probe that the service uses."""
    require_writable(output)
    asyncio.run(_probe_inputs(source, audio, settings))


async def _probe_inputs(source: Path, audio: Path, settings: Settings) -> None:
    from app.media.info import MediaLimits
    from app.media.roles import require_audio, require_source
    from app.media.sandbox import Sandbox

    limits = MediaLimits(
        max_bytes=settings.max_input_bytes,
        max_pixels=settings.max_input_pixels,
        max_side=settings.max_input_side,
        max_seconds=settings.max_input_s,
    )
    sandbox = Sandbox(seconds=settings.probe_timeout_s, memory_bytes=settings.probe_memory_bytes)
    try:
        for field, path, require in (("source", source, require_source), ("audio", audio, require_audio)):
            with _about(field):
                require(await sandbox.probe(path, limits))
    finally:
        await sandbox.close()


@contextmanager
def _about(field: str) -> Iterator[None]:
    """Put the name of the argument in front of a coded error."""
    from app.retry.taxonomy import CodedError

    try:
        yield
    except CodedError as error:
        failure = error.failure
        code = exit_code_for(failure.code)
        raise CommandError(failure.code, f"{field}: {failure.message}", failure.hint, exit_code=code) from error


class _Stoppable:
    """The renderer's `Progress`: shows each report, and ends the render when Ctrl-C or SIGTERM asked for it."""

    def __init__(self, view: ProgressView) -> None:
        self._view = view
        self.stopped = False

    def report(self, phase: Phase, done: int, total: int) -> None:
        self.check()
        self._view.update(str(phase), done, total)

    def check(self) -> None:
        from app.render.contract import Cancelled

        if self.stopped:
            raise Cancelled

    def called(self, call: str, seconds: float) -> None:
        """Nobody counts calls here."""


@contextmanager
def _stops_on_signals(progress: _Stoppable) -> Iterator[None]:
    """The first SIGINT or SIGTERM asks the render to stop at its next report; a second one acts as it always does."""
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}

    def ask(_number: int, _frame: FrameType | None) -> None:
        progress.stopped = True
        restore()

    def restore() -> None:
        for number, handler in before.items():
            signal.signal(number, handler)

    for number in before:
        signal.signal(number, ask)
    try:
        yield
    finally:
        restore()


def _render(
    source: Path, audio: Path, output: Path, options: dict[str, Any], settings: Settings
) -> tuple[RenderResult, int]:
    from app.cli.progress import progress_view
    from app.render.contract import Cancelled, Phase, RenderJob
    from app.render.registry import create, validate_options

    complete = validate_options(settings.tier_renderer, options)
    with (
        progress_view(sys.stderr) as view,
        tempfile.TemporaryDirectory(prefix=f".{output.stem}-", dir=output.parent) as scratch,
        _stops_on_signals(progress := _Stoppable(view)),
    ):
        view.update(Phase.LOAD, 0, 0)
        with uncollected():
            renderer = create(settings.tier_renderer, settings.renderer_settings())
            renderer.load(chosen_device(settings))
        job = RenderJob(source=source, audio=audio, output_dir=Path(scratch), options=complete)
        try:
            result = renderer.render(job, progress)
        except Cancelled:
            message = "The render was stopped; nothing was written."
            raise CommandError("CANCELLED", message, exit_code=EXIT_INTERRUPTED) from None
        size = result.path.stat().st_size
        result.path.replace(output)
    return result, size


def chosen_device(settings: Settings) -> str:
    """The torch device that the settings mean; also sets torch's threads. Raises GPU_UNAVAILABLE."""
    import torch

    from app.retry.taxonomy import CodedError, FailureCode

    if settings.threads_per_slot is not None:
        torch.set_num_threads(settings.threads_per_slot)
    usable = settings.device != "cpu" and torch.cuda.is_available()
    if settings.device == "cuda" and not usable:
        raise CodedError(FailureCode.GPU_UNAVAILABLE, "CUDA was asked for, but torch sees no usable CUDA device.")
    return "cuda:0" if usable else "cpu"
