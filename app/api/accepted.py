"""The 202 of a submission: of a new task, of one that tries a failed one again, and of a repeat of either."""

from __future__ import annotations

from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from app.api.admission import CLIENT_HEADER, deferred_headers
from app.api.answering import preferred_wait, task_response
from app.api.holding import Holding
from app.api.ports import ApiDependencies
from app.api.waiting import TaskWaiters, unless_disconnected
from app.store.records import Created

ACCEPTED: dict[str, Any] = {
    "description": "The task is accepted, or was by an earlier request with this idempotency key.",
    "headers": {
        "Location": {"schema": {"type": "string"}, "description": "Address of the task."},
        "Retry-After": {"schema": {"type": "integer"}, "description": "Seconds after which asking again pays."},
        "Idempotent-Replayed": {"schema": {"type": "string"}, "description": "`true` for a repeat."},
        "Task-Deferred": {"schema": {"type": "string"}, "description": "`true`: taken for later, the queue is long."},
    },
}
HEADERS: list[dict[str, Any]] = [
    {"name": name, "in": "header", "required": False, "description": text, "schema": schema, "example": example}
    for name, text, schema, example in (
        (
            "Idempotency-Key",
            "1 to 255 visible ASCII characters. The same key with the same body gives the same task.",
            {"type": "string", "pattern": "^[!#-~][!-~]{0,254}$"},
            "order-7",
        ),
        (
            CLIENT_HEADER,
            "1 to 64 visible ASCII characters: whose task it is, for the limit of waiting tasks per client.",
            {"type": "string", "pattern": "^[!-~]{1,64}$"},
            "shop",
        ),
        (
            "Prefer",
            "`wait=N`: answer when the task has ended, or after N seconds (at most 60).",
            {"type": "string"},
            "wait=10",
        ),
        (
            "traceparent",
            "W3C trace context; its trace id is kept with the task.",
            {"type": "string"},
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
        ),
    )
]
"""The headers that a submission understands, for OpenAPI."""


async def accepted(
    request: Request, created: Created, deps: ApiDependencies, waiters: TaskWaiters, holding: Holding
) -> Response:
    """The answer, after the wait that the request prefers."""
    task = created.task
    headers = {"Location": f"/tasks/{task.id}"}
    if created.replayed:
        headers["Idempotent-Replayed"] = "true"
    if created.deferred:
        headers |= await deferred_headers(deps)
    wait = preferred_wait(request, deps.settings.max_wait_s)
    if wait is not None:
        headers["Preference-Applied"] = f"wait={wait:g}"
        waited = await unless_disconnected(request, waiters.until_terminal(task.id, wait))
        task = waited or task
    if task.status.is_terminal:
        headers.pop("Retry-After", None)
    return task_response(task, deps, status=202, holds=await holding.now(), headers=headers)
