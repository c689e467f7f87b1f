"""Spans of tasks, made of committed events: what waited, ran, was reviewed and ended, and how.

An event tells when something ended, and the one before it when that began. So a span is right however often the service
was killed in between, and whoever commits the end of an attempt records it: its own service, or one that rescued it.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Sequence
from typing import Any

import structlog

from app.retry.taxonomy import FailureCode
from app.store.endings import attempt_ending
from app.store.errors import StoreUnavailable
from app.store.figures import AttemptEnding
from app.store.interface import Store
from app.store.records import EventRecord, TaskRecord
from app.tasks.replay import EVENT_OF, RELEASED
from app.tasks.status import CLAIMABLE, Status
from app.tasks.trace import TraceContext, span_id
from app.telemetry.tracing import Span, Tracing, attempt_span, task_span

log = structlog.get_logger(__name__)

BACKLOG = 10_000
"""Events that wait to be told of; of more, spans are lost. Only the database is waited for here, no collector."""
_STOP_S = 1.0
_CHANGES = frozenset({*EVENT_OF.values(), RELEASED})


class TaskSpans:
    """Listens to a store, and records in a thread of its own."""

    def __init__(self, store: Store, tracing: Tracing) -> None:
        self._store = store
        self._tracing = tracing
        self._events: queue.SimpleQueue[EventRecord | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="task-spans", daemon=True)

    def start(self) -> None:
        """Begin to listen."""
        self._thread.start()
        self._store.subscribe(self._on_events)

    def stop(self) -> None:
        """Record what was committed, for a moment."""
        self._events.put(None)
        self._thread.join(_STOP_S)

    def _on_events(self, events: Sequence[EventRecord]) -> None:
        """In the writer's thread."""
        for event in events:
            if event.type in _CHANGES and self._events.qsize() < BACKLOG:
                self._events.put(event)

    def _run(self) -> None:
        while (event := self._events.get()) is not None:
            try:
                self._tell(event)
            except StoreUnavailable as error:
                log.debug("span_not_recorded", task_id=event.task_id, reason=str(error))
            except Exception:
                log.exception("span_not_recorded", task_id=event.task_id)

    def _tell(self, event: EventRecord) -> None:
        task = self._store.get(event.task_id)
        if task is None or task.trace is None or not task.trace.sampled:
            return
        history = self._store.events(task.id, limit=event.id)
        before = [one for one in history if one.id < event.id and one.type in _CHANGES]
        for span in spans_of(task, task.trace, event, before[-1] if before else None):
            self._tracing.record(span)


def spans_of(task: TaskRecord, trace: TraceContext, event: EventRecord, before: EventRecord | None) -> list[Span]:
    """The spans that end with `event`, a change of the status or a release; `before` is the change before it."""
    found: list[Span] = []
    about = {"greenroom.task.id": task.id}
    here = trace.at(task_span(task.id))

    def below(name: str, began: float, *of: object, error: str | None = None, **attributes: Any) -> Span:
        told = about | {f"greenroom.{key}": value for key, value in attributes.items() if value is not None}
        context = trace.at(span_id(task.id, name, *of))
        return Span(context, here.span_id, name, "internal", began, event.at, told, error)

    failed = event.data.get("error") if event.status is Status.FAILED else None
    if before is not None and (
        event.type == RELEASED or (failed or {}).get("code") == FailureCode.PREDECESSOR_FAILED.value
    ):
        found.append(below("predecessors", before.at, event.id))
    elif before is not None and before.status in CLAIMABLE:
        began = max(before.at, task.enqueued_at)
        if began <= event.at:
            found.append(below("queue", began, event.id, after=before.status.value, priority=task.priority))
    if before is not None and before.status is Status.REVIEW:
        found.append(below("review", before.at, event.id))
    if (ended := attempt_ending(event)) is not None:
        found.append(_attempt(trace, here.span_id, about, event, ended))
    if event.status.is_terminal:
        attributes: dict[str, Any] = about | {"greenroom.status": event.status.value}
        attributes["greenroom.attempts"] = event.attempt
        if task.served_by is not None:
            attributes |= {"greenroom.tier": task.served_by, "greenroom.degraded": task.degraded}
        found.append(
            Span(
                here, trace.span_id, "task", "internal", task.created_at, event.at,
                attributes | _type(failed), _words(failed),
            )
        )  # fmt: skip
    return found


def _attempt(
    trace: TraceContext, parent_id: str, about: dict[str, Any], event: EventRecord, ended: AttemptEnding
) -> Span:
    error = event.data.get("error") or ({"code": ended.code} if ended.code else None)
    attributes = about | {
        "greenroom.attempt": event.attempt,
        "greenroom.tier": ended.tier,
        "greenroom.device": ended.device,
        "greenroom.outcome": ended.outcome,
    }
    if (backoff_ms := event.data.get("backoff_ms")) is not None:
        attributes["greenroom.backoff_ms"] = backoff_ms
    return Span(
        trace.at(attempt_span(event.task_id, event.attempt)), parent_id, "attempt", "internal",
        ended.started_at, event.at, attributes | _type(error),
        None if ended.outcome in ("succeeded", "cancelled") else _words(error) or ended.outcome,
    )  # fmt: skip


def _type(error: dict[str, Any] | None) -> dict[str, str]:
    return {"error.type": error["code"]} if error and error.get("code") else {}


def _words(error: dict[str, Any] | None) -> str | None:
    return None if not error else f"{error.get('code')}: {error.get('message') or 'no message'}"
