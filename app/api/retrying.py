"""`POST /tasks/{id}/retry`: what has ended stays as it is, so trying again makes a new task with the same inputs."""

from __future__ import annotations

import hashlib
from dataclasses import replace

from starlette.requests import Request

from app.api.admission import admit, client_of, require_room
from app.api.answering import not_found
from app.api.errors import invalid_request
from app.api.ports import ApiDependencies
from app.api.problems import FieldError, ProblemCode, ProblemError
from app.api.submission import cache_keys, idempotency_key, route_of
from app.store.records import Created, IdempotencyKey, NewTask, TaskRecord
from app.tasks.status import Status
from app.tasks.trace import TraceContext
from app.tiers.tiers import UnknownTier, Work


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
    try:
        route = route_of(_work(failed), deps)
    except UnknownTier:
        text = f"There is no renderer {failed.renderer!r} any more."
        raise invalid_request([FieldError("renderer", ProblemCode.REQUEST_INVALID, "unknown_renderer", text)]) from None
    require_room(deps)
    _keep_inputs(failed, deps)
    trace = request.scope["state"]["trace"]
    again = same_order(failed, route, now=deps.clock(), client=client, trace=trace)
    if failed.cache_keys:
        keys = await cache_keys(_work(failed), route, failed.source, failed.audio, deps)
        again = replace(again, cache_keys=keys)
    return await admit(again, remembered, deps)


def same_order(failed: TaskRecord, route: tuple[str, ...], *, now: float, client: str, trace: TraceContext) -> NewTask:
    """The order of `failed` as if it came now: the same but for `not_before`; deadlines keep their distance."""

    def moved(at: float | None) -> float | None:
        return None if at is None else now + (at - failed.enqueued_at)

    return NewTask(
        source=failed.source,
        audio=failed.audio,
        renderer=failed.renderer,
        fallback=failed.fallback,
        route=route,
        options=failed.options,
        priority=failed.priority,
        start_deadline_at=moved(failed.start_deadline_at),
        deadline_at=moved(failed.deadline_at),
        metadata=failed.metadata,
        client=client,
        trace=trace,
        retry_of=failed.id,
        callback=None if failed.callback is None else replace(failed.callback, closed=False),
    )


def _work(task: TaskRecord) -> Work:
    return Work(task.renderer, task.fallback, task.options, task.source.media, task.audio.media)


def _keep_inputs(failed: TaskRecord, deps: ApiDependencies) -> None:
    """Mark both inputs as used now, so that no sweep takes them before the new task is written. Raises the 410."""
    inputs = {"source": failed.source, "audio": failed.audio}
    errors = [
        FieldError(name, ProblemCode.INPUTS_GONE, "removed", f"The {name} ({given.name}) was removed.")
        for name, given in inputs.items()
        if not deps.intake.blobs.touch(given.sha256)
    ]
    if errors:
        first = errors[0]
        raise ProblemError(ProblemCode.INPUTS_GONE, first.detail, field=first.field, reason=first.reason, errors=errors)
