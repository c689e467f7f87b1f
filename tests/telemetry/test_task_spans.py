"""What the committed events of a task become as spans."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from app.store.interface import Store
from app.store.records import Release, TaskRecord, Verdict
from app.store.sql import open_store
from app.tasks.trace import TraceContext, span_id
from app.telemetry.task_spans import TaskSpans
from app.telemetry.tracing import Span, attempt_span, task_span
from tests.database import empty_database
from tests.store.kit import ARTIFACT, ERROR, START, Clock, blob, create, must_claim, run, succeed

REQUEST = TraceContext("ab" * 16, "cd" * 8)


class Recorder:
    """Keeps what it is given."""

    on = True

    def __init__(self) -> None:
        self.spans: list[Span] = []

    def begin(self, caller: TraceContext | None) -> TraceContext:
        raise AssertionError("nobody asks")

    def below(self, context: TraceContext, *of: object) -> TraceContext:
        return context.at(span_id(*of))

    def record(self, span: Span) -> None:
        self.spans.append(span)

    def close(self) -> None:
        """Nothing to do."""


class Told:
    """A store and the spans of what was committed to it."""

    def __init__(self, store: Store, clock: Clock) -> None:
        self.store, self.clock = store, clock
        self.recorder = Recorder()
        self._spans = TaskSpans(store, self.recorder)
        self._spans.start()

    def create(self, **changes: Any) -> TaskRecord:
        return create(self.store, **({"trace": REQUEST} | changes))

    def spans(self) -> list[tuple[str, float, float, bool]]:
        """All spans so far: name, begin and end since START, whether it failed. Nothing is told afterwards."""
        self.store.set_paused(False)  # A writer is answered before the listeners hear of it; a later write comes after.
        self._spans.stop()
        return [(s.name, s.began - START, s.ended - START, s.error is not None) for s in self.recorder.spans]

    def last(self) -> Span:
        return self.recorder.spans[-1]


@pytest.fixture
def told(tmp_path: Path) -> Iterator[Told]:
    clock = Clock()
    store = open_store(empty_database(tmp_path / "greenroom.db"), clock)
    yield Told(store, clock)
    store.close()


def test_waits_attempts_and_the_whole_have_their_times_and_places(told: Told) -> None:
    task = told.create()
    told.clock.advance(2)
    held = must_claim(told.store)
    told.clock.advance(3)
    told.store.end_attempt(held, "retry", error=ERROR, retry_at=START + 9, backoff_ms=4000)
    told.clock.advance(5)
    held = must_claim(told.store)
    told.clock.advance(1)
    succeed(told.store, held)
    assert told.spans() == [
        ("queue", 0, 2, False),
        ("attempt", 2, 5, True),
        ("queue", 5, 10, False),
        ("attempt", 10, 11, False),
        ("task", 0, 11, False),
    ]
    spans = told.recorder.spans
    assert {span.context.trace_id for span in spans} == {REQUEST.trace_id}
    assert {span.parent_id for span in spans[:-1]} == {task_span(task.id)}
    assert (spans[-1].context.span_id, spans[-1].parent_id) == (task_span(task.id), REQUEST.span_id)
    assert [s.context.span_id for s in spans if s.name == "attempt"] == [attempt_span(task.id, n) for n in (1, 2)]
    assert spans[1].error == "WORKER_CRASHED: It died."
    assert spans[1].attributes["greenroom.backoff_ms"] == 4000
    assert spans[-1].attributes["greenroom.tier"] == "warp"


def test_a_task_that_ends_waiting_has_a_wait_and_no_attempt(told: Told) -> None:
    told.create(start_deadline_at=START + 5)
    told.clock.advance(6)
    told.store.expire_waiting()
    assert told.spans() == [("queue", 0, 6, False), ("task", 0, 6, True)]
    assert told.last().attributes["error.type"] == "DEADLINE_EXCEEDED"


def test_a_scheduled_task_waits_from_its_time_on(told: Told) -> None:
    told.create(not_before=START + 60)
    told.clock.advance(61)
    must_claim(told.store)
    assert told.spans() == [("queue", 60, 61, False)]


def test_one_that_is_cancelled_before_its_time_has_not_waited(told: Told) -> None:
    task = told.create(not_before=START + 60)
    told.clock.advance(1)
    told.store.cancel(task.id)
    assert told.spans() == [("task", 0, 1, False)]
    assert told.last().attributes["greenroom.status"] == "CANCELLED"


def test_waiting_for_others_is_no_waiting_in_the_queue(told: Told) -> None:
    first = told.create(trace=None)
    after = {"after": (first.id,), "waits_for": (first.id,)}
    second = told.create(**after)
    told.clock.advance(5)
    succeed(told.store, must_claim(told.store))
    assert run(told.store.arelease(second.id, Release(blob("result.mp4"), blob("voice.wav"), ("warp",)))) is not None
    told.clock.advance(2)
    must_claim(told.store)
    assert told.spans() == [("predecessors", 0, 5, False), ("queue", 5, 7, False)]


def test_a_task_whose_predecessor_fails_has_never_been_in_the_queue(told: Told) -> None:
    first = told.create(trace=None)
    told.create(after=(first.id,), waits_for=(first.id,))
    told.clock.advance(5)
    told.store.cancel(first.id)
    run(told.store.abreak_chains())
    assert told.spans() == [("predecessors", 0, 5, False), ("task", 0, 5, True)]
    assert told.last().attributes["error.type"] == "PREDECESSOR_FAILED"


def test_a_review_is_a_span_of_its_own(told: Told) -> None:
    task = told.create()
    held = must_claim(told.store)
    told.clock.advance(1)
    told.store.put_up_for_review(held, ARTIFACT, error=ERROR, served_by="warp", quality={"confidence": 0.1})
    told.clock.advance(100)
    run(told.store.aapprove(task.id, Verdict("anna")))
    assert told.spans() == [
        ("queue", 0, 0, False), ("attempt", 0, 1, True), ("review", 1, 101, False), ("task", 0, 101, False),
    ]  # fmt: skip


def test_the_attempt_of_a_node_that_died_is_told_by_who_takes_its_task_back(told: Told) -> None:
    task = told.create()
    must_claim(told.store, lease_s=10)
    told.clock.advance(11)
    told.store.rescue_expired()
    assert told.spans() == [("queue", 0, 0, False), ("attempt", 0, 11, True)]
    assert told.last().context == TraceContext(REQUEST.trace_id, attempt_span(task.id, 1))
    assert told.last().attributes["error.type"] == "INTERRUPTED"


@pytest.mark.parametrize("trace", [None, TraceContext("ab" * 16, "cd" * 8, sampled=False)])
def test_what_is_not_recorded_is_not_told(told: Told, trace: TraceContext | None) -> None:
    told.create(trace=trace)
    succeed(told.store, must_claim(told.store))
    assert told.spans() == []
