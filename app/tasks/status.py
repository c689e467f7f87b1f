"""Statuses of a task and the transitions between them."""

from __future__ import annotations

from enum import StrEnum


class Status(StrEnum):
    """Where a task stands. SUCCEEDED, FAILED and CANCELLED are final and never left."""

    QUEUED = "QUEUED"
    RUNNING = "RUNNING"
    RETRY_WAIT = "RETRY_WAIT"
    REVIEW = "REVIEW"
    SUCCEEDED = "SUCCEEDED"
    FAILED = "FAILED"
    CANCELLED = "CANCELLED"

    @property
    def is_terminal(self) -> bool:
        """Whether the task has ended for ever."""
        return self in TERMINAL


TERMINAL = frozenset({Status.SUCCEEDED, Status.FAILED, Status.CANCELLED})
CLAIMABLE = frozenset({Status.QUEUED, Status.RETRY_WAIT})

LEGAL: dict[Status, frozenset[Status]] = {
    # QUEUED -> SUCCEEDED: its result was made for an equal task.
    Status.QUEUED: frozenset({Status.RUNNING, Status.SUCCEEDED, Status.CANCELLED, Status.FAILED}),
    # RUNNING -> QUEUED: an interrupted attempt goes back free of charge (shutdown, expired lease).
    Status.RUNNING: frozenset(
        {Status.SUCCEEDED, Status.RETRY_WAIT, Status.REVIEW, Status.QUEUED, Status.CANCELLED, Status.FAILED}
    ),
    Status.RETRY_WAIT: frozenset({Status.RUNNING, Status.CANCELLED, Status.FAILED}),
    Status.REVIEW: frozenset({Status.SUCCEEDED, Status.FAILED, Status.QUEUED, Status.CANCELLED}),
    Status.SUCCEEDED: frozenset(),
    Status.FAILED: frozenset(),
    Status.CANCELLED: frozenset(),
}


class IllegalTransition(Exception):
    """A transition that the state machine does not have; the state is left as it was."""

    def __init__(self, current: Status, wanted: Status) -> None:
        self.current = current
        self.wanted = wanted
        super().__init__(f"A task cannot go from {current} to {wanted}.")


def check_transition(current: Status, wanted: Status) -> None:
    """Raise `IllegalTransition` unless `current -> wanted` is legal."""
    if wanted not in LEGAL[current]:
        raise IllegalTransition(current, wanted)
