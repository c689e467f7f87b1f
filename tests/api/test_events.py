"""The event streams: from the past into the present without a hole, for one task and for all."""

from __future__ import annotations

import asyncio
import json
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from app.api import stream
from app.api import stream as stream_module
from app.api.ports import LiveProgress, SlotView
from app.store.errors import StoreUnavailable
from app.store.sql import open_store
from tests.api.kit import Api, ApiFactory, StandInPool, problem
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


@pytest.mark.parametrize("clients", [1, 40])
def test_what_another_process_did_costs_no_reads_per_client(
    api: Api, listen: Any, monkeypatch: pytest.MonkeyPatch, clients: int
) -> None:  # R1.6
    """Streams and long-polls: one read a pulse each, however many listen."""
    other = open_store(api.data_dir / "greenroom.db")
    api.client.get("/health/live")
    reads: list[float] = []
    read = api.store.aevents

    async def counted(*of: Any, **page: Any) -> Any:
        reads.append(time.monotonic())
        return await read(*of, **page)

    try:
        foreign = other.create(new_task()).task.id
        streams = [listen("/events?after=0&type=task.cancelled") for _ in range(clients)]
        with ThreadPoolExecutor(clients) as threads:
            polls = [threads.submit(api.client.get, f"/tasks/{foreign}", params={"wait": 30}) for _ in range(clients)]
            began = time.monotonic()
            monkeypatch.setattr(api.store, "aevents", counted)
            other.cancel(foreign)
            assert {poll.result(30).json()["status"] for poll in polls} == {"CANCELLED"}
            assert {stream.next()["event"] for stream in streams} == {"task.cancelled"}
        pulses = (time.monotonic() - began) / stream_module.PULSE_S + 1
        # A pulse with something to tell reads twice: what there is, and that there is no more.
        assert len(reads) <= 2 * pulses + 4
    finally:
        other.close()


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
    far = {"phase": "render", "done": 3, "total": 10, "eta_s": 1.5}
    assert told["data"] == {"task_id": task_id, "type": "task.progress"} | far
    assert "id" not in told


def test_a_silent_stream_is_kept_alive(api: Api, listen: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stream, "KEEP_ALIVE_S", 0.1)
    lines = listen("/events").answer.iter_lines()
    assert next(line for line in lines if line.startswith(": alive"))


class Peer:
    """The server's side of one stream: takes what is sent while `reads` is set, and leaves at the end of the answer."""

    def __init__(self) -> None:
        self.reads, self._complete = asyncio.Event(), asyncio.Event()
        self.said: list[bytes] = []

    async def send(self, message: Any) -> None:
        if message["type"] == "http.response.start":
            return
        await self.reads.wait()
        self.said.append(message["body"])
        if not message.get("more_body"):
            self._complete.set()

    async def receive(self) -> Any:
        await self._complete.wait()
        return {"type": "http.disconnect"}


async def until(condition: Any) -> None:
    async with asyncio.timeout(30):
        while not condition():
            await asyncio.sleep(0.005)


def test_a_reader_that_does_not_read_is_dropped_and_no_one_waits_for_it(tmp_path: Path) -> None:
    async def scenario() -> None:
        store = open_store(tmp_path / "greenroom.db")
        hub, slow, quick = stream.EventHub(store, StandInPool()), Peer(), Peer()
        quick.reads.set()
        listeners = [stream.Listener(None, frozenset(), None, peer.send) for peer in (slow, quick)]
        serving = [
            asyncio.create_task(hub.serve(listener, peer.receive, []))
            for listener, peer in zip(listeners, (slow, quick), strict=True)
        ]
        await until(lambda: hub.listening == 2)
        for _ in range(stream.BACKLOG + 1):
            await store.acreate(new_task())
        await until(lambda: listeners[0].dropped)
        assert not listeners[0].pending
        await until(lambda: len(quick.said) == stream.BACKLOG + 2)
        assert not listeners[1].dropped
        slow.reads.set()
        await serving[0]
        assert slow.said == [b": listening\n\n", b""], "its answer is complete, so that it comes back"
        assert (hub.dropped, hub.listening) == (1, 1)
        hub.close()
        await serving[1]
        store.close()

    asyncio.run(scenario())


def test_who_comes_in_the_moment_in_which_the_last_one_leaves_is_kept_alive(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stream, "KEEP_ALIVE_S", 0.01)
    monkeypatch.setattr(stream, "PULSE_S", 0.01)

    async def scenario() -> None:
        store = open_store(tmp_path / "greenroom.db")
        hub, first, second = stream.EventHub(store, StandInPool()), Peer(), Peer()
        first.reads.set()
        second.reads.set()
        leaving = asyncio.create_task(
            hub.serve(stream.Listener(None, frozenset(), None, first.send), first.receive, [])
        )
        await until(lambda: first.said)
        answered, newest = asyncio.Event(), await store.alast_event_id()

        async def in_a_moment() -> int:
            await answered.wait()
            return newest

        monkeypatch.setattr(store, "alast_event_id", in_a_moment)
        coming = asyncio.create_task(
            hub.serve(stream.Listener(None, frozenset(), None, second.send), second.receive, [])
        )
        await asyncio.sleep(0)
        first._complete.set()
        answered.set()  # in the same turn of the loop: the pulse of the first is told to end, and has not yet
        await leaving
        await until(lambda: b": alive\n\n" in second.said)
        hub.close()
        await coming
        store.close()

    asyncio.run(scenario())


def test_an_unforeseen_error_of_one_beat_silences_no_stream(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stream, "PULSE_S", 0.01)
    failed = asyncio.Event()

    class Broken(StandInPool):
        def slots(self) -> Any:
            if not failed.is_set():
                failed.set()
                raise LookupError("a surprise")
            return super().slots()

    async def scenario() -> None:
        here, elsewhere = open_store(tmp_path / "greenroom.db"), open_store(tmp_path / "greenroom.db")
        hub, peer = stream.EventHub(here, Broken()), Peer()
        peer.reads.set()
        serving = asyncio.create_task(hub.serve(stream.Listener(None, frozenset(), None, peer.send), peer.receive, []))
        await asyncio.wait_for(failed.wait(), 30)
        created = await elsewhere.acreate(new_task())  # of another process's commits only the beat tells
        await until(lambda: any(created.task.id.encode() in chunk for chunk in peer.said))
        hub.close()
        await serving
        here.close()
        elsewhere.close()

    asyncio.run(scenario())


def test_a_stream_whose_past_cannot_be_read_is_cut_off(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def gone(*_: Any, **__: Any) -> None:
        raise StoreUnavailable("disk I/O error")

    async def scenario() -> None:
        store = open_store(tmp_path / "greenroom.db")
        monkeypatch.setattr(store, "aevents", gone)
        hub, peer = stream.EventHub(store, StandInPool()), Peer()
        peer.reads.set()
        with pytest.raises(StoreUnavailable, match="disk I/O error"):
            await hub.serve(stream.Listener(None, frozenset(), 0, peer.send), peer.receive, [])
        assert hub.listening == 0
        store.close()

    asyncio.run(scenario())


def test_without_a_database_there_is_no_stream_and_it_is_said_when_to_ask_again(
    api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def gone() -> int:
        raise StoreUnavailable("disk I/O error")

    monkeypatch.setattr(api.store, "alast_event_id", gone)
    answer = api.client.get("/events")
    problem(answer, 503, "STORE_UNAVAILABLE")
    assert int(answer.headers["retry-after"]) > 0


def test_one_who_leaves_is_forgotten(api: Api) -> None:
    hub, one = api.app.state.hub, Listening(api, "/events")
    assert hub.listening == 1
    one.close()
    end = time.monotonic() + 30
    while hub.listening:
        assert time.monotonic() < end
        time.sleep(0.01)


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
