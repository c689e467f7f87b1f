"""What a slot's process writes, as the service's log has it."""

from __future__ import annotations

import structlog

from app.telemetry.logs import relay_worker_line

ABOUT = {"task_id": "task_1", "attempt": 2, "trace_id": "ab" * 16}


def test_a_bare_line_says_what_ran_there() -> None:
    with structlog.testing.capture_logs() as lines:
        relay_worker_line("cpu-0", "CUDA warning: something", ABOUT)
    [line] = lines
    assert line == {**ABOUT, "slot": "cpu-0", "line": "CUDA warning: something", "event": "worker_output",
                    "log_level": "info"}  # fmt: skip


def test_a_line_that_says_itself_whose_it_is_is_believed() -> None:
    with structlog.testing.capture_logs() as lines:
        relay_worker_line("cpu-0", '{"event": "slow", "level": "warning", "task_id": "task_0"}', ABOUT)
    assert (lines[0]["task_id"], lines[0]["slot"], lines[0]["log_level"]) == ("task_0", "cpu-0", "warning")


def test_a_slot_without_a_task_speaks_for_itself() -> None:
    with structlog.testing.capture_logs() as lines:
        relay_worker_line("cpu-0", "ready", {})
    assert lines == [{"slot": "cpu-0", "line": "ready", "event": "worker_output", "log_level": "info"}]
