"""Renderers that other installed packages bring: entry points of the group `greenroom.renderers`.

Each points to a `Plugin` in a module that imports no framework, since the service reads it. One that cannot be used is
no error of the service: it stays listed with its reason, and its tiers are absent.
"""

from __future__ import annotations

import re
import sys
from collections import defaultdict
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from functools import lru_cache
from importlib import metadata
from typing import Any

from pydantic import BaseModel, ConfigDict

from app.render.contract import Capabilities

GROUP = "greenroom.renderers"
_NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,31}")
_FRAMEWORKS = ("torch", "tensorflow", "jax", "onnxruntime", "cv2", "av", "numpy", "PIL")
"""What the service's process must not hold: memory that is never used, and libraries that threads and forks upset."""


@dataclass(frozen=True, slots=True)
class Plugin:
    """What a package says of its renderer. The module of this object is imported by the service."""

    capabilities: Capabilities
    factory: str
    """`module:Class` of a `Renderer`; imported in a slot's process alone."""
    why_absent: Callable[[Mapping[str, Any]], str] | None = None
    """From a tier's settings to why it cannot be offered here; empty text: it can. Asked often: it should be quick."""


@dataclass(frozen=True, slots=True)
class Found:
    """One plug-in: what it says, or why it cannot be used."""

    plugin: Plugin
    broken: str = ""


class _Anything(BaseModel):
    """Settings and options of what cannot be known."""

    model_config = ConfigDict(extra="allow")


def _unusable(reason: str) -> Found:
    unknown = Capabilities(frozenset({"image", "video"}), options=_Anything, settings=_Anything)
    return Found(Plugin(unknown, factory=""), reason)


@lru_cache(maxsize=1)
def find(built_in: Collection[str]) -> Mapping[str, Found]:
    """All plug-ins of this installation by name; looked for once in the life of a process."""
    offers: dict[str, list[metadata.EntryPoint]] = defaultdict(list)
    for point in metadata.entry_points(group=GROUP):
        offers[point.name].append(point)
    return {name: _load(name, points, built_in) for name, points in sorted(offers.items())}


def _load(name: str, points: list[metadata.EntryPoint], built_in: Collection[str]) -> Found:
    packages = ", ".join(sorted({point.dist.name if point.dist else point.module for point in points}))
    origin = f"the plug-in {name} of the package {packages}"
    if name in built_in:
        return _unusable(f"{origin} has the name of a renderer that Greenroom has itself, which stays")
    if _NAME.fullmatch(name) is None:
        return _unusable(f"{origin} has a name that is not of lower case letters, digits, - and _")
    if len({point.value for point in points}) > 1:
        return _unusable(f"the name {name} is offered by more than one package: {packages}")
    before = set(sys.modules)
    try:
        plugin = points[0].load()
    except (Exception, SystemExit) as error:  # noqa: BLE001 - code of others: whatever it raises must not stop us
        return _unusable(f"{origin} cannot be imported: {type(error).__name__}: {error}")
    if not isinstance(plugin, Plugin):
        return _unusable(f"{origin} is not a Plugin (app.render.plugins) but a {type(plugin).__name__}")
    if heavy := [module for module in _FRAMEWORKS if module in sys.modules and module not in before]:
        return _unusable(
            f"{origin} imports {', '.join(heavy)} beside its description; only the module of its factory may"
        )
    return Found(plugin)
