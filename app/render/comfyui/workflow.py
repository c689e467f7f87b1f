"""Workflows in ComfyUI's API format with named placeholders."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

READY = Path(__file__).parent / "workflows" / "picture.json"
"""Core nodes only: the picture stands still for as long as the speech lasts. A pattern for workflows that do more."""

SOURCES = frozenset({"image", "video"})
PLACEHOLDERS = SOURCES | {"audio", "frames", "fps", "seconds", "width", "height", "seed", "prefix"}
_NAME = re.compile(r"\{(\w+)\}")


@lru_cache(maxsize=8)
def _read(path: Path, _changed_ns: int) -> dict[str, Any]:
    try:
        nodes = json.loads(path.read_text())
    except ValueError as error:
        raise ValueError(f"{path} is no JSON: {error}") from None
    if not isinstance(nodes, dict) or not all(
        isinstance(node, dict) and "class_type" in node for node in nodes.values()
    ):
        raise ValueError(f'{path} is no workflow in API format (in ComfyUI: "Export (API)")')
    return nodes


def load_workflow(path: Path) -> dict[str, Any]:
    """The nodes of a workflow, by id. Raises ValueError that names the file and what is wrong with it."""
    try:
        changed = path.stat().st_mtime_ns
    except OSError as error:
        raise ValueError(f"{path} cannot be read: {error.strerror}") from None
    nodes = _read(path, changed)
    used = names(nodes)
    if unknown := used - PLACEHOLDERS:
        known = ", ".join(sorted(PLACEHOLDERS))
        raise ValueError(f"{path} has unknown placeholders: {', '.join(sorted(unknown))}; there are: {known}")
    for needed in ("audio", "prefix"):
        if needed not in used:
            raise ValueError(f"{path} does not use the placeholder {{{needed}}}")
    if not used & SOURCES:
        raise ValueError(f"{path} uses neither {{image}} nor {{video}}")
    return nodes


def names(value: Any) -> set[str]:
    """The placeholders that a workflow uses."""
    if isinstance(value, str):
        return set(_NAME.findall(value))
    if isinstance(value, Mapping):
        return set().union(*map(names, value.values()))
    if isinstance(value, list):
        return set().union(*map(names, value))
    return set()


def fill(value: Any, known: Mapping[str, Any]) -> Any:
    """The workflow with its placeholders replaced. A text that is one placeholder becomes the value, with its type."""
    if isinstance(value, str):
        whole = _NAME.fullmatch(value)
        return known[whole[1]] if whole else _NAME.sub(lambda found: str(known[found[1]]), value)
    if isinstance(value, Mapping):
        return {key: fill(inner, known) for key, inner in value.items()}
    if isinstance(value, list):
        return [fill(inner, known) for inner in value]
    return value
