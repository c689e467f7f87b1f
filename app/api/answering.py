"""How routes write their answers: tasks with their headers, wait preferences, and the problems that OpenAPI lists."""

from __future__ import annotations

import re
from typing import Any

from pydantic import BaseModel
from starlette.requests import Request
from starlette.responses import Response

from app.api.described import Described
from app.api.ports import ApiDependencies
from app.api.problem_codes import PROBLEMS, ProblemCode
from app.api.problems import MEDIA_TYPE, ProblemError
from app.api.resource import task_resource
from app.api.why_waiting import Holds, waiting
from app.forecast.outlook import Outlook
from app.store.records import TaskRecord
from app.tasks.status import Status

_WAIT = re.compile(r'(?:^|,)\s*wait\s*=\s*"?(\d{1,9})"?\s*(?=$|[,;])', re.IGNORECASE)


class ProblemDetails(Described):
    """RFC 9457 problem details."""

    type: str
    """Where the code is explained."""
    title: str
    """What kind of problem it is: the same for all of one code."""
    status: int
    """The HTTP status."""
    detail: str
    """What is wrong with this request, for people."""
    instance: str
    """The path of the request."""
    code: str
    """For programs."""
    field: str | None
    """The part of the request, as `options.strength`; of several, the first."""
    reason: str | None
    """Finer than `code`, as `no_audio_stream`."""
    hint: str
    """What to do about it."""
    retryable: bool
    """Whether the same request may succeed later."""
    request_id: str
    """As in `X-Request-Id` and in the log."""
    errors: list[dict[str, Any]] | None = None
    """One entry for each field that is wrong: `field`, `code`, `reason`, `detail`, `hint`."""


Responses = dict[int | str, dict[str, Any]]
"""What FastAPI takes as `responses`."""


def problems(*statuses: int) -> Responses:
    """The problem answers of an operation, for OpenAPI."""
    by_status: dict[int, list[str]] = {}
    for code, row in PROBLEMS.items():
        by_status.setdefault(row.status, []).append(code)
    schema = {"$ref": "#/components/schemas/ProblemDetails"}
    return {
        status: {
            "description": f"Problem: {_words(status, by_status)}",
            "content": {MEDIA_TYPE: {"schema": schema}},
        }
        for status in sorted({*statuses, 500, 503})
    }


def _words(status: int, by_status: dict[int, list[str]]) -> str:
    known = {
        413: "INPUT_TOO_LARGE, REQUEST_TOO_LARGE",
        507: "DISK_FULL, DISK_LOW",
        422: "REQUEST_INVALID, INPUT_*, ...",
    }
    return known.get(status) or ", ".join(by_status.get(status, ["see `code`"]))


def json_response(model: BaseModel, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    """A model as JSON."""
    return Response(model.model_dump_json(), status, headers, "application/json")


def task_response(
    task: TaskRecord,
    deps: ApiDependencies,
    *,
    status: int = 200,
    holds: Holds,
    queue_position: int | None = None,
    headers: dict[str, str] | None = None,
) -> Response:
    """A task as it is now, with Retry-After unless it is terminal, and an entity tag if it is."""
    now = deps.clock()
    live = deps.pool.progress(task.id) if task.status is Status.RUNNING else None
    headers = dict(headers or {})
    outlook = outlook_of(task, deps, holds=holds, position=queue_position)
    if task.status.is_terminal:
        headers["ETag"] = f'"{task.last_event_id}"'
    elif outlook.eta_s is None:
        headers.setdefault("Retry-After", str(outlook.again_s))
    else:
        headers["Retry-After"] = str(outlook.again_s)
    shown = task_resource(task, now=now, live=live, queue_position=queue_position, holds=holds, outlook=outlook)
    return json_response(shown, status, headers)


def outlook_of(task: TaskRecord, deps: ApiDependencies, *, holds: Holds, position: int | None = None) -> Outlook:
    """What is expected of a task. It knows the queue as of the last `holding.now()`."""
    wait = waiting(task, deps.clock(), holds)
    return deps.forecast.outlook(task, reason=wait.reason, until=wait.until, position=position)


def not_found(task_id: str) -> ProblemError:
    """The 404 of a task."""
    return ProblemError(ProblemCode.TASK_NOT_FOUND, f"There is no task {task_id[:64]!r}.")


def preferred_wait(request: Request, limit: float) -> float | None:
    """Seconds of `Prefer: wait=N` (RFC 7240), at most `limit`. What is not understood is ignored, as the RFC says."""
    match = _WAIT.search(",".join(request.headers.getlist("prefer")))
    return min(float(match[1]), limit) if match else None
