"""Texts with `{placeholders}`: arguments, environment and files of a program."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from typing import Any

_PLACEHOLDER = re.compile(r"\{\{|\{(?P<name>[a-z_]+(?:\.[A-Za-z0-9_-]+)?)\}")
"""`{{` is a brace itself; a brace before anything else than a name is one, too, so that JSON needs no care."""


def names_in(text: str) -> set[str]:
    """The placeholders of a text, without their braces."""
    return {found["name"] for found in _PLACEHOLDER.finditer(text) if found["name"]}


def fill(text: str, values: Mapping[str, Any]) -> str:
    """`text` with its placeholders replaced, each once: what is put in is never looked at again. Raises KeyError."""
    return _fill(text, {name: as_text(value) for name, value in values.items()})


def fill_json(text: str, values: Mapping[str, Any]) -> str:
    """As `fill`, with every value as JSON, which is YAML as well: strings come with their quotes. Raises KeyError."""
    return _fill(text, {name: json.dumps(value) for name, value in values.items()})


def unknown(texts: Iterable[str], known: Iterable[str]) -> list[str]:
    """The placeholders that have no value."""
    return sorted({name for text in texts for name in names_in(text)} - set(known))


def as_text(value: Any) -> str:
    """A value as a program reads it on its command line."""
    return json.dumps(value) if isinstance(value, bool) else str(value)


def _fill(text: str, values: Mapping[str, str]) -> str:
    return _PLACEHOLDER.sub(lambda found: values[found["name"]] if found["name"] else "{", text)
