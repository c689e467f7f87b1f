"""The key of a result: equal keys stand for videos that may take each other's place."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Contents:
    """The SHA-256 of both inputs, hexadecimal: what is in a file counts, never its name or where it came from."""

    source: str
    audio: str


def cache_key(
    contents: Contents,
    *,
    renderer: str,
    version: str,
    cache_class: str | None,
    settings: Mapping[str, Any],
    degraded: bool,
    options: Mapping[str, Any],
) -> str:
    """SHA-256, hexadecimal, of all that a result depends on.

    `options` are complete, as the tier takes them. The renderer's own `settings` count unless the operator says by a
    `cache_class` what belongs together. A degraded result has a key of its own, so that it never answers a request that
    does not allow one.
    """
    parts = {
        "contents": [contents.source, contents.audio],
        "renderer": [renderer, version],
        "class": {"settings": dict(settings)} if cache_class is None else cache_class,
        "degraded": degraded,
        "options": dict(options),
    }
    return hashlib.sha256(json.dumps(parts, sort_keys=True, separators=(",", ":")).encode()).hexdigest()
