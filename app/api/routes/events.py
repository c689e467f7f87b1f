"""The event streams, of one task and of all."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Query, Request, Response

from app.api.answering import not_found, problems
from app.api.chaining import MAX_ID
from app.api.errors import invalid_request
from app.api.ports import ApiDependencies
from app.api.problem_codes import ProblemCode
from app.api.problems import FieldError
from app.api.stream import EventHub, EventStream
from app.tasks.notices import NOTICES
from app.tasks.replay import CANCEL_REQUESTED, RELEASED

TYPES = (*NOTICES, CANCEL_REQUESTED, RELEASED)
_MAX_EVENT = 10**18 - 1
"""More digits than any event's id has."""
_STREAM: dict[int | str, dict[str, Any]] = {
    200: {
        "description": "Server-Sent Events: `id` is the durable event's, `event` its type, `data` a JSON object.",
        "content": {"text/event-stream": {"schema": {"type": "string"}}},
    },
    204: {"description": "The task has ended, and everything after `Last-Event-ID` was heard: do not come back."},
}
_HEADER = {
    "name": "Last-Event-ID",
    "in": "header",
    "required": False,
    "description": "Go on after this event; browsers send it when they connect again. Empty: as if left out.",
    "schema": {"type": "string", "pattern": "^[0-9]{0,18}$"},
    "example": "4711",
}
After = Annotated[
    int | None, Query(ge=0, le=_MAX_EVENT, description="As Last-Event-ID, for clients that cannot set headers.")
]
Types = Annotated[
    list[str],
    Query(
        description="Only events of these types; may be repeated.",
        json_schema_extra={"items": {"type": "string", "enum": list(TYPES)}},
    ),
]


def router(deps: ApiDependencies, hub: EventHub) -> APIRouter:
    """The routes."""
    routes = APIRouter(tags=["events"])

    @routes.get(
        "/tasks/{task_id}/events",
        summary="What happens to a task, as it happens",
        description="From the task's first event on, or after `Last-Event-ID`. Ends when the task has ended.",
        response_class=Response,
        responses=problems(404, 422) | _STREAM,
        openapi_extra={"parameters": [_HEADER]},
    )
    async def of_task(request: Request, task_id: str, after: After = None, type: Types = []) -> Any:  # noqa: B006
        start, types = _start(request, after), _types(type)
        task = await deps.store.aget(task_id) if len(task_id) <= MAX_ID else None
        if task is None:
            raise not_found(task_id)
        if task.status.is_terminal and start is not None and start >= task.last_event_id:
            return Response(status_code=204)
        return EventStream(hub, task_id, types, start or 0)

    @routes.get(
        "/events",
        summary="What happens to all tasks, as it happens",
        description="From now on, or after `Last-Event-ID`. An event `gap` tells of events that are not kept any more.",
        response_class=Response,
        responses=problems(422) | {200: _STREAM[200]},
        openapi_extra={"parameters": [_HEADER]},
    )
    async def of_all(request: Request, after: After = None, type: Types = []) -> Any:  # noqa: B006
        return EventStream(hub, None, _types(type), _start(request, after))

    return routes


def _start(request: Request, after: int | None) -> int | None:
    """Where to go on. The header counts before the parameter: a browser repeats the address of its first request."""
    given = request.headers.get("last-event-id", "").strip()
    if not given:
        return after
    if not given.isdecimal() or len(given) > 18:
        text = "It is not the id of an event."
        raise invalid_request([FieldError("Last-Event-ID", ProblemCode.REQUEST_INVALID, "event_id", text)])
    return int(given)


def _types(given: list[str]) -> frozenset[str]:
    unknown = sorted(set(given) - set(TYPES))
    if unknown:
        text, hint = f"There is no event type {unknown[0][:64]!r}.", f"There are: {', '.join(TYPES)}."
        raise invalid_request([FieldError("type", ProblemCode.REQUEST_INVALID, "unknown_type", text, hint)])
    return frozenset(given)
