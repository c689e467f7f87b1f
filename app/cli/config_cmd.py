"""`greenroom config`: what is in force, and where it came from."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated, Any

import typer
from pydantic import SecretStr

from app.cli.errors import shown
from app.cli.options import AsJson, ConfigFile, DataDir, Debug, Set, settings_from
from app.tiers.settings import TierSettings


def _plain(value: Any) -> Any:
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, SecretStr):
        return str(value)  # asterisks
    if isinstance(value, TierSettings):
        return value.shown
    if isinstance(value, tuple):
        return [_plain(item) for item in value]
    return value


def _text(value: Any) -> str:
    plain = _plain(value)
    return "" if plain is None else str(plain) if not isinstance(plain, bool | list) else json.dumps(plain)


def config(
    host: Annotated[str | None, typer.Option(help="As for `serve`.")] = None,
    port: Annotated[int | None, typer.Option(help="As for `serve`.")] = None,
    data_dir: DataDir = None,
    more: Set = None,
    config: ConfigFile = None,
    as_json: AsJson = False,
    debug: Debug = False,
) -> None:
    """Print every setting with its value and its origin: flag, variable, file or default."""
    with shown(debug):
        loaded = settings_from({"host": host, "port": port, "data_dir": data_dir}, more, config)
        rows = [(name, getattr(loaded.settings, name), loaded.origins[name]) for name in loaded.origins]
        unknown = loaded.unknown_variables
        if as_json:
            settings = {name: {"value": _plain(value), "origin": origin} for name, value, origin in rows}
            typer.echo(json.dumps({"settings": settings, "unknown_variables": list(unknown)}, indent=2))
        else:
            _print_table([(name, _text(value), origin) for name, value, origin in rows])
        for name in unknown:
            typer.echo(f"warning: the variable {name} names no setting and has no effect", err=True)


def _print_table(rows: list[tuple[str, str, str]]) -> None:
    from rich.console import Console
    from rich.table import Table

    if not sys.stdout.isatty():
        for row in rows:
            typer.echo("\t".join(row))
        return
    table = Table("setting", "value", "origin", box=None, header_style="bold")
    for name, value, origin in rows:
        table.add_row(name, value, origin, style="dim" if origin == "default" else "")
    Console(markup=False).print(table)  # a path such as /media/[a] is no markup
