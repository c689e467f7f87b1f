"""`POST /tasks/{id}/derive`: a new task from an old one with changes, made of the inputs that were stored for that."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from starlette.requests import Request

from app.api.admission import admit, client_of, require_room
from app.api.answering import not_found
from app.api.draft import Draft, complete
from app.api.errors import invalid_request
from app.api.models import DeriveRequest
from app.api.ports import ApiDependencies
from app.api.retrying import as_it_was, keep_inputs
from app.api.submission import (
    Submission,
    agreed_key,
    check_options,
    checked_callback,
    default_fallback,
    idempotency_key,
    metadata_errors,
    read_submission,
)
from app.intake.resolve import Given
from app.store.records import Created, IdempotencyKey, InputRef, TaskRecord
from app.tasks.chain import task_named


async def derive(request: Request, task_id: str, deps: ApiDependencies) -> Created:
    """Submit `task_id`'s order with changes. Raises the 404, INPUTS_GONE, and whatever a submission raises."""
    key, client = idempotency_key(request), client_of(request)
    submission = await read_submission(request, DeriveRequest, deps)
    key = agreed_key(key, submission.body.request_id)
    remembered = None
    if key is not None:
        remembered = IdempotencyKey(key, "", submission.fingerprint(task_id), deps.settings.idempotency_ttl_s)
        replayed = await deps.store.afind_replay(remembered)
        if replayed is not None:
            return Created(replayed, replayed=True)
    old = await deps.store.aget(task_id)
    if old is None:
        raise not_found(task_id)
    require_room(deps)
    draft = await _changed(old, submission, deps)
    check_options(draft.renderer, draft.fallback, draft.options, deps)
    if errors := metadata_errors(draft.metadata, deps):
        raise invalid_request(errors)
    keep_inputs(draft, deps)
    new = await complete(draft, deps, client=client, trace=request.scope["state"]["trace"])
    return await admit(new, remembered, deps)


async def _changed(old: TaskRecord, submission: Submission[DeriveRequest], deps: ApiDependencies) -> Draft:
    """The order of `old` with what the request says otherwise."""
    body, said = submission.body, submission.body.model_fields_set
    draft = await as_it_was(old, deps)
    renderer = body.renderer if "renderer" in said else draft.renderer
    fallback = draft.fallback
    if said & {"renderer", "fallback"}:
        fallback = body.fallback or default_fallback(renderer)
    not_before = old.not_before
    if "not_before" in said:
        not_before = body.not_before.timestamp() if body.not_before else None
    return replace(
        draft,
        source=submission.input("source") or draft.source,
        audio=submission.input("audio") or draft.audio,
        renderer=renderer,
        fallback=fallback,
        options=_merged(draft.options, body.options) if "options" in said else draft.options,
        priority=draft.priority if body.priority is None else body.priority,
        not_before=not_before,
        start_deadline_s=body.start_deadline_s if "start_deadline_s" in said else draft.start_deadline_s,
        deadline_s=body.deadline_s if "deadline_s" in said else draft.deadline_s,
        use_cache=body.cache is not False if "cache" in said else draft.use_cache,
        callback=await checked_callback(body.callback, deps) if "callback" in said else draft.callback,
        metadata=_merged(draft.metadata, body.metadata) if "metadata" in said else draft.metadata,
        after=tuple(body.after) if "after" in said else _still_needed(draft, submission),
        refuse_unfinished=body.if_unfinished == "refuse",
        derived_from=old.id,
    )


def _still_needed(draft: Draft, submission: Submission[DeriveRequest]) -> tuple[str, ...]:
    """The predecessors of the old task without those whose videos other inputs replace."""
    inputs = {"source": draft.source, "audio": draft.audio}
    replaced = {_made_by(given) for name, given in inputs.items() if submission.input(name)}
    kept = {_made_by(given) for name, given in inputs.items() if not submission.input(name)}
    return tuple(task_id for task_id in draft.after if task_id in kept or task_id not in replaced)


def _made_by(given: Given) -> str | None:
    """The task whose video an input of the old task is or was to be."""
    return task_named(given.uri if isinstance(given, InputRef) else str(given))


def _merged(old: Mapping[str, Any], patch: Mapping[str, Any] | None) -> dict[str, Any]:
    """JSON Merge Patch (RFC 7396) of an object: null takes a member away, objects are merged, all else replaces."""
    merged = dict(old) if patch is not None else {}
    for name, value in (patch or {}).items():
        if value is None:
            merged.pop(name, None)
        elif isinstance(value, dict):
            before = merged.get(name)
            merged[name] = _merged(before if isinstance(before, dict) else {}, value)
        else:
            merged[name] = value
    return merged
