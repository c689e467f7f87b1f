"""Where settings come from.

Values come from flags, then `GREENROOM_*` variables, then (for the collector of traces) OpenTelemetry's own variables,
then a TOML file, then the defaults of `app.config`; `greenroom config` prints what is in force and where it came from.
"""

from __future__ import annotations

import os
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError
from pydantic_settings import EnvSettingsSource

from app.config import (
    CONFIG_VARIABLE,
    ENV_PREFIX,
    FAILPOINTS_VARIABLE,
    OTLP_VARIABLE,
    URL_VARIABLE,
    ConfigError,
    Settings,
)
from app.tiers.settings import line_of

OTLP_TRACES_VARIABLE = "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT"
DEFAULT_CONFIG_FILE = Path("greenroom.toml")


@dataclass(frozen=True, slots=True)
class LoadedSettings:
    """The settings in force and, for each, where it came from (`flag`, `GREENROOM_X`, a file's path, `default`)."""

    settings: Settings
    origins: Mapping[str, str]
    unknown_variables: tuple[str, ...]
    """`GREENROOM_*` variables that name no setting: most likely a typing error."""


def _config_file(explicit: Path | None, environ: Mapping[str, str]) -> Path | None:
    named = explicit or (Path(environ[CONFIG_VARIABLE]) if environ.get(CONFIG_VARIABLE) else None)
    if named is not None:
        if not named.is_file():
            raise ConfigError(f"The configuration file {named} does not exist.")
        return named
    return DEFAULT_CONFIG_FILE if DEFAULT_CONFIG_FILE.is_file() else None


def _from_file(path: Path | None) -> dict[str, Any]:
    if path is None:
        return {}
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"The configuration file {path} cannot be read: {error}") from error


def _from_environment() -> dict[str, Any]:
    values = EnvSettingsSource(Settings)()
    return {name: value for name, value in values.items() if name in Settings.model_fields}


def _from_standard_variables(environ: Mapping[str, str]) -> tuple[dict[str, Any], str]:
    """What OpenTelemetry's own variables say, and which of them. Empty ones are unset, as its specification has it."""
    off = environ.get("OTEL_SDK_DISABLED", "").lower() == "true" or environ.get("OTEL_TRACES_EXPORTER") == "none"
    if not off and (whole := environ.get(OTLP_TRACES_VARIABLE)):
        return {"otlp_endpoint": whole}, OTLP_TRACES_VARIABLE
    if not off and (base := environ.get(OTLP_VARIABLE)):
        return {"otlp_endpoint": f"{base.rstrip('/')}/v1/traces"}, OTLP_VARIABLE
    return {}, ""


def _place(where: tuple[int | str, ...], origins: Mapping[str, str], path: Path | None) -> str:
    """Where the setting at `where` was set; of a tier in a file, with the line."""
    origin = origins.get(str(where[0]), "unknown")
    if path is None or origin != str(path) or where[0] != "tiers" or len(where) < 2 or not isinstance(where[1], int):
        return origin
    line = line_of(path.read_text(encoding="utf-8"), where[1], str(where[2]) if len(where) > 2 else None)
    return origin if line is None else f"{origin}, line {line}"


def load_settings(flags: Mapping[str, Any] | None = None, config: Path | None = None) -> LoadedSettings:
    """Read all sources. `flags` that are None count as not given. Raises `ConfigError`."""
    path = _config_file(config, os.environ)
    standard, variable = _from_standard_variables(os.environ)
    sources = (
        ({name: value for name, value in (flags or {}).items() if value is not None}, lambda _name: "flag"),
        (_from_environment(), lambda name: f"{ENV_PREFIX}{name.upper()}"),
        (standard, lambda _name: variable),
        (_from_file(path), lambda _name: str(path)),
    )
    values: dict[str, Any] = {}
    origins = dict.fromkeys(Settings.model_fields, "default")
    for found, origin in reversed(sources):
        values.update(found)
        origins.update({name: origin(name) for name in found})
    try:
        settings = Settings.model_validate(values)
    except ValidationError as error:
        lines = [
            f"{'.'.join(map(str, item['loc']))} (from {_place(item['loc'], origins, path)}): {item['msg']}"
            for item in error.errors()
        ]
        raise ConfigError("The configuration cannot be used: " + "; ".join(lines)) from error
    known = {f"{ENV_PREFIX}{name.upper()}" for name in Settings.model_fields} | {
        CONFIG_VARIABLE,
        FAILPOINTS_VARIABLE,
        URL_VARIABLE,
    }
    unknown = tuple(sorted(name for name in os.environ if name.startswith(ENV_PREFIX) and name not in known))
    return LoadedSettings(settings, origins, unknown)
