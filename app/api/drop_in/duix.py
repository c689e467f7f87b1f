"""`POST /easy/submit` and `GET /easy/query`, as callers of a Duix.Avatar (HeyGem) server use them.

Source: the project's published client and descriptions of its server. Every answer has status 200 and an envelope
`{code, success, msg, data}`. Unlike that server, this one is busy only when its queue is full, knows a task as long as
its result is kept, however often it is asked, and takes a submission with the same code as the same task.
"""

from __future__ import annotations

import asyncio
import json
import os
import re
from collections.abc import Coroutine, Mapping
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import quote

from fastapi import APIRouter, Request, Response

from app.api.admission import admit, client_of
from app.api.body import parse_object, read_limited
from app.api.described import Described
from app.api.drop_in.placing import CannotPlace, Places, Target
from app.api.errors import problem_of
from app.api.holding import Holding
from app.api.models import GenerateRequest
from app.api.ports import ApiDependencies
from app.api.problems import Problem, ProblemError
from app.api.resource import task_resource
from app.api.submission import Submission, check_options, fallback_of, ordered
from app.api.why_waiting import waiting
from app.store.records import Artifact, IdempotencyKey, TaskRecord
from app.tasks.status import Status

SYSTEM_ERROR, DONE, BUSY, BAD_PARAMETER, UNKNOWN_TASK = 9999, 10000, 10001, 10002, 10004
RUNNING, SUCCEEDED, FAILED = 1, 2, 3

SERVER_DIR = "/code/data"
"""The folder of inputs and results as callers name it."""
_RESULTS = "temp"
"""The folder in it that names without a folder, and the names of results, belong to."""
_CODE = re.compile(r"(?!\.)[^/\\\x00-\x1f\x7f-\x9f\ud800-\udfff]{1,128}")
_CODE_BYTES = 200
_NAMESPACE = "easy/submit"
_FIELDS = {"source": "video_url", "audio": "audio_url", "options.super_resolution": "chaofen"}
_CANNOT = {
    "watermark_switch": "This service puts no watermark on videos.",
    "digital_auth": "This service puts no mark on videos.",
}
_DONE_SHARE = 99
"""Percent of frames that a task shows at most before it has succeeded."""


_Told = tuple[str | int, dict[str, Any]]
"""`msg` and `data` of an answer that is not a refusal."""


class DuixAnswer(Described):
    """The envelope of every answer."""

    code: int
    """10000: taken, or `data` tells; else why not, in the numbers of docs/drop-in.md."""
    success: bool
    """Whether `code` is 10000."""
    msg: str | int
    """Words for people; 10000 where a task was taken."""
    data: dict[str, Any]
    """Of a query: `code`, `progress`, `result`, `msg`, and `status`: 1 waits or renders, 2 succeeded, 3 did not."""


class _Refused(Exception):
    """The answer is no: `code`, and why."""

    def __init__(self, code: int, words: str) -> None:
        self.code = code
        super().__init__(words)


_ORDER: dict[str, Any] = {
    "type": "object",
    "required": ["code", "audio_url", "video_url"],
    "properties": {
        "code": {"type": "string", "description": "The caller's own name for the task."},
        "audio_url": {"type": "string", "description": f"A file in `{SERVER_DIR}/{_RESULTS}`, or an http(s) address."},
        "video_url": {"type": "string", "description": "The same of the template or portrait."},
        "chaofen": {"type": "integer", "description": "1: sharpen the face, if a tier can."},
        "watermark_switch": {"type": "integer", "description": "0: there is no watermark here."},
        "digital_auth": {"type": "integer", "description": "0: there is no mark here."},
        "pn": {"type": "integer", "description": "Not read: the renderer decides how a short template goes on."},
    },
}


def router(deps: ApiDependencies, holding: Holding, folder: Path) -> APIRouter:
    """The routes, over the folder that callers know as `SERVER_DIR`."""
    routes = APIRouter(tags=["drop-in: Duix.Avatar"])
    desk = _Desk(deps, holding, folder)

    @routes.post(
        "/easy/submit",
        summary="Submit a task",
        response_model=DuixAnswer,
        openapi_extra={"requestBody": {"required": True, "content": {"application/json": {"schema": _ORDER}}}},
    )
    async def submit(request: Request) -> Response:
        return await _answer(desk.submit(request))

    @routes.get("/easy/query", summary="Ask how a task stands", response_model=DuixAnswer)
    async def query(code: str = "") -> Response:
        return await _answer(desk.query(code))

    return routes


class _Desk:
    def __init__(self, deps: ApiDependencies, holding: Holding, folder: Path) -> None:
        self._deps = deps
        self._holding = holding
        self._folder = folder.absolute()
        self._places = Places([folder])

    async def submit(self, request: Request) -> _Told:
        """Take a submission. What is wrong is raised before anything is queued."""
        deps = self._deps
        body = await read_limited(request, deps.settings.max_json_bytes, deps.settings.body_idle_s)
        order = parse_object(body)  # whatever it is called: many callers do not say that it is JSON
        code = _code_of(order)
        options = _options(order)
        asked = GenerateRequest.model_validate(
            {
                "source": self._address(order, "video_url"),
                "audio": self._address(order, "audio_url"),
                "options": options,
                "metadata": {"duix_code": code, **options},
            }
        )
        try:
            check_options(None, fallback_of(asked), asked.options, deps)
        except ProblemError:
            raise _Refused(BAD_PARAMETER, "chaofen: No renderer of this service sharpens faces. Send 0.") from None
        key = self._key(code)
        earlier = await deps.store.afind_replay(key)
        if earlier is None:
            target = await asyncio.to_thread(self._target, code)
            if await asyncio.to_thread(self._places.holds, target) is not None:
                raise _Refused(BAD_PARAMETER, f"code: a file {target.name!r} lies in {_RESULTS} already.")
            new = await ordered(Submission(asked), client_of(request), request.scope["state"]["trace"], deps)
            earlier = (await admit(new, key, deps)).task
        if (earlier.source.uri, earlier.audio.uri, earlier.metadata) != (asked.source, asked.audio, asked.metadata):
            raise _Refused(BAD_PARAMETER, "code: it belongs to a task with other inputs; use a new one.")
        return DONE, {}  # this number is what that server says here

    async def query(self, code: str) -> _Told:
        """How a task stands. Its video lies in the folder before this says that it has succeeded."""
        if not code:
            raise _Refused(BAD_PARAMETER, "code: the parameter is missing.")
        task = await self._deps.store.afind_replay(self._key(code)) if _is_code(code) else None
        if task is None:
            raise _Refused(UNKNOWN_TASK, "任务不存在 (there is no task with this code)")
        told: dict[str, Any] = {"code": code, "status": RUNNING, "progress": 0, "result": "", "msg": ""}
        if not task.status.is_terminal:
            return "", told | await self._underway(task)
        if task.status is not Status.SUCCEEDED or task.output is None:
            error = task_resource(task, now=self._deps.clock()).error
            words = f"{error.code}: {error.message} {error.hint}" if error else f"The task is {task.status}."
            return "", told | {"status": FAILED, "msg": words}
        try:
            result = await asyncio.to_thread(self._place, code, task.output)
        except CannotPlace as refused:
            if task.result_removed_at is not None:
                return "", told | {"status": FAILED, "msg": "The result's time is up: submit it again with a new code."}
            words = f"The video is made, but it cannot be put into {_RESULTS}: {refused} {refused.hint}"
            raise _Refused(SYSTEM_ERROR, words) from None
        started = task.finished_at if task.cached or task.started_at is None else task.started_at
        return "", told | {
            "status": SUCCEEDED,
            "progress": 100,
            "result": result,
            "cost": round((task.finished_at or 0.0) - (started or 0.0), 3),
            "video_duration": round(task.output.duration_s * 1000),
            "width": task.output.width,
            "height": task.output.height,
        }

    async def _underway(self, task: TaskRecord) -> dict[str, Any]:
        live = self._deps.pool.progress(task.id) if task.status is Status.RUNNING else None
        if live is None:
            wait = waiting(task, self._deps.clock(), await self._holding.now())
            words = " ".join(filter(None, (task.status.value, wait.reason and f"({wait.reason})")))
            return {"msg": words}
        share = live.done / live.total if live.phase == "render" and live.total > 0 else float(live.phase == "encode")
        return {"progress": int(min(share, 1.0) * _DONE_SHARE), "msg": f"{task.status} ({live.phase})"}

    def _place(self, code: str, output: Artifact) -> str:
        target = self._target(code)
        if not self._places.has(target, output.bytes):
            self._places.put(self._deps.settings.data_dir / output.path, target, output.bytes, output.sha256)
        return f"/{target.name}"

    def _target(self, code: str) -> Target:
        return self._places.target(str(self._folder / _RESULTS / f"{code}-r.mp4"))

    def _key(self, code: str) -> IdempotencyKey:
        # The code alone stands for the task: what it was submitted with is compared with the task itself.
        return IdempotencyKey(code, _NAMESPACE, "", self._deps.drop_in.code_ttl_s)

    def _address(self, order: Mapping[str, Any], name: str) -> str:
        """Where an input lies, as `POST /generate` takes it."""
        given = order.get(name)
        if not isinstance(given, str) or not given:
            raise _Refused(BAD_PARAMETER, f"{name}: the field is missing, or no text.")
        if given.lower().startswith(("http://", "https://")):
            return given
        path = PurePosixPath(given)
        if path.is_relative_to(SERVER_DIR):
            here = self._folder / path.relative_to(SERVER_DIR)
        else:
            here = self._folder / _RESULTS / path  # an absolute path stands for itself
        return f"file://{quote(os.fsencode(here))}"


async def _answer(work: Coroutine[Any, Any, _Told]) -> Response:
    """The outcome in the envelope. What is not foreseen is left to the last net, and is a 500."""
    try:
        msg, data = await work
        told = DuixAnswer(code=DONE, success=True, msg=msg, data=data)
    except _Refused as refused:
        told = DuixAnswer(code=refused.code, success=refused.code == UNKNOWN_TASK, msg=str(refused), data={})
    except CannotPlace as refused:
        code = BAD_PARAMETER if refused.reason in ("name", "exists") else SYSTEM_ERROR
        told = DuixAnswer(code=code, success=False, msg=f"{_RESULTS}: {refused} {refused.hint}", data={})
    except Exception as error:
        problem = problem_of(error)
        if problem is None:
            raise
        code = _code_for(problem)
        told = DuixAnswer(code=code, success=code == BUSY, msg=_words(problem, code), data={})
    return Response(json.dumps(told.model_dump(), ensure_ascii=False), media_type="application/json")


def _code_for(problem: Problem) -> int:
    if problem.status == 429:
        return BUSY
    return SYSTEM_ERROR if problem.status >= 500 else BAD_PARAMETER


def _words(problem: Problem, code: int) -> str:
    named = [(f"{_FIELDS.get(e.field, e.field)}: " if e.field else "") + e.detail for e in problem.errors]
    words = " ".join([*(named or [problem.detail]), problem.hint])
    return f"忙碌中 ({words})" if code == BUSY else words


def _is_code(code: str) -> bool:
    return _CODE.fullmatch(code) is not None and len(code.encode()) <= _CODE_BYTES


def _code_of(order: Mapping[str, Any]) -> str:
    code = order.get("code")
    if isinstance(code, int) and not isinstance(code, bool):
        code = str(code)
    if not isinstance(code, str) or not _is_code(code):
        text = "code: give 1 to 128 characters that a file name may hold, for example a UUID; no dot in front."
        raise _Refused(BAD_PARAMETER, text)
    return code


def _options(order: Mapping[str, Any]) -> dict[str, Any]:
    for name, words in _CANNOT.items():
        if str(order.get(name)) == "1":
            raise _Refused(BAD_PARAMETER, f"{name}: {words} Send 0.")
    return {"super_resolution": True} if str(order.get("chaofen")) == "1" else {}
