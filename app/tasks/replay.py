"""Events of a task, and the state that they replay to."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol

from app.tasks.status import Status, check_transition

EVENT_OF: dict[Status, str] = {
    Status.QUEUED: "task.queued",
    Status.RUNNING: "task.running",
    Status.RETRY_WAIT: "task.retry_wait",
    Status.REVIEW: "task.review",
    Status.SUCCEEDED: "task.succeeded",
    Status.FAILED: "task.failed",
    Status.CANCELLED: "task.cancelled",
}
"""The type of the one event that each status change appends."""

CANCEL_REQUESTED = "task.cancel_requested"
"""The flag beside the status was set; the status stays."""

RELEASED = "task.released"
"""Its predecessors have all succeeded: it is a task like any other from now on; the status stays."""

_STATUS_OF = {kind: status for status, kind in EVENT_OF.items()}


class Event(Protocol):
    """What a replay needs to know of an event."""

    @property
    def type(self) -> str:
        """One of `EVENT_OF`'s values, or a notice such as `CANCEL_REQUESTED`."""


def replay(events: Iterable[Event]) -> Status:
    """The status of a task after all its `events`, oldest first.

    Only the types are read, and every step has to be legal; types that are not status changes leave the status alone.
    Raises `IllegalTransition` for a history that cannot have happened, ValueError for one that does not begin with
    `task.queued` (an empty one, or one whose beginning was cut off).
    """
    current: Status | None = None
    for event in events:
        status = _STATUS_OF.get(event.type)
        if current is None:
            if status is not Status.QUEUED:
                raise ValueError(f"A task's history begins with {EVENT_OF[Status.QUEUED]}, not {event.type}.")
            current = status
        elif status is not None:
            check_transition(current, status)
            current = status
    if current is None:
        raise ValueError("A task without events has no history.")
    return current
