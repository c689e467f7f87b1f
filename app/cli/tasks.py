"""`greenroom tasks`, `task` and `cancel`: looking at a running service and stopping work."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from typing import Annotated, Any

import typer

from app.cli.errors import EXIT_INPUT, CommandError, shown
from app.cli.options import AsJson, ConfigFile, Debug, Url
from app.cli.submit import connect

TaskId = Annotated[str, typer.Argument(metavar="ID", help="The task's id.")]
OUTCOMES = {
    "cancelled": "is cancelled",
    "requested": "runs and was told to stop",
    "already_terminal": "had ended already",
}
COLUMNS = ("id", "status", "progress", "created", "note")


def tasks(
    status: Annotated[
        list[str] | None, typer.Option("--status", help="Only this status, e.g. RUNNING. Repeatable.")
    ] = None,
    limit: Annotated[int, typer.Option(min=1, max=10_000, help="How many, newest first.")] = 20,
    url: Url = None,
    config: ConfigFile = None,
    as_json: AsJson = False,
    debug: Debug = False,
) -> None:
    """List the tasks of a running service, newest first."""
    with shown(debug):
        wanted = [_status(name) for name in status or []]
        with connect(url, config) as client:
            found = client.tasks(status=wanted, limit=limit)
        if as_json:
            typer.echo(json.dumps(found, indent=2))
        elif not sys.stdout.isatty():
            for one in found:
                typer.echo("\t".join(_row(one)))
        else:
            _print_table(found)


def task(task_id: TaskId, url: Url = None, config: ConfigFile = None, debug: Debug = False) -> None:
    """Print one task, with its attempts, as JSON."""
    with shown(debug):
        with connect(url, config) as client:
            found, _again = client.task(task_id)
        typer.echo(json.dumps(found, indent=2))


def cancel(
    task_id: TaskId, url: Url = None, config: ConfigFile = None, as_json: AsJson = False, debug: Debug = False
) -> None:
    """Ask for a task's cancellation; a running render stops. Safe to repeat."""
    with shown(debug):
        with connect(url, config) as client:
            answer = client.cancel(task_id)
        if as_json:
            typer.echo(json.dumps(answer))
        else:
            typer.echo(f"{answer['id']} {OUTCOMES.get(answer['outcome'], answer['outcome'])}")


def _status(name: str) -> str:
    """The status that a person means. Raises `CommandError` with the names that there are."""
    from app.tasks.status import Status

    known = [status.value for status in Status]
    if name.upper() not in known:
        message = f"--status {name!r} is none of {', '.join(known)}."
        raise CommandError("OPTION_INVALID", message, exit_code=EXIT_INPUT)
    return name.upper()


def _progress(one: Mapping[str, Any]) -> str:
    progress = one.get("progress") or {}
    if one["status"] != "RUNNING" or not progress.get("phase"):
        return ""
    total = progress.get("total") or 0
    return f"{progress['phase']} {progress.get('done') or 0}/{total}" if total else str(progress["phase"])


def _row(one: Mapping[str, Any]) -> tuple[str, ...]:
    note = (one.get("error") or {}).get("code") or one.get("wait_reason") or ""
    if one.get("waits_for"):
        note = f"waits for {', '.join(one['waits_for'])}"
    return (one["id"], one["status"], _progress(one), str(one.get("created_at") or ""), str(note))


def _print_table(found: list[dict[str, Any]]) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    styles = {"SUCCEEDED": "green", "FAILED": "red", "RUNNING": "cyan", "CANCELLED": "dim"}
    table = Table(*COLUMNS, box=None, header_style="bold")
    for one in found:
        cells = [Text(cell) for cell in _row(one)]
        cells[1].stylize(styles.get(one["status"], ""))
        table.add_row(*cells)
    Console().print(table)
