"""`greenroom doctor`: is this machine fit to serve, and if not, what to do."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

from app.cli.errors import shown
from app.cli.options import AsJson, ConfigFile, DataDir, Debug, Set, settings_from

if TYPE_CHECKING:
    from app.cli.checks import Check
    from app.config_sources import LoadedSettings

STYLES = {"ok": "green", "warn": "yellow", "fail": "red"}


def doctor(
    data_dir: DataDir = None,
    device: Annotated[str | None, typer.Option(help="auto, cuda or cpu. [default: auto]")] = None,
    more: Set = None,
    config: ConfigFile = None,
    as_json: AsJson = False,
    debug: Debug = False,
) -> None:
    """Try everything that the service needs on this machine. Exit code 1 if something fails."""
    with shown(debug):
        loaded = settings_from({"data_dir": data_dir, "device": device}, more, config)
        found: list[Check] = []
        for check in checks(loaded):
            found.append(check)
            if not as_json:
                _say(check)
        bad = [check for check in found if check.verdict == "fail"]
        if as_json:
            typer.echo(json.dumps({"ok": not bad, "checks": [asdict(check) for check in found]}, indent=2))
        if bad:
            raise typer.Exit(1)


def checks(loaded: LoadedSettings) -> Iterator[Check]:
    """All checks, in the order in which their failures explain each other."""
    from app.cli import checks as light
    from app.cli.database_check import database_check
    from app.cli.plugin_check import plugin_names
    from app.cli.postgresql_check import postgresql_checks

    settings = loaded.settings
    yield light.python_check()
    yield light.configuration_check(loaded, loaded.unknown_variables)
    yield light.cores_check(settings)
    yield light.shared_memory_check()
    yield light.disk_check(settings.data_dir)
    if settings.database_url is None:
        yield database_check(settings.data_dir)
    else:
        yield from postgresql_checks(settings.database_url.get_secret_value(), settings.data_dir, settings.lease_s)
    yield from light.isolated("torch", settings)
    yield from light.isolated("codecs", settings)
    yield from light.isolated("renderer", settings)
    if settings.tier_renderer != "wav2lip":
        yield from light.isolated("wav2lip", settings)
    used: dict[str, list[str]] = {}
    for tier in settings.tiers:
        used.setdefault(tier.renderer, []).append(tier.name)
    for name in plugin_names():
        yield from light.isolated("plugin", settings, f"plug-in {name}", plugin=name, tiers=json.dumps(used))


def _say(check: Check) -> None:
    colour = STYLES[check.verdict] if sys.stdout.isatty() else None
    typer.echo(f"{typer.style(f'{check.verdict:<4}', fg=colour)}  {check.name:<14} {check.finding}")
    if check.hint and check.verdict != "ok":
        typer.echo(f"      {'':<14} hint: {check.hint}")
