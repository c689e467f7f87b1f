"""The task resource as a pure function of its record."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.api.ports import LiveProgress
from app.api.resource import rfc3339, task_resource
from app.api.why_waiting import Holds, Wait, waiting
from app.forecast.outlook import Outlook, foresee
from app.store.records import Artifact, AttemptRecord, InputRef, TaskRecord
from app.tasks.status import Status

NOW = 1_800_000_000.0
INPUT = InputRef("upload:x", "0" * 64, 1, "x")
TASK = TaskRecord(
    id="task_1", status=Status.QUEUED, priority=5, source=INPUT, audio=INPUT, renderer=None, fallback="any",
    route=("warp",), options={},
    metadata={}, client="", trace_id="", created_at=NOW, enqueued_at=NOW, not_before=None, start_deadline_at=None,
    deadline_at=None, started_at=None, finished_at=None, attempt=0, retries=0, retry_at=None, retry_reason=None,
    cancel_requested_at=None, error=None, output=None, served_by=None, degraded=False, quality=None, lease_owner=None,
    lease_expires_at=None, last_event_id=1,
)  # fmt: skip
OUTPUT = Artifact("results/x.mp4", "1" * 64, 10, 1.0, 64, 48, 25.0, 25)


@pytest.mark.parametrize(
    ("changes", "reason", "seconds"),
    [
        ({}, "slot", 2),
        ({"not_before": NOW + 30}, "scheduled", 30),
        ({"not_before": NOW + 1e9}, "scheduled", 3600),
        ({"not_before": NOW - 30}, "slot", 2),
        ({"status": Status.RUNNING}, None, 2),
        ({"status": Status.RUNNING, "cancel_requested_at": NOW}, "cancelling", 1),
        ({"status": Status.RETRY_WAIT, "retry_at": NOW + 7.2}, "retry_backoff", 8),
        ({"status": Status.RETRY_WAIT, "retry_at": NOW - 1}, "slot", 2),
        ({"enqueued_at": NOW - 300}, "slot", 30),
        ({"status": Status.REVIEW}, "review", 2),
    ],
)
def test_why_it_waits_and_when_to_ask_again_before_anything_is_learned(
    changes: dict[str, object], reason: str | None, seconds: int
) -> None:  # R1.6
    task = replace(TASK, **changes)  # type: ignore[arg-type]
    wait = waiting(task, NOW, Holds())
    assert wait.reason == reason
    until_s = None if wait.until is None else wait.until - NOW
    assert foresee(wait.reason, until_s=until_s, age_s=NOW - task.enqueued_at).again_s == seconds


@pytest.mark.parametrize(
    "changes",
    [
        {"status": Status.SUCCEEDED, "output": OUTPUT, "cancel_requested_at": NOW},
        {"status": Status.FAILED, "retry_at": NOW + 9},
        {"status": Status.CANCELLED, "not_before": NOW + 9},
    ],
)
def test_what_has_ended_waits_for_nothing(changes: dict[str, object]) -> None:
    task = replace(TASK, **changes)  # type: ignore[arg-type]
    assert waiting(task, NOW, Holds()) == Wait()
    shown = task_resource(task, now=NOW, outlook=Outlook(wait_s=3.0, eta_s=5.0))
    assert shown.queue_wait_s is None
    assert shown.progress.eta_s in (None, 0.0)


def test_a_waiting_task_tells_when_it_is_expected_to_start_and_to_end() -> None:  # R1.6
    shown = task_resource(TASK, now=NOW, outlook=Outlook(wait_s=3.004, eta_s=5.25))
    assert (shown.queue_wait_s, shown.progress.eta_s) == (3.0, 5.25)
    nobody_knows = task_resource(TASK, now=NOW, outlook=Outlook())
    assert (nobody_knows.queue_wait_s, nobody_knows.progress.eta_s) == (None, None)


@pytest.mark.parametrize(
    ("holds", "reason"),
    [
        (Holds(), "slot"),
        (Holds(no_ready_slot=True), "no_ready_slot"),
        (Holds(paused=True, no_ready_slot=True), "paused"),
        (Holds(draining=True, paused=True, no_ready_slot=True), "draining"),
    ],
)
def test_what_holds_the_queue_is_told_of_those_whose_turn_it_could_be(holds: Holds, reason: str) -> None:  # R0.13
    assert waiting(TASK, NOW, holds) == Wait(reason)
    due = replace(TASK, status=Status.RETRY_WAIT, retry_at=NOW - 1, retry_reason="GPU_OOM")
    assert waiting(due, NOW, holds) == Wait(reason)
    later = replace(due, retry_at=NOW + 4)
    assert waiting(later, NOW, holds) == Wait("retry_backoff", NOW + 4, "GPU_OOM")
    assert waiting(replace(TASK, not_before=NOW + 4), NOW, holds) == Wait("scheduled", NOW + 4)
    assert waiting(replace(TASK, cancel_requested_at=NOW), NOW, holds) == Wait("cancelling")
    for status in (Status.RUNNING, Status.SUCCEEDED, Status.FAILED):
        assert waiting(replace(TASK, status=status), NOW, holds) == Wait()


@given(
    status=st.sampled_from(Status),
    done=st.integers(0, 2**40),
    total=st.integers(0, 2**40),
    eta=st.none() | st.floats(0, 1e9),
)
def test_nobody_sees_the_end_before_the_status(status: Status, done: int, total: int, eta: float | None) -> None:
    task = replace(TASK, status=status, output=OUTPUT if status is Status.SUCCEEDED else None)
    live = LiveProgress("render", done, total, eta)
    shown = task_resource(task, now=NOW, live=live)
    fraction = shown.progress.fraction
    assert (fraction == 1.0) == (status is Status.SUCCEEDED)
    assert fraction is None or 0 <= fraction <= 1
    assert (shown.output is not None) == (status is Status.SUCCEEDED)


@given(now=st.floats(NOW, NOW + 1e8), position=st.none() | st.integers(0, 10))
def test_a_terminal_task_is_the_same_whenever_it_is_asked_for(now: float, position: int | None) -> None:
    task = replace(TASK, status=Status.FAILED, error={"code": "GPU_OOM"}, not_before=NOW + 1e7)
    assert task_resource(task, now=now, queue_position=position) == task_resource(task, now=NOW)


@pytest.mark.parametrize("error", [{}, {"code": ""}, {"code": "FROM_THE_FUTURE"}, {"code": "INTERNAL", "message": " "}])
def test_an_error_always_has_words(error: dict[str, str]) -> None:
    attempt = AttemptRecord(1, "warp", "cpu0", "cpu", NOW, NOW, "failed", error or {"code": ""})
    shown = task_resource(replace(TASK, status=Status.FAILED, error=error or {"x": 1}, attempts=(attempt,)), now=NOW)
    assert shown.error is not None
    assert shown.attempts is not None
    for told in (shown.error, shown.attempts[0].error):
        assert told is not None
        assert told.code
        assert told.message.strip()
        assert told.hint.strip()


def test_times_are_utc_with_milliseconds() -> None:
    assert rfc3339(NOW + 0.25) == "2027-01-15T08:00:00.250Z"
