"""Why a task does not run."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from app.store.records import TaskRecord
from app.tasks.status import CLAIMABLE, Status


@dataclass(frozen=True, slots=True)
class Holds:
    """What keeps every waiting task from being started by this service."""

    draining: bool = False
    paused: bool = False
    no_ready_slot: bool = False
    """Every slot is starting, down or quarantined."""
    of_route: Callable[[Sequence[str]], tuple[str, float | None] | None] = lambda _route: None
    """Why no tier of a route can take a task, and until when; None if one can or is merely busy."""

    @property
    def reason(self) -> str:
        """The one that would have to go last; `slot` where there is none and it is a matter of turns."""
        if self.draining:
            return "draining"
        if self.paused:
            return "paused"
        return "no_ready_slot" if self.no_ready_slot else "slot"


@dataclass(frozen=True, slots=True)
class Wait:
    """Why a task does not run, until when, and the code of the failure behind it."""

    reason: str | None = None
    until: float | None = None
    cause: str | None = None


def waiting(task: TaskRecord, now: float, holds: Holds) -> Wait:
    """Why the task does not run: its own reason first, then what holds all tasks."""
    if task.status.is_terminal:
        return Wait()
    if task.cancel_requested_at is not None:
        return Wait("cancelling")
    if task.status is Status.REVIEW:
        return Wait("review")
    if task.waits_for is not None:
        return Wait("predecessor" if task.waits_for else "inputs")
    if task.status is Status.QUEUED and task.not_before is not None and task.not_before > now:
        return Wait("scheduled", task.not_before)
    if task.status is Status.QUEUED and task.twin_of is not None:
        return Wait("twin")
    if task.status is Status.RETRY_WAIT and task.retry_at is not None and task.retry_at > now:
        return Wait("retry_backoff", task.retry_at, task.retry_reason)
    if task.status not in CLAIMABLE:
        return Wait()
    if holds.reason == "slot" and (held := holds.of_route(task.route)) is not None:
        return Wait(*held)
    return Wait(holds.reason)
