"""Reading, listing and cancelling tasks."""

from __future__ import annotations

from typing import Annotated, Literal
from urllib.parse import urlencode

from fastapi import APIRouter, Depends, Query, Request, Response

from app.api import deriving, retrying
from app.api.accepted import ACCEPTED, HEADERS, accepted
from app.api.answering import json_response, not_found, outlook_of, problems, task_response
from app.api.chaining import MAX_ID
from app.api.described import Described
from app.api.errors import invalid_request
from app.api.holding import Holding
from app.api.models import DeriveRequest, TaskQuery
from app.api.ports import ApiDependencies, LiveProgress
from app.api.problem_codes import ProblemCode
from app.api.problems import FieldError
from app.api.ranges import matches
from app.api.resource import task_resource
from app.api.routes.generate import body_of
from app.api.strict_body import NO_BODY, without_body
from app.api.task_schema import TaskResource
from app.api.waiting import TaskWaiters, unless_disconnected
from app.failpoints import hit
from app.store.records import TaskFilter, TaskRecord
from app.tasks.status import Status

_IF_NONE_MATCH = {
    "name": "If-None-Match",
    "in": "header",
    "required": False,
    "description": "The entity tag of an answer that told its end.",
    "schema": {"type": "string"},
    "example": '"4711"',
}


class PageLinks(Described):
    """Where to go on; null on the last page."""

    next: str | None
    """The address of the next page, with all filters."""


class TaskPage(Described):
    """Tasks, newest first, without their attempts."""

    tasks: list[TaskResource]
    """At most `limit`."""
    links: PageLinks
    """Where to go on."""


class CancelAnswer(Described):
    """What became of a cancellation."""

    id: str
    """The task."""
    outcome: Literal["cancelled", "requested", "already_terminal"]
    """`cancelled` (it waited), `requested` (its render is told to stop) or `already_terminal`."""
    task: TaskResource
    """The task as it is now, without attempts."""


async def load(deps: ApiDependencies, task_id: str) -> TaskRecord:
    """The task. Raises the 404."""
    task = await deps.store.aget(task_id) if len(task_id) <= MAX_ID else None
    if task is None:
        raise not_found(task_id)
    return task


def router(deps: ApiDependencies, waiters: TaskWaiters, holding: Holding) -> APIRouter:
    """The routes."""
    routes = APIRouter(tags=["tasks"])
    bare = [Depends(without_body(deps))]

    @routes.get("/tasks", response_model=TaskPage, summary="List tasks, newest first", responses=problems(422))
    async def tasks(query: Annotated[TaskQuery, Query()]) -> Response:
        where = TaskFilter(
            status=tuple(query.status) or None,
            renderer=query.renderer,
            retry_of=query.retry_of,
            derived_from=query.derived_from,
            waits_for=query.waits_for,
            created_after=query.created_after.timestamp() if query.created_after else None,
            created_before=query.created_before.timestamp() if query.created_before else None,
        )
        try:
            page = await deps.store.alist(where, cursor=query.cursor, limit=query.limit)
        except ValueError:
            text = "The cursor is not one of `links.next`."
            raise invalid_request([FieldError("cursor", ProblemCode.REQUEST_INVALID, "cursor", text)]) from None
        now = deps.clock()
        holds = await holding.now()
        shown = [
            task_resource(
                found,
                now=now,
                live=_live(deps, found),
                holds=holds,
                outlook=outlook_of(found, deps, holds=holds),
                with_attempts=False,
            )
            for found in page.tasks
        ]
        return json_response(TaskPage(tasks=shown, links=PageLinks(next=_next(query, page.next_cursor))))

    @routes.get(
        "/tasks/{task_id}", response_model=TaskResource, summary="Get a task, at once or when it ends",
        responses=problems(404, 422) | {304: {"description": "It has ended, and If-None-Match has its entity tag."}},
        openapi_extra={"parameters": [_IF_NONE_MATCH]},
    )  # fmt: skip
    async def task(
        request: Request,
        task_id: str,
        wait: Annotated[float, Query(ge=0, allow_inf_nan=False, description="Seconds; more than 60 means 60.")] = 0,
    ) -> Response:
        if wait > 0 and len(task_id) <= MAX_ID:
            seconds = min(wait, deps.settings.max_wait_s)
            found = await unless_disconnected(request, waiters.until_terminal(task_id, seconds))
            if found is None:
                raise not_found(task_id)
        else:
            found = await load(deps, task_id)
        etag = f'"{found.last_event_id}"'
        if found.status.is_terminal and matches(request.headers.get("if-none-match", ""), etag, weak=True):
            return Response(status_code=304, headers={"ETag": etag})
        return task_response(found, deps, holds=await holding.now(), queue_position=await _position(deps, found))

    @routes.post(
        "/tasks/{task_id}/cancel", status_code=202, response_model=CancelAnswer, summary="Cancel a task",
        responses=problems(404, *NO_BODY) | {200: {"model": CancelAnswer, "description": "It had ended already."}},
        dependencies=bare,
    )  # fmt: skip
    async def cancel(task_id: str) -> Response:
        outcome = await deps.store.acancel(task_id) if len(task_id) <= MAX_ID else "unknown"
        hit("cancelling")
        if outcome == "unknown":
            raise not_found(task_id)
        after = await load(deps, task_id)
        shown = task_resource(after, now=deps.clock(), live=_live(deps, after))
        status = 200 if outcome == "already_terminal" else 202
        return json_response(CancelAnswer(id=task_id, outcome=outcome, task=shown), status)

    @routes.post(
        "/tasks/{task_id}/retry", status_code=202, response_model=TaskResource,
        summary="Try a failed task again, as a new task",
        description="What has ended never changes: a new task with the same inputs and options is made. It names this "
        "one in `retry_of`, and `links.retries` of this one lists it.",
        responses=problems(400, 404, 409, 410, 429, 507, *NO_BODY) | {202: ACCEPTED},
        openapi_extra={"parameters": HEADERS}, dependencies=bare,
    )  # fmt: skip
    async def retry(request: Request, task_id: str) -> Response:
        if len(task_id) > MAX_ID:
            raise not_found(task_id)
        return await accepted(request, await retrying.retry(request, task_id, deps), deps, waiters, holding)

    @routes.post(
        "/tasks/{task_id}/derive", status_code=202, response_model=TaskResource,
        summary="Make a new task from an old one, with changes",
        description="What is left out is as in that task, and its stored inputs are used. The new task names it in "
        "`derived_from`, and `links.derived` of it lists those that were made like that.",
        responses=problems(400, 404, 408, 409, 410, 413, 415, 422, 429, 507) | {202: ACCEPTED},
        openapi_extra={"requestBody": body_of(DeriveRequest, required=False), "parameters": HEADERS},
    )  # fmt: skip
    async def derive(request: Request, task_id: str) -> Response:
        if len(task_id) > MAX_ID:
            raise not_found(task_id)
        return await accepted(request, await deriving.derive(request, task_id, deps), deps, waiters, holding)

    return routes


def _live(deps: ApiDependencies, task: TaskRecord) -> LiveProgress | None:
    return deps.pool.progress(task.id) if task.status is Status.RUNNING else None


async def _position(deps: ApiDependencies, task: TaskRecord) -> int | None:
    if task.status not in {Status.QUEUED, Status.RETRY_WAIT}:
        return None
    return await deps.store.aqueue_position(task)


def _next(query: TaskQuery, cursor: str | None) -> str | None:
    if cursor is None:
        return None
    pairs: list[tuple[str, str]] = [("status", s.value) for s in query.status]
    for name in ("created_after", "created_before"):
        moment = getattr(query, name)
        if moment is not None:
            pairs.append((name, moment.isoformat()))  # to the microsecond, as it was given
    links = {name: getattr(query, name) for name in ("renderer", "retry_of", "derived_from", "waits_for")}
    pairs += [(name, value) for name, value in links.items() if value is not None]
    return "/tasks?" + urlencode([*pairs, ("limit", str(query.limit)), ("cursor", cursor)])
