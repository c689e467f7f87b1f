"""`POST /human/generate`: one request that lasts until the video lies where its caller wants it.

Source: the published description of a service in front of HeyGem, and the callers of it: `{audio_path, video_path,
save_path}`, all on a disk that both sides share, answered with `{code: 200, message, data}` or a status that
`raise_for_status` takes for an error. The work does not end with the connection: whoever timed out finds the video at
its place later, or asks again and gets the same one.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Mapping
from functools import partial
from typing import Annotated, Any
from urllib.parse import quote

import structlog
from fastapi import APIRouter, Request, Response
from pydantic import ConfigDict, Field
from starlette.requests import ClientDisconnect

from app.api.admission import admit, client_of
from app.api.answering import json_response, not_found, problems
from app.api.body import parse_object, read_limited
from app.api.described import Described
from app.api.drop_in.placing import CannotPlace, Places, Target, taken
from app.api.errors import invalid_request
from app.api.models import GenerateRequest
from app.api.ports import ApiDependencies
from app.api.problem_codes import ProblemCode
from app.api.problems import FieldError, ProblemError
from app.api.resource import task_resource
from app.api.submission import Submission, ordered
from app.api.waiting import TaskWaiters, unless_disconnected
from app.intake.refusal import InputsRefused
from app.retry.taxonomy import CodedError, FailureCode
from app.store.records import NewTask, TaskRecord
from app.tasks.status import Status
from app.tasks.trace import TraceContext

_log = structlog.get_logger("greenroom.http")

_FIELDS = {"source": "video_path", "audio": "audio_path"}
_LOOK_S = 3600.0
"""How long one wait for the end lasts; then it begins anew."""
_RETRY_AFTER_S = 5

_PathText = Annotated[str, Field(min_length=1, max_length=4096)]


class HumanRequest(Described):
    """The body. Fields that are not known are not read."""

    model_config = ConfigDict(strict=True)

    audio_path: _PathText = Field(description="The speech: an absolute path below `media_roots`.")
    video_path: _PathText = Field(description="The template or portrait: an absolute path below `media_roots`.")
    save_path: _PathText = Field(description="Where the video goes: an absolute path of an .mp4 file.")


class HumanData(Described):
    """Where the video lies now, and the task that made it."""

    save_path: str
    """As in the request."""
    task_id: str
    """For everything else that can be asked of it."""


class HumanAnswer(Described):
    """The answer to a request that was served."""

    code: int = 200
    """As the HTTP status."""
    message: str = "success"
    """For people."""
    data: HumanData
    """The video."""


def router(deps: ApiDependencies, waiters: TaskWaiters) -> APIRouter:
    """The route."""
    routes = APIRouter(tags=["drop-in: human/generate"])
    desk = _Desk(deps, waiters)
    schema = {"$ref": f"#/components/schemas/{HumanRequest.__name__}"}

    @routes.post(
        "/human/generate",
        summary="Make a video and put it at a path",
        response_model=HumanAnswer,
        responses=problems(400, 404, 408, 409, 413, 422, 429, 507),
        openapi_extra={"requestBody": {"required": True, "content": {"application/json": {"schema": schema}}}},
    )
    async def generate(request: Request) -> Response:
        settings = deps.settings
        body = await read_limited(request, settings.max_json_bytes, settings.body_idle_s)
        order = HumanRequest.model_validate(parse_object(body))
        work = desk.begin(order, client_of(request), request.scope["state"]["trace"])
        try:
            return json_response(await unless_disconnected(request, _outcome(work)))
        except ClientDisconnect:
            work.add_done_callback(partial(_tell_log, order.save_path))
            raise

    return routes


async def _outcome(work: asyncio.Task[HumanAnswer]) -> HumanAnswer:
    return await asyncio.shield(work)


def _tell_log(path: str, work: asyncio.Task[HumanAnswer]) -> None:
    """What became of a request whose caller left."""
    error = work.exception()
    if error is None:
        _log.info("saved_for_caller_who_left", save_path=path, task=work.result().data.task_id)
    else:
        _log.warning("not_saved_for_caller_who_left", save_path=path, reason=str(error) or type(error).__name__)


class _Desk:
    def __init__(self, deps: ApiDependencies, waiters: TaskWaiters) -> None:
        self._deps = deps
        self._waiters = waiters
        self._places = Places(deps.drop_in.save_roots)
        self._working: set[asyncio.Task[HumanAnswer]] = set()

    def begin(self, order: HumanRequest, client: str, trace: TraceContext) -> asyncio.Task[HumanAnswer]:
        """Serve a request, whether anybody waits for it or not."""
        work = asyncio.create_task(self._serve(order, client, trace))
        self._working.add(work)  # the loop itself would forget it
        work.add_done_callback(self._working.discard)
        return work

    async def _serve(self, order: HumanRequest, client: str, trace: TraceContext) -> HumanAnswer:
        target = await self._target(order.save_path)
        new = await self._ordered(order, client, trace)
        await self._refuse_taken(target, new)
        task = (await admit(new, None, self._deps)).task
        while not task.status.is_terminal:
            found = await self._waiters.until_terminal(task.id, _LOOK_S)
            if found is None:
                raise not_found(task.id)
            if self._waiters.closed and not found.status.is_terminal:
                raise ProblemError(ProblemCode.SERVICE_STOPPING, headers=_AGAIN, **_facts(found))
            task = found
        return await self._save(task, target, order.save_path)

    async def _target(self, path: str) -> Target:
        try:
            return await asyncio.to_thread(self._places.target, path)
        except CannotPlace as refused:
            raise _not_placed(refused, ProblemCode.SAVE_PATH_INVALID) from None

    async def _ordered(self, order: HumanRequest, client: str, trace: TraceContext) -> NewTask:
        asked = GenerateRequest.model_validate(
            {
                "source": _address("video_path", order.video_path),
                "audio": _address("audio_path", order.audio_path),
                "metadata": {"save_path": order.save_path},
            }
        )
        try:
            return await ordered(Submission(asked), client, trace, self._deps)
        except InputsRefused as refused:
            raise InputsRefused([_renamed(error) for error in refused.errors]) from None

    async def _refuse_taken(self, target: Target, new: NewTask) -> None:
        """Raise SAVE_PATH_TAKEN before anything is rendered, unless what lies there is what would be put there."""
        try:
            there = await asyncio.to_thread(self._places.holds, target)
            if there is None:
                return
            cached = await self._deps.store.acached(new.cache_keys) if new.cache_keys else None
            if cached is None or (cached.output.bytes, cached.output.sha256) != there:
                raise taken()
        except CannotPlace as refused:
            raise _not_placed(refused, ProblemCode.SAVE_PATH_INVALID) from None

    async def _save(self, task: TaskRecord, target: Target, path: str) -> HumanAnswer:
        if task.status is not Status.SUCCEEDED or task.output is None:
            raise _ended(task, self._deps)
        source = self._deps.settings.data_dir / task.output.path
        try:
            await asyncio.to_thread(self._places.put, source, target, task.output.bytes, task.output.sha256)
        except CannotPlace as refused:
            raise _not_placed(refused, ProblemCode.SAVE_FAILED, task) from None
        return HumanAnswer(data=HumanData(save_path=path, task_id=task.id))


_AGAIN = {"Retry-After": str(_RETRY_AFTER_S)}


def _facts(task: TaskRecord) -> dict[str, Any]:
    return {"task_id": task.id, "state": task.status.value}


def _address(field: str, path: str) -> str:
    if not path.startswith("/"):
        text, hint = "The path is not absolute.", "Give the absolute path of the file on the service's host."
        raise invalid_request([FieldError(field, ProblemCode.REQUEST_INVALID, "relative", text, hint)])
    return f"file://{quote(os.fsencode(path))}"


def _renamed(error: CodedError) -> CodedError:
    """The same refusal, said about the field that the caller sent."""
    failure = error.failure
    field = failure.detail.get("field")
    named: Mapping[str, Any] = {} if field is None else {"field": _FIELDS.get(field, field)}
    return CodedError(failure.code, failure.message, failure.hint, **{**failure.detail, **named})


def _not_placed(refused: CannotPlace, code: ProblemCode, task: TaskRecord | None = None) -> ProblemError:
    code = ProblemCode.SAVE_PATH_TAKEN if refused.reason == "exists" else code
    hint = refused.hint
    if task is not None:
        hint = f"{hint} The video is made: GET /tasks/{task.id}/output gives it too."
    return ProblemError(
        code,
        str(refused),
        field="save_path",
        reason=refused.reason,
        hint=hint,
        headers=_AGAIN if code is ProblemCode.SAVE_FAILED else None,
        **(_facts(task) if task else {}),
    )


def _ended(task: TaskRecord, deps: ApiDependencies) -> ProblemError | CodedError:
    """What a task that ended without a video is answered with: 422 where an input is to blame."""
    if task.status is Status.CANCELLED:
        return ProblemError(ProblemCode.TASK_CANCELLED, **_facts(task))
    error = task_resource(task, now=deps.clock()).error
    if error is None:
        return ProblemError(ProblemCode.TASK_FAILED, **_facts(task))
    if error.code.startswith("INPUT_") and error.code in FailureCode.__members__:
        return CodedError(FailureCode(error.code), error.message, error.hint, task_id=task.id)
    return ProblemError(
        ProblemCode.TASK_FAILED,
        f"{error.code}: {error.message}",
        hint=error.hint,
        error_code=error.code,
        **_facts(task),
    )
