"""`POST /generate`: submit a task."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Request, Response
from pydantic import BaseModel

from app.api.accepted import ACCEPTED, HEADERS, accepted
from app.api.answering import problems
from app.api.holding import Holding
from app.api.models import GenerateRequest
from app.api.ports import ApiDependencies
from app.api.strict_query import OfRequestAlone
from app.api.submission import submit
from app.api.task_schema import TaskResource
from app.api.waiting import TaskWaiters

_DESCRIPTION = """\
Submit a task: a face (`source`) and speech (`audio`) become a talking video.

Send JSON, or multipart/form-data with the files `source` and `audio` and a JSON part `request` for all other fields.
The answer comes when the task is durable. Inputs are checked before anything is queued; those that other tasks are to
make (`task:<id>`), once these have succeeded: the task waits until then."""

_FILE = {"type": "string", "format": "binary"}


def body_of(model: type[BaseModel], *, required: bool = True) -> dict[str, Any]:
    """The body of a submission, for OpenAPI: routes read it by hand, since it comes in two forms."""
    schema = {"$ref": f"#/components/schemas/{model.__name__}"}
    parts = {"source": _FILE, "audio": _FILE, "request": schema}
    return {
        "required": required,
        "content": {
            "application/json": {"schema": schema},
            "multipart/form-data": {
                "schema": {"type": "object", "properties": parts, "additionalProperties": False},
                "encoding": {"request": {"contentType": "application/json"}},
            },
        },
    }


def router(deps: ApiDependencies, waiters: TaskWaiters, holding: Holding) -> APIRouter:
    """The route."""
    routes = APIRouter(tags=["tasks"], route_class=OfRequestAlone)

    @routes.post(
        "/generate",
        status_code=202,
        response_model=TaskResource,
        summary="Submit a task",
        description=_DESCRIPTION,
        responses=problems(400, 408, 409, 410, 413, 415, 422, 429, 507) | {202: ACCEPTED},
        openapi_extra={"requestBody": body_of(GenerateRequest), "parameters": HEADERS},
    )
    async def generate(request: Request) -> Response:
        return await accepted(request, await submit(request, deps), deps, waiters, holding)

    return routes
