"""Whoever hears that a task has succeeded can fetch it, its video, and use it at once (R1.3)."""

from __future__ import annotations

import hashlib
from typing import Any

import pytest

from app.api.notice import notice_body
from app.notify.deliverer import Deliverer, DeliverySettings
from app.notify.sender import Sender, Timeouts
from tests.api.conftest import loop_thread, media, quiet_log, sandbox, start_api, template
from tests.api.kit import VIDEO, ApiFactory, LoopThread
from tests.e2e.conftest import until
from tests.notify.conftest import OWN_KEY, Tries
from tests.notify.endpoint import listening

__all__ = ["loop_thread", "media", "quiet_log", "sandbox", "start_api", "template"]


def test_a_notice_of_success_is_never_too_early(
    start_api: ApiFactory, loop_thread: LoopThread, pytestconfig: pytest.Config
) -> None:
    runs = 1000 if pytestconfig.getoption("--long") else 100
    api = start_api(allow_private_addresses=True)

    def react(_notice: str, body: dict[str, Any]) -> None:
        links = body["data"]["links"]
        task = api.client.get(links["self"]).json()
        assert (task["status"], task["links"]["cancel"]) == ("SUCCEEDED", None)
        video = api.client.get(links["output"])
        assert video.status_code == 200
        assert hashlib.sha256(video.content).hexdigest() == body["data"]["output"]["sha256"]

    with listening(react) as endpoint:
        kept = Deliverer(
            api.store.outbox,
            Sender(allow_private=True, timeouts=Timeouts(), connections=16),
            owner="node",
            keys=[OWN_KEY],
            render=notice_body,
            settings=DeliverySettings(per_endpoint=16),
            observer=Tries(),
        )
        loop_thread.run(kept.start())
        try:
            order = api.inputs() | {"callback": {"url": endpoint.url}}
            made = [str(api.client.post("/generate", json=order).json()["id"]) for _ in range(runs)]
            for task_id in made:
                api.succeed(api.start(task_id), VIDEO)
            until(lambda: len(endpoint.looked_at) == runs, "all notices")
        finally:
            loop_thread.run(kept.stop())
    assert endpoint.failures == []
    assert sorted(body["data"]["id"] for _, body in endpoint.received) == sorted(made)
