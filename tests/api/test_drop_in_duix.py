"""`/easy/submit` and `/easy/query`: as a Duix.Avatar server answers its callers, less its flaws."""

from __future__ import annotations

import json
import shutil
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from app.api.drop_in.terms import DropIn
from app.api.ports import LiveProgress
from app.quality.checks import check_output
from app.render import registry
from app.render.contract import RenderJob
from app.render.duix.renderer import DuixRenderer
from tests.api.kit import VIDEO, Api, ApiFactory, problem
from tests.media.makers import tone, write_video, write_wav


@pytest.fixture
def folder(tmp_path: Path, media: Any) -> Path:
    """What callers know as /code/data."""
    temp = tmp_path / "face2face" / "temp"
    temp.mkdir(parents=True)
    shutil.copyfile(media.video, temp / "template.mp4")
    shutil.copyfile(media.speech, temp / "speech.wav")
    return temp.parent


@pytest.fixture
def api(start_api: ApiFactory, folder: Path) -> Api:
    return start_api(media_roots=(folder,), drop_in=DropIn(duix_dir=folder))


def submit(api: Api, code: Any = "c1", **fields: Any) -> dict[str, Any]:
    """As its own client does: names of files in `temp`, and the fixed fields."""
    order = {"audio_url": "speech.wav", "video_url": "template.mp4", "code": code}
    order |= {"chaofen": 0, "watermark_switch": 0, "pn": 1, **fields}
    return told(api.client.post("/easy/submit", json=order))


def query(api: Api, code: str = "c1") -> dict[str, Any]:
    return told(api.client.get("/easy/query", params={"code": code}))


def told(answer: httpx.Response) -> dict[str, Any]:
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"] == "application/json"
    body = dict(answer.json())
    assert list(body) == ["code", "success", "msg", "data"]
    assert type(body["code"]) is int
    return body


def task_of(api: Api, number: int = 0) -> str:
    return str(api.client.get("/tasks").json()["tasks"][number]["id"])


def refused(answer: dict[str, Any], code: int, words: str = "") -> None:
    assert (answer["code"], answer["data"]) == (code, {}), answer
    assert isinstance(answer["msg"], str)
    assert answer["msg"]
    assert words in answer["msg"]
    assert answer["success"] is (code in (10001, 10004))


def test_a_task_from_its_submission_to_its_video(api, folder):
    assert submit(api) == {"code": 10000, "success": True, "msg": 10000, "data": {}}
    waits = query(api)
    assert (waits["code"], waits["success"]) == (10000, True)
    assert waits["data"] == {"code": "c1", "status": 1, "progress": 0, "result": "", "msg": "QUEUED (slot)"}
    claim = api.start(task_of(api))
    api.pool.live[claim.task.id] = LiveProgress("render", 30, 60)
    assert query(api)["data"] | {"msg": ""} == waits["data"] | {"msg": "", "progress": 49}
    api.pool.live[claim.task.id] = LiveProgress("encode", 1, 60)
    assert query(api)["data"]["progress"] == 99
    assert not (folder / "temp" / "c1-r.mp4").exists()
    api.succeed(claim)
    data = query(api)["data"]
    assert data | {"cost": 0} == {
        "code": "c1", "status": 2, "progress": 100, "result": "/c1-r.mp4", "msg": "", "cost": 0,
        "video_duration": 1000, "width": 64, "height": 48,
    }  # fmt: skip
    assert data["cost"] >= 0
    assert (folder / "temp" / "c1-r.mp4").read_bytes() == VIDEO


def test_the_end_can_be_read_again_and_again_and_brings_back_a_file_that_was_taken(api, folder):
    submit(api)
    api.succeed(api.start(task_of(api)))
    first = query(api)
    (folder / "temp" / "c1-r.mp4").unlink()
    assert [query(api), query(api)] == [first, first]
    assert (folder / "temp" / "c1-r.mp4").read_bytes() == VIDEO


def test_a_second_submission_queues(api):
    assert [submit(api, code)["code"] for code in ("c1", "c2", "c3")] == [10000] * 3
    assert {query(api, code)["data"]["status"] for code in ("c1", "c2", "c3")} == {1}
    assert len(api.client.get("/tasks").json()["tasks"]) == 3


def test_the_same_code_is_the_same_task_also_when_it_has_ended_and_its_inputs_are_gone(api, folder):
    assert submit(api)["code"] == 10000
    api.succeed(api.start(task_of(api)))
    assert query(api)["data"]["status"] == 2
    (folder / "temp" / "template.mp4").unlink()  # as its own client does once a submission is answered
    assert submit(api)["code"] == 10000
    assert len(api.client.get("/tasks").json()["tasks"]) == 1


def test_fifty_submissions_of_one_code_at_once_are_one_task(api):
    answers: list[int] = []
    threads = [threading.Thread(target=lambda: answers.append(submit(api)["code"])) for _ in range(50)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert answers == [10000] * 50
    assert len(api.client.get("/tasks").json()["tasks"]) == 1


def test_a_code_with_other_inputs_is_refused(api, folder, media):
    shutil.copyfile(media.speech, folder / "temp" / "other.wav")
    submit(api)
    refused(submit(api, audio_url="other.wav"), 10002, "other inputs")


def test_a_code_is_no_idempotency_key_of_another_address(api):
    made = api.client.post("/generate", json=api.inputs(), headers={"Idempotency-Key": "c1"}).json()["id"]
    refused(query(api), 10004, "任务不存在")
    assert submit(api)["code"] == 10000
    assert task_of(api) != made


@pytest.mark.parametrize(
    "name", ["template.mp4", "/template.mp4", "/code/data/temp/template.mp4", "{folder}/temp/template.mp4"]
)
def test_how_callers_name_their_files(api, folder, name):
    answer = submit(api, video_url=name.format(folder=folder))
    if name == "/template.mp4":  # an absolute path is one
        refused(answer, 10002, "video_url: ")
    else:
        assert answer["code"] == 10000


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"video_url": "nothing.mp4"}, "video_url: There is no such file."),
        ({"audio_url": "nothing.wav"}, "audio_url: There is no such file."),
        ({"video_url": ""}, "video_url"),
        ({"audio_url": None}, "audio_url"),
        ({"audio_url": 7}, "audio_url"),
        ({"audio_url": "a\0b.wav"}, "audio_url"),
        ({"audio_url": "x" * 9000}, "audio_url"),
        ({"video_url": "../../secret.mp4"}, "video_url: The path is not below"),
        ({"video_url": "/code/data/../../secret.mp4"}, "video_url: The path is not below"),
        ({"video_url": "/etc/passwd"}, "video_url: The path is not below"),
        ({"video_url": "http://127.0.0.1:9/x.mp4"}, "video_url: "),
        ({"video_url": "speech.wav"}, "video_url: "),
        ({"video_url": "link.mp4"}, "video_url: The path is not below"),
        ({"watermark_switch": 1}, "watermark"),
        ({"digital_auth": "1"}, "digital_auth"),
        ({"chaofen": 1}, "chaofen: No renderer of this service sharpens faces. Send 0."),
    ],
)
def test_what_is_wrong_is_10002_in_words_and_makes_no_task(api, folder, fields, words):
    (folder.parent / "secret.mp4").write_bytes(b"secret")
    (folder / "temp" / "link.mp4").symlink_to(folder.parent / "secret.mp4")
    refused(submit(api, **fields), 10002, words)
    assert api.client.get("/tasks").json()["tasks"] == []


@pytest.mark.parametrize(
    "code", ["", "../up", "a/b", "a\\b", ".hidden", "x" * 129, "\N{BUG}" * 60, "a\nb", "a\0b", None, True, [], 1.5]
)
def test_a_code_that_could_be_no_file_name_is_refused_and_unknown(api, folder, code):
    refused(submit(api, code), 10002, "code")
    if isinstance(code, str) and code:
        refused(query(api, code), 10004)
    assert [p.name for p in (folder / "temp").iterdir() if p.name.endswith("-r.mp4")] == []


@pytest.mark.parametrize("code", ["7f9c-uuid", "任务 1", "a.b_c", "x" * 128])
def test_codes_that_are_fine(api, folder, code):
    assert submit(api, code)["code"] == 10000
    api.succeed(api.start(task_of(api)))
    assert query(api, code)["data"]["result"] == f"/{code}-r.mp4"
    assert (folder / "temp" / f"{code}-r.mp4").read_bytes() == VIDEO


def test_a_number_as_code_is_its_digits(api):
    assert submit(api, 42)["code"] == 10000
    assert query(api, "42")["data"]["status"] == 1


def test_a_code_whose_video_would_lie_over_a_file_is_refused(api, folder):
    (folder / "temp" / "c1-r.mp4").write_bytes(b"theirs")
    refused(submit(api), 10002, "c1-r.mp4")
    assert (folder / "temp" / "c1-r.mp4").read_bytes() == b"theirs"


def test_a_video_that_cannot_be_put_there_is_told_and_can_be_asked_for_again(api, folder):
    submit(api)
    (folder / "temp" / "c1-r.mp4").write_bytes(b"theirs")
    api.succeed(api.start(task_of(api)))
    refused(query(api), 9999, "Another file")
    (folder / "temp" / "c1-r.mp4").unlink()
    assert query(api)["data"]["status"] == 2


def test_a_folder_that_is_away_is_the_services_error(api, folder):
    submit(api)
    api.succeed(api.start(task_of(api)))
    folder.rename(folder.parent / "away")
    refused(query(api), 9999, "folder")
    refused(submit(api, "c2"), 9999, "folder")


def test_a_failed_task_says_why(api):
    submit(api)
    api.fail(api.start(task_of(api)), code="INPUT_NO_FACE")
    data = query(api)["data"]
    assert (data["status"], data["result"], data["msg"][:15]) == (3, "", "INPUT_NO_FACE: ")
    assert query(api)["data"] == data


def test_a_cancelled_task_has_failed(api):
    submit(api)
    api.client.post(f"/tasks/{task_of(api)}/cancel")
    assert (query(api)["data"]["status"], query(api)["data"]["msg"][:9]) == (3, "CANCELLED")


def test_an_unknown_code(api):
    refused(query(api, "__ping__"), 10004, "任务不存在")
    refused(query(api, ""), 10002, "code")
    refused(told(api.client.get("/easy/query")), 10002, "code")


def test_probes_may_ask_for_more_than_there_is(api):
    refused(told(api.client.get("/easy/query?code=a&ts=1&code=b")), 10004)


def test_a_full_queue_is_busy(start_api, folder):
    api = start_api(media_roots=(folder,), drop_in=DropIn(duix_dir=folder), max_waiting=1)
    assert submit(api)["code"] == 10000
    refused(submit(api, "c2"), 10001, "忙碌中")
    assert submit(api)["code"] == 10000  # a repeat has its place


def test_a_full_disk_is_a_system_error(api):
    api.disk.room = 10
    refused(submit(api), 9999, "bytes are free")


@pytest.mark.parametrize("content_type", ["text/plain", "application/x-www-form-urlencoded", None])
def test_json_is_read_whatever_it_is_called(api, content_type):
    order = json.dumps({"audio_url": "speech.wav", "video_url": "template.mp4", "code": "c1", "more": {"x": 1}})
    headers = {} if content_type is None else {"Content-Type": content_type}
    assert told(api.client.post("/easy/submit", content=order, headers=headers))["code"] == 10000


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b"7", b'{"code": "\xff"}', b'{"code": "\\ud800"}'])
def test_a_body_that_is_no_order_is_10002(api, body):
    refused(told(api.client.post("/easy/submit", content=body)), 10002)


def test_the_addresses_are_not_there_unless_they_are_opened(start_api):
    closed = start_api()
    problem(closed.client.post("/easy/submit", json={}), 404, "NOT_FOUND")
    problem(closed.client.get("/easy/query?code=1"), 404, "NOT_FOUND")
    assert not [path for path in closed.client.get("/openapi.json").json()["paths"] if "easy" in path]


# -- our own client of the protocol ---------------------------------------------------------------------------------
class Calm:
    """A listener that never cancels."""

    def report(self, *_: Any) -> None: ...

    def check(self) -> None: ...

    def called(self, *_: Any) -> None: ...


@pytest.fixture
def working(api: Api, tmp_path: Path) -> Iterator[Callable[[], Api]]:
    """Lets every task succeed, with a video of 30 frames."""
    made = write_video(tmp_path / "made.mp4", frames=30, audio="aac").read_bytes()
    over = threading.Event()

    def work() -> None:
        while not over.wait(0.01):
            claim = api.store.claim("node", lease_s=30, tier="warp", slot="cpu0", device="cpu")
            if claim is not None:
                api.succeed(claim, made)

    thread = threading.Thread(target=work)
    yield lambda: (thread.start(), api)[1]
    over.set()
    thread.join(20)


def test_our_renderer_for_duix_servers_is_served_four_times_at_once(working, folder, tmp_path):
    api = working()
    source = write_video(tmp_path / "source.mp4", frames=30, audio="aac")
    speech = write_wav(tmp_path / "speech.wav", tone(1.2))
    results: dict[int, Any] = {}

    def render(number: int) -> None:
        settings = {"url": api.url, "shared_dir": str(folder), "poll_s": 0.01, "patience_s": 0, "cache_dir": ""}
        renderer = registry.create("duix", settings)
        assert isinstance(renderer, DuixRenderer)
        renderer.load("cpu")
        out = tmp_path / f"out{number}"
        out.mkdir()
        job = RenderJob(source, speech, out, registry.validate_options("duix", {}))
        results[number] = renderer.render(job, Calm())
        check_output(results[number], job)
        renderer.close()

    threads = [threading.Thread(target=render, args=(n,)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(90)
    assert [results[n].frames for n in range(4)] == [30] * 4
    assert sorted(path.name for path in (folder / "temp").iterdir()) == ["speech.wav", "template.mp4"]
    assert list((folder / "greenroom").iterdir()) == []
