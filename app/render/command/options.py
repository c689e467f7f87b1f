"""Options and capabilities of renderer `command`. Imports no framework: the API validates requests with this."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, create_model

from app.render.command.settings import CommandSettings, OptionRule, parse
from app.render.contract import Capabilities

_TEXT = Annotated[str, Field(max_length=1_000, pattern=r"^([^\x00-\x1f\x7f-][^\x00-\x1f\x7f]*)?$")]
"""A text must not be taken for another argument of the program, nor break a line of its files."""


class CommandOptions(BaseModel):
    """Of a program that takes none."""

    model_config = ConfigDict(extra="forbid", strict=True)


def options_for(settings: Mapping[str, Any]) -> type[BaseModel]:
    """The options that the program of a tier takes: those that its settings name."""
    fields: dict[str, Any] = {name: (_type(rule), rule.default) for name, rule in parse(settings).options.items()}
    return create_model("CommandOptions", __base__=CommandOptions, **fields)


def _type(rule: OptionRule) -> Any:
    if rule.choices is not None:
        return Literal[rule.choices]
    if isinstance(rule.default, bool):
        return bool
    if isinstance(rule.default, str):
        return _TEXT
    kind = int if isinstance(rule.default, int) else float
    return Annotated[kind, Field(ge=rule.min, le=rule.max, allow_inf_nan=False)]


CAPABILITIES = Capabilities(
    sources=frozenset({"image", "video"}),
    options=CommandOptions,
    options_for=options_for,
    settings=CommandSettings,
    light=True,
    canary=False,
)
