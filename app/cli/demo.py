"""`greenroom demo`: the whole way once, as a user would go it: start, submit, watch, download, stop."""

from __future__ import annotations

import json
import os
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from app.cli.errors import EXIT_INPUT, CommandError, ending_as_interrupt, shown
from app.cli.options import Debug

if TYPE_CHECKING:
    from app.cli.client import ServiceClient
    from app.cli.service_process import ServiceProcess

PORTRAITS = ("portrait.png", "portrait.jpg", "portrait.webp")
SPEECHES = ("speech.wav", "speech.flac", "speech.mp3")


def demo(
    output: Annotated[Path, typer.Option("-o", "--output", help="The video to write.")] = Path("demo.mp4"),
    source: Annotated[Path | None, typer.Option(help="Another portrait or template. [default: the sample]")] = None,
    audio: Annotated[Path | None, typer.Option(help="Another speech. [default: the sample]")] = None,
    debug: Debug = False,
) -> None:
    """Start a service, make one talking video of the bundled samples over HTTP, and stop it."""
    with shown(debug), ending_as_interrupt():
        from app.cli.service_process import ServiceProcess

        portrait, speech = source or sample(PORTRAITS), audio or sample(SPEECHES)
        for path in (portrait, speech):
            if not path.is_file():
                raise CommandError("INPUT_NOT_FOUND", f"There is no file {str(path)!r}.", exit_code=EXIT_INPUT)
        if output.is_dir() or not os.access(output.parent, os.W_OK):
            raise CommandError("OUTPUT_INVALID", f"{str(output)!r} cannot be written.", exit_code=EXIT_INPUT)
        with tempfile.TemporaryDirectory(prefix="greenroom-demo-") as scratch:
            service = ServiceProcess(Path(scratch))
            try:
                service.wait_live()
                typer.echo(f"The service runs at {service.url} (up after {service.live_after_s:.1f} s).")
                _one_video(service, portrait, speech, output)
            finally:
                code = service.stop()
                typer.echo(f"The service has stopped (exit code {code}).")
            if code != 0:
                raise CommandError("SERVICE_FAILED", f"The service exited with {code}.\n{service.log_tail()}")


def sample(names: tuple[str, ...]) -> Path:
    """The first of the bundled samples that exists: in the project's folder, or where the container image has them."""
    folders = (Path(__file__).resolve().parents[2] / "samples", Path(sys.prefix) / "share" / "greenroom" / "samples")
    for folder in folders:
        for name in names:
            if (folder / name).is_file():
                return folder / name
    hint = "Run it in the project's folder, or name files with --source and --audio."
    raise CommandError("INPUT_NOT_FOUND", f"There is no sample {names[0]} in {folders[0]}.", hint, exit_code=EXIT_INPUT)


def _one_video(service: ServiceProcess, portrait: Path, speech: Path, output: Path) -> None:
    from app.cli.client import ServiceClient
    from app.cli.progress import progress_view
    from app.cli.watch import follow, raise_unless_succeeded

    started = time.monotonic()
    with ServiceClient(service.url) as client:
        task = _post(client, portrait, speech)
        typer.echo(f"POST /generate {portrait.name} + {speech.name}: task {task}")
        with progress_view(sys.stdout) as view:
            done = follow(client, client.task(task)[0], view)
            raise_unless_succeeded(done)
            client.download(done, output, lambda at, total: view.update("download", at, total))
    video = done["output"]
    typer.echo(
        f"{output.resolve()}: {video['duration_s']:.2f} s of {video['width']}x{video['height']}, "
        f"{output.stat().st_size / 1e6:.1f} MB, made in {time.monotonic() - started:.1f} s, checksum verified."
    )


def _post(client: ServiceClient, portrait: Path, speech: Path) -> str:
    """`POST /generate` as a form with both files, as `curl -F` does it; returns the task's id."""
    files = {
        "source": (portrait.name, portrait.read_bytes()),
        "audio": (speech.name, speech.read_bytes()),
        "request": (None, json.dumps({"metadata": {"made_by": "greenroom demo"}}).encode(), "application/json"),
    }
    return str(client.request("POST", "/generate", files=files)["id"])
