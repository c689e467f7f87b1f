"""`POST /generate`: submit a task."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Request, Response

from app.api.answering import preferred_wait, problems, task_response
from app.api.models import GenerateRequest
from app.api.ports import ApiDependencies
from app.api.resource import TaskResource
from app.api.submission import submit
from app.api.waiting import TaskWaiters, unless_disconnected

_DESCRIPTION = """\
Submit a task: a face (`source`) and speech (`audio`) become a talking video.

Send JSON, or multipart/form-data with the files `source` and `audio` and a JSON part `request` for all other fields.
The answer comes when the task is durable. Inputs are checked before anything is queued."""

_FILE = {"type": "string", "format": "binary"}
_BODY: dict[str, Any] = {
    "required": True,
    "content": {
        "application/json": {"schema": {"$ref": "#/components/schemas/GenerateRequest"}},
        "multipart/form-data": {
            "schema": {
                "type": "object",
                "properties": {
                    "source": _FILE,
                    "audio": _FILE,
                    "request": {"$ref": "#/components/schemas/GenerateRequest"},
                },
            },
            "encoding": {"request": {"contentType": "application/json"}},
        },
    },
}
_HEADERS = [
    {
        "name": name,
        "in": "header",
        "required": False,
        "description": text,
        "schema": {"type": "string"},
    }
    for name, text in {
        "Idempotency-Key": "1 to 255 visible ASCII characters. The same key with the same body gives the same task.",
        "Prefer": "`wait=N`: answer when the task has ended, or after N seconds (at most 60).",
        "traceparent": "W3C trace context; its trace id is kept with the task.",
    }.items()
]
_ACCEPTED = {
    "description": "The task is accepted, or was by an earlier request with this idempotency key.",
    "headers": {
        "Location": {"schema": {"type": "string"}, "description": "Address of the task."},
        "Retry-After": {"schema": {"type": "integer"}, "description": "Seconds after which asking again pays."},
        "Idempotent-Replayed": {"schema": {"type": "string"}, "description": "`true` for a repeat."},
    },
}


def router(deps: ApiDependencies, waiters: TaskWaiters) -> APIRouter:
    """The route."""
    routes = APIRouter(tags=["tasks"])

    @routes.post(
        "/generate",
        status_code=202,
        response_model=TaskResource,
        summary="Submit a task",
        description=_DESCRIPTION,
        responses=problems(400, 413, 415, 422, 429, 507) | {202: _ACCEPTED},
        openapi_extra={"requestBody": _BODY, "parameters": _HEADERS},
    )
    async def generate(request: Request) -> Response:
        created = await submit(request, deps)
        task = created.task
        headers = {"Location": f"/tasks/{task.id}"}
        if created.replayed:
            headers["Idempotent-Replayed"] = "true"
        wait = preferred_wait(request, deps.settings.max_wait_s)
        if wait is not None:
            headers["Preference-Applied"] = f"wait={wait:g}"
            waited = await unless_disconnected(request, waiters.until_terminal(task.id, wait))
            task = waited or task
        return task_response(task, deps, status=202, headers=headers)

    return routes


REQUEST_MODEL = GenerateRequest
"""Read by hand (it comes in two forms), so that OpenAPI has to be told of it."""
