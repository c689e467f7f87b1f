"""What a renderer started and lost sight of is ended, and nothing else is."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from secrets import token_hex

import psutil
import pytest

from app.tasks.status import Status
from app.worker.strays import MARK, descendants, end, end_marked

SLEEP = "import signal; print(flush=True); signal.pause()"
DAEMON = f"import os; os.fork() and os._exit(0); os.setsid(); {SLEEP}"
FORKS = f"import os; os.fork(); os.fork(); {SLEEP}"

Start = Callable[..., subprocess.Popen]


@pytest.fixture
def mark() -> str:
    return f"node_{token_hex(8)}/cpu-0/{token_hex(8)}"


@pytest.fixture
def start() -> Iterator[Start]:
    """Starts a Python program that prints a line when it is there; ends all of them."""
    started: list[subprocess.Popen] = []

    def run(program: str, **environment: str) -> subprocess.Popen:
        process = subprocess.Popen(
            [sys.executable, "-c", program], stdout=subprocess.PIPE, env={**os.environ, **environment},
            start_new_session=True,
        )  # fmt: skip
        started.append(process)
        process.stdout.readline()
        return process

    yield run
    for process in started:
        process.kill()
        process.wait()
        process.stdout.close()


def daemons(task_id: str) -> list[psutil.Process]:
    """The processes that a rehearsal of this task left behind and that are not on their way out."""
    return [
        process
        for process in psutil.process_iter(["cmdline", "status"])
        if any(task_id in word for word in process.info["cmdline"] or [])
        and process.info["status"] != psutil.STATUS_ZOMBIE
    ]


@pytest.mark.parametrize(
    ("options", "status"),
    [
        ({}, Status.SUCCEEDED),
        ({"fault": "raise", "code": "INPUT_NO_FACE"}, Status.FAILED),
        ({"fault": "raise", "exception": "queue.Empty", "times": 1}, Status.SUCCEEDED),
        ({"fault": "kill", "times": 1}, Status.SUCCEEDED),
        ({"fault": "exit", "times": 1}, Status.SUCCEEDED),
    ],
    ids=["success", "failure", "failure that ends the process", "SIGKILL of the worker", "exit"],
)
def test_a_daemon_that_a_render_left_behind_does_not_outlive_its_attempt(bench, submit, options, status):  # R0.10
    node = bench()
    task_id = submit(daemon=True, **options)
    task = node.until_ended(task_id)
    assert task.status is status
    node.until(lambda: not daemons(task_id), "the daemons to be gone")
    node.until_idle()


def test_the_daemon_of_a_running_render_is_ended_with_its_killed_worker(bench, submit):  # R0.10
    node = bench()
    task_id = submit(daemon=True, frame_s=0.2)
    node.until_moving(task_id)
    [daemon] = [process.pid for process in daemons(task_id)]
    os.kill(node.pid(), signal.SIGKILL)
    node.until(lambda: daemon not in [process.pid for process in daemons(task_id)], "the daemon to be gone")


def test_a_stop_of_the_node_leaves_no_daemon(bench, submit):  # R0.10
    node = bench()
    task_id = submit(daemon=True, frame_s=0.2)
    node.until_moving(task_id)
    assert daemons(task_id)
    node.dispatcher.stop(0)
    assert not daemons(task_id)


def test_who_bears_the_mark_is_ended_wherever_it_has_gone(start, mark):
    processes = [start(program, **{MARK: mark}) for program in (SLEEP, DAEMON, FORKS)]
    ended = end_marked(mark)
    assert len(ended) >= len(processes)
    assert all(process.wait(10) in (0, -signal.SIGKILL) for process in processes)
    assert not [pid for pid in ended if psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE]
    assert end_marked(mark) == []


def test_who_bears_another_mark_or_only_speaks_of_one_lives(start, mark):
    others = [
        start(SLEEP, **{MARK: f"other_{mark}"}),
        start(SLEEP, **{f"NOT_{MARK}": mark}),
        start(SLEEP, TEXT=f"{MARK}={mark}"),
        start(SLEEP),
    ]
    assert end_marked(mark) == []
    assert [process.poll() for process in others] == [None] * 4


def test_all_slots_of_a_node_are_found_by_the_node(start, mark):
    node = mark.partition("/")[0]
    ours, theirs = start(SLEEP, **{MARK: f"{node}/cpu-1/1"}), start(SLEEP, **{MARK: f"{node}2/cpu-1/1"})
    assert end_marked(f"{node}/") == [ours.pid]
    assert theirs.poll() is None


def test_what_is_still_below_its_process_is_that_ones_business(start, mark):
    parent = start(f"import os; os.fork(); {SLEEP}", **{MARK: mark})
    lost = start(SLEEP, **{MARK: mark})
    assert end_marked(mark, below=parent.pid) == [lost.pid]
    assert parent.poll() is None
    [child] = descendants(parent.pid)
    child.kill()


def test_a_child_without_any_environment_is_found_below_its_process(start):
    child = f"[sys.executable, '-c', {SLEEP!r}], env={{}}, start_new_session=True"
    parent = start(f"import subprocess, sys; subprocess.Popen({child}); {SLEEP}")
    below = descendants(parent.pid)
    assert len(below) == 1
    end(below)
    deadline = time.monotonic() + 10
    while below[0].status() != psutil.STATUS_ZOMBIE:  # its parent does not ask for it
        assert time.monotonic() < deadline


def test_a_number_that_another_process_has_by_now_is_not_killed(start, monkeypatch):
    """As when a pid is given anew between the look and the kill: the start time tells."""
    process = start(SLEEP)
    [found] = [child for child in psutil.Process().children() if child.pid == process.pid]
    monkeypatch.setattr(found, "_ident", (found.pid, found.create_time() - 100))
    end([found])
    assert process.poll() is None


def test_a_process_that_is_gone_has_nothing_below_it():
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    assert descendants(process.pid) == []
