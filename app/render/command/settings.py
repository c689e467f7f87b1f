"""What an operator says of a program in its tier. Imports no framework: the service validates tiers with this."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path, PurePosixPath
from typing import Annotated, Any, Literal

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    StrictBool,
    StrictFloat,
    StrictInt,
    StrictStr,
    ValidationError,
    field_validator,
    model_validator,
)

from app.render.command.presets import PRESETS, PresetName
from app.render.command.template import fill, unknown
from app.retry.taxonomy import FailureCode

PATHS = frozenset(
    {"source", "source_name", "audio", "audio_name", "output", "output_name", "output_dir", "work", "device", "home"}
)
"""Placeholders that every program has; beside them `values.NAME` and `options.NAME`."""
SOUND, PICTURE, RESULT = {"audio", "audio_name"}, {"source", "source_name"}, {"output", "output_name", "output_dir"}

_NOT_A_FAILURE_OF_PROGRAMS = frozenset({FailureCode.CANCELLED, FailureCode.INTERRUPTED, FailureCode.DEADLINE_EXCEEDED})
"""These say what the service did itself; a program that claimed them would be tried again for ever, or never."""

_MERGED = ("values", "options", "env", "files", "exit_codes")
"""Tables to which a tier adds; all else replaces what the preset says."""

Scalar = StrictBool | StrictInt | StrictFloat | StrictStr


def _of_programs(code: FailureCode) -> FailureCode:
    if code in _NOT_A_FAILURE_OF_PROGRAMS:
        raise ValueError(f"{code} is for the service itself to say")
    return code


class Pattern(BaseModel):
    """A regular expression in the last lines of output that tells which failure it was."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    match: str
    code: FailureCode

    @field_validator("match")
    @classmethod
    def _compiles(cls, value: str) -> str:
        return _expression(value)

    @field_validator("code")
    @classmethod
    def _allowed(cls, value: FailureCode) -> FailureCode:
        return _of_programs(value)


class OptionRule(BaseModel):
    """An option of a request that becomes `{options.NAME}`: its default, whose type it has, and what is allowed."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    default: Scalar = Field(union_mode="left_to_right")
    min: float | None = None
    max: float | None = None
    choices: tuple[Annotated[Scalar, Field(union_mode="left_to_right")], ...] | None = None

    @model_validator(mode="before")
    @classmethod
    def _scalar_is_the_default(cls, value: Any) -> Any:
        return value if isinstance(value, dict | OptionRule) else {"default": value}

    @model_validator(mode="after")
    def _consistent(self) -> OptionRule:
        number = isinstance(self.default, int | float) and not isinstance(self.default, bool)
        if not number and (self.min is not None or self.max is not None):
            raise ValueError("min and max are for numbers")
        if self.choices is not None and self.default not in self.choices:
            raise ValueError("the default is none of the choices")
        return self


class CommandSettings(BaseModel):
    """A program: how it is started, what it is given, and how its words are understood."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    preset: PresetName | None = None
    """Fills in all that is not given here, for a program that is known."""
    argv: tuple[str, ...] = Field((), min_length=1, validate_default=True)
    """The program and its arguments; with placeholders, never read by a shell."""
    home: Path | None = None
    """Folder of the program: `{home}`, and its working directory unless `cwd` says otherwise."""
    cwd: str = ""
    """Working directory; by default `home`, else the attempt's own folder `{work}`."""
    env: dict[str, str] = Field({}, repr=False)
    """Added to the environment of the service, of which its own settings (`GREENROOM_...`) are left out."""
    values: dict[str, str] = {}
    """`{values.NAME}`. May hold `{home}`."""
    options: dict[Annotated[str, Field(pattern=r"^[A-Za-z0-9_]+$")], OptionRule] = {}
    """Options that a request may give, as `{options.NAME}`."""
    files: dict[str, str] = {}
    """Files by name, written into `{work}` first. Placeholders are filled in as JSON strings, quotes included."""
    source_as: Literal["file", "video"] = "file"
    """The source as it came (pictures as JPEG or PNG), or always as an H.264 video at `source_fps`."""
    source_fps: Annotated[float, Field(ge=1, le=60)] = 25.0
    audio_rate: Annotated[int, Field(ge=8_000, le=48_000)] = 16_000
    """The speech is given as a WAV file of 16 bits, mono, at this rate. The result gets the speech as it was sent."""
    device: str | None = None
    """`{device}`; by default that of the slot."""
    progress: str | None = None
    """Regular expression with the groups `done` and `total`, `done` alone, or `percent`. None: every line is a move."""
    silence_s: Annotated[float, Field(gt=0)] | None = None
    """The longest time without a move; None: as long as the service allows a phase."""
    exit_codes: dict[Annotated[int, Field(ge=1, le=255)], FailureCode] = {}
    patterns: tuple[Pattern, ...] = ()
    """Looked for in order, before those that fit every torch program."""
    hold_s: Annotated[float, Field(ge=0, le=2)] = 0.0
    """For so long the last frame is shown on where the program's video ends before the speech."""

    @model_validator(mode="before")
    @classmethod
    def _with_preset(cls, given: Any) -> Any:
        preset = PRESETS.get(given.get("preset") or "") if isinstance(given, dict) else None
        if preset is None:
            return given
        both = preset | given
        for table in _MERGED:
            if isinstance(given.get(table), dict):
                both[table] = preset.get(table, {}) | given[table]
        if isinstance(given.get("patterns"), list | tuple):
            both["patterns"] = [*given["patterns"], *preset.get("patterns", [])]
        return both

    @field_validator("argv")
    @classmethod
    def _named(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        if not value[0].strip():
            raise ValueError("the first argument names the program and is empty")
        return value

    @field_validator("progress")
    @classmethod
    def _counts(cls, value: str | None) -> str | None:
        if value is not None and not {"done", "percent"} & set(re.compile(_expression(value)).groupindex):
            raise ValueError(
                "the expression needs a group (?P<done>...), best with (?P<total>...), or (?P<percent>...)"
            )
        return value

    @field_validator("exit_codes")
    @classmethod
    def _allowed(cls, value: dict[int, FailureCode]) -> dict[int, FailureCode]:
        for code in value.values():
            _of_programs(code)
        return value

    @field_validator("files")
    @classmethod
    def _inside(cls, value: dict[str, str]) -> dict[str, str]:
        for name in value:
            path = PurePosixPath(name)
            if path.is_absolute() or ".." in path.parts or not path.name:
                raise ValueError(f"{name!r} is no name of a file below the attempt's folder")
        return value

    @model_validator(mode="after")
    def _complete(self) -> CommandSettings:
        known = PATHS | {f"values.{name}" for name in self.values} | {f"options.{name}" for name in self.options}
        if self.home is None:
            known -= {"home"}
        told = [*self.argv, *self.env.values(), *self.files.values(), self.cwd]
        if missing := unknown(told, known):
            raise ValueError(f"there is nothing to put for {', '.join(f'{{{name}}}' for name in missing)}")
        if missing := unknown(self.values.values(), known & {"home"}):
            raise ValueError(f"values can hold {{home}} alone, not {', '.join(f'{{{name}}}' for name in missing)}")
        for what, names in (("source", PICTURE), ("audio", SOUND), ("output", RESULT)):
            if not any(f"{{{name}}}" in text for text in told for name in names):
                raise ValueError(f"neither argv nor files name the {what}: {' or '.join(f'{{{n}}}' for n in names)}")
        return self

    @property
    def own_values(self) -> dict[str, Any]:
        """What the placeholders stand for that do not depend on a job."""
        home = {} if self.home is None else {"home": str(self.home)}
        return home | {f"values.{name}": fill(text, home) for name, text in self.values.items()}


def parse(settings: Mapping[str, Any]) -> CommandSettings:
    """A tier's settings, from among what a renderer is told. Raises `pydantic.ValidationError`."""
    own = {name: value for name, value in settings.items() if name in CommandSettings.model_fields}
    return _parsed(json.dumps(own, sort_keys=True, default=str))


@lru_cache(maxsize=64)
def _parsed(text: str) -> CommandSettings:
    """Asked for whenever the tiers are looked at."""
    return CommandSettings.model_validate_json(text)


def why_absent(settings: Mapping[str, Any]) -> str:
    """Why the program cannot be started; empty if it can. Looks at files, and starts nothing."""
    try:
        own = parse(settings)
    except ValidationError as error:
        return "; ".join(str(item["msg"]) for item in error.errors())
    if own.home is not None and not own.home.is_dir():
        return f"its folder {own.home} (home) is not there"
    try:
        name = fill(own.argv[0], own.own_values)
    except KeyError as error:
        return f"its program {own.argv[0]!r} depends on {error}, which is known only in a task"
    return _why_not_executable(name, own)


def _why_not_executable(name: str, own: CommandSettings) -> str:
    if "/" not in name:
        return "" if shutil.which(name, path=own.env.get("PATH")) else f"its program {name} is not on the PATH"
    path = (own.home or Path()) / name
    return "" if shutil.which(str(path)) else f"its program {path} is not there or not executable"


def _expression(value: str) -> str:
    try:
        re.compile(value)
    except re.error as error:
        raise ValueError(f"{value!r} is no regular expression: {error}") from None
    return value
