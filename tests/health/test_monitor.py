"""The monitor thread: what it sees on the clocks, what it says, and that its mistakes can be counted."""

from __future__ import annotations

import itertools
import queue
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import pytest
import structlog

from app.health.clocks import Limits, Look
from app.health.monitor import Monitor
from app.retry.taxonomy import Failure, FailureCode
from app.store.sql import open_store
from app.telemetry.metrics import Metrics
from tests.database import empty_database
from tests.store.kit import must_claim, new_task

C = FailureCode
INTERVAL_S = 0.005
WAIT_S = 30.0
FRESH = Look(at=0.0, beats=0, moves=0, phase="render", done=0, total=100)


class Attempt:
    """The attempt as its monitor sees it: each check takes the next look, and waits until the test gives one."""

    def __init__(self) -> None:
        self.now = FRESH
        self.looks: queue.Queue[Look] = queue.Queue()
        self.looks.put(FRESH)
        self.verdicts: queue.Queue[C] = queue.Queue()
        self.renewed: queue.Queue[int] = queue.Queue()
        self.over = False

    def look(self) -> Look:
        return self.now if self.over else self.looks.get(timeout=WAIT_S)

    def shows(self, **changes: Any) -> None:
        """One more check sees what the last one saw, but for `changes`, 5 s later."""
        self.now = replace(self.now, at=self.now.at + 5.0, **changes)
        self.looks.put(self.now)


class Counted:
    """The counters that a monitor moves."""

    def __init__(self) -> None:
        self.metrics = Metrics()
        self.metrics.workers.expect_slots(["cpu-0"])

    def __call__(self, name: str, **labels: str) -> float:
        labels = {"slot": "cpu-0", **labels}
        value = self.metrics.registry.get_sample_value(f"greenroom_health_{name}_total", labels)
        assert value is not None, "shown from the start"
        return value


@pytest.fixture
def attempt() -> Attempt:
    return Attempt()


@pytest.fixture
def counted() -> Counted:
    return Counted()


@pytest.fixture
def watch(attempt: Attempt, counted: Counted) -> Iterator[Callable[..., Monitor]]:
    """Starts the attempt's monitor, with an observer that is the real telemetry."""
    made: list[Monitor] = []

    def start(deadline: float | None = None) -> Monitor:
        monitor = Monitor(
            name="cpu-0",
            look=attempt.look,
            renew=lambda: attempt.renewed.put(1),
            verdict=lambda failure: attempt.verdicts.put(failure.code),
            observer=counted.metrics.workers,
            limits=Limits(3, {"render": 60.0}),
            interval_s=INTERVAL_S,
            deadline=deadline,
        )
        made.append(monitor)
        monitor.start()
        return monitor

    yield start
    attempt.over = True
    attempt.looks.put(attempt.now)  # for a check that waits just now
    for monitor in made:
        monitor.stop()


def test_two_failed_checks_and_a_good_one_are_counted_as_an_alarm_that_came_to_nothing(attempt, counted, watch):  # R0.5
    watch()
    attempt.shows()
    attempt.shows()
    attempt.shows(beats=1, moves=1)
    attempt.renewed.get(timeout=WAIT_S)
    assert counted("checks") == 3
    assert counted("strikes", clock="heartbeat") == 2
    assert counted("recoveries") == 1
    assert attempt.verdicts.empty()
    assert counted("verdicts", code="WORKER_UNRESPONSIVE") == 0


def test_a_check_takes_far_less_than_a_twentieth_of_its_interval(tmp_path, counted):  # R0.11
    """With a real store, whose lease every check renews. `make bench-monitoring` measures what it costs a render."""
    checks = 60
    store = open_store(empty_database(tmp_path / "greenroom.db"))
    store.create(new_task())
    claim = must_claim(store)
    beats = itertools.count(1)
    renewed = threading.Semaphore(0)

    def renew() -> None:
        store.renew(claim, lease_s=30.0)
        renewed.release()

    monitor = Monitor(
        name="cpu-0",
        look=lambda: replace(FRESH, at=time.monotonic(), beats=(beat := next(beats)), moves=beat),
        renew=renew,
        verdict=lambda failure: pytest.fail(failure.message),
        observer=counted.metrics.workers,
        limits=Limits(3, {"render": 60.0}),
        interval_s=INTERVAL_S,
        deadline=None,
    )
    before = time.process_time()
    monitor.start()
    try:
        for _ in range(checks):
            assert renewed.acquire(timeout=WAIT_S)
        spent = time.process_time() - before
    finally:
        monitor.stop()
        store.close()
    assert spent / checks < 0.05 * 5.0


def test_the_lease_is_not_renewed_while_checks_fail(attempt, counted, watch):
    monitor = watch()
    attempt.shows(beats=1, moves=1)
    attempt.renewed.get(timeout=WAIT_S)
    for _ in range(3):
        attempt.shows()
    assert attempt.verdicts.get(timeout=WAIT_S) == C.WORKER_UNRESPONSIVE
    attempt.shows()
    monitor.stop()
    assert attempt.renewed.empty()


def test_a_process_that_stays_silent_after_the_verdict_is_no_false_alarm(attempt, counted, watch):
    monitor = watch()
    for _ in range(3):
        attempt.shows()
    assert attempt.verdicts.get(timeout=WAIT_S) == C.WORKER_UNRESPONSIVE
    attempt.shows(moves=7)  # another clock than the accused one
    monitor.stop()
    assert counted("strikes", clock="heartbeat") == 3
    assert counted("verdicts", code="WORKER_UNRESPONSIVE") == 1
    assert counted("verdicts_refuted", code="WORKER_UNRESPONSIVE") == 0


def test_a_process_that_beats_after_it_was_found_unresponsive_refutes_the_verdict(attempt, counted, watch):  # R3.14
    monitor = watch()
    for _ in range(3):
        attempt.shows()
    attempt.verdicts.get(timeout=WAIT_S)
    attempt.shows(beats=1)
    monitor.stop()
    assert counted("verdicts_refuted", code="WORKER_UNRESPONSIVE") == 1


def test_work_that_moves_after_it_was_found_stalled_refutes_the_verdict(attempt, counted, watch):  # R3.14
    monitor = watch()
    for beat in range(1, 14):
        attempt.shows(beats=beat)
    assert attempt.verdicts.get(timeout=WAIT_S) == C.WORKER_STALLED
    attempt.shows(moves=1)
    monitor.stop()
    assert counted("strikes", clock="progress") == 1
    assert counted("strikes", clock="heartbeat") == 0
    assert counted("verdicts", code="WORKER_STALLED") == 1
    assert counted("verdicts_refuted", code="WORKER_STALLED") == 1


def test_a_deadline_is_a_verdict_that_no_clock_can_refute(attempt, counted, watch):  # R0.6
    watch(deadline=0.0)
    assert attempt.verdicts.get(timeout=WAIT_S) == C.DEADLINE_EXCEEDED
    assert counted("verdicts", code="DEADLINE_EXCEEDED") == 1
    assert counted("checks") == 0


def test_its_lines_in_the_log_say_whose_attempt_it_watches(attempt, watch):
    with structlog.testing.capture_logs([structlog.contextvars.merge_contextvars]) as lines:
        with structlog.contextvars.bound_contextvars(task_id="task_1", trace_id="ab" * 16):
            watch()
        attempt.shows()
        attempt.shows(beats=1, moves=1)
        attempt.renewed.get(timeout=WAIT_S)
    assert [line["event"] for line in lines] == ["health_strike", "health_recovered"]
    assert {(line["task_id"], line["trace_id"]) for line in lines} == {("task_1", "ab" * 16)}


def test_a_monitor_that_fails_ends_the_attempt_and_says_why(attempt, counted):
    """Unwatched, an attempt that hangs would hang for ever."""
    told: queue.Queue[Failure] = queue.Queue()
    looks = iter([FRESH])  # the second look finds nothing: StopIteration
    monitor = Monitor(
        name="cpu-0",
        look=lambda: next(looks),
        renew=lambda: None,
        verdict=told.put,
        observer=counted.metrics.workers,
        limits=Limits(3, {"render": 60.0}),
        interval_s=INTERVAL_S,
        deadline=None,
    )
    monitor.start()
    failure = told.get(timeout=WAIT_S)
    assert failure.code is C.INTERNAL
    assert "StopIteration" in failure.message
    monitor.stop()
