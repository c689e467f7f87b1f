"""Attempts with real processes and real signals: how each kind of end is recorded and what is left behind."""

from __future__ import annotations

import asyncio
import errno
import hashlib
import os
import signal
import threading
import time

import psutil
import pytest
from sqlalchemy import event

from app.cleanup import scope
from app.store.errors import StoreUnavailable
from app.store.records import Verdict
from app.tasks.status import Status
from app.worker import attempt as attempts
from app.worker import dispatcher
from app.worker.board import TierBoard
from app.worker.conversation import Conversation


def leftovers(bench) -> list[str]:
    return [path.name for path in (bench.folder / "attempts").glob("*")]


def codes(task) -> list[str | None]:
    return [attempt.error["code"] if attempt.error else None for attempt in task.attempts]


def test_a_task_is_rendered_checked_and_published(bench, submit):
    node = bench()
    task = node.until_ended(submit())
    assert task.status is Status.SUCCEEDED
    assert task.output is not None
    path = node.folder / task.output.path
    assert hashlib.sha256(path.read_bytes()).hexdigest() == task.output.sha256
    assert path.stat().st_size == task.output.bytes
    assert task.output.frames == 12  # half a second at 25 frames/s
    assert codes(task) == [None]
    assert task.served_by == "rehearsal"
    assert leftovers(node) == []
    assert node.seen.ended == [("rehearsal", "succeeded")]


def test_a_worker_killed_while_it_renders_fails_the_attempt_with_its_signal_and_the_task_runs_again(bench, submit):
    node = bench()
    task_id = submit(frame_s=0.02)
    node.until_moving(task_id)
    assert node.dispatcher.about_slot("cpu-0") == {"task_id": task_id, "attempt": 1, "trace_id": ""}
    killed = node.pid()
    os.kill(killed, signal.SIGKILL)
    task = node.until_ended(task_id)
    assert node.dispatcher.about_slot("cpu-0") == {}
    assert task.status is Status.SUCCEEDED
    assert codes(task) == ["WORKER_CRASHED", None]
    assert "SIGKILL" in task.attempts[0].error["message"]
    assert task.attempts[0].postmortem["phase"] == "render"
    assert task.attempts[0].postmortem["pid"] == killed
    assert task.attempts[0].postmortem["peak_memory_bytes"] > 10 * 1024**2
    assert task.attempts[1].facts["peak_memory_bytes"] > 10 * 1024**2
    assert task.retries == 1
    assert node.pid() != killed
    assert leftovers(node) == []


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"fault": "exit", "exit_code": 0}, "without a result"),
        ({"fault": "exit", "exit_code": 3}, "exit code 3"),
        ({"fault": "kill"}, "SIGKILL"),
    ],
)
def test_a_process_that_dies_every_time_fails_the_task_after_its_retries(bench, submit, options, words):
    node = bench()
    task = node.until_ended(submit(**options))
    assert task.status is Status.FAILED
    assert codes(task) == ["WORKER_CRASHED"] * 4
    assert words in task.error["message"]
    assert task.error["hint"]
    assert leftovers(node) == []


def test_a_sigkill_that_the_kernel_counts_as_want_of_memory_is_told_from_others(bench, submit):
    node = bench()
    task_id = submit(frame_s=0.05)
    node.until_moving(task_id)
    node.oom_kills += 1
    os.kill(node.pid(), signal.SIGKILL)
    node.until(lambda: node.task(task_id).retries == 1, "the failed attempt")
    assert codes(node.task(task_id)) == ["HOST_OOM"]
    assert node.task(task_id).status is Status.RETRY_WAIT


def test_an_empty_queue_error_is_shown_with_code_causes_and_hint(bench, submit):  # R0.1
    node = bench()
    task = node.until_ended(submit(fault="raise", exception="queue.Empty"))
    assert task.status is Status.FAILED
    assert codes(task) == ["QUEUE_TIMEOUT"] * 4
    assert "queue.Empty" in task.error["message"]
    assert task.error["hint"]


def test_an_unknown_error_keeps_its_type_and_traceback_and_is_retried_once(bench, submit):
    node = bench()
    task = node.until_ended(submit(fault="raise", exception="ZeroDivisionError"))
    assert task.status is Status.FAILED
    assert codes(task) == ["INTERNAL", "INTERNAL"]
    assert "ZeroDivisionError" in task.error["message"]
    assert "faults.py" in task.error["detail"]["traceback"]


def test_a_gpu_without_memory_keeps_its_process_and_the_retry_renders_with_half_the_batch(bench, submit):  # R0.8
    node = bench()
    node.until_idle()
    pid = node.pid()
    task = node.until_ended(submit(fault="out_of_memory", times=1, batch=8))
    assert task.status is Status.SUCCEEDED
    assert codes(task) == ["GPU_OOM", None]
    assert "OutOfMemoryError" in task.attempts[0].error["detail"]["type"]
    assert task.attempts[1].facts["batch"] == 4
    assert node.pid() == pid
    assert node.seen.restarts == []


def test_each_retry_after_want_of_gpu_memory_halves_the_batch_again(bench, submit):
    node = bench()
    task = node.until_ended(submit(fault="out_of_memory", times=2, batch=8))
    assert codes(task) == ["GPU_OOM", "GPU_OOM", None]
    assert task.attempts[2].facts["batch"] == 2


def test_a_batch_that_fits_when_halved_costs_no_attempt(bench, submit):
    node = bench()
    task = node.until_ended(submit(fault="out_of_memory", fits=3, batch=12))
    assert codes(task) == [None]
    assert task.attempts[0].facts["batch"] == 3
    assert task.output.frames == 12


def test_a_callers_mistake_is_not_retried(bench, submit):  # R0.8
    node = bench()
    task = node.until_ended(submit(fault="raise", code="INPUT_NO_FACE"))
    assert task.status is Status.FAILED
    assert codes(task) == ["INPUT_NO_FACE"]


@pytest.mark.parametrize("fault", ["unplayable", "short", "mute"])
def test_a_broken_file_is_never_published(bench, submit, fault):
    node = bench()
    task = node.until_ended(submit(fault=fault))
    assert task.status is Status.FAILED
    assert codes(task) == ["OUTPUT_INVALID", "OUTPUT_INVALID"]
    assert task.output is None
    assert not list((node.folder / "results").glob("*/*"))


def test_a_poor_video_is_made_again_and_then_put_up_for_review(bench, submit, store):  # R3.3
    node = bench()
    task_id = submit(fault="black")
    node.until(lambda: node.task(task_id).status is Status.REVIEW, "the review")
    node.until(lambda: node.dispatcher.running_count() == 0, "the attempt's cleanup")
    task = node.task(task_id)
    assert codes(task) == ["LOW_CONFIDENCE", "LOW_CONFIDENCE"]
    assert task.error["message"] == "The video's confidence is 0.00, below 0.6: not_black 0.00."
    assert task.quality["confidence"] == 0
    assert task.quality["checks"]["black_share"] == 1
    assert task.served_by == "rehearsal"
    assert [path.name for path in (node.folder / "results").glob("*/*")] == ["2.mp4"]
    assert (node.folder / task.output.path).stat().st_size == task.output.bytes
    assert not list((node.folder / "attempts").glob("*"))
    told = store.events(task.id)[-1]
    assert (told.type, told.data["confidence"], told.data["error"]["code"]) == ("task.review", 0, "LOW_CONFIDENCE")
    asyncio.run(store.areject(task.id, Verdict("Anna", "black")))
    assert store.get(task.id).status is Status.FAILED


def test_a_poor_video_that_comes_once_costs_one_attempt(bench, submit):
    node = bench()
    task = node.until_ended(submit(fault="black", times=1))
    assert (task.status, codes(task)) == (Status.SUCCEEDED, ["LOW_CONFIDENCE", None])
    assert task.quality["confidence"] >= 0.6
    assert set(task.quality["scores"]) >= {"not_black"}


def test_a_cancel_beats_the_review(bench, submit, store, monkeypatch):
    node = bench()

    def cancelled_first(claim, artifact, **rest):
        store.cancel(claim.task.id)
        return put_up(claim, artifact, **rest)

    put_up = store.put_up_for_review
    monkeypatch.setattr(store, "put_up_for_review", cancelled_first)
    task = node.until_ended(submit(fault="black"))
    assert task.status is Status.CANCELLED
    assert not list((node.folder / "results").glob("*/*"))


@pytest.mark.parametrize(
    ("options", "ends"),
    [
        ({}, "succeeded"),
        ({"fault": "raise", "code": "INPUT_NO_FACE"}, "failed"),
        ({"fault": "kill", "times": 1}, "failed"),
        ({"frame_s": 0.5, "deadline_s": 1.0}, "failed"),
        ({"frame_s": 0.5, "then": "cancel"}, "cancelled"),
        ({"frame_s": 0.5, "then": "shutdown"}, "interrupted"),
    ],
    ids=["success", "failure", "crash", "timeout", "cancel", "shutdown"],
)
def test_cleanup_runs_once_on_every_way_out_and_each_step_is_logged(
    bench, submit, store, monkeypatch, options, ends
):  # R0.10
    steps: list[str] = []

    class Log:
        def debug(self, event: str, *, step: str, ms: float) -> None:
            assert (event, ms >= 0) == ("cleanup_step", True)
            steps.append(step)

    monkeypatch.setattr(scope, "log", Log())
    then, deadline_s = options.pop("then", ""), options.pop("deadline_s", None)
    node = bench()
    node.until_idle()
    threads = threading.active_count()
    task_id = submit(deadline_at=None if deadline_s is None else time.time() + deadline_s, **options)
    if then:
        node.until_moving(task_id)
    if then == "cancel":
        store.cancel(task_id)
    if then == "shutdown":
        node.dispatcher.stop(0)
    node.until(lambda: node.seen.ended, "the first attempt's end")
    assert node.seen.ended[0][1] == ends
    node.until(lambda: len(steps) >= 5, "its cleanup")
    assert sorted(steps[:5]) == [
        "delete the attempt's directory", "end the strays", "leave the registry", "release the slot",
        "stop the monitor",
    ]  # fmt: skip
    node.until(lambda: node.dispatcher.running_count() == 0 and not leftovers(node), "the directory to be gone")
    if then != "shutdown" and ends != "failed":
        node.until(lambda: threading.active_count() <= threads, "the attempt's threads to end")


def test_a_directory_that_cannot_be_made_is_the_attempts_failure(bench, submit):
    node = bench()
    node.until_idle()
    (node.folder / "attempts").write_text("a file where the folder should be")
    task = node.until_ended(submit())
    assert task.status is Status.FAILED
    assert codes(task) == ["INTERNAL", "INTERNAL"]
    assert "directory could not be made" in task.error["message"]
    node.until_idle()


def test_a_commit_that_was_reported_as_failed_and_reached_the_disk_keeps_its_file(bench, submit, store, monkeypatch):
    succeed, calls = store.succeed, []

    def lost_answer(claim, artifact, **more):
        calls.append(claim)
        task = succeed(claim, artifact, **more)
        if len(calls) == 1:
            raise StoreUnavailable("disk I/O error")
        return task

    monkeypatch.setattr(store, "succeed", lost_answer)
    node = bench()
    task = node.until_ended(submit())
    assert (task.status, len(calls)) == (Status.SUCCEEDED, 2)
    assert (node.folder / task.output.path).is_file()


def test_cancel_stops_a_running_render_and_keeps_the_process(bench, submit, store):
    node = bench()
    task_id = submit(frame_s=0.5)
    node.until_moving(task_id)
    pid = node.pid()
    assert asyncio.run(store.acancel(task_id)) == "requested"
    task = node.until_ended(task_id)
    assert task.status is Status.CANCELLED
    assert task.attempts[0].outcome == "cancelled"
    assert leftovers(node) == []
    node.until_idle()
    assert node.pid() == pid


def test_a_render_that_ignores_the_cancel_is_killed(bench, submit, store):
    node = bench(cancel_grace_s=0.3)
    task_id = submit(fault="ignore_cancel", frame_s=1.0)
    node.until_moving(task_id)
    pid = node.pid()
    asyncio.run(store.acancel(task_id))
    task = node.until_ended(task_id)
    assert task.status is Status.CANCELLED
    assert "renderer.py" in task.attempts[0].postmortem["stacks"]
    assert not psutil.pid_exists(pid)


@pytest.mark.parametrize("fault", ["stop", "block_gil"])
def test_a_process_without_a_heartbeat_is_replaced_and_the_task_runs_again(bench, submit, fault):  # R0.4, R0.5
    node = bench(health_interval_s=1.2)  # above the heartbeat's second
    task = node.until_ended(submit(fault=fault, times=1))
    assert task.status is Status.SUCCEEDED
    assert codes(task) == ["WORKER_UNRESPONSIVE", None]
    assert "3 checks" in task.attempts[0].error["message"]
    assert node.seen.health.count(("strike", "cpu-0", "heartbeat")) == 3
    assert [seen for seen in node.seen.health if seen[0] in ("verdict", "refuted")] == [
        ("verdict", "cpu-0", "WORKER_UNRESPONSIVE")
    ]


def test_each_running_attempt_has_a_monitor_thread_of_its_own_that_ends_with_it(bench, submit):  # R0.4
    def monitors() -> set[str]:
        return {thread.name for thread in threading.enumerate() if thread.name.startswith("monitor-")}

    node = bench(slots=2)
    node.until_idle()
    assert monitors() == set()
    tasks = [submit(frame_s=0.1), submit(frame_s=0.1)]
    node.until(lambda: monitors() == {"monitor-cpu-0", "monitor-cpu-1"}, "both monitors")
    for task_id in tasks:
        assert node.until_ended(task_id).status is Status.SUCCEEDED
    node.until(lambda: not monitors(), "the monitors to end")


@pytest.mark.parametrize("fault", ["stall", "block"])
def test_work_that_stands_still_is_ended_with_its_stacks(bench, submit, fault):
    node = bench(health_interval_s=1.2, phase_s=2.0)
    task = node.until_ended(submit(fault=fault, times=1, frame=3))
    assert task.status is Status.SUCCEEDED
    assert codes(task) == ["WORKER_STALLED", None]
    assert [seen for seen in node.seen.health if seen[0] in ("verdict", "refuted")] == [
        ("verdict", "cpu-0", "WORKER_STALLED")
    ]
    postmortem = task.attempts[0].postmortem
    assert (postmortem["phase"], postmortem["done"]) == ("render", 3)
    assert "faults.py" in postmortem["stacks"]


def test_a_task_past_its_deadline_fails_and_frees_the_slot(bench, submit):  # R0.6
    node = bench()
    node.until_idle()
    task = node.until_ended(submit(frame_s=0.5, deadline_at=time.time() + 1.0))
    assert task.status is Status.FAILED
    assert codes(task) == ["DEADLINE_EXCEEDED"]
    assert node.until_ended(submit()).status is Status.SUCCEEDED


def test_what_a_dying_process_left_behind_is_gone(bench, submit):
    node = bench()
    task = node.until_ended(submit(fault="leave_behind", times=1))
    assert task.status is Status.SUCCEEDED
    assert leftovers(node) == []
    of_ours = str(node.folder / "attempts")
    node.until(
        lambda: not [p for p in psutil.process_iter(["cmdline"]) if of_ours in " ".join(p.info["cmdline"] or [])],
        "the grandchild to be gone",
    )


def test_a_shutdown_puts_the_running_task_back_free_of_charge_and_a_restart_runs_it(bench, submit):
    node = bench()
    task_id = submit(frame_s=0.2)
    node.until_moving(task_id)
    node.dispatcher.stop(0)
    task = node.task(task_id)
    assert task.status is Status.QUEUED
    assert task.retries == 0
    assert task.attempts[0].outcome == "interrupted"
    assert leftovers(node) == []
    task = bench().until_ended(task_id)
    assert task.status is Status.SUCCEEDED
    assert task.attempt == 2


def test_a_shutdown_lets_a_short_render_finish(bench, submit):
    node = bench()
    task_id = submit(frame_s=0.01)
    node.until_moving(task_id)
    node.dispatcher.stop(20)
    assert node.task(task_id).status is Status.SUCCEEDED


def test_an_idle_worker_that_is_killed_is_replaced(bench, submit):
    node = bench()
    node.until_idle()
    old = node.pid()
    os.kill(old, signal.SIGKILL)
    node.until(lambda: node.seen.restarts, "the restart")
    node.until_idle()
    assert node.pid() != old
    assert node.until_ended(submit()).status is Status.SUCCEEDED


def test_a_warm_spare_takes_the_place_of_a_killed_process_and_is_replaced(bench, submit):
    node = bench(spares=1)
    spare = node.until(lambda: node.pool.spare_pids(), "the spare")
    task_id = submit(frame_s=0.05)
    node.until_moving(task_id)
    os.kill(node.pid(), signal.SIGKILL)
    task = node.until_ended(task_id)
    assert task.status is Status.SUCCEEDED
    assert [node.pid()] == spare
    assert node.until(lambda: node.pool.spare_pids(), "the next spare") != spare


def test_a_device_on_which_two_different_tasks_broke_is_quarantined_and_tried_again(bench, submit):
    node = bench()
    first, second = submit(fault="kill"), submit(fault="kill")
    slot = node.pool.slots()[0]
    node.until(lambda: slot.state.value == "quarantined", "the quarantine")
    assert slot.last_failure.code == "WORKER_CRASHED"
    assert node.pool.ready_count() == 0
    ran = node.task(first).attempt + node.task(second).attempt
    node.until(lambda: slot.ready is not None, "a new process, 5 s later")
    assert node.task(first).attempt + node.task(second).attempt >= ran


def test_two_slots_work_at_the_same_time(bench, submit):
    node = bench(slots=2)
    node.until_idle()
    first, second = submit(frame_s=0.05), submit(frame_s=0.05)
    node.until(lambda: node.dispatcher.running_count() == 2, "both to run")
    assert {node.until_ended(first).attempts[0].slot, node.until_ended(second).attempts[0].slot} == {"cpu-0", "cpu-1"}


def test_a_renderer_that_cannot_load_says_so_and_nothing_is_claimed(bench, submit):
    node = bench(renderer="no-such-renderer")
    task_id = submit()
    failure = node.until(lambda: node.pool.slots()[0].last_failure, "the failed start")
    node.until(lambda: node.pool.slots()[0].state.value == "quarantined", "the quarantine")
    assert failure.code == "WORKER_START_FAILED"
    assert "no-such-renderer" in failure.message
    assert node.task(task_id).status is Status.QUEUED


def test_a_resumed_queue_is_served_at_once_and_not_at_the_next_sweep(bench, submit, store, monkeypatch):  # R0.13
    monkeypatch.setattr(dispatcher, "_SWEEP_S", 3600.0)
    store.set_paused(True)
    node = bench()
    node.until_idle()
    ready_routes, looked = store.ready_routes, []
    monkeypatch.setattr(store, "ready_routes", lambda: looked.append(ready_routes()) or looked[-1])
    task_id = submit()
    node.until(lambda: looked, "the dispatcher to look into the paused queue")
    assert looked[0] == []
    assert node.task(task_id).status is Status.QUEUED
    store.set_paused(False)
    assert node.until_ended(task_id).status is Status.SUCCEEDED


def test_a_task_that_comes_to_an_empty_queue_is_claimed_without_a_look_at_the_queue(bench, submit, store, monkeypatch):
    monkeypatch.setattr(dispatcher, "_SWEEP_S", 3600.0)
    ready_routes, claim, next_due, did = store.ready_routes, store.claim, store.next_due, []
    monkeypatch.setattr(store, "ready_routes", lambda: did.append("look") or ready_routes())
    monkeypatch.setattr(store, "claim", lambda *who, **how: did.append("claim") or claim(*who, **how))
    monkeypatch.setattr(store, "next_due", lambda **of: did.append("sleep" if of else "sweep") or next_due(**of))
    node = bench()
    node.until(lambda: did[-2:] == ["look", "sleep"], "the look at the empty queue once the slot is idle")
    del did[:]
    assert node.until_ended(submit()).status is Status.SUCCEEDED
    assert did[0] == "claim"


def test_a_dispatcher_with_nothing_to_do_writes_nothing(bench, store, monkeypatch):
    monkeypatch.setattr(dispatcher, "_SWEEP_S", 0.02)
    node = bench()
    node.until_idle()
    swept, written, next_due = [], [], store.next_due

    def note(connection: object) -> None:
        written.append(connection)

    event.listen(store._writing, "begin", note)
    monkeypatch.setattr(store, "next_due", lambda **since: swept.append(1) or next_due(**since))
    node.until(lambda: len(swept) >= 10, "ten looks")
    event.remove(store._writing, "begin", note)
    assert written == []


def test_a_task_that_is_due_while_all_slots_are_busy_does_not_keep_the_dispatcher_busy(
    bench, submit, store, monkeypatch
):
    looks = []
    next_due = store.next_due
    monkeypatch.setattr(store, "next_due", lambda **since: looks.append(time.monotonic()) or next_due(**since))
    node = bench()
    node.until_idle()
    running = submit(frame_s=0.2, fps=10)  # half a second of speech, a second of work
    node.until_moving(running)
    due = submit(not_before=time.time() + 0.1)
    began = time.monotonic()
    node.until_ended(running)
    node.until(lambda: node.task(due).status.is_terminal, "the task that was due")
    # One look a second, and some for what happened meanwhile: two tasks submitted, claimed, ended.
    assert len([at for at in looks if at >= began]) <= (time.monotonic() - began) / dispatcher._SWEEP_S + 12


def test_posts_that_nothing_can_start_yet_do_not_wake_the_dispatcher(bench, submit, store, monkeypatch):
    monkeypatch.setattr(dispatcher, "_SWEEP_S", 3600.0)
    node = bench()
    node.until_idle()
    running = submit(frame_s=0.2, fps=10)
    node.until_moving(running)
    looks = []
    next_due = store.next_due
    monkeypatch.setattr(store, "next_due", lambda **since: looks.append(since) or next_due(**since))
    later = [submit(not_before=time.time() + 86_400.0) for _ in range(10)]
    behind = [submit() for _ in range(3)]
    assert [node.task(task_id).status for task_id in [running, *later, *behind]] == [Status.RUNNING] + 13 * [
        Status.QUEUED
    ]
    # One for the first that is due before anything else was.
    assert len(looks) <= 1
    for task_id in behind:  # The slot that becomes idle is what wakes it.
        assert node.until_ended(task_id).status is Status.SUCCEEDED


def test_a_task_that_became_ready_while_the_slot_was_tried_in_vain_is_not_forgotten(bench, submit, store, monkeypatch):
    monkeypatch.setattr(dispatcher, "_SWEEP_S", 3600.0)
    node = bench()
    node.until_idle()
    claim, tried = store.claim, []

    def in_vain(*args, **terms):
        if tried:
            return claim(*args, **terms)
        tried.append(submit())  # Its commit finds no idle slot: this one is taken.
        return None

    monkeypatch.setattr(store, "claim", in_vain)
    first = submit()
    assert node.until_ended(first).status is Status.SUCCEEDED
    assert node.until_ended(tried[0]).status is Status.SUCCEEDED


def test_a_task_that_falls_due_before_the_next_look_is_started_when_it_does(bench, submit, monkeypatch):
    monkeypatch.setattr(dispatcher, "_SWEEP_S", 3600.0)
    node = bench()
    node.until_idle()
    submit(not_before=time.time() + 86_400.0)
    sooner = submit(not_before=time.time() + 0.5)
    ended = node.until_ended(sooner)
    assert ended.status is Status.SUCCEEDED
    assert ended.started_at >= ended.not_before


def test_an_attempt_for_which_no_descriptor_is_left_gives_slot_and_task_back(bench, submit, monkeypatch):
    calls, ring = [], attempts.Orders.__init__

    def exhausted(orders):
        calls.append(1)
        if len(calls) == 1:
            raise OSError(errno.EMFILE, "Too many open files")
        ring(orders)

    monkeypatch.setattr(attempts.Orders, "__init__", exhausted)
    node = bench()
    task = node.until_ended(submit())
    assert task.status is Status.SUCCEEDED
    assert [attempt.outcome for attempt in task.attempts] == ["interrupted", "succeeded"]
    assert "Too many open files" in task.attempts[0].error["message"]
    assert task.retries == 0, "it is not charged"
    assert [view.running for view in node.board.views() if view.name == "rehearsal"] == [0]


def test_an_attempt_for_which_no_thread_is_left_gives_slot_and_task_back(bench, submit, monkeypatch):
    refused, start = [], threading.Thread.start

    def exhausted(thread):
        if thread.name.startswith("attempt-") and not refused:
            refused.append(thread.name)
            raise RuntimeError("can't start new thread")
        start(thread)

    monkeypatch.setattr(threading.Thread, "start", exhausted)
    node = bench()
    task = node.until_ended(submit())
    assert task.status is Status.SUCCEEDED
    assert [attempt.outcome for attempt in task.attempts] == ["interrupted", "succeeded"]
    assert "can't start new thread" in task.attempts[0].error["message"]
    assert node.dispatcher.running_count() == 0
    assert [view.running for view in node.board.views() if view.name == "rehearsal"] == [0]


def test_an_attempt_that_breaks_off_says_why_and_leaves_no_process_at_work(bench, submit, monkeypatch):
    broken, hear_out = [], Conversation.hear_out

    def breaks_once(conversation):
        if not broken:
            broken.append(node.pid())
            node.until_moving(task_id)
            raise LookupError("a surprise of our own")
        return hear_out(conversation)

    monkeypatch.setattr(Conversation, "hear_out", breaks_once)
    node = bench(lease_s=3600.0)
    task_id = submit(frame_s=0.02)
    task = node.until_ended(task_id)
    assert task.status is Status.SUCCEEDED
    assert codes(task) == ["INTERNAL", None], "no other attempt pays for it, and no lease has to run out"
    assert "a surprise of our own" in task.attempts[0].error["message"]
    assert not psutil.pid_exists(broken[0])
    assert leftovers(node) == []


def test_an_attempt_whose_thread_dies_while_it_is_written_down_frees_its_slot(bench, submit, monkeypatch):
    seen, ended = [], TierBoard.ended

    def breaks_once(board, *told):
        ended(board, *told)
        if not seen:
            seen.append(told)
            raise LookupError("a surprise of our own")

    monkeypatch.setattr(TierBoard, "ended", breaks_once)
    node = bench()
    assert node.until_ended(submit()).status is Status.SUCCEEDED
    node.until_idle()
    assert node.until_ended(submit()).status is Status.SUCCEEDED


def test_a_claim_that_cannot_be_made_keeps_nothing_else_from_being_done(bench, submit, monkeypatch):
    """A row that cannot be read must not stop deadlines and the rescue of what dead services left."""

    def broken(*_):
        raise LookupError("a surprise")

    monkeypatch.setattr(dispatcher.Dispatcher, "_fill_slots", broken)
    monkeypatch.setattr(dispatcher.Dispatcher, "_start_new", broken)
    node = bench()
    task = node.until_ended(submit(deadline_at=time.time() + 0.2))
    assert task.error["code"] == "DEADLINE_EXCEEDED"
    assert node.dispatcher.fault == ""
