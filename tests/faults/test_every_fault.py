"""Every fault in every phase, with real processes: the task still ends rightly, its record is true, nothing is left.

All rehearsals of this file are queued at once on one node with several slots, as a bad day would bring them; each
test then looks at one of them. `pytest tests/faults --whole` crosses every fault with every phase (`make soak` does).
"""

from __future__ import annotations

import hashlib
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
import pytest

from app.health import suspicion
from app.retry.taxonomy import FAILURE_TABLE, FailureCode
from app.store.records import InputRef, NewTask, TaskRecord
from app.store.sql import open_store
from app.tasks.status import Status
from tests.database import empty_database
from tests.faults.conftest import gone
from tests.worker.conftest import Bench, write_tone

C = FailureCode
SLOTS = 5
BOUND_S = 800.0
"""For the whole matrix; each test has its own limit besides."""
FRAMES = 12
"""Half a second of sound at 25 frames/s."""

CUES: dict[str, dict[str, Any]] = {
    "while loading": {"phase": "load"},
    "while fetching": {"phase": "fetch"},
    "while analysing": {"phase": "analyse"},
    "at the first frame": {"frame": 0},
    "in the middle": {"frame": FRAMES // 2},
    "at the last frame": {"frame": FRAMES - 1},
    "while encoding": {"phase": "encode"},
}

FAULTS: dict[str, tuple[dict[str, Any], FailureCode, str]] = {
    # options, the code that it must get, a word of the message
    "an empty queue": ({"fault": "raise", "exception": "queue.Empty"}, C.QUEUE_TIMEOUT, "queue.Empty"),
    "a broken pipe": ({"fault": "raise", "exception": "BrokenPipeError"}, C.UPSTREAM_CONNECTION, "remote"),
    "an end of file": ({"fault": "raise", "exception": "EOFError"}, C.UPSTREAM_CONNECTION, "remote"),
    "an unknown error": ({"fault": "raise", "exception": "ZeroDivisionError"}, C.INTERNAL, "ZeroDivisionError"),
    "the GPU out of memory": ({"fault": "raise", "code": "GPU_OOM"}, C.GPU_OOM, "GPU"),
    "exit 0 without a result": ({"fault": "exit", "exit_code": 0}, C.WORKER_CRASHED, "without a result"),
    "exit 3": ({"fault": "exit", "exit_code": 3}, C.WORKER_CRASHED, "exit code 3"),
    "SIGKILL": ({"fault": "kill"}, C.WORKER_CRASHED, "SIGKILL"),
    "SIGSTOP": ({"fault": "stop"}, C.WORKER_UNRESPONSIVE, "3 checks"),
    "a block that holds the GIL": ({"fault": "block_gil"}, C.WORKER_UNRESPONSIVE, "3 checks"),
    "a block": ({"fault": "block"}, C.WORKER_STALLED, "did not move"),
    "a stall": ({"fault": "stall"}, C.WORKER_STALLED, "did not move"),
    "a false 100 %": ({"fault": "false_done"}, C.INTERNAL, "after 100"),
    "a leak": ({"fault": "leak"}, C.HOST_OOM, "memory"),
    "a full disk": ({"fault": "fill_disk", "megabytes": 2}, C.DISK_FULL, "disk is full"),
    "half a message and death": ({"fault": "half_frame"}, C.WORKER_CRASHED, "SIGKILL"),
    "half a message and silence": ({"fault": "stuck_frame"}, C.WORKER_STALLED, "did not move"),
    "a message of garbage": ({"fault": "garbage_frame"}, C.WORKER_CRASHED, "broken message"),
    "a message without end": ({"fault": "huge_frame"}, C.WORKER_CRASHED, "broken message"),
    "a message of another task": ({"fault": "foreign_frame"}, C.WORKER_CRASHED, "another attempt"),
    "a closed pipe": ({"fault": "hang_up"}, C.WORKER_CRASHED, "closed its pipe"),
    "children and files left behind": ({"fault": "leave_behind"}, C.WORKER_CRASHED, "SIGKILL"),
}

HUNG = (C.WORKER_UNRESPONSIVE, C.WORKER_STALLED)
BROKEN_FILES = ("unplayable", "short", "mute")
POOR_PICTURES = ("black",)
EVERYWHERE = ("SIGKILL", "an unknown error", "a message of garbage", "a full disk")
"""Faults that are tried in every phase each time; the others in one, unless the whole matrix is asked for."""

ALWAYS = (
    "an empty queue",
    "an unknown error",
    "exit 0 without a result",
    "SIGSTOP",
    "a stall",
    "a leak",
    "a full disk",
    "a message of garbage",
    "children and files left behind",
)
"""Faults that come always each time; the others only in the whole matrix: they share a code with one of these."""

Case = tuple[str, str]


def cases(*, whole: bool) -> list[Case]:
    return [
        (fault, cue) for fault in FAULTS for cue in CUES if whole or fault in EVERYWHERE or cue == "in the middle"
    ]  # fmt: skip


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    whole = metafunc.config.getoption("--whole", default=False)
    if "always" in metafunc.fixturenames:
        metafunc.parametrize("always", FAULTS if whole else ALWAYS, ids=lambda word: word.replace(" ", "-"))
    if {"fault", "cue"} <= set(metafunc.fixturenames):
        metafunc.parametrize(("fault", "cue"), cases(whole=whole), ids=lambda word: word.replace(" ", "-"))


def allowed_attempts(code: FailureCode) -> int:
    retries = FAILURE_TABLE[code].retries
    assert retries is not None
    return 1 + min(retries, 3)


@dataclass
class Day:
    """The node on its bad day, and the rehearsals that were queued on it."""

    node: Bench
    audio: InputRef
    tasks: dict[Any, str] = field(default_factory=dict)
    records: dict[Any, TaskRecord] = field(default_factory=dict)
    """Of those that are known to have ended; the day can be over before all tests have looked."""

    def queue(self, name: Any, **options: Any) -> None:
        new = NewTask(
            source=self.audio,
            audio=self.audio,
            renderer="rehearsal",
            fallback="none",
            route=("rehearsal",),
            options=options,
        )
        self.tasks[name] = self.node.store.create(new).task.id

    def ended(self, name: Any) -> TaskRecord:
        if name in self.records:
            return self.records[name]
        end = time.monotonic() + BOUND_S
        while not (task := self.node.task(self.tasks[name])).status.is_terminal:
            assert time.monotonic() < end, f"{name} has not ended: {task.status}, {codes(task)}"
            time.sleep(0.02)
        self.records[name] = task
        return task


def children() -> set[int]:
    """All processes below this one but multiprocessing's own tracker, which lives as long as this one."""
    found = psutil.Process().children(recursive=True)
    return {child.pid for child in found if not any("resource_tracker" in word for word in child.cmdline())}


def codes(task: TaskRecord) -> list[str | None]:
    return [attempt.error["code"] if attempt.error else None for attempt in task.attempts]


def assert_published_once(node: Bench, task: TaskRecord) -> None:
    [file] = (node.folder / "results" / task.id).iterdir()
    assert task.output is not None
    assert file == node.folder / task.output.path
    assert hashlib.sha256(file.read_bytes()).hexdigest() == task.output.sha256
    assert file.stat().st_size == task.output.bytes


def assert_attempts_are_true(task: TaskRecord, code: FailureCode, *, failed: int) -> None:
    """The failed ones first, each with its code; in time order and without overlap."""
    bad, rest = task.attempts[:failed], task.attempts[failed:]
    assert codes(task) == [code] * failed + [None] * len(rest)
    assert [attempt.n for attempt in task.attempts] == list(range(1, len(task.attempts) + 1))
    assert [attempt.outcome for attempt in task.attempts] == ["failed"] * failed + ["succeeded"] * len(rest)
    assert all(attempt.error["message"].strip() and attempt.error["hint"].strip() for attempt in bad)
    for earlier, later in zip(task.attempts, task.attempts[1:], strict=False):
        assert earlier.ended_at <= later.started_at


@pytest.fixture(scope="module")
def before() -> dict[str, Any]:
    return {
        "descriptors": psutil.Process().num_fds(),
        "threads": threading.active_count(),
        "children": children(),
    }


@pytest.fixture(scope="module")
def day(
    before: dict[str, Any], tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest
) -> Iterator[Day]:
    folder: Path = tmp_path_factory.mktemp("day")
    patch = pytest.MonkeyPatch()
    # A device on which two tasks broke rests for seconds; here every task breaks something.
    patch.setattr(suspicion, "FIRST_S", 0.05)
    patch.setattr(suspicion, "LONGEST_S", 0.05)
    store = open_store(empty_database(folder / "greenroom.db"))
    node = Bench(folder, store, slots=SLOTS, health_interval_s=1.2, phase_s=4.0)
    day = Day(node, write_tone(folder))
    # Those that are only found by waiting come first: the others run meanwhile.
    whole = request.config.getoption("--whole", default=False)
    for fault in sorted(FAULTS if whole else ALWAYS, key=lambda fault: FAULTS[fault][1] not in HUNG):
        day.queue((fault, "always"), **FAULTS[fault][0], **CUES["in the middle"])
    for fault, cue in cases(whole=whole):
        day.queue((fault, cue), times=1, **FAULTS[fault][0], **CUES[cue])
    for code in FailureCode:
        if code not in (C.INTERRUPTED, C.CANCELLED):
            day.queue(code, fault="raise", code=code.value)
    for fault in (*BROKEN_FILES, *POOR_PICTURES):
        day.queue(fault, fault=fault, times=1)
    node.start()
    yield day
    node.dispatcher.stop(0)
    store.close()
    patch.undo()


def test_a_fault_that_comes_once_costs_one_attempt(day: Day, fault: str, cue: str) -> None:
    task = day.ended((fault, cue))
    _options, code, word = FAULTS[fault]
    assert task.status is Status.SUCCEEDED, task.error
    assert_attempts_are_true(task, code, failed=1)
    assert word in task.attempts[0].error["message"]
    assert task.retries == 1
    assert_published_once(day.node, task)


def test_a_fault_that_comes_always_fails_the_task_after_its_retries(day: Day, always: str) -> None:  # R0.9
    task = day.ended((always, "always"))
    _options, code, word = FAULTS[always]
    assert task.status is Status.FAILED
    assert_attempts_are_true(task, code, failed=allowed_attempts(code))
    assert task.error["code"] == code
    assert word in task.error["message"]
    assert task.output is None
    assert not (day.node.folder / "results" / task.id).exists()


@pytest.mark.parametrize("code", [code for code in FailureCode if code not in (C.INTERRUPTED, C.CANCELLED)])
def test_a_raised_code_is_tried_as_often_as_its_row_says(day: Day, code: FailureCode) -> None:  # R0.8
    task = day.ended(code)
    assert task.status is Status.FAILED
    assert_attempts_are_true(task, code, failed=allowed_attempts(code))


@pytest.mark.parametrize("broken", BROKEN_FILES)
def test_a_broken_file_is_made_again_and_only_the_good_one_published(day: Day, broken: str) -> None:
    task = day.ended(broken)
    assert task.status is Status.SUCCEEDED
    assert_attempts_are_true(task, C.OUTPUT_INVALID, failed=1)
    assert_published_once(day.node, task)


@pytest.mark.parametrize("poor", POOR_PICTURES)
def test_a_poor_picture_is_made_again(day: Day, poor: str) -> None:
    task = day.ended(poor)
    assert codes(task) == [C.LOW_CONFIDENCE, None]
    assert_published_once(day.node, task)


def test_when_the_day_is_over_nothing_is_left(day: Day, before: dict[str, Any]) -> None:  # R0.10
    """No directory, process, thread, descriptor, lease or block of shared memory is left."""
    ended = [day.ended(name) for name in day.tasks]
    node = day.node
    assert all(task.lease_owner is None for task in ended)
    node.until(lambda: node.dispatcher.running_count() == 0, "the attempts' cleanup")
    assert list((node.folder / "attempts").glob("*")) == []
    published = [task for task in ended if task.status is Status.SUCCEEDED]
    assert len(list((node.folder / "results").glob("*/*"))) == len(published)
    workers = children() - before["children"]
    assert len(workers) >= SLOTS
    node.dispatcher.stop(0)
    node.judges.stop()
    node.store.close()
    node.until(lambda: all(gone(pid) for pid in workers), "all processes to be gone")
    of_ours = str(node.folder / "attempts")
    left = [p for p in psutil.process_iter(["cmdline"]) if of_ours in " ".join(p.info["cmdline"] or [])]
    assert left == []
    node.until(lambda: threading.active_count() <= before["threads"], "the threads to end")
    # The descriptors of shared memory, which has no name, among them.
    assert psutil.Process().num_fds() <= before["descriptors"] + 1  # multiprocessing's tracker keeps one
