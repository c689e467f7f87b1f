"""`greenroom drill`: the command."""

from __future__ import annotations

import shutil
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from app.cli.errors import EXIT_INPUT, EXIT_INTERRUPTED, CommandError, ending_as_interrupt, shown
from app.cli.options import AsJson, ConfigFile, Debug, Set, require_writable, settings_from

if TYPE_CHECKING:
    from app.cli.drill.caller import Caller
    from app.cli.drill.report import Report, Row
    from app.cli.drill.scene import Drill, Scene
    from app.config import Settings

_UNKNOWN_START_S = 60.0
"""How long a service that the drill did not start may need for a fresh worker."""
_MINUTES_S = 90.0
_SPARE_S = 60.0
"""What a service needs beside the time that a worker may take to load its models."""
_IN_USE = "since it strikes the service itself, and the one at --url may be in use"


def drill(
    only: Annotated[list[str] | None, typer.Option("--only", metavar="NAME", help="Only this one. Repeatable.")] = None,
    tasks: Annotated[int, typer.Option("--tasks", min=0, max=1000, help="Tasks beside each one that is struck.")] = 5,
    quick: Annotated[bool, typer.Option("--quick", help="Shorter intervals than those of the configuration.")] = False,
    listed: Annotated[bool, typer.Option("--list", help="Tell what there is, and play nothing.")] = False,
    url: Annotated[
        str | None,
        typer.Option("--url", help="A running service with rehearsals on. [default: one of the drill's own]"),
    ] = None,
    folder: Annotated[
        Path | None, typer.Option("--folder", help="Where to put the folder of its service. [default: temporary files]")
    ] = None,
    keep: Annotated[bool, typer.Option("--keep", help="Keep that folder, with the log, although all passed.")] = False,
    report: Annotated[
        Path | None, typer.Option("--report", help="Write the report there: JSON if it ends so, else Markdown.")
    ] = None,
    more: Set = None,
    config: ConfigFile = None,
    as_json: AsJson = False,
    debug: Debug = False,
) -> None:
    """Break things on purpose and see whether every promise holds: a service of its own, never your data.

    It is started with your configuration on an empty folder. Exit code 0 only if everything passed.
    """
    with shown(debug), ending_as_interrupt():
        from app.cli.drill.report import Report

        chosen = _chosen(only)
        if report is not None:
            require_writable(report, "report")
        changed = _quick() if quick else {}
        pairs = [*(more or []), *(f"{name}={value}" for name, value in changed.items())]
        settings = settings_from({}, pairs, config).settings
        if listed:
            _list(chosen, settings)
            return
        outcome = Report(
            where=url or "a service of its own", started_at=datetime.now(UTC).isoformat(timespec="seconds"),
            changed={} if url else changed,
        )  # fmt: skip
        began = time.monotonic()
        try:
            if url is not None:
                _elsewhere(outcome, chosen, url, settings, tasks, quiet=as_json)
            else:
                flags = [part for pair in pairs for part in ("--set", pair)]
                flags += ["--config", str(config)] if config else []
                _here(outcome, chosen, flags, settings, tasks, folder, keep=keep, quiet=as_json)
        except KeyboardInterrupt:
            outcome.interrupted = True
        outcome.seconds = round(time.monotonic() - began, 1)
        _tell(outcome, report, as_json=as_json)
        if not outcome.passed:
            raise typer.Exit(EXIT_INTERRUPTED if outcome.interrupted else 1)


def _chosen(only: list[str] | None) -> list[Drill]:
    from app.cli.drill.playing import DRILLS

    names = [name for item in only or [] for name in item.split(",") if name]
    unknown = [name for name in names if name not in DRILLS]
    if unknown:
        message = f"--only {unknown[0]!r} is none of {', '.join(DRILLS)}."
        hint = "`greenroom drill --list` tells what they do."
        raise CommandError("OPTION_INVALID", message, hint, exit_code=EXIT_INPUT)
    return [drill for name, drill in DRILLS.items() if not names or name in names]


def _quick() -> Mapping[str, str]:
    from app.cli.drill.terms import QUICK

    return QUICK


def _list(drills: Sequence[Drill], settings: Settings) -> None:
    from app.cli.drill.terms import Terms

    terms = Terms(settings, start_s=0.0)
    for one in drills:
        where = "" if one.inside else " [own service only]"
        typer.echo(f"{one.name:<20}  {one.done}{where}")
        typer.echo(f"{'':<20}    must follow: {one.expected(terms)} (about {one.about_s(terms):.0f} s)")


def _here(
    outcome: Report,
    drills: Sequence[Drill],
    flags: Sequence[str],
    settings: Settings,
    beside: int,
    parent: Path | None,
    *,
    keep: bool,
    quiet: bool,
) -> None:
    """On a stage of the drill's own."""
    from app.cli.drill.caller import Caller
    from app.cli.drill.scene import Scene
    from app.cli.drill.stage import Stage
    from app.cli.drill.terms import Terms

    if parent is not None and not parent.is_dir():
        raise CommandError("OPTION_INVALID", f"--folder {str(parent)!r} is no folder.", exit_code=EXIT_INPUT)
    place = Path(tempfile.mkdtemp(prefix="greenroom-drill-", dir=parent))
    stage = Stage(place, flags, ready_within_s=settings.worker_start_timeout_s + _SPARE_S)
    kept = True  # Whatever breaks it off, the log tells why.
    try:
        with _waiting("the service of the drill starts"):
            stage.start()
        with Caller(stage.url) as caller:
            _play(outcome, drills, Scene(caller, Terms(settings, stage.ready_s), beside, stage), quiet=quiet)
        outcome.left += stage.close()
        outcome.left += [f"a lease of {task_id} is left" for task_id in stage.leases()]
        kept = keep or not outcome.passed
    except KeyboardInterrupt:
        kept = keep or not all(row.passed for row in outcome.rows)
        raise
    finally:
        stage.abandon()
        if kept:
            typer.echo(f"The folder of the service, with its log: {place}", err=True)
        else:
            shutil.rmtree(place, ignore_errors=True)


def _elsewhere(
    outcome: Report, drills: Sequence[Drill], url: str, settings: Settings, beside: int, *, quiet: bool
) -> None:
    """On a service that runs already."""
    import httpx

    from app.cli.drill.caller import Caller
    from app.cli.drill.scene import Scene
    from app.cli.drill.terms import Terms

    address = url if "://" in url else f"http://{url}"
    try:
        there = Caller(address)
    except httpx.InvalidURL as error:
        message = f"--url {url!r} is no address: {error}"
        raise CommandError("OPTION_INVALID", message, exit_code=EXIT_INPUT) from error
    with there as caller:
        _require_readiness(caller)
        outcome.left_out = {one.name: _IN_USE for one in drills if not one.inside}
        scene = Scene(caller, Terms(settings, _UNKNOWN_START_S), beside)
        _play(outcome, [one for one in drills if one.inside], scene, quiet=quiet)


def _require_readiness(caller: Caller) -> None:
    from greenroom.client import GreenroomError

    try:
        tiers, queue = caller.client.tiers(), caller.client.queue()
    except GreenroomError as error:
        raise CommandError("UPSTREAM_CONNECTION", str(error), "Is it running, and its address right?") from error
    if not any(tier["renderer"] == "rehearsal" for tier in tiers):
        hint = "Start it with GREENROOM_REHEARSALS=1, never on a public service; or leave --url out."
        raise CommandError("DRILL_NOT_POSSIBLE", f"The service at {caller.url} offers no rehearsals.", hint)
    if queue["paused"] or queue["draining"]:
        hint = "Resume it (POST /queue/resume, or on its page) and start the drill again."
        raise CommandError("DRILL_NOT_POSSIBLE", f"The service at {caller.url} starts no tasks: it is held.", hint)


def _play(outcome: Report, drills: Sequence[Drill], scene: Scene, *, quiet: bool) -> None:
    from app.cli.drill.playing import TROUBLE, play

    about = sum(one.about_s(scene.terms) for one in drills)
    if not quiet:
        long = f"{about / 60:.0f} min" if about > _MINUTES_S else f"{about:.0f} s"
        typer.echo(f"{len(drills)} drills on {outcome.where}, about {long}.")
    try:
        for number, one in enumerate(drills, start=1):
            with _waiting(f"{number}/{len(drills)} {one.name}, about {one.about_s(scene.terms):.0f} s"):
                row = play(one, scene)
            outcome.rows.append(row)
            if not quiet:
                _say(row)
    finally:
        outcome.accepted = len(scene.caller.accepted)
    try:
        outcome.lost, outcome.doubled = scene.caller.lost(), scene.caller.strangers()
    except TROUBLE as error:
        outcome.left.append(f"what became of the tasks cannot be told: {error}")


def _say(row: Row) -> None:
    from app.cli.drill.report import lines_of

    verdict = typer.style("passed", fg="green") if row.passed else typer.style("FAILED", fg="red")
    typer.echo(f"{verdict}  {typer.style(row.name, bold=True)}")
    for line in lines_of(row):
        typer.echo(line)


@contextmanager
def _waiting(what: str) -> Iterator[None]:
    """Tell a terminal what is waited for, as long as it is."""
    from rich.console import Console

    console = Console(stderr=True)
    with console.status(f"{what} ...") if console.is_terminal else nullcontext():
        yield


def _tell(outcome: Report, target: Path | None, *, as_json: bool) -> None:
    if as_json:
        typer.echo(outcome.as_json())
    else:
        for line in outcome.summary():
            typer.echo(line)
    if target is not None:
        target.write_text(outcome.as_json() + "\n" if target.suffix == ".json" else outcome.as_page(), encoding="utf-8")
        if not as_json:
            typer.echo(f"The report: {target}", err=True)
