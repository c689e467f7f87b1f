"""Records of the outbox: notices that are to be sent, and what became of sending them. Times in epoch seconds."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from app.store.records import Callback, TaskRecord

DeliveryState = Literal["pending", "delivered", "dead", "disabled", "dropped"]
"""`dead`: all tries failed. `disabled`: the endpoint had said that it is gone. `dropped`: a notice of progress that a
later notice has made worthless."""

Verdict = Literal["delivered", "retry", "dead", "gone"]
"""What one try means: `gone` ends this notice and all others of its task."""


@dataclass(frozen=True, slots=True)
class Notice:
    """One notice, taken to be sent."""

    event_id: int
    type: str
    at: float
    """When the event happened."""
    task: TaskRecord
    """As it was after the event, with its attempts."""
    callback: Callback
    tries: int
    """Tries before this one, since the notice was written or replayed."""
    taken: int
    """The fence of whoever took it."""
    progress: Mapping[str, Any] | None
    """Of a notice of progress: how far the attempt was."""

    @property
    def id(self) -> str:
        """The same for every try of it, and for no other notice of any database."""
        return delivery_id(self.task.id, self.event_id)


@dataclass(frozen=True, slots=True)
class Try:
    """One try to deliver a notice. `status` is the HTTP answer's; without one, `error` and `message` say why."""

    at: float
    seconds: float
    status: int | None = None
    error: str | None = None
    message: str | None = None


@dataclass(frozen=True, slots=True)
class Delivery:
    """One notice and all tries to deliver it, oldest first."""

    event_id: int
    task_id: str
    type: str
    at: float
    state: DeliveryState
    next_at: float | None
    """When it is tried next; None where that is not known (it is being sent, or waits for an earlier one) or over."""
    ended_at: float | None
    tries: tuple[Try, ...]

    @property
    def id(self) -> str:
        """As `Notice.id`."""
        return delivery_id(self.task_id, self.event_id)


@dataclass(frozen=True, slots=True)
class OutboxStats:
    """Notices that wait to be sent, and those that were given up."""

    pending: int
    dead: int


def delivery_id(task_id: str, event_id: int) -> str:
    """`<task>_<event>`: event ids alone are unique in one database only, and receivers may serve several."""
    return f"{task_id}_{event_id}"


def event_of(delivery: str, task_id: str) -> int | None:
    """The event id in a delivery's id, None where it is none of this task."""
    number = delivery.removeprefix(f"{task_id}_")
    is_one = number != delivery and number.isascii() and number.isdigit() and len(number) <= 18
    return int(number) if is_one else None
