"""A failure as record and log tell it, and what still answers while a worker is dead or wedged."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import pytest

from tests.e2e.conftest import until
from tests.faults.conftest import REHEARSALS

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
WORDLESS = ["queue.Empty", "BrokenPipeError", "TimeoutError", "MemoryError", "EOFError", "ValueError", "RuntimeError"]
ANSWER_S = 5.0
"""Far below what a worker is given before it is found wedged; a loaded test machine is slow."""


def test_a_failure_without_words_is_shown_with_words_in_the_record_and_the_log(rehearse, portrait, speech):  # R0.1
    service = rehearse()
    audio = speech(0.5)
    tasks = {
        kind: service.post(portrait, audio, options={"fault": "raise", "exception": kind})["id"] for kind in WORDLESS
    }
    for kind, task_id in tasks.items():
        task = service.until_ended(task_id)
        assert task["status"] == "FAILED", kind
        told = [task["error"], *(attempt["error"] for attempt in task["attempts"])]
        told += service.until_logged("attempt_ended", task_id)
        told += service.until_logged("retry_scheduled", task_id, len(task["attempts"]) - 1)
        assert len(told) == 1 + 2 * len(task["attempts"])
        for failure in told:
            assert failure["code"]
            assert len(failure["message"].strip()) > 15, (kind, failure)
            assert len(failure["hint"].strip()) > 15, (kind, failure)


def test_every_retry_is_logged_and_recorded_with_all_that_a_search_begins_with(rehearse, portrait, speech):
    """R0.2, R0.9, R3.10."""
    service = rehearse()
    service.http.headers["traceparent"] = f"00-{TRACE}-00f067aa0ba902b7-01"
    task_id = service.post(portrait, speech(0.5), options={"fault": "raise", "exception": "EOFError"})["id"]
    task = service.until_ended(task_id)
    assert task["status"] == "FAILED"
    attempts = task["attempts"]
    assert [attempt["error"]["code"] for attempt in attempts] == ["UPSTREAM_CONNECTION"] * 4
    assert {attempt["tier"] for attempt in attempts} == {"rehearsal"}
    retries = service.until_logged("retry_scheduled", task_id, 3)
    [last] = service.until_logged("attempt_ended", task_id)
    assert [retry["attempt"] for retry in retries] == [1, 2, 3]
    assert [retry["backoff_ms"] for retry in retries] == [attempt["backoff_ms"] for attempt in attempts[:3]]
    assert all(25 <= retry["backoff_ms"] <= 50 for retry in retries)  # the cap of these services is 50 ms
    assert (last["attempt"], last["backoff_ms"], attempts[3]["backoff_ms"]) == (4, None, None)
    for n, line in enumerate([*retries, last], 1):
        assert line["reason"].startswith("UPSTREAM_CONNECTION" if n < 4 else ("UPSTREAM_CONNECTION", "all 3 retries"))
        assert (line["trace_id"], line["tier"], line["slot"]) == (TRACE, "rehearsal", "cpu-0")
        assert line["elapsed_s"] > 0
        assert Path(line["source_path"]).is_file()
        assert Path(line["audio_path"]).is_file()
        assert line["output_path"].endswith(f"{task_id}-{n}")


@pytest.mark.parametrize("number", [signal.SIGSTOP, signal.SIGKILL], ids=["wedged", "dead"])
def test_a_broken_worker_takes_neither_api_nor_status_nor_metrics_down(serve, portrait, speech, number):  # R3.1
    service = serve(**REHEARSALS, GREENROOM_HEALTH_INTERVAL_S="60", GREENROOM_SPARES="0")
    task_id = service.post(portrait, speech(0.5), options={"frame_s": 1.0})["id"]
    service.until_rendering(task_id)
    os.kill(service.slot_pid(), number)
    asked = {"/health/live": {200}, "/health/ready": {200, 503}, f"/tasks/{task_id}": {200}, "/tasks": {200},
             "/queue": {200}, "/metrics": {200}}  # fmt: skip
    for _ in range(3):
        for path, statuses in asked.items():
            began = time.monotonic()
            answer = service.http.get(path)
            assert answer.status_code in statuses, path
            assert time.monotonic() - began < ANSWER_S, path
    waiting = service.post(portrait, speech(0.5))
    assert waiting["status"] == "QUEUED"
    if number is signal.SIGSTOP:
        assert service.task(task_id)["status"] == "RUNNING"
        assert service.http.post(f"/tasks/{task_id}/cancel").status_code == 202
        assert service.until_ended(task_id)["status"] == "CANCELLED"
    until(lambda: service.task(waiting["id"])["status"] == "SUCCEEDED", "the next task to be served")
