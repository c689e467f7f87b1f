"""Whoever hears that a task has succeeded can query it, fetch it, derive from it and build on it at once (R1.3).

By notice, by stream or by poll. The classic failure is the other order, where whoever reacts to "done" is refused.
"""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field

import httpx
import pytest

from app.api.notice import notice_body
from app.notify.deliverer import Deliverer, DeliverySettings
from app.notify.sender import Sender, Timeouts
from tests.api.conftest import loop_thread, media, quiet_log, sandbox, start_api, template
from tests.api.kit import Api, ApiFactory, LoopThread
from tests.e2e.conftest import until
from tests.notify.conftest import OWN_KEY, Tries
from tests.notify.endpoint import listening

__all__ = ["loop_thread", "media", "quiet_log", "sandbox", "start_api", "template"]

RUNS, LONG_RUNS = 60, 1000
THREADS = 8
AHEAD = 30
"""So many successes at most are told and not yet reacted to."""


class Reactions:
    """Does at once what callers do when they hear of a success, and counts what they were refused."""

    def __init__(self, api: Api) -> None:
        self._api = api
        self._lock = threading.Lock()
        self.done: list[str] = []
        self.refusals: list[str] = []

    def __call__(self, task_id: str) -> None:
        client = self._api.client
        task = self._ask(client.get(f"/tasks/{task_id}"), 200).json()
        if task["status"] != "SUCCEEDED":
            self.refusals.append(f"{task_id} is {task['status']}")
        video = self._ask(client.get(f"/tasks/{task_id}/output"), 200)
        if hashlib.sha256(video.content).hexdigest() != task["output"]["sha256"]:
            self.refusals.append(f"{task_id}: another video")
        self._ask(client.post(f"/tasks/{task_id}/derive", json={"priority": 0}), 202)
        order = self._api.inputs() | {"source": f"task:{task_id}", "if_unfinished": "refuse", "priority": 0}
        self._ask(client.post("/generate", json=order), 202)
        with self._lock:
            self.done.append(task_id)

    def _ask(self, answer: httpx.Response, status: int) -> httpx.Response:
        if answer.status_code != status:
            self.refusals.append(f"{answer.request.method} {answer.request.url.path}: {answer.text}")
        return answer


def video_of(api: Api, number: int) -> bytes:
    """A video that plays like all others and has a content of its own: what follows it is copied and probed anew."""
    return api.media.video.read_bytes() + (16).to_bytes(4) + b"free" + number.to_bytes(8)


@dataclass(frozen=True)
class Caller:
    """How a caller is told: what it adds to its requests, and what it does once one is accepted."""

    fields: dict[str, object] = field(default_factory=dict)
    submitted: Callable[[str], object] = lambda _task_id: None


@contextmanager
def by_notice(api: Api, loop_thread: LoopThread, react: Callable[[str], None]) -> Iterator[Caller]:
    with listening(lambda _id, body: react(body["data"]["id"])) as endpoint:
        deliverer = Deliverer(
            api.store.outbox,
            Sender(allow_private=True, timeouts=Timeouts(total_s=60, read_s=60), connections=THREADS),
            owner="node",
            keys=[OWN_KEY],
            render=notice_body,
            settings=DeliverySettings(per_endpoint=THREADS),
            observer=Tries(),
        )
        loop_thread.run(deliverer.start())
        try:
            yield Caller({"callback": {"url": endpoint.url, "events": ["task.succeeded"]}})
        finally:
            loop_thread.run(deliverer.stop())
    assert endpoint.failures == []


@contextmanager
def by_stream(api: Api, _loop: LoopThread, react: Callable[[str], None]) -> Iterator[Caller]:
    with ThreadPoolExecutor(THREADS) as threads, httpx.Client(base_url=api.url, timeout=60) as client:
        with client.stream("GET", "/events", params={"type": "task.succeeded", "after": 0}) as stream:

            def listen() -> None:
                try:
                    for line in stream.iter_lines():
                        if line.startswith("data: "):
                            threads.submit(react, json.loads(line[6:])["task_id"])
                except (httpx.StreamError, httpx.ReadError):
                    return  # The test is over.

            listener = threading.Thread(target=listen)
            listener.start()
            yield Caller()
            api.app.state.hub.close()
            listener.join(60)
        assert not listener.is_alive()


@contextmanager
def by_poll(api: Api, _loop: LoopThread, react: Callable[[str], None]) -> Iterator[Caller]:
    def poll(task_id: str) -> None:
        task = api.client.get(f"/tasks/{task_id}", params={"wait": 60}).json()
        assert task["is_terminal"]
        react(task_id)

    with ThreadPoolExecutor(THREADS) as threads:
        yield Caller(submitted=lambda task_id: threads.submit(poll, task_id))


@pytest.mark.timeout(1200)
@pytest.mark.parametrize("told", [by_notice, by_stream, by_poll])
def test_success_that_is_told_can_be_used_at_once(
    start_api: ApiFactory,
    loop_thread: LoopThread,
    pytestconfig: pytest.Config,
    told: Callable[..., AbstractContextManager[Caller]],
) -> None:
    runs = LONG_RUNS if pytestconfig.getoption("--long") else RUNS
    api = start_api(allow_private_addresses=True)
    react = Reactions(api)
    inputs = api.inputs()
    with told(api, loop_thread, react) as caller:
        for number in range(runs):
            until(lambda: number - len(react.done) < AHEAD or react.refusals, "reactions")  # noqa: B023
            answer = api.client.post("/generate", json=inputs | caller.fields | {"priority": 9})
            task_id = answer.json()["id"]
            caller.submitted(task_id)
            api.succeed(api.start(task_id), video_of(api, number))
        until(lambda: len(react.done) >= runs or react.refusals, "all reactions")
    assert react.refusals == []
    assert len(react.done) == runs
    print(f"{runs} successes told and used at once: {len(react.refusals)} refusals")
