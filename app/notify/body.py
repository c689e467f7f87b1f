"""The body of a notice as bytes: below the limit of Standard Webhooks, and honest about what had to be left out."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Iterator
from typing import Any

MAX_BYTES = 20_000
"""The specification asks for less than 20 kB."""

_LONG, _KEPT = 500, 300
"""A text of more characters than `_LONG` is cut to `_KEPT`, where something has to be."""
_ESSENTIAL = ("id", "status", "is_terminal", "error", "links", "created_at", "started_at", "finished_at")

Cut = Callable[[dict[str, Any]], Iterator[str]]
"""Makes `data` smaller in steps; each yields the path of what was cut, written with dots."""


def encode(body: dict[str, Any], limit: int = MAX_BYTES) -> bytes:
    """`body` (`type`, `timestamp`, `data`: a task) as UTF-8 JSON of less than `limit` bytes.

    If parts of `data` are too long, `truncated` beside it lists them: the task itself has them, at `data.links.self`.
    """
    whole = _json(body)
    if len(whole) < limit:
        return whole
    smaller = copy.deepcopy(body)
    smaller["truncated"] = []
    for cut in (_long_texts, _postmortems, _details, _metadata, _old_attempts, _all_but_the_essential):
        for path in cut(smaller["data"]):
            smaller["truncated"].append(path)
            if len(encoded := _json(smaller)) < limit:
                return encoded
    raise ValueError(f"A notice of {len(encoded)} bytes cannot be made smaller than {limit}.")


def _json(value: Any) -> bytes:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode(errors="replace")


def _long_texts(data: dict[str, Any]) -> Iterator[str]:
    yield from _cut_texts(data, "")


def _cut_texts(value: Any, path: str) -> Iterator[str]:
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in list(items):
        where = f"{path}{key}"
        if isinstance(inner, str) and len(inner) > _LONG:
            value[key] = f"{inner[:_KEPT]}... [{len(inner) - _KEPT} more characters]"
            yield where
        else:
            yield from _cut_texts(inner, f"{where}.")


def _postmortems(data: dict[str, Any]) -> Iterator[str]:
    for n, attempt in enumerate(data.get("attempts") or []):
        if attempt["postmortem"] is not None:
            attempt["postmortem"] = None
            yield f"attempts.{n}.postmortem"


def _details(data: dict[str, Any]) -> Iterator[str]:
    for n, attempt in enumerate(data.get("attempts") or []):
        if attempt["error"] is not None and attempt["error"]["detail"]:
            attempt["error"]["detail"] = {}
            yield f"attempts.{n}.error.detail"


def _metadata(data: dict[str, Any]) -> Iterator[str]:
    """The largest entries first: what tells one order from another is short."""
    metadata = data["metadata"]
    for key in sorted(metadata, key=lambda name: len(_json(metadata[name])), reverse=True):
        del metadata[key]
        yield f"metadata.{key[:_KEPT]}"


def _old_attempts(data: dict[str, Any]) -> Iterator[str]:
    attempts = data.get("attempts") or []
    while len(attempts) > 1:
        del attempts[0]
        yield "attempts"


def _all_but_the_essential(data: dict[str, Any]) -> Iterator[str]:
    for name in [name for name in data if name not in _ESSENTIAL]:
        del data[name]
        yield name
