"""Spans: how long a request, a wait, an attempt, a phase, a delivery took, and under what each of them happened.

Who knows of something that has ended records it. This module knows no tracing library: where no collector is
configured, none is imported, and a task's context is handed on as it came.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, Protocol

from app.tasks.ids import Tokens
from app.tasks.trace import TraceContext, span_id

Kind = Literal["internal", "server", "client"]


@dataclass(frozen=True, slots=True)
class Span:
    """Something that has ended. Times in epoch seconds."""

    context: TraceContext
    """Its own."""
    parent_id: str
    """The span under which it happened; empty where it began the trace."""
    name: str
    kind: Kind
    began: float
    ended: float
    attributes: Mapping[str, str | int | float | bool] = field(default_factory=dict)
    error: str | None = None
    """What went wrong, in words; None where nothing did."""


class Tracing(Protocol):
    """Where spans go. No call blocks or raises, and all may come from any thread."""

    @property
    def on(self) -> bool:
        """Whether spans are recorded at all: without it nobody need make one."""

    def begin(self, caller: TraceContext | None) -> TraceContext:
        """The context of a request that begins now; `caller` is the one that it came with. For the event loop alone."""

    def below(self, context: TraceContext, *of: object) -> TraceContext:
        """The context of the span about `of` in the same trace. Where none is recorded, `context` itself: what is
        called next then belongs to the span that there is."""

    def record(self, span: Span) -> None:
        """Send a span, if its trace is recorded."""

    def close(self) -> None:
        """Send what is left, for a moment. This one may block."""


class Untraced:
    """Records nothing, and hands on what came."""

    on = False

    def __init__(self) -> None:
        self._tokens = Tokens()

    def begin(self, caller: TraceContext | None) -> TraceContext:
        """The caller's context, or one of our own."""
        return caller or TraceContext(self._tokens.take(32), self._tokens.take(16))

    def below(self, context: TraceContext, *of: object) -> TraceContext:  # noqa: ARG002
        """The same context."""
        return context

    def record(self, span: Span) -> None:
        """Forget it."""

    def close(self) -> None:
        """Nothing is left."""


def task_span(task_id: str) -> str:
    """The id of the span of a task's whole life."""
    return span_id(task_id, "task")


def attempt_span(task_id: str, attempt: int) -> str:
    """The id of the span of an attempt."""
    return span_id(task_id, "attempt", attempt)
