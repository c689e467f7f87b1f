"""The renderers that exist, by name, without importing any of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from importlib import import_module
from typing import Any, cast

from pydantic import BaseModel, ValidationError

from app.render.contract import Capabilities, Renderer
from app.render.plugins import Found, find
from app.render.version import version_of


@dataclass(frozen=True, slots=True)
class RendererEntry:
    """Where a renderer lives: `capabilities` as `module:name` (imports no torch) and `factory` as `module:name`."""

    name: str
    capabilities: str
    factory: str
    absence: str = ""
    """`module:name` of a function from the renderer's settings to why it cannot be offered; empty: it always can."""
    weights: tuple[str, ...] = ()
    """Its settings that name files of weights."""


BUILT_IN = {
    "warp": RendererEntry("warp", "app.render.warp.options:CAPABILITIES", "app.render.warp.renderer:WarpRenderer"),
    "wav2lip": RendererEntry(
        "wav2lip",
        "app.render.wav2lip.options:CAPABILITIES",
        "app.render.wav2lip.renderer:Wav2LipRenderer",
        "app.render.wav2lip.options:why_absent",
        ("checkpoint",),
    ),
    "command": RendererEntry(
        "command",
        "app.render.command.options:CAPABILITIES",
        "app.render.command.renderer:CommandRenderer",
        "app.render.command.settings:why_absent",
    ),
    "still": RendererEntry("still", "app.render.still.options:CAPABILITIES", "app.render.still.renderer:StillRenderer"),
    "rehearsal": RendererEntry(
        "rehearsal", "app.render.rehearsal.options:CAPABILITIES", "app.render.rehearsal.renderer:RehearsalRenderer"
    ),
    "comfyui": RendererEntry(
        "comfyui",
        "app.render.comfyui.options:CAPABILITIES",
        "app.render.comfyui.renderer:ComfyRenderer",
        "app.render.remote.settings:why_absent",
    ),
    "duix": RendererEntry(
        "duix",
        "app.render.duix.options:CAPABILITIES",
        "app.render.duix.renderer:DuixRenderer",
        "app.render.remote.settings:why_absent",
    ),
}


class UnknownRenderer(LookupError):
    """No renderer of that name is installed."""


def _resolve(target: str) -> Any:
    module, _, name = target.partition(":")
    return getattr(import_module(module), name)


def _plugins() -> Mapping[str, Found]:
    return find(frozenset(BUILT_IN))


def _plugin(name: str) -> Found:
    """A plug-in by name. Raises `UnknownRenderer`."""
    try:
        return _plugins()[name]
    except KeyError:
        raise UnknownRenderer(f"There is no renderer {name!r}; there are: {', '.join(names())}.") from None


def names() -> list[str]:
    """All renderers by name: our own, and those of plug-ins, usable or not."""
    return sorted({*BUILT_IN, *_plugins()})


def broken_plugins() -> dict[str, str]:
    """The plug-ins that cannot be used, by name, with their reasons."""
    return {name: found.broken for name, found in _plugins().items() if found.broken}


def capabilities(name: str) -> Capabilities:
    """The capabilities of renderer `name`. Raises `UnknownRenderer`."""
    if name in BUILT_IN:
        return cast(Capabilities, _resolve(BUILT_IN[name].capabilities))
    return _plugin(name).plugin.capabilities


def why_absent(name: str, settings: Mapping[str, Any]) -> str:
    """Why renderer `name` cannot be offered with these settings; empty if it can. Raises `UnknownRenderer`."""
    if name in BUILT_IN:
        target = BUILT_IN[name].absence
        return str(_resolve(target)(settings)) if target else ""
    found = _plugin(name)
    if found.broken or found.plugin.why_absent is None:
        return found.broken
    try:
        return found.plugin.why_absent(settings)
    except Exception as error:  # noqa: BLE001 - code of others: whatever it raises must not stop us
        return f"the plug-in {name} cannot tell whether it can be used: {type(error).__name__}: {error}"


def version(name: str, settings: Mapping[str, Any]) -> str:
    """What renderer `name` is now: code and weights, see `app.render.version`. Raises `UnknownRenderer`."""
    if name not in BUILT_IN:
        found = _plugin(name)
        return "" if found.broken else version_of(found.plugin.factory.partition(":")[0])
    entry = BUILT_IN[name]
    brought = [str(settings[weights]) for weights in entry.weights if settings.get(weights)]
    return version_of(entry.capabilities.partition(":")[0], brought)


def create(name: str, settings: Mapping[str, Any] | None = None) -> Renderer:
    """A new renderer object, not yet loaded, with its own settings. Imports its framework. Raises `UnknownRenderer`."""
    if name in BUILT_IN:
        return cast(Renderer, _resolve(BUILT_IN[name].factory)(settings or {}))
    found = _plugin(name)
    if found.broken:
        raise UnknownRenderer(f"{found.broken}.")
    return cast(Renderer, _resolve(found.plugin.factory)(settings or {}))


def factory(name: str) -> str:
    """Where the class of renderer `name` is, `module:Class`; empty for a broken plug-in. Raises `UnknownRenderer`."""
    return BUILT_IN[name].factory if name in BUILT_IN else _plugin(name).plugin.factory


def options_model(name: str, settings: Mapping[str, Any] | None = None) -> type[BaseModel]:
    """The model of the options that renderer `name` takes with these settings of a tier. Raises `UnknownRenderer`."""
    able = capabilities(name)
    return able.options if able.options_for is None else able.options_for(settings or {})


def validate_options(name: str, options: dict[str, Any]) -> dict[str, Any]:
    """`options` completed with the defaults of renderer `name`. Raises `UnknownRenderer`, `ValidationError`."""
    return options_model(name).model_validate(options).model_dump(mode="json")


__all__ = [
    "BUILT_IN",
    "UnknownRenderer",
    "ValidationError",
    "broken_plugins",
    "capabilities",
    "create",
    "factory",
    "names",
    "options_model",
    "validate_options",
    "version",
    "why_absent",
]
