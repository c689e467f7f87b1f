"""SIGKILL of the service at every boundary between two steps: nothing accepted is lost, nothing is published twice."""

from __future__ import annotations

import json
import os
import signal

import httpx
import pytest

from tests.e2e.conftest import gone, until
from tests.faults.conftest import assert_nothing_is_left, assert_published_once, family, shared_memory, until_dead
from tests.worker.test_strays import daemons

ATTEMPTS_AFTER = {
    # What the attempts say when the restarted service has finished the task.
    "claimed": ["interrupted", "succeeded"],
    "started": ["interrupted", "succeeded"],
    "rendered": ["interrupted", "succeeded"],
    "published": ["interrupted", "succeeded"],
    "committed": ["succeeded"],
}


def until_succeeded(service, count):
    until(lambda: service.http.get("/queue").json()["by_status"]["SUCCEEDED"] >= count, f"{count} successes")


def form(portrait, audio, **request):
    return {
        "source": (portrait.name, portrait.read_bytes()),
        "audio": (audio.name, audio.read_bytes()),
        "request": (None, json.dumps(request), "application/json"),
    }


@pytest.mark.parametrize("point", ATTEMPTS_AFTER)
def test_killed_between_two_steps_of_an_attempt(rehearse, portrait, speech, point):
    before = shared_memory()
    service = rehearse(f"{point}=kill")
    task_id = service.post(portrait, speech(0.5))["id"]
    until_dead(service)
    assert service.process.returncode == -signal.SIGKILL
    restarted = rehearse()
    task = restarted.until_ended(task_id)
    assert task["status"] == "SUCCEEDED"
    assert [attempt["outcome"] for attempt in task["attempts"]] == ATTEMPTS_AFTER[point]
    assert_published_once(restarted, task)
    assert restarted.stop() == 0
    assert_nothing_is_left(restarted, results=1)
    until(lambda: not shared_memory() - before, "the shared memory to be gone")


def test_killed_after_a_failed_attempt_and_before_it_is_written(rehearse, portrait, speech):
    service = rehearse("failed=kill")
    task_id = service.post(portrait, speech(0.5), options={"fault": "kill", "times": 1})["id"]
    until_dead(service)
    restarted = rehearse()
    task = restarted.until_ended(task_id)
    assert task["status"] == "SUCCEEDED"
    assert [attempt["outcome"] for attempt in task["attempts"]] == ["interrupted", "succeeded"]
    assert_published_once(restarted, task)


def test_killed_between_the_commit_of_a_task_and_its_answer(rehearse, portrait, speech):
    """The caller has no answer and asks again with its key: it gets the one task that there is."""
    service = rehearse("created=kill")
    key = {"Idempotency-Key": "order-17"}
    files = form(portrait, speech(0.5))
    with pytest.raises(httpx.TransportError):
        service.http.post("/generate", files=files, headers=key)
    until_dead(service)
    restarted = rehearse()
    answer = restarted.http.post("/generate", files=files, headers=key)
    assert answer.headers["Idempotent-Replayed"] == "true"
    task = restarted.until_ended(answer.json()["id"])
    assert task["status"] == "SUCCEEDED"
    assert len(restarted.http.get("/tasks").json()["tasks"]) == 1


def test_killed_between_the_commit_of_a_cancel_and_its_answer(rehearse, portrait, speech):
    service = rehearse("cancelling=kill")
    task_id = service.post(portrait, speech(0.5), options={"frame_s": 1.0})["id"]
    service.until_rendering(task_id)
    with pytest.raises(httpx.TransportError):
        service.http.post(f"/tasks/{task_id}/cancel")
    until_dead(service)
    restarted = rehearse()
    assert restarted.until_ended(task_id)["status"] == "CANCELLED"
    assert_nothing_is_left(restarted, results=0)


def test_service_and_worker_killed_together(rehearse, portrait, speech):
    """With multiprocessing's tracker of shared memory, which cleans up after a service that is killed alone."""
    before = shared_memory()
    service = rehearse()
    task_id = service.post(portrait, speech(0.5), options={"frame_s": 0.2})["id"]
    service.until_rendering(task_id)
    for pid in reversed(family(service)):
        os.kill(pid, signal.SIGKILL)
    service.process.wait(30)
    until(lambda: not shared_memory() - before, "the shared memory to be gone")
    restarted = rehearse()
    task = restarted.until_ended(task_id)
    assert [attempt["outcome"] for attempt in task["attempts"]] == ["interrupted", "succeeded"]
    assert_published_once(restarted, task)


def test_a_service_killed_again_and_again_finishes_every_task_once(rehearse, portrait, speech):
    service = rehearse()
    tasks = [service.post(portrait, speech(0.5), options={"frame_s": 0.02})["id"] for _ in range(6)]
    for ended in range(1, 4):
        until_succeeded(service, ended)
        service.stop(signal.SIGKILL)
        service = rehearse()
    for task_id in tasks:
        task = service.until_ended(task_id)
        assert task["status"] == "SUCCEEDED"
        assert sum(attempt["outcome"] == "succeeded" for attempt in task["attempts"]) == 1
        assert_published_once(service, task)
    assert service.stop() == 0
    assert_nothing_is_left(service, results=6)


def test_a_killed_service_leaves_a_daemon_until_its_next_start(rehearse, portrait, speech):  # R0.10
    """The kernel ends the slot's process with the service; what that one left behind belongs to nobody."""
    service = rehearse()
    task_id = service.post(portrait, speech(0.5), options={"frame_s": 0.3, "daemon": True})["id"]
    service.until_rendering(task_id)
    pids = family(service)
    [daemon] = [process.pid for process in daemons(task_id)]
    os.kill(service.process.pid, signal.SIGKILL)
    service.process.wait(30)
    until(lambda: all(gone(pid) for pid in pids), "its processes to be gone")
    assert not gone(daemon)
    restarted = rehearse()
    until(lambda: gone(daemon), "the daemon to be gone")
    assert restarted.until_ended(task_id)["status"] == "SUCCEEDED"
    until(lambda: not daemons(task_id), "the daemon of the second attempt to be gone")
    assert restarted.until_logged("leftover_processes_ended")
