"""Figures over windows: counted from events, the same as the rows, rebuilt after a restart."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.store.interface import Store
from app.store.records import EventRecord
from app.store.sql import open_store
from app.tasks.status import Status
from app.telemetry.sketch import ACCURACY, LEAST, Sketch
from app.telemetry.statistics import SLICE_S, Statistics, Window
from tests.database import empty_database
from tests.store.kit import ERROR, Clock, create, must_claim, must_get, succeed

FACELESS = ERROR | {"code": "INPUT_NO_FACE"}


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def store(tmp_path: Path, clock: Clock) -> Iterator[Store]:
    opened = open_store(empty_database(tmp_path / "greenroom.db"), clock)
    yield opened
    opened.close()


@pytest.fixture
def counting(store: Store, clock: Clock) -> Statistics:
    statistics = Statistics(clock)
    store.subscribe(statistics.count_events)
    return statistics


def settled(store: Store) -> None:
    """Wait until the listeners heard of every commit: they run before the writer's next one."""
    store.ping()


def run_a_batch(store: Store, clock: Clock) -> list[str]:
    """Every way in which an attempt and a task can end; the ids of the tasks."""
    ids = [create(store).id for _ in range(8)]
    clock.advance(1)
    for number in range(3):
        held = must_claim(store)
        clock.advance(10 + number)
        succeed(store, held)
    held = must_claim(store)
    clock.advance(2)
    store.end_attempt(held, "retry", error=ERROR, retry_at=clock.now + 1000, backoff_ms=1_000_000)
    held = must_claim(store)
    clock.advance(3)
    store.end_attempt(held, "fail", error=FACELESS)
    held = must_claim(store)
    clock.advance(4)
    store.end_attempt(held, "requeue", error=ERROR)
    held = must_claim(store)
    store.cancel(held.task.id)
    store.end_attempt(held, "cancel", error=ERROR)
    held = store.claim("node-1", lease_s=1, tier="still", slot="cuda-0", device="cuda:0")
    clock.advance(5)
    assert store.rescue_expired()
    assert held is not None
    store.cancel(held.task.id)
    return ids


def counted_in_rows(store: Store, ids: list[str]) -> tuple[Counter[str], Counter[str]]:
    tasks = [must_get(store, task_id) for task_id in ids]
    outcomes = Counter(attempt.outcome for task in tasks for attempt in task.attempts if attempt.outcome)
    return outcomes, Counter(task.status.value for task in tasks if task.status.is_terminal)


@pytest.mark.parametrize("window", list(Window))
def test_the_figures_are_those_of_the_rows(  # R0.12
    window: Window, store: Store, clock: Clock, counting: Statistics
) -> None:
    ids = run_a_batch(store, clock)
    settled(store)
    figures = counting.of(None, window)
    outcomes, statuses = counted_in_rows(store, ids)
    assert figures.attempts == outcomes == {"succeeded": 3, "failed": 2, "interrupted": 2, "cancelled": 1}
    assert figures.tasks == statuses == {"SUCCEEDED": 3, "FAILED": 1, "CANCELLED": 2}
    assert figures.failures == {"WORKER_CRASHED": 1, "INPUT_NO_FACE": 1}
    assert figures.success_rate == 3 / 5
    assert (figures.service_success_rate, figures.judged) == (3 / 4, 4)
    assert figures.slot_s == 10 + 11 + 12 + 2 + 3 + 4 + 5
    assert figures.gpu_s == 5
    assert (figures.attempt_s.count, figures.attempt_s.mean, figures.attempt_s.max) == (3, 11, 12)
    assert figures.task_s.max == 1 + 10 + 11 + 12
    assert figures.queue_s.count == 6


def test_a_tier_has_figures_of_its_own(store: Store, clock: Clock, counting: Statistics) -> None:  # R0.12
    run_a_batch(store, clock)
    settled(store)
    assert counting.tiers() == ["still", "warp"]
    still, warp = (counting.of(tier, Window.HOUR) for tier in counting.tiers())
    assert (still.attempts, still.gpu_s, still.success_rate) == ({"interrupted": 1}, 5, None)
    assert warp.attempts == {"succeeded": 3, "failed": 2, "interrupted": 1, "cancelled": 1}
    assert counting.of("unheard of", Window.HOUR).attempts == {}


def test_a_window_forgets_what_lies_before_it(store: Store, clock: Clock, counting: Statistics) -> None:
    create(store)
    succeed(store, must_claim(store))
    settled(store)

    def succeeded() -> list[int]:
        return [counting.of(None, window).attempts.get("succeeded", 0) for window in Window]

    assert succeeded() == [1, 1, 1, 1]
    clock.advance(70)
    assert succeeded() == [0, 1, 1, 1]
    clock.advance(300)
    assert succeeded() == [0, 0, 1, 1]
    clock.advance(3600)
    assert succeeded() == [0, 0, 0, 1]


def test_a_restart_keeps_the_windows_and_begins_the_rest_anew(  # R0.12
    store: Store, clock: Clock, counting: Statistics
) -> None:
    run_a_batch(store, clock)
    settled(store)
    restarted = Statistics(clock)
    restarted.rebuild(store, "node-1")
    for window in (Window.MINUTE, Window.FIVE_MINUTES, Window.HOUR):
        for tier in (None, "warp", "still"):
            before, after = counting.of(tier, window), restarted.of(tier, window)
            assert (after.attempts, after.tasks, after.failures) == (before.attempts, before.tasks, before.failures)
            assert after.slot_s == pytest.approx(before.slot_s)
            assert (after.attempt_s, after.task_s.p99, after.queue_s.p50) == (
                before.attempt_s, before.task_s.p99, before.queue_s.p50,
            )  # fmt: skip
    assert restarted.of(None, Window.START).attempts == {}


def test_a_restart_counts_what_this_node_did_and_no_other(store: Store, clock: Clock) -> None:
    for owner in ("node-1", "node-2"):
        create(store)
        succeed(store, must_claim(store, owner))
    statistics = Statistics(clock)
    statistics.rebuild(store, "node-2")
    figures = statistics.of(None, Window.HOUR)
    assert (figures.attempts, figures.tasks) == ({"succeeded": 1}, {"SUCCEEDED": 1})


def test_memory_does_not_grow_with_time_nor_with_load(clock: Clock) -> None:
    statistics = Statistics(clock)
    tally = EventRecord(1, "t", "task.succeeded", Status.SUCCEEDED, 1, 0.0, {
        "attempt_ended": {"tier": "warp", "device": "cpu", "outcome": "succeeded", "code": None, "started_at": 0.0},
        "enqueued_at": 0.0, "started_at": 0.0,
    })  # fmt: skip
    for _ in range(1500):
        clock.advance(5)
        told = tally.data["attempt_ended"] | {"started_at": clock.now - random.uniform(1, 100)}
        data = tally.data | {"attempt_ended": told, "enqueued_at": clock.now - 5, "started_at": clock.now - 1}
        statistics.count_events([replace(tally, at=clock.now, data=data)])
    assert len(statistics._slices) <= 3600 / SLICE_S + 1
    assert statistics.of(None, Window.START).attempts == {"succeeded": 1500}


@given(st.lists(st.floats(0, 1e5), min_size=1, max_size=300), st.floats(0, 1))
def test_a_quantile_is_within_its_accuracy(values: list[float], share: float) -> None:
    one, other = Sketch(), Sketch()
    for index, value in enumerate(values):
        (one if index % 2 else other).add(value)
    one.merge(other)
    exact = max(sorted(values)[int(share * (len(values) - 1))], LEAST)
    [found] = one.quantiles([share])
    assert abs(found - exact) <= exact * ACCURACY * 1.001
    assert one.count == len(values)


def test_an_empty_sketch_has_no_quantiles() -> None:
    with pytest.raises(ValueError, match="no quantiles"):
        Sketch().quantiles([0.5])
