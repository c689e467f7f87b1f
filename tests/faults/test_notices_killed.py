"""SIGKILL at every commit point while notices are due: each arrives, none before its state, none out of order."""

from __future__ import annotations

import sqlite3
from typing import Any

import httpx
import pytest

from tests.e2e.conftest import until
from tests.faults.conftest import until_dead
from tests.notify.endpoint import assert_in_order, listening

WEBHOOKS = {
    "GREENROOM_ALLOW_PRIVATE_ADDRESSES": "1",
    "GREENROOM_WEBHOOK_SCHEDULE_S": ",".join(["0", *["0.2"] * 50]),
    "GREENROOM_WEBHOOK_CONCURRENCY_PER_ENDPOINT": "8",
}
TASKS = 100
KILLS = [
    "created=kill:30",
    "noticing=kill:10",
    "noticed=kill:10",
    "cancelling=kill:40",
    "noticed=kill:40",
    "noticing=kill:15",
]
"""The services that follow each other, and where each dies; the last one lives."""
ALL = [f"task.{word}" for word in ("queued", "running", "retry_wait", "succeeded", "failed", "cancelled")]


class Committed:
    """Looks at what is committed at the moment that a notice arrives, also while no service lives."""

    def __init__(self, database: Any) -> None:
        self._database = database

    def __call__(self, notice: str, body: dict[str, Any]) -> None:
        task_id, _, event = notice.rpartition("_")
        with sqlite3.connect(f"file:{self._database}?mode=ro", uri=True, timeout=30) as connection:
            query = "SELECT status, last_event_id FROM tasks WHERE id = ?"
            [(status, last)] = connection.execute(query, (task_id,)).fetchall()
            [(kind,)] = connection.execute("SELECT type FROM events WHERE id = ?", (int(event),)).fetchall()
        connection.close()
        assert kind == body["type"]
        assert last >= int(event)
        if last == int(event) or body["data"]["is_terminal"]:
            assert status == body["data"]["status"], f"{body['type']} while the task is {status}"


def assert_each_arrived(service: Any, tasks: list[str], endpoint: Any) -> int:
    """Each notice that the service keeps was received; how many they are."""
    arrived = {notice for notice, _ in endpoint.received}
    kept = set()
    for task_id in tasks:
        listed = service.http.get(f"/tasks/{task_id}/deliveries").json()["deliveries"]
        assert [one["state"] for one in listed] == ["delivered"] * len(listed)
        kept |= {one["id"] for one in listed}
    assert kept == arrived
    return len(kept)


def until_nothing_is_pending(service: Any) -> None:
    pending = "/deliveries?state=pending&limit=1"
    until(lambda: not service.http.get(pending).json()["deliveries"], "all notices to be delivered")


def test_a_service_that_is_killed_again_and_again_tells_everything(rehearse, portrait, speech, tmp_path):  # R1.8
    with listening(Committed(tmp_path / "data" / "greenroom.db")) as endpoint:
        deaths = iter(KILLS)
        armed = next(deaths)
        service = rehearse(armed, **WEBHOOKS)
        service.http.post("/queue/pause")
        uploads = {
            name: service.http.post("/uploads", content=path.read_bytes(), params={"name": path.name}).json()["uri"]
            for name, path in (("source", portrait), ("audio", speech(0.5)))
        }
        order = uploads | {"callback": {"url": endpoint.url, "events": ["task.queued", "task.cancelled"]}}

        def revive() -> None:
            nonlocal service, armed
            until_dead(service)
            armed = next(deaths, "")
            service = rehearse(armed, **WEBHOOKS)

        def persistently(path: str, **request: Any) -> httpx.Response:
            """As a caller who asks again when the service is gone."""
            while True:
                try:
                    answer = service.http.post(path, **request)
                except httpx.TransportError:
                    revive()
                    continue
                assert answer.status_code in (200, 202), answer.text
                return answer

        tasks = []
        for n in range(TASKS):
            answer = persistently("/generate", json=order, headers={"Idempotency-Key": f"order-{n}"})
            tasks.append(answer.json()["id"])
        for task_id in tasks:
            persistently(f"/tasks/{task_id}/cancel")
        while armed:
            revive()
        until_nothing_is_pending(service)
        assert assert_each_arrived(service, tasks, endpoint) == 2 * TASKS
        assert_in_order(endpoint.received)
        assert endpoint.failures == []
        print(f"{len(endpoint.received)} deliveries of {2 * TASKS} notices")


@pytest.mark.parametrize("point", ["claimed", "published", "committed", "failed"])
def test_killed_between_two_steps_of_an_attempt_that_is_told(rehearse, portrait, speech, tmp_path, point):  # R1.8
    options = {"fault": "kill", "times": 1} if point == "failed" else {}
    with listening(Committed(tmp_path / "data" / "greenroom.db")) as endpoint:
        service = rehearse(f"{point}=kill", **WEBHOOKS)
        callback = {"url": endpoint.url, "events": ALL}
        task_id = service.post(portrait, speech(0.5), options=options, callback=callback)["id"]
        until_dead(service)
        restarted = rehearse(**WEBHOOKS)
        assert restarted.until_ended(task_id)["status"] == "SUCCEEDED"
        until_nothing_is_pending(restarted)
        assert_each_arrived(restarted, [task_id], endpoint)
        story = list(dict.fromkeys(notice for notice, _ in endpoint.received))
        types = [dict(endpoint.received)[notice]["type"] for notice in story]
        wanted = ["queued", "running"] + ([] if point == "committed" else ["queued", "running"]) + ["succeeded"]
        assert types == [f"task.{word}" for word in wanted]
        assert_in_order(endpoint.received)
        assert endpoint.failures == []
