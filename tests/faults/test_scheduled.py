"""Scheduled tasks start on time and once, and those that fell due while the service was dead start as it is back."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from tests.e2e.conftest import Service, until
from tests.faults.conftest import assert_nothing_is_left

NO_OP = {"fps": 1, "size": 16, "reuse": True}
TASKS = 60
STEP_S = 0.15
"""Between two due moments: a slot needs milliseconds for such a task."""
LATE = 10
"""So many are due only `LATE_S` after the others: after the restart, however slow it is."""
LATE_S = 14.0
LAG_S = 1.0
LEAD_S = 5.0
"""From the first request to the first due moment, at least."""


def moment(stamp: str) -> float:
    return datetime.fromisoformat(stamp).timestamp()


def schedule(service: Service, portrait: Path, audio: Path, late_s: float = 0.0) -> dict[str, float]:
    """Queue `TASKS` tasks, due when all of them are there, the last ones `late_s` later; when each is, by id."""
    began, refs = time.time(), {}
    for name, path in (("source", portrait), ("audio", audio)):
        answer = service.http.post("/uploads", params={"name": path.name}, content=path.read_bytes())
        refs[name] = f"upload:{answer.raise_for_status().json()['id']}"
    # On a busy machine a request may take a hundred times as long: the uploads tell.
    asked = time.time()
    first, due = asked + max(LEAD_S, (asked - began) * TASKS), {}
    for number in range(TASKS):
        at = first + number * STEP_S + (late_s if number >= TASKS - LATE else 0.0)
        body = {**refs, "options": NO_OP, "not_before": datetime.fromtimestamp(at, UTC).isoformat()}
        answer = service.http.post("/generate", json=body)
        assert answer.status_code == 202, answer.text
        due[answer.json()["id"]] = at
    assert time.time() < first, "all were accepted before the first was due"
    return due


def succeeded(service: Service) -> int:
    return int(service.http.get("/queue").json()["by_status"]["SUCCEEDED"])


def assert_once_each(tasks: list[dict[str, Any]]) -> None:
    assert {task["status"] for task in tasks} == {"SUCCEEDED"}
    assert all(sum(attempt["outcome"] == "succeeded" for attempt in task["attempts"]) == 1 for task in tasks)


def test_scheduled_tasks_start_on_time_and_once(  # R3.8
    rehearse: Callable[..., Service], portrait: Path, speech: Callable[[float], Path]
) -> None:
    service = rehearse(GREENROOM_SLOTS="2").until_ready()
    due = schedule(service, portrait, speech(0.5))
    tasks = [service.until_ended(task_id) for task_id in due]
    assert_once_each(tasks)
    assert all(len(task["attempts"]) == 1 for task in tasks)
    lags = [moment(task["attempts"][0]["started_at"]) - due[task["id"]] for task in tasks]
    assert min(lags) > -0.001, "none before its time; the API tells milliseconds"
    assert np.percentile(lags, 99) < LAG_S


def test_those_that_fell_due_while_the_service_was_dead_start_as_it_is_back(  # R3.8
    rehearse: Callable[..., Service], portrait: Path, speech: Callable[[float], Path]
) -> None:
    service = rehearse(GREENROOM_SLOTS="2").until_ready()
    due = schedule(service, portrait, speech(0.5), LATE_S)
    until(lambda: succeeded(service) >= TASKS // 4, "a quarter of them")
    service.stop(signal.SIGKILL)
    killed = time.time()
    until(lambda: sum(killed < at < time.time() for at in due.values()) >= 10, "ten to fall due meanwhile")
    service = rehearse(GREENROOM_SLOTS="2").until_ready()
    back = time.time()
    tasks = [service.until_ended(task_id) for task_id in due]
    assert_once_each(tasks)
    started = {task["id"]: moment(task["attempts"][-1]["started_at"]) for task in tasks}
    overdue = [started[task] - back for task, at in due.items() if killed < at <= back]
    assert len(overdue) >= 10
    assert min(overdue) < LAG_S, "the first of them at once"
    assert max(overdue) < LAG_S + len(overdue) * STEP_S, "the others after it, no slower than they fell due"
    later = [started[task] - at for task, at in due.items() if at > back]
    assert len(later) >= LATE
    assert np.percentile(later, 99) < LAG_S
    assert min(later) > -0.001
    assert service.stop() == 0
    assert_nothing_is_left(service, results=TASKS)
