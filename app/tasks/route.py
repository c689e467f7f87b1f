"""A task's route: the tiers that may serve it in this round, best first. Part of the domain, kept with the task.

Tasks with equal routes wait in one line, so that claiming looks at one task per route, however many wait.
"""

from __future__ import annotations

from collections.abc import Sequence

_SEPARATOR = ","


def join(tiers: Sequence[str]) -> str:
    """The route as it is stored. Empty: no tier of this service may serve the task as things are."""
    return _SEPARATOR.join(tiers)


def split(route: str) -> tuple[str, ...]:
    """The tiers of a stored route."""
    return tuple(part for part in route.split(_SEPARATOR) if part)
