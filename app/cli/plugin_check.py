"""The check of `greenroom doctor` for renderers of other packages: each loads as a service would load it."""

from __future__ import annotations

import inspect
import json
from collections.abc import Iterator, Mapping
from importlib import import_module, metadata

from app.cli.checks import Check, Verdict

_HINT = "See docs/renderers.md for what a plug-in has to be, or tell the authors of its package."


def plugin_names() -> list[str]:
    """The plug-ins of this installation by name. Imports none of them."""
    from app.render.plugins import GROUP

    return sorted({point.name for point in metadata.entry_points(group=GROUP)})


def plugin_findings(_device: str, asked: Mapping[str, str]) -> Iterator[Check]:
    """The plug-in `asked["plugin"]`: its description as the service reads it, then its renderer as a slot makes it.

    One that no tier uses harms nobody: what is wrong with it is a warning.
    """
    name = asked["plugin"]
    used_by = json.loads(asked["tiers"]).get(name, [])
    verdict: Verdict = "fail" if used_by else "warn"
    use = f"used by {', '.join(used_by)}" if used_by else "used by no tier"
    wrong = _wrong(name)
    if wrong:
        yield Check(f"plug-in {name}", verdict, f"{wrong} ({use})", _HINT)
        return
    yield Check(f"plug-in {name}", "ok", f"its description and its renderer load ({use})")


def _wrong(name: str) -> str:
    """What is wrong with plug-in `name`; empty if nothing is. Code of others runs here, and its errors are findings."""
    from pydantic import BaseModel

    from app.render import registry
    from app.render.contract import Capabilities, Renderer

    if broken := registry.broken_plugins().get(name):
        return broken
    able = registry.capabilities(name)
    if not isinstance(able, Capabilities):
        return f"its capabilities are not a Capabilities (app.render.contract) but a {type(able).__name__}"
    for what, model in (("options", able.options), ("settings", able.settings)):
        if not (inspect.isclass(model) and issubclass(model, BaseModel)):
            return f"its {what} are no pydantic model"
    module, _, attribute = registry.factory(name).partition(":")
    try:
        made = getattr(import_module(module), attribute)
    except Exception as error:  # noqa: BLE001 - code of others: whatever it raises is the finding
        return f"its renderer {module}:{attribute} cannot be imported: {type(error).__name__}: {error}"
    if not (inspect.isclass(made) and issubclass(made, Renderer)):
        return f"its renderer {module}:{attribute} is no Renderer (app.render.contract)"
    if missing := sorted(made.__abstractmethods__):
        return f"its renderer {module}:{attribute} lacks {', '.join(missing)}"
    return ""
