"""From a `POST /generate` to a task: read, validate, refuse what comes later, replay or resolve, write."""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar, cast

from pydantic import ValidationError
from starlette.requests import Request

from app.api.admission import admit, client_of, require_room
from app.api.body import declared_length, parse_object, read_object
from app.api.draft import Draft, complete
from app.api.errors import field_errors, invalid_request
from app.api.models import CallbackRequest, DeriveRequest, GenerateRequest, json_bytes
from app.api.multipart import FormLimits, boundary_of, read_form
from app.api.ports import ApiDependencies
from app.api.problem_codes import ProblemCode
from app.api.problems import FieldError, ProblemError
from app.failpoints import hit
from app.intake.resolve import Received
from app.retry.taxonomy import CodedError
from app.store.records import Callback, Created, IdempotencyKey, NewTask
from app.tasks.notices import DEFAULT_NOTICES
from app.tasks.trace import TraceContext
from app.tiers.tiers import UnknownTier

INPUT_FIELDS = ("source", "audio")
_KEY = re.compile(r"[\x21-\x7e]{1,255}")
_MAX_URI_BYTES = 8192
_FORM_OVERHEAD = 64 * 1024
"""Boundaries and part headers of a multipart body."""


B = TypeVar("B", bound=GenerateRequest | DeriveRequest)


@dataclass(frozen=True, slots=True)
class Submission(Generic[B]):
    """A request as it was read: the JSON fields, and the files that came with it by field."""

    body: B
    files: dict[str, Received] = field(default_factory=dict)

    def input(self, name: str) -> str | Received:
        """What stands for `source` or `audio`; empty where nothing does."""
        return self.files.get(name) or getattr(self.body, name) or ""

    def fingerprint(self, of: str = "") -> str:
        """What an idempotency key stands for: the body with its defaults, and the contents of the files sent with it.

        An address counts as it is written: a repeat must find its task also when the file behind it is gone by then.
        With `of`, the id of a task, only what was said counts: left out means as in that task.
        """
        canonical = self.body.model_dump(mode="json", exclude={"request_id"}, exclude_unset=bool(of))
        if of:
            canonical["derive"] = of
        elif canonical["if_unfinished"] == "wait":
            del canonical["if_unfinished"]  # Keys of before there was this field stay good.
        canonical |= {name: f"sha256:{file.blob.sha256}" for name, file in self.files.items()}
        return hashlib.sha256(json.dumps(canonical, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


async def submit(request: Request, deps: ApiDependencies) -> Created:
    """Do all of it. Whatever is wrong is raised before anything is queued."""
    key, client = idempotency_key(request), client_of(request)
    submission = await read_submission(request, GenerateRequest, deps)
    body = submission.body
    check_options(body.renderer, fallback_of(body), body.options, deps)
    key = agreed_key(key, body.request_id)
    remembered = None
    if key is not None:
        remembered = IdempotencyKey(key, "", submission.fingerprint(), deps.settings.idempotency_ttl_s)
        replayed = await deps.store.afind_replay(remembered)
        if replayed is not None:
            return Created(replayed, replayed=True)
    new = await ordered(submission, client, request.scope["state"]["trace"], deps)
    created = await admit(new, remembered, deps)
    hit("created")
    return created


async def ordered(
    submission: Submission[GenerateRequest], client: str, trace: TraceContext, deps: ApiDependencies
) -> NewTask:
    """The task that a submission asks for, its inputs taken in; its options are checked already."""
    body = submission.body
    require_room(deps)
    draft = Draft(
        source=submission.input("source"),
        audio=submission.input("audio"),
        renderer=body.renderer,
        fallback=fallback_of(body),
        options=body.options,
        priority=body.priority,
        not_before=body.not_before.timestamp() if body.not_before else None,
        start_deadline_s=body.start_deadline_s,
        deadline_s=body.deadline_s,
        use_cache=body.cache is not False,
        callback=await checked_callback(body.callback, deps),
        metadata=body.metadata,
        after=tuple(body.after),
        refuse_unfinished=body.if_unfinished == "refuse",
    )
    return await complete(draft, deps, client=client, trace=trace)


async def read_submission(request: Request, model: type[B], deps: ApiDependencies) -> Submission[B]:
    """The request in either of its two forms. Raises `ProblemError`, `CodedError`."""
    content_type = request.headers.get("content-type", "application/json")
    boundary = boundary_of(content_type)
    if boundary is not None:
        return await _read_multipart(request, model, boundary, deps)
    settings, required = deps.settings, model is GenerateRequest
    fields = await read_object(request, settings.max_json_bytes, settings.body_idle_s, required=required)
    return Submission(_validated(fields, {}, model, deps))


async def _read_multipart(request: Request, model: type[B], boundary: bytes, deps: ApiDependencies) -> Submission[B]:
    require_room(deps)
    settings = deps.settings
    limit = len(INPUT_FIELDS) * settings.max_upload_bytes + settings.max_json_bytes + _FORM_OVERHEAD
    if (declared_length(request) or 0) > limit:
        raise ProblemError(
            ProblemCode.REQUEST_TOO_LARGE, f"The body is larger than {limit} bytes.", reason="body_bytes", limit=limit
        )
    limits = FormLimits(
        settings.max_upload_bytes, settings.max_json_bytes, settings.body_idle_s, frozenset({"request"})
    )
    form = await read_form(request, boundary, deps.intake.blobs, limits)
    fields = parse_object(form.texts.pop("request", b"{}"), "request")
    errors = [
        FieldError(name, ProblemCode.REQUEST_INVALID, "unknown_field", "There is no such part.", _PART_HINT)
        for name in (*form.files, *form.texts)
        if name not in INPUT_FIELDS
    ]
    for name in (*form.files, *form.texts):
        if name in fields and name in INPUT_FIELDS:
            text = "It is there as a part and in `request`; send one of them."
            errors.append(FieldError(name, ProblemCode.REQUEST_INVALID, "duplicate", text))
    if errors:
        raise invalid_request(errors)
    for name, text_part in form.texts.items():
        fields[name] = text_part[: _MAX_URI_BYTES + 1].decode(errors="replace").strip()
    return Submission(_validated(fields, form.files, model, deps), form.files)


_PART_HINT = "The parts are `source`, `audio` (files) and `request` (a JSON object with all other fields)."


def _validated(fields: dict[str, Any], files: dict[str, Received], model: type[B], deps: ApiDependencies) -> B:
    """The fields as a model. All that is wrong is said at once."""
    errors: list[FieldError] = []
    body: B | None = None
    try:
        body = cast(B, model.model_validate(fields))
    except ValidationError as error:
        errors = field_errors(error.errors(include_input=False, include_url=False))
    for name in INPUT_FIELDS if model is GenerateRequest else ():
        if name not in files and fields.get(name) is None:
            errors.append(FieldError(name, ProblemCode.REQUEST_INVALID, "missing", "The field is required."))
    if body is not None:
        errors += metadata_errors(body.metadata or {}, deps)
    if errors or body is None:
        raise invalid_request(errors)
    return body


def metadata_errors(metadata: dict[str, Any], deps: ApiDependencies) -> list[FieldError]:
    """What is wrong with the metadata of a task."""
    limit = deps.settings.max_metadata_bytes
    if json_bytes(metadata) <= limit:
        return []
    text = f"The metadata is larger than {limit} bytes."
    return [FieldError("metadata", ProblemCode.REQUEST_INVALID, "too_large", text)]


def fallback_of(body: GenerateRequest) -> str:
    """What may serve the task that a request asks for."""
    return body.fallback or default_fallback(body.renderer)


def default_fallback(renderer: str | None) -> str:
    """What may serve a task that does not say: whoever names a renderer means that one."""
    return "any" if renderer is None else "none"


def check_options(renderer: str | None, fallback: str, options: dict[str, Any], deps: ApiDependencies) -> None:
    """Raise REQUEST_INVALID unless the renderer is there and one of the admitted tiers takes the options."""
    tiers = deps.tiers.tiers
    try:
        tiers.check_options(renderer, fallback, options)
    except UnknownTier:
        hint = f"There are: {', '.join(tiers.names())}."
        why = tiers.why_absent(renderer or "")
        text = f"There is no renderer {renderer!r}" + (f" here: {why}." if why else ".")
        raise invalid_request(
            [FieldError("renderer", ProblemCode.REQUEST_INVALID, "unknown_renderer", text, hint)]
        ) from None
    except ValidationError as error:
        errors = error.errors(include_input=False, include_url=False)
        raise invalid_request(field_errors(errors, prefix=("options",))) from None


async def checked_callback(asked: CallbackRequest | None, deps: ApiDependencies) -> Callback | None:
    """Where the notices go. Raises REQUEST_INVALID for an address that none are sent to."""
    if asked is None:
        return None
    url = asked.url
    try:
        await deps.check_target(url)
    except CodedError as error:
        failure = error.failure
        reason = str(failure.detail.get("reason", "url"))
        raise invalid_request(
            [FieldError("callback.url", ProblemCode.REQUEST_INVALID, reason, failure.message, failure.hint)]
        ) from None
    events = tuple(dict.fromkeys(asked.events)) or DEFAULT_NOTICES
    return Callback(url, events, asked.secret)


def idempotency_key(request: Request) -> str | None:
    """The `Idempotency-Key` header, bare or as the quoted string of the IETF draft. Raises IDEMPOTENCY_KEY_INVALID."""
    given = request.headers.getlist("idempotency-key")
    if not given:
        return None
    key = given[0].strip()
    if len(key) >= 2 and key[0] == key[-1] == '"':
        key = key[1:-1]
    if len(given) > 1 or not _KEY.fullmatch(key):
        raise ProblemError(ProblemCode.IDEMPOTENCY_KEY_INVALID, field="Idempotency-Key", reason="format")
    return key


def agreed_key(header: str | None, request_id: str | None) -> str | None:
    """The one key of a request. Raises REQUEST_INVALID if header and body name two."""
    if header is not None and request_id is not None and header != request_id:
        text = "It differs from the Idempotency-Key header; send one of them."
        raise invalid_request([FieldError("request_id", ProblemCode.REQUEST_INVALID, "two_keys", text)])
    return header if header is not None else request_id
