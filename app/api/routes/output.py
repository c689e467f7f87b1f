"""`GET|HEAD /tasks/{id}/output`: the finished video, whole or in ranges."""

from __future__ import annotations

import asyncio
import base64
import unicodedata
from email.utils import formatdate
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import quote

from fastapi import APIRouter, Query, Request, Response

from app.api.answering import outlook_of, problems
from app.api.file_response import FileSpanResponse, OpenFile
from app.api.ports import ApiDependencies
from app.api.problem_codes import ProblemCode
from app.api.problems import ProblemError
from app.api.ranges import Span, judge
from app.api.resource import rfc3339
from app.api.routes.tasks import load
from app.api.why_waiting import Holds
from app.store.records import Artifact, TaskRecord
from app.tasks.status import Status

_MEDIA_TYPE = "video/mp4"
_BINARY: dict[str, Any] = {"content": {_MEDIA_TYPE: {"schema": {"type": "string", "format": "binary"}}}}

_HEADERS: list[dict[str, Any]] = [
    {"name": name, "in": "header", "required": False, "description": text, "schema": {"type": "string"}, "example": ex}
    for name, text, ex in (
        ("Range", "One range of bytes; several, or malformed ones, give the whole file.", "bytes=0-1023"),
        ("If-Range", "The range only of the file with this entity tag, else the whole.", '"3fd0..."'),
        ("If-None-Match", "304 if the file has this entity tag.", '"3fd0..."'),
        ("If-Match", "412 unless the file has this entity tag.", '"3fd0..."'),
        ("If-Modified-Since", "304 if the task ended no later.", "Sat, 31 Jan 2026 12:00:00 GMT"),
    )
]


def router(deps: ApiDependencies) -> APIRouter:
    """The route."""
    routes = APIRouter(tags=["tasks"])

    @routes.get(
        "/tasks/{task_id}/output",
        summary="Download the video",
        response_class=Response,
        responses=problems(404, 409, 410, 412, 416)
        | {
            200: _BINARY | {"description": "The whole file."},
            206: _BINARY | {"description": "The range asked for."},
            304: {"description": "The file has the entity tag in If-None-Match."},
        },
        openapi_extra={"parameters": _HEADERS},
    )
    @routes.head("/tasks/{task_id}/output", include_in_schema=False)
    async def output(
        request: Request,
        task_id: str,
        review: Annotated[bool, Query(description="Of a task in REVIEW: give the video that is to be judged.")] = False,
    ) -> Response:
        task = await load(deps, task_id)
        in_review = review and task.status is Status.REVIEW and task.output is not None
        artifact = task.output if in_review and task.output else finished_artifact(task, deps)
        file = await _open(deps.settings.data_dir, artifact)
        try:
            return _answer(request, task, artifact, file)
        except BaseException:
            file.close()
            raise

    return routes


def finished_artifact(task: TaskRecord, deps: ApiDependencies) -> Artifact:
    """The task's result. Raises the 409 of an unfinished task, the 404 of one that ended without, the 410."""
    if not task.status.is_terminal:
        seconds = outlook_of(task, deps, holds=Holds(of_route=deps.tiers.hold)).again_s
        raise ProblemError(
            ProblemCode.TASK_NOT_FINISHED,
            f"The task is {task.status}.",
            headers={"Retry-After": str(seconds)},
            state=task.status.value,
            retry_after_s=seconds,
        )
    if task.status is not Status.SUCCEEDED or task.output is None:
        code = (task.error or {}).get("code")
        raise ProblemError(
            ProblemCode.TASK_HAS_NO_OUTPUT,
            f"The task is {task.status}{f' ({code})' if code else ''}.",
            state=task.status.value,
            error_code=code,
        )
    if task.result_removed_at is not None:
        text = f"The result was kept until {rfc3339(task.result_removed_at)}."
        raise ProblemError(ProblemCode.OUTPUT_EXPIRED, text, state=task.status.value)
    return task.output


async def _open(data_dir: Path, artifact: Artifact) -> OpenFile:
    try:
        file = await asyncio.to_thread(OpenFile, data_dir / artifact.path)
    except (FileNotFoundError, NotADirectoryError):
        raise ProblemError(ProblemCode.OUTPUT_GONE) from None
    if file.size != artifact.bytes:
        file.close()
        raise ProblemError(ProblemCode.OUTPUT_GONE, "The file is not the one that was published.", reason="size")
    return file


def _answer(request: Request, task: TaskRecord, artifact: Artifact, file: OpenFile) -> Response:
    etag = f'"{artifact.sha256}"'
    modified = task.finished_at or task.created_at
    headers = {
        "Accept-Ranges": "bytes",
        "ETag": etag,
        "Last-Modified": formatdate(modified, usegmt=True),
        "Cache-Control": "private, no-cache",
        "X-Content-Type-Options": "nosniff",
    }
    verdict = judge(request.headers, size=file.size, etag=etag, modified=modified, is_get=request.method == "GET")
    if verdict == "not_modified":
        file.close()
        return Response(status_code=304, headers=headers)
    if verdict == "precondition_failed":
        raise ProblemError(ProblemCode.PRECONDITION_FAILED, headers={"ETag": etag})
    if verdict == "unsatisfiable":
        raise ProblemError(
            ProblemCode.RANGE_NOT_SATISFIABLE,
            f"The file has {file.size} bytes.",
            headers={"Content-Range": f"bytes */{file.size}", "Accept-Ranges": "bytes"},
        )
    headers["Content-Disposition"] = content_disposition(f"{Path(task.source.name).stem or 'video'}-{task.id}.mp4")
    # Of the whole file, also where a range of it is sent (RFC 9530).
    headers["Repr-Digest"] = f"sha-256=:{base64.b64encode(bytes.fromhex(artifact.sha256)).decode()}:"
    if isinstance(verdict, Span):
        headers["Content-Range"] = f"bytes {verdict.start}-{verdict.stop - 1}/{file.size}"
        return FileSpanResponse(file, verdict, 206, headers, _MEDIA_TYPE)
    return FileSpanResponse(file, Span(0, file.size), 200, headers, _MEDIA_TYPE)


def content_disposition(name: str) -> str:
    """`inline` with a plain ASCII name for old clients and the full one for all others (RFC 6266)."""
    ascii_name = unicodedata.normalize("NFKD", name).encode("ascii", "ignore").decode()
    plain = "".join(c if c.isalnum() or c in "-_. ()" else "_" for c in ascii_name)
    return f"inline; filename=\"{plain}\"; filename*=UTF-8''{quote(name, safe='')}"
