"""`greenroom serve`: the service, until it is told to stop."""

from __future__ import annotations

from typing import Annotated

import typer

from app.cli.errors import shown
from app.cli.options import ConfigFile, DataDir, Debug, Set, settings_from
from app.loading import uncollected


def serve(
    host: Annotated[str | None, typer.Option(help="Address to listen on. [default: 127.0.0.1]")] = None,
    port: Annotated[int | None, typer.Option(help="Port to listen on; 0 takes a free one. [default: 8000]")] = None,
    data_dir: DataDir = None,
    device: Annotated[str | None, typer.Option(help="auto, cuda or cpu. [default: auto]")] = None,
    slots: Annotated[int | None, typer.Option(help="How many renders run side by side. [default: by device]")] = None,
    log_level: Annotated[str | None, typer.Option(help="debug, info, warning or error. [default: info]")] = None,
    log_format: Annotated[
        str | None, typer.Option(help="json, console, or auto: console on a terminal. [default: auto]")
    ] = None,
    more: Set = None,
    config: ConfigFile = None,
    debug: Debug = False,
) -> None:
    """Run the service in the foreground until SIGTERM or Ctrl-C."""
    with shown(debug):
        flags = {
            "host": host,
            "port": port,
            "data_dir": data_dir,
            "device": device,
            "slots": slots,
            "log_level": log_level,
            "log_format": log_format,
        }
        loaded = settings_from(flags, more, config)
        for name in loaded.unknown_variables:
            typer.echo(f"warning: the variable {name} names no setting and has no effect", err=True)
        with uncollected():
            from app.service.main import run

        raise typer.Exit(run(loaded.settings, lambda: settings_from(flags, more, config).settings))
