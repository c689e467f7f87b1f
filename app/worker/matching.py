"""Stored tasks and the tiers in force: which tiers may serve a task, and what an attempt on one of them is to do."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError

from app.retry.taxonomy import CodedError, FailureCode
from app.store.records import TaskRecord
from app.tiers.cache_key import Contents
from app.tiers.tiers import NoTier, Tiers, UnknownTier, Work


@dataclass(frozen=True, slots=True)
class Order:
    """What an attempt on a tier is to do."""

    tier: str
    options: dict[str, Any]
    time_limit_s: float | None
    result_key: str | None = None
    """What its result is cached by; None if it is not."""


def order_of(tiers: Tiers, task: TaskRecord, tier: str) -> Order:
    """What the attempt does. Raises `CodedError` if the tier has changed so that it cannot serve the task."""
    found = tiers.all.get(tier)
    if found is None:
        raise CodedError(FailureCode.INTERRUPTED, f"The tier {tier} was removed while the task was on its way to it.")
    try:
        options = found.options_for(task.options)
    except ValidationError as error:
        raise CodedError(
            FailureCode.UPSTREAM_REJECTED, f"The tier {tier} does not take the options: {error}"
        ) from error
    key = tiers.result_key(found, options, contents_of(task)) if task.cache_keys else None
    return Order(tier, options, found.settings.time_limit_s, key)


def is_degraded(tiers: Tiers, tier: str) -> bool:
    """Whether the results of a tier are marked."""
    found = tiers.all.get(tier)
    return found is not None and found.degraded


def eligible(tiers: Tiers, task: TaskRecord) -> tuple[str, ...]:
    """All tiers that may serve the task, best first; empty where none of this service may."""
    try:
        return tiers.route(work_of(task))
    except (NoTier, UnknownTier):
        return ()


def cache_keys(tiers: Tiers, task: TaskRecord, route: Sequence[str]) -> tuple[str, ...]:
    """The cache keys of a task that takes part in the cache, were it to go this route; else none."""
    return tiers.cache_keys(route, task.options, contents_of(task)) if task.cache_keys else ()


def work_of(task: TaskRecord) -> Work:
    """A stored task as the tiers see it."""
    return Work(task.renderer, task.fallback, task.options, task.source.media, task.audio.media)


def contents_of(task: TaskRecord) -> Contents:
    """What is in the inputs of a stored task."""
    return Contents(task.source.sha256, task.audio.sha256)
