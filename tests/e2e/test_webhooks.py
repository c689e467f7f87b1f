"""A real service tells how a task goes (R1.2, R1.10)."""

from __future__ import annotations

import base64
import stat
from collections.abc import Callable
from pathlib import Path

import standardwebhooks

from tests.e2e.conftest import Service, until
from tests.faults.conftest import REHEARSALS
from tests.notify.endpoint import listening

OFTEN = {"GREENROOM_HEALTH_INTERVAL_S": "1.2", "GREENROOM_HEALTH_STRIKES": "10", "GREENROOM_WEBHOOK_PROGRESS_S": "1"}
"""A worker beats once a second: a check more often than that would find it still."""


def test_progress_only_grows_and_the_end_comes_last_and_once(
    serve: Callable[..., Service], portrait: Path, speech: Callable[[float], Path]
) -> None:  # R1.2
    service = serve(**REHEARSALS, **OFTEN, GREENROOM_ALLOW_PRIVATE_ADDRESSES="1")
    with listening() as endpoint:
        callback = {"url": endpoint.url, "events": ["task.progress", "task.succeeded"]}
        options = {"frame_s": 0.3}
        task_id = service.post(portrait, speech(1.0), options=options, callback=callback)["id"]
        service.until_ended(task_id)
        until(lambda: endpoint.received[-1:] and endpoint.received[-1][1]["type"] == "task.succeeded", "the end")
        assert service.stop() == 0
    bodies = [body for _, body in endpoint.received]
    fractions = [body["data"]["progress"]["fraction"] for body in bodies]
    assert [body["type"] for body in bodies] == ["task.progress"] * (len(bodies) - 1) + ["task.succeeded"]
    assert len(bodies) > 3
    assert fractions == sorted(set(fractions))
    assert all(body["data"]["status"] == "RUNNING" for body in bodies[:-1])
    log = service.log.read_text()
    assert "notice_delivered" in log
    secret = service.data_dir / "webhook-secret"
    assert stat.S_IMODE(secret.stat().st_mode) == 0o600
    assert secret.read_text().strip() not in log
    assert len(base64.b64decode(secret.read_text().strip().removeprefix("whsec_"))) == 32
    standardwebhooks.Webhook(secret.read_text().strip())


def test_notices_that_are_given_up_raise_an_alarm(
    serve: Callable[..., Service], portrait: Path, speech: Callable[[float], Path]
) -> None:  # R0.12
    soon = {"GREENROOM_WEBHOOK_SCHEDULE_S": "0", "GREENROOM_RESOURCE_INTERVAL_S": "0.2"}
    service = serve(**REHEARSALS, **soon, GREENROOM_ALLOW_PRIVATE_ADDRESSES="1")
    alarms = service.http.get("/alarms").json()
    assert "notices_dead" not in [alarm["name"] for alarm in alarms["active"]]
    task = service.post(portrait, speech(0.5), callback={"url": "http://127.0.0.1:9/", "events": ["task.queued"]})

    def active() -> list[str]:
        return [alarm["message"] for alarm in service.http.get("/alarms").json()["active"] if "dead" in alarm["name"]]

    assert "Dead in all: 1." in until(active, "the alarm")[0]
    [dead] = service.http.get("/deliveries", params={"state": "dead"}).json()["deliveries"]
    assert dead["task_id"] == task["id"]
