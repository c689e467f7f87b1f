"""A task before it is accepted: from what is wanted, whichever request says it, to a task that can be written."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from app.api.chaining import look_up
from app.api.errors import invalid_request
from app.api.ports import ApiDependencies
from app.api.problem_codes import ProblemCode
from app.api.problems import FieldError
from app.intake.resolve import Given
from app.store.records import Callback, InputRef, NewTask
from app.tasks.rank import PRIORITY_DEFAULT
from app.tasks.trace import TraceContext
from app.tiers.tiers import NoTier, Work


@dataclass(frozen=True, slots=True)
class Draft:
    """What a new task is to be. Its options are checked, its inputs are still to be taken in."""

    source: Given
    audio: Given
    renderer: str | None
    fallback: str
    options: dict[str, Any] = field(default_factory=dict)
    priority: int = PRIORITY_DEFAULT
    not_before: float | None = None
    start_deadline_s: float | None = None
    deadline_s: float | None = None
    """Both count from now, or from `not_before` where that is later. None: no start deadline; the service's own."""
    use_cache: bool = True
    callback: Callback | None = None
    metadata: dict[str, Any] = field(default_factory=dict)
    after: tuple[str, ...] = ()
    refuse_unfinished: bool = False
    """Whether a predecessor that has not finished is a reason to refuse the task."""
    retry_of: str | None = None
    derived_from: str | None = None


async def complete(draft: Draft, deps: ApiDependencies, *, client: str, trace: TraceContext) -> NewTask:
    """Look up its predecessors and take its inputs in.

    Raises `InputsRefused`, `UnknownTier`, REQUEST_INVALID where no tier may serve it, and as `look_up`.
    """
    inputs = {"source": draft.source, "audio": draft.audio}
    chain = await look_up(inputs, draft.after, deps, refuse_unfinished=draft.refuse_unfinished)
    waits = bool(chain.unfinished)
    source, audio = await deps.intake.resolve(
        chain.given(draft.source, deps),
        chain.given(draft.audio, deps),
        source_kinds=deps.tiers.tiers.sources(draft.renderer, draft.fallback),
    )
    work = Work(draft.renderer, draft.fallback, draft.options, source.media, audio.media)
    # Deadlines of a scheduled task count from the moment it may start: else it could be late before it can begin.
    base = max(deps.clock(), draft.not_before or 0.0)
    # Of one that waits, the service's own counts from its release.
    default_s = deps.settings.default_deadline_s if draft.deadline_s is None and not waits else None
    deadline_s = draft.deadline_s if default_s is None else default_s
    route = route_of(work, deps)
    return NewTask(
        source=source,
        audio=audio,
        renderer=draft.renderer,
        fallback=draft.fallback,
        route=route,
        options=draft.options,
        priority=draft.priority,
        not_before=draft.not_before,
        start_deadline_at=None if draft.start_deadline_s is None else base + draft.start_deadline_s,
        deadline_at=None if deadline_s is None else base + deadline_s,
        default_deadline=default_s is not None,
        metadata=draft.metadata,
        client=client,
        trace=trace,
        retry_of=draft.retry_of,
        callback=draft.callback,
        # Of one that waits it is not known yet what it is made of.
        cache_keys=cache_keys(work, route, source, audio, deps) if draft.use_cache and not waits else (),
        use_cache=draft.use_cache,
        derived_from=draft.derived_from,
        after=chain.after,
        waits_for=chain.unfinished,
    )


def route_of(work: Work, deps: ApiDependencies) -> tuple[str, ...]:
    """The tiers that may serve the task. Raises REQUEST_INVALID with each tier's reason if none may."""
    try:
        return deps.tiers.tiers.route(work)
    except NoTier as error:
        hint = "Change the request, or allow other tiers with `fallback`."
        texts = [f"{name} cannot serve it: {reason}." for name, reason in error.reasons.items()]
        code = ProblemCode.REQUEST_INVALID
        raise invalid_request([FieldError("renderer", code, "no_tier", text, hint) for text in texts]) from None


def cache_keys(
    work: Work, route: tuple[str, ...], source: InputRef, audio: InputRef, deps: ApiDependencies
) -> tuple[str, ...]:
    """Results of which keys may answer the task; none where nothing is cached."""
    if deps.cache is None:
        return ()
    return deps.cache.keys(deps.tiers.tiers, route, work.options, source, audio)
