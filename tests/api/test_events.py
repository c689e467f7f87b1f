"""The event streams: from the past into the present without a hole, for one task and for all."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from app.api import stream
from app.api.ports import LiveProgress, SlotView
from app.store.sql import open_store
from tests.api.kit import Api, ApiFactory, problem
from tests.store.kit import new_task


class Listening:
    """One open stream."""

    def __init__(self, api: Api, path: str, **headers: str) -> None:
        self._open = api.client.stream("GET", path, headers=headers, timeout=20)
        self.answer = self._open.__enter__()
        self._lines = self.answer.iter_lines()

    def events(self) -> Iterator[dict[str, Any]]:
        """Events as they come, `data` read; comments are passed over."""
        one: dict[str, Any] = {}
        for line in self._lines:
            if line.startswith(":"):
                continue
            if line:
                name, _, value = line.partition(": ")
                one[name] = json.loads(value) if name == "data" else value
            elif one:
                yield one
                one = {}

    def next(self) -> dict[str, Any]:
        return next(self.events())

    def close(self) -> None:
        self._open.__exit__(None, None, None)


@pytest.fixture
def listen(api: Api) -> Iterator[Any]:
    opened: list[Listening] = []

    def start(path: str, **headers: str) -> Listening:
        opened.append(Listening(api, path, **headers))
        return opened[-1]

    yield start
    for one in opened:
        one.close()


def kinds(events: list[dict[str, Any]]) -> list[str]:
    return [event["event"] for event in events]


def test_a_task_is_told_from_its_first_event_to_its_end_and_then_the_stream_ends(api: Api, listen: Any) -> None:
    task_id = api.submit()["id"]
    stream = listen(f"/tasks/{task_id}/events")
    assert stream.answer.headers["content-type"] == "text/event-stream; charset=utf-8"
    assert stream.next()["event"] == "task.queued"
    api.succeed(api.start(task_id))
    rest = list(stream.events())
    assert kinds(rest) == ["task.running", "task.succeeded"]
    assert rest[-1]["data"]["task_id"] == task_id
    assert rest[-1]["data"]["status"] == "SUCCEEDED"


def test_whoever_comes_back_goes_on_where_he_was_and_is_told_not_to_come_again_after_the_end(api: Api) -> None:
    task_id = api.finished()
    every = list(Listening(api, f"/tasks/{task_id}/events").events())
    ids = [int(event["id"]) for event in every]
    assert ids == sorted(ids)
    rest = list(Listening(api, f"/tasks/{task_id}/events", **{"Last-Event-ID": str(ids[0])}).events())
    assert [int(event["id"]) for event in rest] == ids[1:]
    assert api.client.get(f"/tasks/{task_id}/events", headers={"Last-Event-ID": str(ids[-1])}).status_code == 204


def test_the_stream_of_all_tasks_begins_now_or_after_an_event(api: Api, listen: Any) -> None:
    earlier = api.submit()["id"]
    live, past = listen("/events"), listen("/events?after=0")
    assert past.next()["data"]["task_id"] == earlier
    later = api.submit()["id"]
    assert live.next()["data"]["task_id"] == later
    assert past.next()["data"]["task_id"] == later


def test_only_the_types_that_were_asked_for_come_and_the_end_still_ends_it(api: Api, listen: Any) -> None:
    stream = listen("/events?type=task.succeeded")
    task_id = api.submit()["id"]
    of_task = listen(f"/tasks/{task_id}/events?type=task.queued")
    api.succeed(api.start(task_id))
    assert stream.next()["event"] == "task.succeeded"
    assert kinds(list(of_task.events())) == ["task.queued"]


def test_an_event_of_another_process_is_heard_in_its_place(api: Api, listen: Any) -> None:
    stream = listen("/events")
    assert api.client.get("/health/live").status_code == 200
    other = open_store(api.data_dir / "greenroom.db")
    try:
        foreign = other.create(new_task()).task.id
    finally:
        other.close()
    own = api.submit()["id"]
    seen = [stream.next(), stream.next()]
    assert [event["data"]["task_id"] for event in seen] == [foreign, own]
    assert int(seen[1]["id"]) == int(seen[0]["id"]) + 1


def test_events_that_are_not_kept_any_more_are_told_as_a_gap(api: Api, listen: Any) -> None:
    api.finished()
    api.store.purge_tasks(1e12)
    kept = api.submit()["id"]
    stream = listen("/events?after=0")
    gap = stream.next()
    assert gap["event"] == "gap"
    assert gap["data"]["first"] == 1
    after = stream.next()
    assert after["data"]["task_id"] == kept
    assert int(after["id"]) == gap["data"]["last"] + 1


def test_a_listener_that_has_seen_more_than_there_is_is_told(api: Api, listen: Any) -> None:
    api.submit()
    assert listen("/events", **{"Last-Event-ID": "999"}).next()["event"] == "gap"


def test_progress_is_told_while_a_task_renders_here(api: Api, listen: Any) -> None:
    task_id = api.submit()["id"]
    api.start(task_id)
    api.pool.view = [SlotView("cpu0", "busy", "cpu", task_id, 1)]
    api.pool.live[task_id] = LiveProgress("render", 3, 10, 1.5)
    stream = listen(f"/tasks/{task_id}/events?type=task.progress")
    told = stream.next()
    assert told["data"] == {"task_id": task_id, "phase": "render", "done": 3, "total": 10, "eta_s": 1.5}
    assert "id" not in told


def test_a_silent_stream_is_kept_alive(api: Api, listen: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stream, "KEEP_ALIVE_S", 0.1)
    lines = listen("/events").answer.iter_lines()
    assert next(line for line in lines if line.startswith(": alive"))


def test_a_reader_that_does_not_read_is_dropped_and_no_one_waits_for_it() -> None:
    slow = stream.Listener(None, frozenset())
    for _ in range(stream.BACKLOG + 1):
        slow.offer(b"x")
    assert slow.dropped
    assert not slow.pending


def test_the_service_stops_with_streams_open(start_api: ApiFactory) -> None:
    api = start_api()
    open_stream = Listening(api, "/events")
    ended = threading.Event()

    def read() -> None:
        list(open_stream.events())
        ended.set()

    threading.Thread(target=read, daemon=True).start()
    api.app.state.hub.close()
    assert ended.wait(20)


@pytest.mark.parametrize(
    ("path", "headers", "field"),
    [
        ("/events?type=task.sneezed", {}, "type"),
        ("/events", {"Last-Event-ID": "x"}, "Last-Event-ID"),
        ("/events?after=-1", {}, "after"),
    ],
)
def test_a_wrong_request_is_refused(api: Api, path: str, headers: dict[str, str], field: str) -> None:
    problem(api.client.get(path, headers=headers), 422, "REQUEST_INVALID", field)


def test_an_unknown_task_has_no_stream(api: Api) -> None:
    problem(api.client.get("/tasks/none/events"), 404, "TASK_NOT_FOUND")
