"""How fast trouble is seen and overcome: killed, stopped and woken processes, killed services, cancels."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil

from benchmarks import material
from benchmarks.figures import free_port, summary
from benchmarks.service import Running, service

REHEARSING = {
    "GREENROOM_REHEARSALS": "1",
    "GREENROOM_TIER_RENDERER": "rehearsal",
    "GREENROOM_BACKOFF_CAP_S": "0.001",
}
"""The pause before a retry is a setting, not a speed: it is left out of what is measured."""
KILLS = 12
SERVICE_KILLS = 4
CANCELS = 20
DEAF_CANCELS = 4
WAIT_S = 90.0


def until(condition: Callable[[], Any], step_s: float = 0.002) -> float:
    """Seconds until `condition` holds."""
    began = time.monotonic()
    while not condition():
        if time.monotonic() - began > WAIT_S:
            raise TimeoutError
        time.sleep(step_s)
    return time.monotonic() - began


def task_of(running: Running, task_id: str) -> dict[str, Any]:
    """The task now."""
    answer = running.client.get(f"/tasks/{task_id}")
    if answer.status_code != 200:
        raise RuntimeError(answer.text)
    task: dict[str, Any] = answer.json()
    return task


def renders(running: Running, task_id: str, attempt: int) -> bool:
    """Whether this attempt of the task has frames by now."""
    task = task_of(running, task_id)
    return len(task["attempts"]) == attempt and task["progress"]["phase"] == "render" and task["progress"]["done"] > 0


def slot_pid(running: Running) -> int:
    """The process of the only slot."""
    return int(running.client.get("/queue").json()["slots"][0]["pid"])


def family(running: Running) -> list[psutil.Process]:
    """The service's process and all below it."""
    parent = psutil.Process(running.process.pid)
    return [parent, *parent.children(recursive=True)]


def worker_killed(running: Running, source: str, audio: str) -> dict[str, float]:
    """From SIGKILL of a worker to the task rendering again, with a warm spare standing by."""
    times = []
    for _ in range(KILLS):
        task = running.generate(source=source, audio=audio, options={"frame_s": 0.02})
        until(lambda task=task: renders(running, task["id"], 1))
        # The spare of the last round needs its own time to load.
        time.sleep(1.5)
        if task_of(running, task["id"])["is_terminal"]:
            continue
        os.kill(slot_pid(running), signal.SIGKILL)
        times.append(until(lambda task=task: renders(running, task["id"], 2)))
        running.client.post(f"/tasks/{task['id']}/cancel")
        running.wait(task["id"])
    return summary(times)


def cancelled(running: Running, source: str, audio: str, count: int = CANCELS, **options: Any) -> dict[str, float]:
    """From the request to cancel to the task's end, which comes after the last sign of work. Milliseconds."""
    times = []
    for _ in range(count):
        task = running.generate(source=source, audio=audio, options={"frame_s": 0.02} | options)
        until(lambda task=task: renders(running, task["id"], 1))
        began = time.monotonic()
        running.client.post(f"/tasks/{task['id']}/cancel")
        ended = running.wait(task["id"])
        times.append(time.monotonic() - began)
        assert ended["status"] == "CANCELLED", ended["status"]
    return summary(times, 1000)


def cancelled_and_deaf(running: Running, source: str, audio: str) -> dict[str, float]:
    """The same for a render that swallows the cancel and is killed after `cancel_grace_s`."""
    return cancelled(running, source, audio, DEAF_CANCELS, fault="ignore_cancel", frame_s=0.2)


def service_killed(folder: Path) -> dict[str, float]:
    """From SIGKILL of the service and its workers, with a restart after 1 s, to the task rendering again."""
    times = []
    for number in range(SERVICE_KILLS):
        data, port = folder / f"killed-{number}", free_port()
        with service(data, "--slots", "1", port=port, **REHEARSING) as running:
            source, audio = running.upload(material.portrait()), running.upload(material.speech())
            task = running.generate(source=source, audio=audio, options={"frame_s": 0.1})
            until(lambda running=running, task=task: renders(running, task["id"], 1))
            everyone = family(running)
            killed = time.monotonic()
            for process in everyone:
                with suppress(psutil.NoSuchProcess):
                    process.kill()
            running.process.wait()
            time.sleep(max(0.0, 1.0 - (time.monotonic() - killed)))
            with service(data, "--slots", "1", port=port, **REHEARSING) as again:
                until(lambda again=again, task=task: renders(again, task["id"], 2))
                times.append(time.monotonic() - killed)
                again.client.post(f"/tasks/{task['id']}/cancel")
    return summary(times)


def results_of(data_dir: Path, task: dict[str, Any]) -> dict[str, int]:
    """How many attempts say that they succeeded, and how many files there are: one each is right."""
    return {
        "successes": sum(attempt["outcome"] == "succeeded" for attempt in task["attempts"]),
        "files": len(list((data_dir / "results" / task["id"]).glob("*"))),
    }


def worker_stopped(folder: Path) -> dict[str, Any]:
    """SIGSTOP of a worker, at the default intervals: detection, rendering elsewhere, SIGCONT, the results."""
    data = folder / "stopped"
    with service(data, "--slots", "2", port=free_port(), **REHEARSING) as running:
        source, audio = running.upload(material.portrait()), running.upload(material.speech())
        task = running.generate(source=source, audio=audio, options={"frame_s": 0.1})
        until(lambda: renders(running, task["id"], 1))
        slots = running.client.get("/queue").json()["slots"]
        [pid] = [slot["pid"] for slot in slots if slot["task_id"] == task["id"]]
        os.kill(pid, signal.SIGSTOP)
        detected = until(lambda: task_of(running, task["id"])["attempts"][0]["outcome"] is not None)
        again = detected + until(lambda: renders(running, task["id"], 2))
        try:
            os.kill(pid, signal.SIGCONT)
            woken = True
        except ProcessLookupError:
            woken = False  # it was ended when it was found, and cannot wake up
        ended = running.wait(task["id"])
        return {
            "detected_s": round(detected, 2),
            "rendering_again_s": round(again, 2),
            "slots": [attempt["slot"] for attempt in ended["attempts"]],
            "stopped_process_could_be_woken": woken,
            **results_of(data, ended),
        }


def service_stopped(folder: Path) -> dict[str, Any]:
    """SIGSTOP of a service with its workers, at the default lease: another one takes over; SIGCONT; the results."""
    data = folder / "two"
    with (
        service(data, "--slots", "1", port=free_port(), **REHEARSING) as first,
        service(data, "--slots", "1", port=free_port(), **REHEARSING) as second,
    ):
        source, audio = first.upload(material.portrait()), first.upload(material.speech())
        second.client.post("/queue/pause").raise_for_status()
        task = first.generate(source=source, audio=audio, options={"frame_s": 0.1})
        first.client.post("/queue/resume").raise_for_status()
        until(lambda: renders(first, task["id"], 1) or renders(second, task["id"], 1))
        holder, other = (first, second) if renders(first, task["id"], 1) else (second, first)
        frozen = family(holder)
        for process in frozen:
            process.suspend()
        taken_over = until(lambda: renders(other, task["id"], 2))
        ended = other.wait(task["id"])
        for process in reversed(frozen):
            process.resume()
        # The zombie has said its word once its slot is free again.
        until(lambda: all(slot["state"] == "idle" for slot in holder.client.get("/queue").json()["slots"]))
        after = task_of(other, task["id"])
        return {
            "rendering_elsewhere_s": round(taken_over, 2),
            "unchanged_by_the_woken_service": after == ended,
            **results_of(data, after),
        }
