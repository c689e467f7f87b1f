"""From a `POST /generate` to a task: read, validate, refuse what comes later, replay or resolve, write."""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import dataclass, field
from typing import Any

from pydantic import ValidationError
from starlette.requests import Request

from app.api.admission import admit, client_of, require_room
from app.api.body import declared_length, parse_object, read_object
from app.api.errors import field_errors, invalid_request
from app.api.models import GenerateRequest, json_bytes
from app.api.multipart import FormLimits, boundary_of, read_form
from app.api.ports import ApiDependencies
from app.api.problems import FieldError, ProblemCode, ProblemError
from app.failpoints import hit
from app.intake.resolve import Received
from app.retry.taxonomy import CodedError
from app.store.records import Callback, Created, IdempotencyKey, InputRef, NewTask
from app.tasks.notices import DEFAULT_NOTICES
from app.tasks.trace import TraceContext
from app.tiers.tiers import NoTier, UnknownTier, Work

INPUT_FIELDS = ("source", "audio")
_KEY = re.compile(r"[\x21-\x7e]{1,255}")
_MAX_URI_BYTES = 8192
_FORM_OVERHEAD = 64 * 1024
"""Boundaries and part headers of a multipart body."""


@dataclass(frozen=True, slots=True)
class Submission:
    """A request as it was read: the JSON fields, and the files that came with it by field."""

    body: GenerateRequest
    files: dict[str, Received] = field(default_factory=dict)

    def input(self, name: str) -> str | Received:
        """What stands for `source` or `audio`."""
        return self.files.get(name) or getattr(self.body, name) or ""

    def fingerprint(self) -> str:
        """What an idempotency key stands for: the body with its defaults, and the contents of the files sent with it.

        An address counts as it is written: a repeat must find its task also when the file behind it is gone by then.
        """
        canonical = self.body.model_dump(mode="json", exclude={"request_id"})
        canonical |= {name: f"sha256:{file.blob.sha256}" for name, file in self.files.items()}
        return hashlib.sha256(json.dumps(canonical, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


async def submit(request: Request, deps: ApiDependencies) -> Created:
    """Do all of it. Whatever is wrong is raised before anything is queued."""
    key, client = idempotency_key(request), client_of(request)
    submission = await read_submission(request, deps)
    body = submission.body
    refuse_unavailable(body)
    check_options(body.renderer, fallback_of(body), body.options, deps)
    key = agreed_key(key, body.request_id)
    remembered = None
    if key is not None:
        remembered = IdempotencyKey(key, "", submission.fingerprint(), deps.settings.idempotency_ttl_s)
        replayed = await deps.store.afind_replay(remembered)
        if replayed is not None:
            return Created(replayed, replayed=True)
    task = await ordered(submission, client, request.scope["state"]["trace"], deps)
    created = await admit(task, remembered, deps)
    hit("created")
    return created


async def ordered(submission: Submission, client: str, trace: TraceContext, deps: ApiDependencies) -> NewTask:
    """The task that a submission asks for, its inputs taken in; its options are checked already."""
    body = submission.body
    fallback = fallback_of(body)
    require_room(deps)
    callback = await checked_callback(body, deps)
    kinds = deps.tiers.tiers.sources(body.renderer, fallback)
    source, audio = await deps.intake.resolve(
        submission.input("source"),
        submission.input("audio"),
        source_kinds=kinds,
    )
    work = Work(body.renderer, fallback, body.options, source.media, audio.media)
    now = deps.clock()
    not_before = body.not_before.timestamp() if body.not_before else None
    # Deadlines of a scheduled task count from the moment it may start: else it could be late before it can begin.
    base = max(now, not_before or 0.0)
    deadline_s = body.deadline_s if body.deadline_s is not None else deps.settings.default_deadline_s
    route = route_of(work, deps)
    return NewTask(
        source=source,
        audio=audio,
        renderer=body.renderer,
        fallback=fallback,
        route=route,
        options=body.options,
        priority=body.priority,
        not_before=not_before,
        start_deadline_at=None if body.start_deadline_s is None else base + body.start_deadline_s,
        deadline_at=None if deadline_s is None else base + deadline_s,
        metadata=body.metadata,
        client=client,
        trace=trace,
        callback=callback,
        cache_keys=() if body.cache is False else await cache_keys(work, route, source, audio, deps),
    )


async def read_submission(request: Request, deps: ApiDependencies) -> Submission:
    """The request in either of its two forms. Raises `ProblemError`, `CodedError`."""
    content_type = request.headers.get("content-type", "application/json")
    boundary = boundary_of(content_type)
    if boundary is not None:
        return await _read_multipart(request, boundary, deps)
    fields = await read_object(request, deps.settings.max_json_bytes, deps.settings.body_idle_s)
    return Submission(_validated(fields, {}, deps))


async def _read_multipart(request: Request, boundary: bytes, deps: ApiDependencies) -> Submission:
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
    return Submission(_validated(fields, form.files, deps), form.files)


_PART_HINT = "The parts are `source`, `audio` (files) and `request` (a JSON object with all other fields)."


def _validated(fields: dict[str, Any], files: dict[str, Received], deps: ApiDependencies) -> GenerateRequest:
    """The fields as a model. All that is wrong is said at once."""
    errors: list[FieldError] = []
    body = None
    try:
        body = GenerateRequest.model_validate(fields)
    except ValidationError as error:
        errors = field_errors(error.errors(include_input=False, include_url=False))
    for name in INPUT_FIELDS:
        if name not in files and fields.get(name) is None:
            errors.append(FieldError(name, ProblemCode.REQUEST_INVALID, "missing", "The field is required."))
    limit = deps.settings.max_metadata_bytes
    if body is not None and json_bytes(body.metadata) > limit:
        text = f"The metadata is larger than {limit} bytes."
        errors.append(FieldError("metadata", ProblemCode.REQUEST_INVALID, "too_large", text))
    if errors or body is None:
        raise invalid_request(errors)
    return body


def refuse_unavailable(body: GenerateRequest) -> None:
    """Raise FEATURE_NOT_AVAILABLE for every field whose feature this version does not have. Nothing is ignored."""
    asked = {
        "after": bool(body.after) and "Submit the task when the others have finished.",
    }
    for name in INPUT_FIELDS:
        uri = getattr(body, name)
        is_task = uri is not None and uri.lower().startswith("task:")
        asked[name] = is_task and "Wait for that task, download its output and upload it."
    errors = [
        FieldError(
            name, ProblemCode.FEATURE_NOT_AVAILABLE, "not_available", f"`{name}` asks for a feature to come.", hint
        )
        for name, hint in asked.items()
        if isinstance(hint, str)
    ]
    if errors:
        first = errors[0]
        raise ProblemError(
            ProblemCode.FEATURE_NOT_AVAILABLE,
            first.detail,
            field=first.field,
            reason=first.reason,
            hint=first.hint,
            errors=errors,
        )


def fallback_of(body: GenerateRequest) -> str:
    """What may serve the task."""
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


async def checked_callback(body: GenerateRequest, deps: ApiDependencies) -> Callback | None:
    """Where the notices go. Raises REQUEST_INVALID for an address that none are sent to."""
    if body.callback is None:
        return None
    url = body.callback.url
    try:
        await deps.check_target(url)
    except CodedError as error:
        failure = error.failure
        reason = str(failure.detail.get("reason", "url"))
        raise invalid_request(
            [FieldError("callback.url", ProblemCode.REQUEST_INVALID, reason, failure.message, failure.hint)]
        ) from None
    events = tuple(dict.fromkeys(body.callback.events)) or DEFAULT_NOTICES
    return Callback(url, events, body.callback.secret)


def route_of(work: Work, deps: ApiDependencies) -> tuple[str, ...]:
    """The tiers that may serve the task. Raises REQUEST_INVALID with each tier's reason if none may."""
    try:
        return deps.tiers.tiers.route(work)
    except NoTier as error:
        hint = "Change the request, or allow other tiers with `fallback`."
        texts = [f"{name} cannot serve it: {reason}." for name, reason in error.reasons.items()]
        code = ProblemCode.REQUEST_INVALID
        raise invalid_request([FieldError("renderer", code, "no_tier", text, hint) for text in texts]) from None


async def cache_keys(
    work: Work, route: tuple[str, ...], source: InputRef, audio: InputRef, deps: ApiDependencies
) -> tuple[str, ...]:
    """Results of which keys may answer the task; none where nothing is cached."""
    if deps.cache is None:
        return ()
    return await deps.cache.usable_keys(deps.tiers.tiers, route, work.options, source, audio)


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
