"""Services of two machines on one PostgreSQL database and one folder: the server is away a while, then a machine dies.

Both run here, under the names of two machines: they look at nothing of each other's but the database and the folder.
"""

from __future__ import annotations

import itertools
import json
import signal
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.conftest import Service, until
from tests.faults.conftest import REHEARSALS, assert_nothing_is_left, assert_published_once
from tests.postgresql import Cluster

SHORT_LEASE = {"GREENROOM_LEASE_S": "4", "GREENROOM_HEALTH_INTERVAL_S": "1.2"}
TAKEN_OVER_WITHIN_S = 180.0
AWAY_S = 1.5
"""Less than the store's patience: who asks meanwhile may have to wait, or is told 503."""


@pytest.fixture
def lease(pytestconfig: pytest.Config) -> dict[str, str]:
    """Leases as a service has them, or short ones to save time."""
    return {} if pytestconfig.getoption("--whole") else SHORT_LEASE


@pytest.fixture
def machines(cluster: Cluster, tmp_path: Path, lease: dict[str, str]) -> Iterator[tuple[Service, Service]]:
    shared = {"GREENROOM_DATABASE_URL": cluster.url(cluster.create()), **REHEARSALS, **lease}
    made: list[Service] = []
    try:
        for name in ("one", "two"):
            made.append(Service(tmp_path / "data", GREENROOM_MACHINE=name, **shared).until_ready())
        yield made[0], made[1]
    finally:
        for service in made:
            service.http.close()
            if service.process.poll() is None:
                service.stop(signal.SIGKILL)


class Callers:
    """One caller per service, who submits task after task, and what they were told."""

    def __init__(self, services: tuple[Service, ...], source: Path, audio: Path) -> None:
        self.accepted: list[str] = []
        self.refused: list[tuple[int, str]] = []
        self._numbers = itertools.count()
        self._stop = threading.Event()
        self._files = {"source": (source.name, source.read_bytes()), "audio": (audio.name, audio.read_bytes())}
        self._threads = [threading.Thread(target=self._call, args=(service,)) for service in services]
        for thread in self._threads:
            thread.start()

    def _call(self, service: Service) -> None:
        while not self._stop.wait(0.1):
            request = {"options": {"frame_s": 0.004 + 1e-6 * next(self._numbers)}}  # no two are equal
            files: dict[str, Any] = {**self._files, "request": (None, json.dumps(request), "application/json")}
            answer = service.http.post("/generate", files=files)
            if answer.status_code == 202:
                self.accepted.append(answer.json()["id"])
            else:
                self.refused.append((answer.status_code, answer.json()["code"]))

    def until_more(self, count: int) -> None:
        wanted = len(self.accepted) + count
        until(lambda: len(self.accepted) >= wanted, "tasks to be accepted")

    def end(self) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()


def listed(service: Service) -> list[dict[str, Any]]:
    page = service.http.get("/tasks", params={"limit": 200}).json()
    assert page["links"]["next"] is None, "more tasks than one page holds"
    return list(page["tasks"])


def test_nothing_accepted_is_lost_when_the_database_and_then_a_machine_go_away(
    machines: tuple[Service, Service], cluster: Cluster, portrait: Path, speech: Callable[[float], Path]
) -> None:  # R3.15
    first, second = machines
    callers = Callers(machines, portrait, speech(0.5))
    try:
        callers.until_more(4)
        cluster.stop(signal.SIGQUIT)
        assert first.http.get("/health/live").status_code == 200
        time.sleep(AWAY_S)
        cluster.start()
        callers.until_more(6)
    finally:
        callers.end()
    assert {status for status, _code in callers.refused} <= {503}
    assert {code for _status, code in callers.refused} <= {"STORE_UNAVAILABLE"}
    until(lambda: all(task["is_terminal"] for task in listed(second)), "all tasks to end")

    slow = [first.post(portrait, speech(0.5), options={"frame_s": 0.2 + n / 1000})["id"] for n in range(2)]
    until(lambda: [second.task(task_id)["status"] for task_id in slow] == ["RUNNING"] * 2, "each machine to have one")
    first.stop(signal.SIGKILL)
    killed_at = time.time()
    until(lambda: any(len(second.task(task_id)["attempts"]) == 2 for task_id in slow), "the other machine to take over")
    taken_over_s = time.time() - killed_at
    ended = [second.until_ended(task_id) for task_id in slow]
    assert sorted(len(task["attempts"]) for task in ended) == [1, 2]
    assert taken_over_s < TAKEN_OVER_WITHIN_S, taken_over_s
    print(f"taken over {taken_over_s:.1f} s after the kill, all done after {time.time() - killed_at:.1f} s")

    tasks = {task["id"]: task for task in listed(second)}
    assert set(callers.accepted) <= set(tasks)
    assert len(tasks) == len(callers.accepted) + len(slow), "a submission that was refused is there, or one is doubled"
    assert {task["status"] for task in tasks.values()} == {"SUCCEEDED"}
    for task_id in tasks:
        task = second.task(task_id)
        assert sum(attempt["outcome"] == "succeeded" for attempt in task["attempts"]) == 1
        assert_published_once(second, task)
    assert second.stop() == 0
    assert_nothing_is_left(second, results=len(tasks))
    assert "Traceback" not in second.log.read_text()
