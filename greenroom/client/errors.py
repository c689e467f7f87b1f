"""What can go wrong between a program and the service."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import httpx

if TYPE_CHECKING:
    from greenroom.client.models import Task

LONGEST_RETRY_AFTER_S = 60.0
PASSING_4XX = frozenset({408, 425, 429})
FINAL_5XX = frozenset({501, 505})


class GreenroomError(Exception):
    """Base class of all errors of this client."""


class ServiceUnreachable(GreenroomError):
    """No answer came, however often it was tried."""


class ApiError(GreenroomError):
    """The service refused: its problem details (RFC 9457)."""

    def __init__(self, response: httpx.Response) -> None:
        """The body of `response` must have been read."""
        self.status = response.status_code
        self.problem = _problem(response)
        self.code = str(self.problem.get("code") or f"HTTP_{self.status}")
        self.field: str | None = self.problem.get("field")
        self.hint = str(self.problem.get("hint") or "")
        self.retry_after_s = _seconds(response.headers.get("retry-after"))
        detail = self.problem.get("detail") or self.problem.get("title") or f"The service answered {self.status}."
        self.message = str(detail)
        super().__init__(f"{self.code}: {self.message}" + (f" ({self.hint})" if self.hint else ""))

    @property
    def is_transient(self) -> bool:
        """Whether the same request may well succeed a moment later."""
        return self.status in PASSING_4XX or (self.status >= 500 and self.status not in FINAL_5XX)


class TaskNotSucceeded(GreenroomError):
    """A task ended as FAILED or CANCELLED; `task` is its last state."""

    def __init__(self, task: Task) -> None:
        self.task = task
        error = task["error"]
        words = f"{error['code']}: {error['message']} ({error['hint']})" if error else "no reason was given"
        super().__init__(f"Task {task['id']} ended as {task['status']}: {words}")


class WaitTimeout(GreenroomError):
    """A task had not ended within the time that the caller gave; it goes on. `task` is its last known state."""

    def __init__(self, task: Task, seconds: float) -> None:
        self.task = task
        super().__init__(f"Task {task['id']} has not ended within {seconds:g} s; it is {task['status']} and goes on.")


class ChecksumMismatch(GreenroomError):
    """A download is not what the service published. The file was not put in place."""


def _problem(response: httpx.Response) -> dict[str, Any]:
    try:
        body = response.json()
    except ValueError:
        return {}
    return body if isinstance(body, dict) else {}


def _seconds(header: str | None) -> float | None:
    try:
        return min(max(float(header), 0.0), LONGEST_RETRY_AFTER_S) if header else None
    except ValueError:
        return None
