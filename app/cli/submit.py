"""`greenroom submit` and `derive`: hand a task to a running service, and fetch the video if wanted."""

from __future__ import annotations

import json
import sys
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any
from urllib.parse import quote

import typer

from app.cli.errors import EXIT_INPUT, CommandError, shown
from app.cli.options import (
    AsJson,
    ConfigFile,
    Debug,
    RendererOption,
    Url,
    renderer_options,
    require_writable,
    settings_from,
)

if TYPE_CHECKING:
    from app.cli.client import ServiceClient
    from app.cli.progress import ProgressView

Wait = Annotated[bool, typer.Option("--wait", help="Wait until the task is finished.")]
Output = Annotated[Path | None, typer.Option("-o", "--output", help="Wait, and download the video to this file.")]
Priority = Annotated[int | None, typer.Option(min=0, max=9, help="9 goes first. [default: 5]")]
Key = Annotated[
    str | None, typer.Option("--idempotency-key", help="The same key makes the same task. [default: a new one]")
]
PASSED_THROUGH = ("http://", "https://", "file://", "upload:", "task:")
"""Inputs that the service fetches by itself; everything else is a file here, and is uploaded."""


def connect(url: str | None, config: Path | None) -> ServiceClient:
    """A client of the service that `--url` or the configuration means."""
    from app.cli.client import ServiceClient
    from app.cli.watch import service_url

    settings = settings_from({}, None, config).settings
    return ServiceClient(service_url(url, settings.data_dir, settings.host, settings.port))


def local_file(name: str, field: str) -> Path:
    """The readable, non-empty file of that name. Raises `CommandError` naming `field`."""
    path = Path(name)
    if not path.is_file():
        raise CommandError("INPUT_NOT_FOUND", f"{field}: there is no file {name!r}.", exit_code=EXIT_INPUT)
    if path.stat().st_size == 0:
        raise CommandError("INPUT_INVALID", f"{field}: the file {name!r} is empty.", exit_code=EXIT_INPUT)
    return path


def submit(
    source: Annotated[
        str, typer.Argument(help="Portrait or template video: a file, or http(s)://, file://, upload:, task:.")
    ],
    audio: Annotated[str, typer.Argument(help="Speech: a file, or http(s)://, file://, upload:, task:.")],
    url: Url = None,
    wait: Wait = False,
    output: Output = None,
    option: RendererOption = None,
    priority: Priority = None,
    after: Annotated[
        list[str] | None, typer.Option("--after", metavar="ID", help="Start once this task has succeeded. Repeatable.")
    ] = None,
    refuse_unfinished: Annotated[
        bool, typer.Option("--refuse-unfinished", help="Do not wait for tasks that are named: fail instead.")
    ] = False,
    key: Key = None,
    config: ConfigFile = None,
    as_json: AsJson = False,
    debug: Debug = False,
) -> None:
    """Send a task to a running service; prints its id, or the finished task with --wait."""
    with shown(debug):
        request = order(option, priority)
        if after:
            request["after"] = after
        if refuse_unfinished:
            request["if_unfinished"] = "refuse"
        inputs = {"source": source, "audio": audio}
        task = send("/generate", inputs, request, key, lambda: connect(url, config), wait=wait, output=output)
        typer.echo(json.dumps(task) if as_json else task["id"])


def derive(
    task_id: Annotated[str, typer.Argument(metavar="ID", help="The task to begin from.")],
    source: Annotated[str | None, typer.Option("--source", help="Another face. [default: that of the task]")] = None,
    audio: Annotated[str | None, typer.Option("--audio", help="Other speech. [default: that of the task]")] = None,
    url: Url = None,
    wait: Wait = False,
    output: Output = None,
    renderer: Annotated[str | None, typer.Option("--renderer", help="Another tier or renderer.")] = None,
    option: RendererOption = None,
    priority: Priority = None,
    key: Key = None,
    config: ConfigFile = None,
    as_json: AsJson = False,
    debug: Debug = False,
) -> None:
    """Make a new task from an old one with changes; `--option NAME=null` takes an option away. Prints its id."""
    with shown(debug):
        request = order(option, priority) | ({} if renderer is None else {"renderer": renderer})
        inputs = {field: name for field, name in (("source", source), ("audio", audio)) if name is not None}
        path = f"/tasks/{quote(task_id, safe='')}/derive"
        task = send(path, inputs, request, key, lambda: connect(url, config), wait=wait, output=output)
        typer.echo(json.dumps(task) if as_json else task["id"])


def order(option: list[str] | None, priority: int | None) -> dict[str, Any]:
    """The fields of a request that the command line gives."""
    request: dict[str, Any] = {}
    if option:
        request["options"] = renderer_options(option)
    if priority is not None:
        request["priority"] = priority
    return request


def send(
    path: str,
    inputs: dict[str, str],
    request: dict[str, Any],
    key: str | None,
    client_of: Callable[[], ServiceClient],
    *,
    wait: bool,
    output: Path | None,
) -> dict[str, Any]:
    """Upload what are files here, submit to `path`, and with `wait` or an `output` see the task to its end."""
    from app.cli.progress import progress_view

    files = {
        field: None if name.startswith(PASSED_THROUGH) else local_file(name, field) for field, name in inputs.items()
    }
    if output is not None:
        require_writable(output)
    with client_of() as client, progress_view(sys.stderr) as view:
        for field, file in files.items():
            request[field] = inputs[field]
            if file is not None:
                request[field] = client.upload(file, lambda done, total: view.update("upload", done, total))
        task = client.submit(path, request, key or str(uuid.uuid4()))
        if wait or output is not None:
            task = _finish(client, task, output, view)
    return task


def _finish(client: ServiceClient, task: dict[str, Any], output: Path | None, view: ProgressView) -> dict[str, Any]:
    from app.cli.watch import follow, raise_unless_succeeded

    try:
        task = follow(client, task, view)
    except KeyboardInterrupt:
        typer.echo(f"task {task['id']} goes on; `greenroom cancel {task['id']}` stops it", err=True)
        raise
    except Exception:
        typer.echo(f"task {task['id']} may go on; `greenroom task {task['id']}` shows it", err=True)
        raise
    try:
        raise_unless_succeeded(task)
        if output is not None:
            _download(client, task, output, view)
    except BaseException:
        typer.echo(f"task {task['id']} has ended; `greenroom task {task['id']}` shows it", err=True)
        raise
    return task


def _download(client: ServiceClient, task: dict[str, Any], output: Path, view: ProgressView) -> None:
    try:
        client.download(task, output, lambda done, total: view.update("download", done, total))
    except OSError as error:
        message = f"output: {str(output)!r} cannot be written: {error.strerror or error}."
        hint = f"The service keeps the video: `curl -o FILE {client.url}{task['output']['url']}` fetches it."
        raise CommandError("OUTPUT_INVALID", message, hint) from error
