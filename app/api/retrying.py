"""`POST /tasks/{id}/retry`: what has ended stays as it is, so trying again makes a new task with the same inputs."""

from __future__ import annotations

import hashlib
from dataclasses import replace

from starlette.requests import Request

from app.api.admission import admit, client_of, require_room
from app.api.answering import not_found
from app.api.draft import Draft, complete
from app.api.errors import invalid_request
from app.api.ports import ApiDependencies
from app.api.problem_codes import ProblemCode
from app.api.problems import FieldError, ProblemError
from app.api.submission import idempotency_key
from app.intake.resolve import Given
from app.store.records import Created, IdempotencyKey, InputRef, TaskFilter, TaskRecord
from app.tasks.chain import SCHEME, task_named
from app.tasks.status import Status
from app.tiers.tiers import UnknownTier


async def retry(request: Request, task_id: str, deps: ApiDependencies) -> Created:
    """Submit a FAILED task again. Raises the 404, 409 and 410, and whatever a submission raises."""
    key, client = idempotency_key(request), client_of(request)
    remembered = None
    if key is not None:
        fingerprint = hashlib.sha256(f"retry {task_id}".encode()).hexdigest()
        remembered = IdempotencyKey(key, "", fingerprint, deps.settings.idempotency_ttl_s)
        replayed = await deps.store.afind_replay(remembered)
        if replayed is not None:
            return Created(replayed, replayed=True)
    failed = await deps.store.aget(task_id)
    if failed is None:
        raise not_found(task_id)
    if failed.status is not Status.FAILED:
        raise ProblemError(ProblemCode.TASK_NOT_FAILED, f"The task is {failed.status}.", state=failed.status.value)
    require_room(deps)
    draft = replace(await as_it_was(failed, deps), retry_of=failed.id)
    keep_inputs(draft, deps)
    try:
        new = await complete(draft, deps, client=client, trace=request.scope["state"]["trace"])
    except UnknownTier:
        text = f"There is no renderer {failed.renderer!r} any more."
        raise invalid_request([FieldError("renderer", ProblemCode.REQUEST_INVALID, "unknown_renderer", text)]) from None
    return await admit(new, remembered, deps)


async def as_it_was(old: TaskRecord, deps: ApiDependencies) -> Draft:
    """The order of `old` as if it came now: the same but for `not_before`; deadlines keep their distance.

    It waits for the same tasks; where one of them has failed and was tried again, for the newest try.
    """
    draft = _same_order(old)
    newest = {task_id: await _newest_try(task_id, deps) for task_id in old.after}
    return replace(
        draft,
        source=_renamed(draft.source, newest),
        audio=_renamed(draft.audio, newest),
        # One that is forgotten by now has succeeded: it was kept while somebody waited for it.
        after=tuple(task_id for task_id in newest.values() if task_id is not None),
    )


def _same_order(old: TaskRecord) -> Draft:
    """What `old` was to be. Its inputs are those that were stored; where there were none yet, their addresses."""
    base = max(old.created_at, old.not_before or 0.0)
    return Draft(
        source=_stored(old.source),
        audio=_stored(old.audio),
        renderer=old.renderer,
        fallback=old.fallback,
        options=old.options,
        priority=old.priority,
        start_deadline_s=None if old.start_deadline_at is None else old.start_deadline_at - base,
        # What the service set for want of the caller's own is set anew: it may have counted from a release.
        deadline_s=None if old.deadline_at is None or old.default_deadline else old.deadline_at - base,
        use_cache=old.use_cache,
        callback=None if old.callback is None else replace(old.callback, closed=False),
        metadata=old.metadata,
    )


def keep_inputs(draft: Draft, deps: ApiDependencies) -> None:
    """Mark stored inputs as used now, so that no sweep takes them before the new task is written. Raises the 410."""
    errors = [
        FieldError(name, ProblemCode.INPUTS_GONE, "removed", f"The {name} ({given.name}) was removed.")
        for name, given in (("source", draft.source), ("audio", draft.audio))
        if isinstance(given, InputRef) and not deps.intake.blobs.touch(given.sha256)
    ]
    if errors:
        first = errors[0]
        raise ProblemError(ProblemCode.INPUTS_GONE, first.detail, field=first.field, reason=first.reason, errors=errors)


def _stored(given: InputRef) -> InputRef | str:
    return given if given.sha256 else given.uri


def _renamed(given: Given, newest: dict[str, str | None]) -> Given:
    task_id = task_named(given) if isinstance(given, str) else None
    return given if task_id is None else f"{SCHEME}{newest.get(task_id) or task_id}"


async def _newest_try(task_id: str, deps: ApiDependencies) -> str | None:
    """The task, or where it has failed the newest that tries it again, and so on; None if it is forgotten."""
    while True:
        found = (await deps.store.aget_some([task_id])).get(task_id)
        if found is None:
            return None
        if found.status is not Status.FAILED:
            return task_id
        again = (await deps.store.alist(TaskFilter(retry_of=task_id), limit=1)).tasks
        if not again:
            return task_id
        task_id = again[0].id
