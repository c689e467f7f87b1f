"""Chains: tasks that wait for others, and use their results. Part of the domain.

A task names its predecessors when it is made and never again, and it can only name tasks that are there already: every
edge leads to an older task, so that no circle can be closed. The one other way to wait, for an equal task's result
(`app.store.twins`), keeps out of this: only a task that waits for nobody may be followed.
"""

from __future__ import annotations

from collections.abc import Iterable
from enum import Enum

from app.tasks.status import Status

SCHEME = "task:"
"""Of the address of another task's result."""

_SEPARATOR = ","


class Standing(Enum):
    """What a predecessor means to those that wait for it."""

    UNFINISHED = "unfinished"
    """It may still succeed. A video in REVIEW is nobody's input before a person has approved it."""
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    """It has ended without a result, for ever."""


def standing(status: Status) -> Standing:
    """How a predecessor in this status stands."""
    if status is Status.SUCCEEDED:
        return Standing.SUCCEEDED
    return Standing.FAILED if status.is_terminal else Standing.UNFINISHED


def task_named(address: str) -> str | None:
    """The id in `task:<id>`; None for any other address."""
    return address[len(SCHEME) :] if address[: len(SCHEME)].lower() == SCHEME else None


def unique(ids: Iterable[str | None]) -> tuple[str, ...]:
    """The ids that are there, each once, in their order."""
    return tuple(dict.fromkeys(task_id for task_id in ids if task_id))


def join(ids: Iterable[str]) -> str:
    """Ids as they are stored."""
    return _SEPARATOR.join(ids)


def split(text: str) -> tuple[str, ...]:
    """Stored ids."""
    return tuple(text.split(_SEPARATOR)) if text else ()
