"""The client: against the real API, and against peers that fail in every way a network fails."""

from __future__ import annotations

import asyncio
import gc
import hashlib
import subprocess
import sys
import threading
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, TypeVar

import httpx
import pytest

from greenroom.client import (
    ApiError,
    AsyncClient,
    ChecksumMismatch,
    Client,
    ServiceUnreachable,
    Task,
    TaskNotSucceeded,
    WaitTimeout,
)
from tests.api.kit import VIDEO, Api

T = TypeVar("T")
Answer = Callable[[httpx.Request], httpx.Response]


def task(status: str = "QUEUED", **changes: Any) -> dict[str, Any]:
    ended = status in ("SUCCEEDED", "FAILED", "CANCELLED")
    return {"id": "t", "status": status, "is_terminal": ended, "error": None, "output": None} | changes


def run(answer: Answer, work: Callable[[AsyncClient], Awaitable[T]], **settings: Any) -> T:
    """Do some work with a client whose service is a function."""

    async def inside() -> T:
        async with AsyncClient("http://service", transport=httpx.MockTransport(answer), **settings) as client:
            return await work(client)

    return asyncio.run(inside())


def test_a_photo_and_a_voice_go_in_and_a_video_comes_out(api: Api, tmp_path: Path) -> None:
    sent: list[tuple[int, int]] = []
    states: list[str] = []
    with Client(api.url) as client:
        queued = client.generate(
            api.media.portrait, api.media.speech, metadata={"for": "me"}, on_bytes=lambda *seen: sent.append(seen)
        )
        threading.Timer(0.05, lambda: api.succeed(api.start(queued["id"]))).start()
        ended = client.wait(queued, timeout_s=20, on_task=lambda seen: states.append(seen["status"]))
        video = client.download(ended, tmp_path / "video.mp4")
    assert sent[-1][0] == sent[-1][1] == api.media.speech.stat().st_size
    assert (states[0], states[-1]) == ("QUEUED", "SUCCEEDED")
    assert ended["metadata"] == {"for": "me"}
    assert video.read_bytes() == VIDEO
    assert [path for path in tmp_path.iterdir() if path.is_file()] == [video]


def test_tasks_follow_each_other_and_are_derived_from(api: Api) -> None:
    with Client(api.url) as client:
        first = client.generate(api.media.portrait, api.media.speech)
        second = client.generate(first, api.media.speech, after=[first, first["id"]])
        assert (second["wait_reason"], second["waits_for"]) == ("predecessor", [first["id"]])
        with pytest.raises(ApiError) as refused:
            client.generate(f"task:{first['id']}", api.media.speech, if_unfinished="refuse")
        assert (refused.value.status, refused.value.code) == (409, "PREDECESSOR_UNFINISHED")
        assert not refused.value.is_transient, "whoever wants to be refused is told at once"
        derived = client.derive(first, audio=api.media.video, options={"strength": 0.5}, priority=9)
        again = [client.derive(first["id"], source=first, idempotency_key="one")["id"] for _ in range(2)]
        assert again[0] == again[1]
        assert derived["derived_from"] == first["id"]
        assert {task["id"] for task in client.tasks(derived_from=first["id"])} == {derived["id"], again[0]}
        with pytest.raises(ApiError, match="TASK_NOT_FOUND"):
            client.derive("none")


def test_a_failed_task_is_an_error_that_says_why(api: Api) -> None:
    with Client(api.url) as client:
        queued = client.generate(api.media.portrait, api.media.speech)
        api.fail(api.start(queued["id"]), message="The GPU is on fire.")
        with pytest.raises(TaskNotSucceeded, match="WORKER_CRASHED: The GPU is on fire") as told:
            client.wait(queued)
        assert told.value.task["id"] == queued["id"]
        assert client.wait(queued["id"], check=False)["status"] == "FAILED"
        again = client.retry(queued["id"])
        assert client.cancel(again["id"]) == "cancelled"


def test_a_wait_ends_when_its_time_is_up_and_the_task_goes_on(api: Api) -> None:
    with Client(api.url) as client:
        queued = client.generate(api.media.portrait, api.media.speech)
        with pytest.raises(WaitTimeout, match=r"has not ended within 0.1 s; it is QUEUED and goes on"):
            client.wait(queued, timeout_s=0.1)


def test_events_and_listings_come_as_iterators(api: Api) -> None:
    ids = [api.submit()["id"] for _ in range(3)]
    with Client(api.url) as client:
        assert [seen["id"] for seen in client.tasks(limit=2)] == ids[::-1]
        events = client.events(after=0)
        assert [next(events)["data"]["task_id"] for _ in ids] == ids
        assert client.queue()["by_status"]["QUEUED"] == 3
        assert [tier["name"] for tier in client.tiers()] == ["warp"]


def test_a_refusal_is_an_error_with_code_field_and_hint(api: Api) -> None:
    with Client(api.url) as client, pytest.raises(ApiError) as told:
        client.generate("upload:none", "upload:none")
    assert (told.value.status, told.value.code, told.value.field) == (422, "INPUT_NOT_FOUND", "source")
    assert told.value.hint


def test_what_is_transient_is_sent_again_under_the_same_key() -> None:  # R1.9
    seen: list[httpx.Request] = []

    def answer(request: httpx.Request) -> httpx.Response:
        seen.append(request)
        if len(seen) == 1:
            raise httpx.ConnectError("refused")
        if len(seen) < 4:
            return httpx.Response((429, 503)[len(seen) - 2], headers={"retry-after": "0"})
        return httpx.Response(202, json=task())

    made = run(answer, lambda client: client.generate("upload:a", "upload:b"))
    assert made["id"] == "t"
    assert len({request.headers["idempotency-key"] for request in seen}) == 1
    assert len(seen) == 4


def test_as_long_as_the_service_asks_for_is_waited_before_the_next_try() -> None:  # R1.9
    asked: list[float] = []

    def answer(_request: httpx.Request) -> httpx.Response:
        asked.append(time.monotonic())
        if len(asked) == 1:
            return httpx.Response(429, headers={"retry-after": "2"})
        return httpx.Response(200, json=task())

    run(answer, lambda client: client.task("t"))
    # The client's own first pause is a quarter of a second at most.
    assert asked[1] - asked[0] >= 2.0


@pytest.mark.parametrize("status", [400, 404, 409, 422, 501, 505])
def test_what_is_final_is_sent_once(status: int) -> None:  # R1.9
    seen: list[int] = []

    def answer(_request: httpx.Request) -> httpx.Response:
        seen.append(1)
        return httpx.Response(status, json={"code": "NO", "detail": "Never."})

    with pytest.raises(ApiError, match="NO: Never"):
        run(answer, lambda client: client.task("t"))
    assert len(seen) == 1


def test_a_service_that_stays_away_is_told_as_such() -> None:
    def answer(_request: httpx.Request) -> httpx.Response:
        raise httpx.ConnectError("refused")

    with pytest.raises(ServiceUnreachable, match="http://service cannot be reached: refused"):
        run(answer, lambda client: client.task("t"), attempts=2)


def test_a_wait_goes_on_by_long_polls_where_streams_do_not_get_through() -> None:
    waits: list[str | None] = []

    def answer(request: httpx.Request) -> httpx.Response:
        if request.url.path.endswith("/events"):
            return httpx.Response(404, json={"code": "NOT_FOUND"})
        waits.append(request.url.params.get("wait"))
        return httpx.Response(200, json=task("SUCCEEDED" if len(waits) == 2 else "RUNNING"))

    assert run(answer, lambda client: client.wait(Task(task()), timeout_s=20))["status"] == "SUCCEEDED"  # type: ignore[misc,arg-type]
    assert waits == ["30", "30"]


def test_a_stream_that_breaks_goes_on_after_the_last_event() -> None:
    asked: list[str | None] = []

    def answer(request: httpx.Request) -> httpx.Response:
        asked.append(request.headers.get("last-event-id"))
        if len(asked) == 3:
            return httpx.Response(204)
        number = len(asked)

        async def body() -> Any:
            yield f": hello\n\nid: {number}\nevent: task.queued\n".encode()
            yield f'data: {{"n": {number}}}\n\nid: 99\nevent: torn'.encode()
            raise httpx.ReadError("broken")

        return httpx.Response(200, content=body())

    async def collect(client: AsyncClient) -> list[Any]:
        return [event async for event in client.events("t")]

    assert [event["data"]["n"] for event in run(answer, collect)] == [1, 2]
    assert asked == [None, "1", "2"]


class Host:
    """Serves one video, breaking off as told; ranges are honoured."""

    def __init__(self, content: bytes, breaks: list[int], etag: str | None = None) -> None:
        self.content, self.breaks = content, breaks
        self.asked: list[str | None] = []

    def __call__(self, request: httpx.Request) -> httpx.Response:
        span = request.headers.get("range")
        self.asked.append(span)
        start = int(span.removeprefix("bytes=").removesuffix("-")) if span else 0
        rest = self.content[start:]
        stop = self.breaks.pop(0) if self.breaks else len(rest)

        async def body() -> Any:
            yield rest[:stop]
            if stop < len(rest):
                raise httpx.ReadError("broken")

        return httpx.Response(206 if span else 200, content=body())


def finished(content: bytes) -> Any:
    sha256 = hashlib.sha256(content).hexdigest()
    return task("SUCCEEDED", output={"url": "/tasks/t/output", "sha256": sha256, "bytes": len(content)})


def test_a_download_that_breaks_off_goes_on_where_it_was(tmp_path: Path) -> None:
    content = bytes(range(256)) * 4000
    host = Host(content, [1000, 5000])
    video = run(host, lambda client: client.download(finished(content), tmp_path / "v.mp4"))
    assert video.read_bytes() == content
    assert host.asked == [None, "bytes=1000-", "bytes=6000-"]


def test_a_download_with_another_checksum_is_not_put_in_place(tmp_path: Path) -> None:
    content = b"x" * 1000
    with pytest.raises(ChecksumMismatch):
        run(Host(b"y" * 1000, []), lambda client: client.download(finished(content), tmp_path / "v.mp4"))
    assert list(tmp_path.iterdir()) == []


def test_the_client_needs_neither_torch_nor_the_service() -> None:
    script = "import greenroom.client, greenroom.client.batch, sys; print('\\n'.join(sys.modules))"
    out = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=60)
    loaded = set(out.stdout.split())
    assert not {
        name for name in loaded if name.split(".")[0] in ("app", "torch", "fastapi", "sqlalchemy", "pydantic", "numpy")
    }


def test_closing_leaves_no_stream_half_closed(api: Api, caplog: pytest.LogCaptureFixture) -> None:
    for _ in range(30):
        with Client(api.url) as client:
            waiting = client.generate(api.media.portrait, api.media.speech)
            threading.Timer(0.01, api.store.cancel, [waiting["id"]]).start()
            with pytest.raises(TaskNotSucceeded):
                client.wait(waiting, timeout_s=20)
    gc.collect()
    assert [record.getMessage() for record in caplog.records if record.name == "asyncio"] == []
