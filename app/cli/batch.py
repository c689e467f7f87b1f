"""`greenroom batch`: all rows of a manifest through a running service, so many at once, nothing twice."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from app.cli.errors import EXIT_INPUT, CommandError, shown
from app.cli.options import ConfigFile, Debug, Url, settings_from

if TYPE_CHECKING:
    from greenroom.client.manifest import Row
    from greenroom.client.report import Outcome, Report


def batch(
    manifest: Annotated[Path, typer.Argument(help="CSV with a header, or JSONL: source, audio, name, options ...")],
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder for the videos, the journal and the report.")],
    concurrency: Annotated[int, typer.Option("--concurrency", "-n", min=1, max=256, help="Tasks in flight.")] = 8,
    retry_failed: Annotated[bool, typer.Option("--retry-failed", help="Run rows again that failed before.")] = False,
    url: Url = None,
    config: ConfigFile = None,
    debug: Debug = False,
) -> None:
    """Run a manifest. Killed or stopped, it goes on where it was when it is started again on the same folder."""
    with shown(debug):
        from app.cli.watch import service_url
        from greenroom.client.manifest import ManifestError, read_manifest

        try:
            rows = read_manifest(manifest)
        except ManifestError as error:
            raise CommandError("INPUT_INVALID", str(error), exit_code=EXIT_INPUT) from error
        except OSError as error:
            message = f"manifest: {str(manifest)!r} cannot be read: {error.strerror or error}."
            raise CommandError("INPUT_NOT_FOUND", message, exit_code=EXIT_INPUT) from error
        settings = settings_from({}, None, config).settings
        address = service_url(url, settings.data_dir, settings.host, settings.port)
        try:
            report = asyncio.run(_run(rows, out, address, concurrency, retry_failed=retry_failed))
        except OSError as error:
            raise CommandError("OUTPUT_INVALID", f"out: {error}", exit_code=EXIT_INPUT) from error
        failed = [outcome for outcome in report.outcomes if outcome.state == "failed"]
        good = report.count("succeeded")
        typer.echo(f"{good} of {len(report.outcomes)} succeeded, {len(failed)} failed: {out / 'report.json'}")
        for outcome in failed[:10]:
            told = outcome.error or {}
            typer.echo(f"  line {outcome.row} ({outcome.name}): {told.get('code')}: {told.get('message')}", err=True)
        if failed:
            raise typer.Exit(1)


async def _run(rows: list[Row], out: Path, url: str, concurrency: int, *, retry_failed: bool) -> Report:
    from greenroom.client.aio import AsyncClient
    from greenroom.client.batch import run_batch

    with _View(len(rows)) as view:
        async with AsyncClient(url, client_id="greenroom-batch") as client:
            return await run_batch(
                client, rows, out, concurrency=concurrency, retry_failed=retry_failed, on_change=view.show
            )


class _View:
    """A bar for the batch and one for each running row on a terminal; a line per ended row elsewhere."""

    def __init__(self, rows: int) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

        console = Console(stderr=True)
        self._terminal = console.is_terminal
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
            console=console,
            disable=not self._terminal,
        )
        self._all = self._progress.add_task("all", total=rows)
        self._bars: dict[int, object] = {}

    def __enter__(self) -> _View:
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.stop()

    def show(self, outcome: Outcome, report: Report) -> None:
        """One row has changed."""
        done = report.count("succeeded") + report.count("failed")
        ended = outcome.state in ("succeeded", "failed")
        if not self._terminal:
            if ended:
                print(f"{done}/{len(report.outcomes)} {outcome.name} {outcome.state}", file=sys.stderr)
            return
        self._progress.update(self._all, completed=done)
        bar = self._bars.get(outcome.row)
        if ended and bar is not None:
            self._progress.remove_task(bar)  # type: ignore[arg-type]
            del self._bars[outcome.row]
        elif not ended:
            if bar is None:
                bar = self._bars[outcome.row] = self._progress.add_task(outcome.name, total=100)
            self._progress.update(bar, completed=round((outcome.fraction or 0) * 100))  # type: ignore[arg-type]
