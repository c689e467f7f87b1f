"""What a slot's process writes, as the service's log has it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
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


@pytest.mark.parametrize(
    "line",
    [
        '{"event": "x", "self": 1}',
        '{"event": "x", "level": ["info"]}',
        '{"event": "x", "level": {}}',
        '{"event": "x", "method_name": 1, "exc_info": true}',
        "[" * 100_000,
        "9" * 10_000,
        "\ud800",
    ],
)
def test_no_line_of_a_process_is_too_strange_to_be_told(line) -> None:
    with structlog.testing.capture_logs() as lines:
        relay_worker_line("cpu-0", line, ABOUT)
    assert len(lines) == 1
    assert lines[0]["slot"] == "cpu-0"


def test_a_log_that_cannot_be_written_costs_lines_and_no_work() -> None:
    """A full disk under the log must not end the thread that had something to say."""
    text = """
import structlog
from app.telemetry.logs import configure_logging
configure_logging("json")
for number in range(10_000):
    structlog.get_logger().info("line", number=number)
print("worked")
"""
    with Path("/dev/full").open("w") as full:
        done = subprocess.run([sys.executable, "-c", text], stdout=subprocess.PIPE, stderr=full, check=False, text=True)
    assert done.stdout == "worked\n"
