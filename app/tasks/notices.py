"""Notices: what a caller can be told about its task by webhook."""

from __future__ import annotations

from app.tasks.replay import EVENT_OF
from app.tasks.status import TERMINAL, Status

PROGRESS = "task.progress"
"""A running task's render has got further. Says no change of status; a later notice makes it worthless."""

NOTICES: tuple[str, ...] = (*EVENT_OF.values(), PROGRESS)
"""All that can be asked for."""

DEFAULT_NOTICES: tuple[str, ...] = tuple(
    kind for status, kind in EVENT_OF.items() if status in TERMINAL or status is Status.REVIEW
)
"""What is sent where nothing is asked for: that somebody can or must act now."""
