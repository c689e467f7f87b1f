"""Options that several commands share, and reading `name=value` pairs."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from app.cli.errors import EXIT_INPUT, CommandError

if TYPE_CHECKING:
    from app.config_sources import LoadedSettings

Debug = Annotated[bool, typer.Option("--debug", help="On an error, show the stack trace.")]
AsJson = Annotated[bool, typer.Option("--json", help="Write JSON for programs to stdout.")]
ConfigFile = Annotated[
    Path | None, typer.Option("--config", help="TOML file of settings. [default: greenroom.toml if there is one]")
]
DataDir = Annotated[Path | None, typer.Option("--data-dir", help="Where the service keeps its database and files.")]
Set = Annotated[
    list[str] | None, typer.Option("--set", metavar="NAME=VALUE", help="Any other setting, by its name. Repeatable.")
]
RendererOption = Annotated[
    list[str] | None,
    typer.Option("--option", metavar="NAME=VALUE", help="An option of the renderer; the value is JSON or plain text."),
]
Url = Annotated[
    str | None,
    typer.Option(
        "--url",
        envvar="GREENROOM_URL",
        help="Address of the service. [default: the one that runs on the data directory here, else host and port "
        "of the configuration]",
    ),
]


def pairs(items: list[str] | None, flag: str) -> dict[str, str]:
    """`["a=1", "b=x"]` as a dictionary. Raises `CommandError` naming `flag`."""
    found: dict[str, str] = {}
    for item in items or []:
        name, separator, value = item.partition("=")
        if not separator or not name.strip():
            raise CommandError("OPTION_INVALID", f"{flag} {item!r} is not NAME=VALUE.", exit_code=EXIT_INPUT)
        found[name.strip()] = value
    return found


def renderer_options(items: list[str] | None) -> dict[str, Any]:
    """Renderer options from the command line: `0.5`, `true` and `[1,2]` are JSON, everything else is text."""

    def value(text: str) -> Any:
        try:
            return json.loads(text)
        except json.JSONDecodeError:
            return text

    return {name: value(text) for name, text in pairs(items, "--option").items()}


def require_writable(target: Path, name: str = "output") -> None:
    """Raise `CommandError` unless a file can be written there: asked before the work, not when its result is lost."""
    if not target.parent.is_dir() or not os.access(target.parent, os.W_OK):
        message = f"{name}: the folder {str(target.parent)!r} does not exist or cannot be written."
        raise CommandError("OUTPUT_INVALID", message, exit_code=EXIT_INPUT)
    if target.is_dir():
        raise CommandError("OUTPUT_INVALID", f"{name}: {str(target)!r} is a folder.", exit_code=EXIT_INPUT)


def settings_from(flags: dict[str, Any], more: list[str] | None, config: Path | None) -> LoadedSettings:
    """Load the settings with `flags` (None = not given) and the `--set` pairs on top. Raises `ConfigError`."""
    from app.config import CONFIG_VARIABLE, ConfigError, Settings
    from app.config_sources import load_settings

    named = config or Path(os.environ.get(CONFIG_VARIABLE) or ".")
    if (config or os.environ.get(CONFIG_VARIABLE)) and named.exists() and not named.is_file():
        raise ConfigError(f"The configuration file {named} is not a file.")
    extra = pairs(more, "--set")
    unknown = sorted(set(extra) - set(Settings.model_fields))
    if unknown:
        hint = "`greenroom config` lists the names of all settings."
        raise CommandError("CONFIG_INVALID", f"There is no setting {unknown[0]!r}.", hint, exit_code=EXIT_INPUT)
    return load_settings({**extra, **{name: value for name, value in flags.items() if value is not None}}, config)
