"""Two services on one data directory: no task runs twice at the same time, none is lost when one of them is killed."""

from __future__ import annotations

import itertools
import signal
import threading
import time
from datetime import datetime

from tests.e2e.conftest import Service, until
from tests.faults.conftest import REHEARSALS, assert_nothing_is_left, assert_published_once

SHORT_LEASE = {"GREENROOM_LEASE_S": "4", "GREENROOM_HEALTH_INTERVAL_S": "1.2"}


def pair(tmp_path) -> tuple[Service, Service]:
    first = Service(tmp_path / "data", **REHEARSALS, **SHORT_LEASE).until_ready()
    return first, Service(tmp_path / "data", **REHEARSALS, **SHORT_LEASE).until_ready()


def overlaps(task) -> bool:
    spans = sorted((attempt["started_at"], attempt["ended_at"]) for attempt in task["attempts"])
    return any(later[0] < earlier[1] for earlier, later in itertools.pairwise(spans))


def test_one_of_two_services_is_killed_while_both_work(tmp_path, portrait, speech):  # R3.15
    first, second = pair(tmp_path)
    try:
        tasks = [first.post(portrait, speech(0.5), options={"frame_s": 0.05})["id"] for _ in range(8)]
        until(lambda: len([t for t in map(first.task, tasks) if t["status"] == "RUNNING"]) == 2, "both to work")
        first.stop(signal.SIGKILL)
        ended = [second.until_ended(task_id) for task_id in tasks]
        assert {task["status"] for task in ended} == {"SUCCEEDED"}
        for task in ended:
            assert not overlaps(task)
            assert sum(attempt["outcome"] == "succeeded" for attempt in task["attempts"]) == 1
            assert_published_once(second, task)
        [lost] = [task for task in ended if len(task["attempts"]) == 2]
        assert lost["attempts"][0]["outcome"] == "interrupted"
        assert second.stop() == 0
        assert_nothing_is_left(second, results=8)
    finally:
        for service in (first, second):
            service.http.close()
            if service.process.poll() is None:
                service.stop(signal.SIGKILL)


def test_who_listens_on_one_service_hears_within_a_moment_what_the_other_did(tmp_path, portrait, speech):  # R1.6
    """Stream and long-poll on the service that does not render the task."""
    first, second = pair(tmp_path)
    told: dict[str, tuple[float, str]] = {}

    def note(how: str, status: str) -> None:
        told[how] = (time.time(), status)

    def listen(service: Service, how: str, task_id: str) -> None:
        with service.http.stream("GET", f"/tasks/{task_id}/events", timeout=60) as stream:
            kinds = [line.removeprefix("event: ") for line in stream.iter_lines() if line.startswith("event: ")]
        note(how, kinds[-1])

    def wait(service: Service, how: str, task_id: str) -> None:
        note(how, service.task(task_id, wait=60)["status"])

    try:
        task_id = first.post(portrait, speech(0.5), options={"frame_s": 0.2})["id"]
        until(lambda: first.task(task_id)["status"] == "RUNNING", "it to run")
        runs_here = {service: _runs_here(service, task_id) for service in (first, second)}
        assert sorted(runs_here.values()) == [False, True]
        other = first if runs_here[second] else second
        threads = [
            threading.Thread(target=listen, args=(other, "stream", task_id)),
            threading.Thread(target=wait, args=(other, "long-poll", task_id)),
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
        finished = datetime.fromisoformat(first.task(task_id)["finished_at"]).timestamp()
        assert {how: status for how, (_at, status) in told.items()} == {
            "stream": "task.succeeded",
            "long-poll": "SUCCEEDED",
        }
        # Half a second is the bound; what is more is a busy machine.
        assert all(at - finished < 5.0 for at, _status in told.values()), told
    finally:
        for service in (first, second):
            service.http.close()
            if service.process.poll() is None:
                service.stop(signal.SIGKILL)


def _runs_here(service: Service, task_id: str) -> bool:
    return any(slot["task_id"] == task_id for slot in service.http.get("/queue").json()["slots"])


def test_a_stopped_service_that_wakes_up_again_publishes_nothing(tmp_path, portrait, speech):
    """SIGSTOP of service and worker: the lease runs out, the other service does the task, the zombie is refused."""
    import psutil

    first, second = Service(tmp_path / "data", **REHEARSALS, **SHORT_LEASE).until_ready(), None
    frozen: list[psutil.Process] = []
    try:
        task_id = first.post(portrait, speech(0.5), options={"frame_s": 0.2})["id"]
        first.until_rendering(task_id)
        parent = psutil.Process(first.process.pid)
        frozen = [parent, *parent.children(recursive=True)]
        for process in frozen:
            process.suspend()
        second = Service(tmp_path / "data", **REHEARSALS, **SHORT_LEASE).until_ready()
        task = second.until_ended(task_id)
        assert [attempt["outcome"] for attempt in task["attempts"]] == ["interrupted", "succeeded"]
        for process in reversed(frozen):
            process.resume()
        until(lambda: any(r["event"].startswith("late_") for r in first.records()), "the zombie to be refused")
        assert second.task(task_id) == task
        assert_published_once(second, task)
    finally:
        for service in filter(None, (first, second)):
            service.http.close()
            if service.process.poll() is None:
                service.stop(signal.SIGKILL)
