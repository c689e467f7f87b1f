"""Who may still queue up: the limits of the queue and of each client, and what a refused one is told.

A client is who it says it is in `X-Client-Id`, else the address that it comes from. Nothing is proven by that: the
limit keeps honest clients from crowding each other out, and is no protection against others.
"""

from __future__ import annotations

import contextlib
import math
import re

from starlette.requests import Request

from app.api.errors import invalid_request
from app.api.ports import ApiDependencies
from app.api.problem_codes import ProblemCode
from app.api.problems import FieldError, ProblemError
from app.store.errors import ClientQueueFull, QueueFull, StoreUnavailable, UntrustedResult
from app.store.records import Admission, Created, IdempotencyKey, NewTask

CLIENT_HEADER = "X-Client-Id"
_DISK_RETRY_AFTER_S = 60
_CLIENT = re.compile(r"[\x21-\x7e]{1,64}")
_UNKNOWN_S, _MOST_S, _DEFERRED_MOST_S = 10, 300, 3600
"""Seconds to ask again after: where nothing has ended lately, at most, and at most for a deferred task."""


def client_of(request: Request) -> str:
    """Whose request this is. Raises REQUEST_INVALID for a name that is none."""
    given = request.headers.get(CLIENT_HEADER)
    if given is None:
        return "" if request.client is None else request.client.host
    if not _CLIENT.fullmatch(given):
        text = "Use 1 to 64 visible ASCII characters."
        raise invalid_request([FieldError(CLIENT_HEADER, ProblemCode.REQUEST_INVALID, "format", text)])
    return given


def require_room(deps: ApiDependencies) -> None:
    """Raise DISK_LOW below the watermark of the disk. Call it before anything is written."""
    if deps.disk.is_low():
        free, limit = deps.disk.free(), deps.disk.low_bytes
        raise ProblemError(
            ProblemCode.DISK_LOW,
            f"{free} bytes are free, less than the {limit} that are kept for what was accepted.",
            headers={"Retry-After": str(_DISK_RETRY_AFTER_S)},
            free_bytes=free,
            limit=limit,
        )


async def admit(new: NewTask, key: IdempotencyKey | None, deps: ApiDependencies) -> Created:
    """Write the task if the limits let it in. Raises QUEUE_FULL and CLIENT_QUEUE_FULL, and as `Store.acreate`."""
    try:
        return await _created(new, key, deps)
    except QueueFull as full:
        raise ProblemError(
            ProblemCode.QUEUE_FULL,
            f"The limit of {full.limit} waiting tasks is reached.",
            headers={"Retry-After": str(await _room_in(deps, None, 1))},
            limit=full.limit,
        ) from None
    except ClientQueueFull as full:
        # Of all that leave the queue, about every (waiting / limit)-th is one of this client's.
        seconds = await _room_in(deps, full.client, full.waiting / full.limit)
        raise ProblemError(
            ProblemCode.CLIENT_QUEUE_FULL,
            f"The client {full.client!r} has reached its limit of {full.limit} waiting tasks.",
            headers={"Retry-After": str(seconds)},
            limit=full.limit,
            client=full.client,
        ) from None


async def _created(new: NewTask, key: IdempotencyKey | None, deps: ApiDependencies) -> Created:
    """What the store makes of it, with no cached result whose file has not been looked at."""
    settings, cache = deps.settings, deps.cache
    soft, more = settings.max_waiting, settings.max_deferred
    while True:
        try:
            return await deps.store.acreate(
                new,
                key,
                Admission(
                    max_waiting=None if soft is None else soft + more,
                    max_waiting_per_client=settings.max_waiting_per_client,
                    defer_above=soft if more else None,
                    cached_when_full=settings.cached_when_full,
                    trusts=None if cache is None else cache.trusts,
                ),
            )
        except UntrustedResult as found:
            assert cache is not None
            await cache.examine(found.result)


async def deferred_headers(deps: ApiDependencies) -> dict[str, str]:
    """What the answer for a deferred task says besides: that it is one, and when asking for it pays."""
    seconds = await seconds_for(deps.settings.max_waiting or 1, deps, most=_DEFERRED_MOST_S)
    return {"Task-Deferred": "true", "Retry-After": str(seconds)}


async def _room_in(deps: ApiDependencies, client: str | None, tasks: float) -> int:
    """When a task leaves the queue (of one client), as far as is foreseen; else how long `tasks` tasks take."""
    await deps.forecast.refresh()
    seconds = deps.forecast.room_s(client)
    return await seconds_for(tasks, deps) if seconds is None else min(max(math.ceil(seconds), 1), _MOST_S)


async def seconds_for(tasks: float, deps: ApiDependencies, *, most: int = _MOST_S) -> int:
    """How long so many tasks take at the pace of those that ended lately. Does not raise: it only adds to an answer."""
    rate = None
    with contextlib.suppress(StoreUnavailable):
        rate = await deps.store.afinish_rate()
    return _UNKNOWN_S if rate is None else min(max(math.ceil(tasks / rate), 1), most)
