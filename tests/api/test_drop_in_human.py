"""`/human/generate`: one request that lasts until the video lies where its caller wants it."""

from __future__ import annotations

import errno
import os
import shutil
import socket
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest

from app.api.drop_in.terms import DropIn
from app.store.records import Claim
from tests.api.kit import VIDEO, Api, ApiFactory, problem
from tests.e2e.conftest import until

Begin = Callable[..., Future[httpx.Response]]


@pytest.fixture
def assets(tmp_path: Path, media: Any) -> Path:
    """What caller and service share."""
    assets = tmp_path / "assets"
    (assets / "out").mkdir(parents=True)
    shutil.copyfile(media.video, assets / "template.mp4")
    shutil.copyfile(media.speech, assets / "speech.wav")
    return assets


@pytest.fixture
def open_api(start_api: ApiFactory, assets: Path) -> Callable[..., Api]:
    def start(**settings: Any) -> Api:
        return start_api(media_roots=(assets,), drop_in=DropIn(save_roots=(assets / "out",)), **settings)

    return start


@pytest.fixture
def api(open_api: Callable[..., Api]) -> Api:
    return open_api()


def order(assets: Path, name: str = "a.mp4", **fields: Any) -> dict[str, Any]:
    paths = {"audio_path": assets / "speech.wav", "video_path": assets / "template.mp4"}
    return {k: str(v) for k, v in (paths | {"save_path": assets / "out" / name}).items()} | fields


@pytest.fixture
def begin() -> Iterator[Begin]:
    """Sends a request that goes on beside the test."""
    with ThreadPoolExecutor(8) as threads:
        yield lambda api, body: threads.submit(api.client.post, "/human/generate", json=body)


def claimed(api: Api) -> Claim:
    """The next task as soon as it is there."""
    claim = until(lambda: api.store.claim("node", lease_s=30, tier="warp", slot="cpu0", device="cpu"), "a task")
    assert isinstance(claim, Claim)
    return claim


def test_the_answer_comes_when_the_video_lies_at_its_place(api, assets, begin):
    answer = begin(api, order(assets))
    claim = claimed(api)
    assert not answer.done()
    assert not (assets / "out" / "a.mp4").exists()
    api.succeed(claim)
    got = answer.result(20)
    assert got.status_code == 200
    assert got.json() == {
        "code": 200,
        "message": "success",
        "data": {"save_path": str(assets / "out" / "a.mp4"), "task_id": claim.task.id},
    }
    assert (assets / "out" / "a.mp4").read_bytes() == VIDEO
    assert [p.name for p in (assets / "out").iterdir()] == ["a.mp4"]


def test_requests_side_by_side_queue(api, assets, begin):
    answers = [begin(api, order(assets, f"{n}.mp4")) for n in range(5)]
    for _ in answers:
        api.succeed(claimed(api))
    assert {answer.result(20).status_code for answer in answers} == {200}
    assert len(list((assets / "out").iterdir())) == 5


@pytest.mark.parametrize(
    ("fields", "field", "reason"),
    [
        ({"save_path": "out/a.mp4"}, "save_path", "relative"),
        ({"save_path": "/etc/a.mp4"}, "save_path", "outside_roots"),
        ({"save_path": "{out}/../a.mp4"}, "save_path", "outside_roots"),
        ({"save_path": "{out}/link/a.mp4"}, "save_path", "outside_roots"),
        ({"save_path": "{out}/nothing/a.mp4"}, "save_path", "no_folder"),
        ({"save_path": "{out}/a.sh"}, "save_path", "suffix"),
        ({"save_path": "{out}/a\0.mp4"}, "save_path", "name"),
    ],
)
def test_a_place_that_cannot_be_is_refused_before_anything_is_made(api, assets, tmp_path, fields, field, reason):
    (assets / "out" / "link").symlink_to(tmp_path)
    body = order(assets) | {k: v.format(out=assets / "out") for k, v in fields.items()}
    answer = problem(api.client.post("/human/generate", json=body), 422, "SAVE_PATH_INVALID", field)
    assert answer["reason"] == reason
    assert api.client.get("/tasks").json()["tasks"] == []


@pytest.mark.parametrize(
    ("fields", "code", "field"),
    [
        ({"audio_path": "{assets}/none.wav"}, "INPUT_NOT_FOUND", "audio_path"),
        ({"video_path": "{assets}/none.mp4"}, "INPUT_NOT_FOUND", "video_path"),
        ({"video_path": "/etc/passwd"}, "INPUT_FORBIDDEN", "video_path"),
        ({"video_path": "{assets}/../out-of-it.mp4"}, "INPUT_FORBIDDEN", "video_path"),
        ({"video_path": "{assets}/speech.wav"}, "INPUT_INVALID", "video_path"),
        ({"audio_path": "speech.wav"}, "REQUEST_INVALID", "audio_path"),
        ({"audio_path": ""}, "REQUEST_INVALID", "audio_path"),
        ({"audio_path": 7}, "REQUEST_INVALID", "audio_path"),
        ({"audio_path": "http://127.0.0.1/a.wav"}, "REQUEST_INVALID", "audio_path"),
        ({"video_path": "/" + "x" * 5000}, "REQUEST_INVALID", "video_path"),
        ({"video_path": "/a\0b"}, "INPUT_INVALID", "video_path"),
    ],
)
def test_an_input_that_is_refused_is_named_as_the_caller_named_it(api, assets, fields, code, field):
    body = order(assets) | {k: v.format(assets=assets) if isinstance(v, str) else v for k, v in fields.items()}
    problem(api.client.post("/human/generate", json=body), 422, code, field)
    assert api.client.get("/tasks").json()["tasks"] == []


def test_another_file_at_the_path_is_never_written_over_and_nothing_is_made_for_it(api, assets):
    (assets / "out" / "a.mp4").write_bytes(b"theirs")
    problem(api.client.post("/human/generate", json=order(assets)), 409, "SAVE_PATH_TAKEN", "save_path")
    assert (assets / "out" / "a.mp4").read_bytes() == b"theirs"
    assert api.client.get("/tasks").json()["tasks"] == []


def test_a_file_that_appears_meanwhile_stays_and_the_video_is_kept(api, assets, begin):
    answer = begin(api, order(assets))
    claim = claimed(api)
    (assets / "out" / "a.mp4").write_bytes(b"theirs")
    api.succeed(claim)
    told = problem(answer.result(20), 409, "SAVE_PATH_TAKEN", "save_path")
    assert claim.task.id in told["hint"]
    assert (assets / "out" / "a.mp4").read_bytes() == b"theirs"
    assert api.client.get(f"/tasks/{claim.task.id}/output").content == VIDEO


def test_a_disk_that_fills_up_is_told_and_the_video_is_kept(api, assets, begin, monkeypatch):
    def full(*_: Any) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("app.api.drop_in.placing.shutil.copyfileobj", full)
    answer = begin(api, order(assets))
    claim = claimed(api)
    api.succeed(claim)
    told = problem(answer.result(20), 503, "SAVE_FAILED", "save_path")
    assert (told["reason"], told["task_id"]) == ("no_space", claim.task.id)
    assert answer.result().headers["retry-after"]
    assert list((assets / "out").iterdir()) == []


def test_a_task_that_fails_is_an_error_that_says_why(api, assets, begin):
    answer = begin(api, order(assets))
    claim = claimed(api)
    api.fail(claim, message="The renderer fell over.")
    told = problem(answer.result(20), 500, "TASK_FAILED")
    assert (told["task_id"], told["error_code"]) == (claim.task.id, "WORKER_CRASHED")
    assert "The renderer fell over." in told["detail"]
    assert list((assets / "out").iterdir()) == []


def test_an_input_that_the_renderer_finds_at_fault_is_the_callers_error(api, assets, begin):
    answer = begin(api, order(assets))
    api.fail(claimed(api), code="INPUT_NO_FACE")
    problem(answer.result(20), 422, "INPUT_NO_FACE")


def test_a_cancelled_task_is_told_as_such(api, assets, begin):
    answer = begin(api, order(assets))
    task = until(lambda: api.client.get("/tasks").json()["tasks"], "the task")[0]["id"]
    api.client.post(f"/tasks/{task}/cancel")
    problem(answer.result(20), 409, "TASK_CANCELLED")


def hang_up(api: Api, body: dict[str, Any]) -> None:
    """Send a request and leave once its task is there."""
    sent = httpx.Request("POST", f"{api.url}/human/generate", json=body)
    with socket.create_connection(("127.0.0.1", api.port), timeout=20) as connection:
        head = f"POST /human/generate HTTP/1.1\r\nHost: x\r\nContent-Length: {sent.headers['content-length']}\r\n\r\n"
        connection.sendall(head.encode() + sent.read())
        until(lambda: api.client.get("/tasks").json()["tasks"], "the task")


def test_the_work_goes_on_when_its_caller_leaves_and_the_video_comes_to_its_place(api, assets):
    hang_up(api, order(assets))
    assert ("POST", "/human/generate", 400) in {seen[:3] for seen in until(lambda: left_by(api), "the caller to leave")}
    claim = claimed(api)
    assert claim.task.cancel_requested_at is None
    api.succeed(claim)
    until(lambda: (assets / "out" / "a.mp4").exists(), "the video")
    assert (assets / "out" / "a.mp4").read_bytes() == VIDEO


def left_by(api: Api) -> list[Any]:
    return [seen for seen in api.observed if seen[1] == "/human/generate"]


def test_who_left_and_asks_again_is_given_the_same_render(open_api, assets, begin):  # R1.1
    api = open_api(cached=True)
    hang_up(api, order(assets))
    again = begin(api, order(assets))
    until(lambda: len(api.client.get("/tasks").json()["tasks"]) == 2, "the second task")
    api.succeed(claimed(api))
    api.store.settle_twins()
    assert again.result(20).status_code == 200
    assert (assets / "out" / "a.mp4").read_bytes() == VIDEO
    late = api.client.post("/human/generate", json=order(assets))
    assert late.status_code == 200, late.text
    (assets / "out" / "a.mp4").write_bytes(b"theirs")
    problem(api.client.post("/human/generate", json=order(assets)), 409, "SAVE_PATH_TAKEN", "save_path")


def test_a_service_that_stops_says_so_and_the_task_stays(api, assets, begin, loop_thread):
    answer = begin(api, order(assets))
    task = until(lambda: api.client.get("/tasks").json()["tasks"], "the task")[0]["id"]
    until(lambda: api.app.state.waiters._waiting, "the request to wait")
    loop_thread.loop.call_soon_threadsafe(api.app.state.waiters.close)
    told = problem(answer.result(20), 503, "SERVICE_STOPPING")
    assert told["task_id"] == task
    assert api.client.get(f"/tasks/{task}").json()["status"] == "QUEUED"


def test_a_full_queue_and_a_full_disk_are_told_as_everywhere(open_api, assets, begin):
    api = open_api(max_waiting=1)
    first = begin(api, order(assets))
    until(lambda: api.client.get("/tasks").json()["tasks"], "the task")
    problem(api.client.post("/human/generate", json=order(assets, "b.mp4")), 429, "QUEUE_FULL")
    api.disk.room = 10
    problem(api.client.post("/human/generate", json=order(assets, "b.mp4")), 507, "DISK_LOW")
    api.succeed(claimed(api))
    assert first.result(20).status_code == 200


def test_the_address_is_not_there_unless_it_is_opened(start_api, assets):
    closed = start_api(media_roots=(assets,))
    problem(closed.client.post("/human/generate", json=order(assets)), 404, "NOT_FOUND")
    assert "/human/generate" not in closed.client.get("/openapi.json").json()["paths"]


def test_fields_that_are_not_known_are_not_read(api, assets, begin):
    answer = begin(api, order(assets, watermark=0, digital_auth=0))
    api.succeed(claimed(api))
    assert answer.result(20).status_code == 200


def test_two_requests_for_one_path_never_write_over_each_other(api, assets, begin):
    answers = [begin(api, order(assets)) for _ in range(2)]
    for content in (VIDEO, VIDEO[::-1]):
        claim = claimed(api)
        api.succeed(claim, content)
    codes = sorted(answer.result(20).status_code for answer in answers)
    assert codes == [200, 409]
    assert (assets / "out" / "a.mp4").read_bytes() in (VIDEO, VIDEO[::-1])
