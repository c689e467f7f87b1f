"""`POST /uploads`: a file sent once, streamed to disk, used by any number of tasks."""

from __future__ import annotations

import base64
import binascii
import re
from dataclasses import asdict
from typing import Annotated, Any
from urllib.parse import unquote

from fastapi import APIRouter, Query, Request, Response

from app.api.admission import require_room
from app.api.answering import json_response, problems
from app.api.body import declared_length, pieces
from app.api.described import Described
from app.api.errors import invalid_request
from app.api.multipart import FormLimits, boundary_of, part_too_large, read_form
from app.api.ports import ApiDependencies
from app.api.problem_codes import ProblemCode
from app.api.problems import FieldError, ProblemError
from app.api.resource import rfc3339
from app.intake.blobs import DigestMismatch
from app.intake.names import display_name, name_from_disposition
from app.intake.refusal import too_large
from app.intake.resolve import Received
from app.retry.taxonomy import CodedError
from app.store.records import UploadRecord
from app.tasks.ids import new_id

_FORM_OVERHEAD = 64 * 1024
_DIGEST = re.compile(r"sha-256=:([A-Za-z0-9+/=]*):")
_FILE = {"type": "string", "format": "binary"}
_BODY: dict[str, Any] = {
    "required": False,  # nothing at all is an empty file: kept, and told so
    "content": {
        "application/octet-stream": {"schema": _FILE},
        "multipart/form-data": {"schema": {"type": "object", "properties": {"file": _FILE}}},
    },
}

_DIGEST_TEXT = "SHA-256 of the body, which is verified: `sha-256=:<base64 of the 32 bytes>:` (RFC 9530)."
_HEADERS: list[dict[str, Any]] = [
    {"name": name, "in": "header", "required": False, "description": text, "schema": {"type": "string"}, "example": ex}
    for name, text, ex in (
        ("Content-Digest", _DIGEST_TEXT, "sha-256=:47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=:"),
        ("Repr-Digest", _DIGEST_TEXT, "sha-256=:47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=:"),
        ("X-File-Name", "File name, percent-encoded.", "face.png"),
        ("Content-Disposition", "Its file name counts if no other is given.", 'attachment; filename="face.png"'),
    )
]


class MediaProblem(Described):
    """Why the file cannot be opened. A task with it would be refused in the same words."""

    code: str
    """As a task with it would be refused."""
    reason: str | None
    """Finer than `code`, as `no_audio_stream`."""
    message: str
    """What is wrong with it, for people."""
    hint: str
    """What to do about it."""


class UploadResource(Described):
    """An upload. `uri` is what `source` and `audio` of a task take; one of `media` and `media_problem` is null."""

    id: str
    """Its name."""
    uri: str
    """What `source` and `audio` of a task take."""
    sha256: str
    """Of its content, in hexadecimal."""
    bytes: int
    """Its length."""
    name: str
    """A file name for people."""
    created_at: str
    """When it arrived."""
    expires_at: str
    """Until when it is kept at least."""
    media: dict[str, Any] | None
    """What is in it: `kind` (`image`, `video`, `audio`), `format`, and what that kind has, as `width`, `height`,
    `duration_s`.
    """
    media_problem: MediaProblem | None
    """Why it cannot be used."""


def router(deps: ApiDependencies) -> APIRouter:
    """The routes."""
    routes = APIRouter(tags=["uploads"])

    @routes.post(
        "/uploads",
        status_code=201,
        response_model=UploadResource,
        summary="Upload a file",
        description="The file as the raw body, or as the one file of a multipart form. `Content-Digest` and "
        "`Repr-Digest` (sha-256) are verified. A file that cannot be opened is kept, and told so.",
        responses=problems(400, 408, 413, 422, 507),
        openapi_extra={"requestBody": _BODY, "parameters": _HEADERS},
    )
    async def upload(
        request: Request,
        name: Annotated[str | None, Query(max_length=1024, description="File name, if no header tells it.")] = None,
    ) -> Response:
        require_room(deps)
        received = await _receive(request, name, deps)
        now = deps.clock()
        record = UploadRecord(
            id=new_id("upl", now),
            sha256=received.blob.sha256,
            bytes=received.blob.bytes,
            name=received.name,
            created_at=now,
            expires_at=now + deps.settings.upload_ttl_s,
        )
        await deps.store.aput_upload(record)
        return json_response(await _resource(record, deps), 201, {"Location": f"/uploads/{record.id}"})

    @routes.get("/uploads/{upload_id}", response_model=UploadResource, summary="Get an upload", responses=problems(404))
    async def get(upload_id: str) -> Response:
        record = await deps.store.aget_upload(upload_id) if len(upload_id) <= 128 else None
        if record is None:
            raise ProblemError(ProblemCode.UPLOAD_NOT_FOUND, f"There is no upload {upload_id[:64]!r}.")
        return json_response(await _resource(record, deps))

    return routes


async def _receive(request: Request, name: str | None, deps: ApiDependencies) -> Received:
    limit = deps.settings.max_upload_bytes
    boundary = boundary_of(request.headers.get("content-type", ""))
    expected = announced_digest(request)
    if boundary is not None:
        return await _from_form(request, boundary, name, deps)
    if (declared_length(request) or 0) > limit:
        raise too_large(limit, reason="body_bytes")
    async with deps.intake.blobs.writer(limit) as writer:
        try:
            async for chunk in pieces(request, deps.settings.body_idle_s):
                await writer.write(chunk)
            blob = await writer.commit(expected_sha256=expected)
        except DigestMismatch as mismatch:
            raise ProblemError(ProblemCode.DIGEST_MISMATCH, str(mismatch), field="Content-Digest") from None
        except CodedError as error:
            raise part_too_large(error, None) from None
    return Received(blob, _file_name(request, name))


async def _from_form(request: Request, boundary: bytes, name: str | None, deps: ApiDependencies) -> Received:
    limit = deps.settings.max_upload_bytes
    if (declared_length(request) or 0) > limit + _FORM_OVERHEAD:
        raise too_large(limit, reason="body_bytes")
    form = await read_form(
        request, boundary, deps.intake.blobs, FormLimits(limit, deps.settings.max_json_bytes, deps.settings.body_idle_s)
    )
    if len(form.files) != 1 or form.texts:
        text = "Send exactly one file part, and nothing else."
        raise invalid_request([FieldError("file", ProblemCode.REQUEST_INVALID, "parts", text)])
    received = next(iter(form.files.values()))
    return Received(received.blob, display_name(name)) if name else received


def announced_digest(request: Request) -> str | None:
    """The SHA-256 (hex) in Content-Digest or Repr-Digest. Other algorithms are ignored, as RFC 9530 allows."""
    found = set()
    for header in ("content-digest", "repr-digest"):
        for value in request.headers.getlist(header):
            for entry in (e.strip() for e in value.split(",")):
                if not entry.lower().startswith("sha-256="):
                    continue
                match = _DIGEST.fullmatch(entry[:8].lower() + entry[8:])
                raw = _base64(match[1]) if match else b""
                if len(raw) != 32:
                    raise ProblemError(ProblemCode.DIGEST_INVALID, field=header.title(), reason="format")
                found.add(raw.hex())
    if len(found) > 1:
        raise ProblemError(ProblemCode.DIGEST_INVALID, "Two digests differ.", field="Repr-Digest", reason="two_digests")
    return found.pop() if found else None


def _base64(text: str) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except binascii.Error:
        return b""


def _file_name(request: Request, name: str | None) -> str:
    """From `?name=`, X-File-Name (percent-encoded) or Content-Disposition."""
    raw = name or unquote(request.headers.get("x-file-name", ""))
    return display_name(raw, "") or name_from_disposition(request.headers.get("content-disposition", "")) or "upload"


async def _resource(record: UploadRecord, deps: ApiDependencies) -> UploadResource:
    media, problem = None, None
    try:
        media = asdict(await deps.intake.inspect(record.sha256, record.name))
    except CodedError as error:
        failure = error.failure
        problem = MediaProblem(
            code=failure.code, reason=failure.detail.get("reason"), message=failure.message, hint=failure.hint
        )
    return UploadResource(
        id=record.id,
        uri=f"upload:{record.id}",
        sha256=record.sha256,
        bytes=record.bytes,
        name=record.name,
        created_at=rfc3339(record.created_at),
        expires_at=rfc3339(record.expires_at),
        media=media,
        media_problem=problem,
    )
