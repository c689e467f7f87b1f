"""The finished video over HTTP: whole, in ranges, under conditions; and what is said where there is none."""

from __future__ import annotations

import base64
import hashlib
import os
import socket
import time
from email.utils import formatdate
from pathlib import Path

import pytest
from starlette.datastructures import Headers

from app.api.ranges import Span, judge, parse_range
from app.api.routes.output import content_disposition
from tests.api.kit import VIDEO, Api, ApiFactory, as_part, multipart, problem

SIZE = len(VIDEO)
ETAG = f'"{hashlib.sha256(VIDEO).hexdigest()}"'


@pytest.fixture(scope="module")
def finished(shared: Api) -> str:
    task_id = shared.finished()
    return f"/tasks/{task_id}/output"


def test_the_whole_file(shared: Api, finished: str) -> None:
    answer = shared.client.get(finished)
    assert (answer.status_code, answer.content) == (200, VIDEO)
    headers = answer.headers
    assert headers["content-type"] == "video/mp4"
    assert headers["content-length"] == str(SIZE)
    assert headers["accept-ranges"] == "bytes"
    assert headers["etag"] == ETAG
    digest = base64.b64encode(hashlib.sha256(VIDEO).digest()).decode()
    assert headers["repr-digest"] == f"sha-256=:{digest}:"


@pytest.mark.parametrize("range_header", [None, "bytes=0-9"])
def test_head_says_the_same_without_the_bytes(shared: Api, finished: str, range_header: str | None) -> None:
    answer = shared.client.head(finished, headers={"Range": range_header} if range_header else {})
    whole = shared.client.get(finished)
    assert (answer.status_code, answer.content) == (200, b"")
    for name in ("content-length", "content-type", "etag", "accept-ranges", "last-modified", "content-disposition"):
        assert answer.headers[name] == whole.headers[name]


@pytest.mark.parametrize(
    ("value", "start", "stop"),
    [
        ("bytes=0-0", 0, 1),
        ("bytes=0-99", 0, 100),
        ("bytes=100-", 100, SIZE),
        ("bytes=-1", SIZE - 1, SIZE),
        ("bytes=-100", SIZE - 100, SIZE),
        (f"bytes=-{SIZE * 10}", 0, SIZE),
        (f"bytes=5-{SIZE * 10}", 5, SIZE),
        (f"bytes={SIZE - 1}-", SIZE - 1, SIZE),
        ("BYTES = 1-2", 1, 3),
        ("bytes= 1-2", 1, 3),
    ],
)
def test_one_range_is_206(shared: Api, finished: str, value: str, start: int, stop: int) -> None:
    answer = shared.client.get(finished, headers={"Range": value})
    assert (answer.status_code, answer.content) == (206, VIDEO[start:stop])
    assert answer.headers["content-range"] == f"bytes {start}-{stop - 1}/{SIZE}"
    assert answer.headers["content-length"] == str(stop - start)
    assert answer.headers["etag"] == ETAG


@pytest.mark.parametrize("value", [f"bytes={SIZE}-", f"bytes={SIZE}-{SIZE + 5}", "bytes=-0", "bytes=999999999999-"])
def test_a_range_outside_is_416(shared: Api, finished: str, value: str) -> None:
    answer = shared.client.get(finished, headers={"Range": value})
    problem(answer, 416, "RANGE_NOT_SATISFIABLE")
    assert answer.headers["content-range"] == f"bytes */{SIZE}"


@pytest.mark.parametrize(
    "value",
    [
        "bytes=5-2",
        "bytes=",
        "bytes=-",
        "bytes=a-b",
        "bytes",
        "lines=1-2",
        "bytes=0-1,5-6",
        "bytes=1.5-2",
        "bytes=--1",
        "",
    ],
)
def test_a_malformed_or_multiple_range_is_the_whole_file(shared: Api, finished: str, value: str) -> None:
    answer = shared.client.get(finished, headers={"Range": value})
    assert (answer.status_code, answer.content) == (200, VIDEO)


@pytest.mark.parametrize(
    ("if_range", "status"),
    [(ETAG, 206), ('"other"', 200), (f"W/{ETAG}", 200), ("Mon, 01 Jan 2001 00:00:00 GMT", 200), ("rubbish", 200)],
)
def test_if_range(shared: Api, finished: str, if_range: str, status: int) -> None:
    answer = shared.client.get(finished, headers={"Range": "bytes=0-9", "If-Range": if_range})
    assert answer.status_code == status


def test_if_range_with_the_date_of_the_file(shared: Api, finished: str) -> None:
    modified = shared.client.head(finished).headers["last-modified"]
    assert shared.client.get(finished, headers={"Range": "bytes=0-9", "If-Range": modified}).status_code == 206


@pytest.mark.parametrize("value", [ETAG, "*", f'"other", {ETAG}', f"W/{ETAG}"])
def test_if_none_match_is_304(shared: Api, finished: str, value: str) -> None:
    for method in ("GET", "HEAD"):
        answer = shared.client.request(method, finished, headers={"If-None-Match": value, "Range": "bytes=0-1"})
        assert (answer.status_code, answer.content) == (304, b"")
        assert answer.headers["etag"] == ETAG


def test_other_conditions(shared: Api, finished: str) -> None:
    assert shared.client.get(finished, headers={"If-None-Match": '"other"'}).status_code == 200
    assert shared.client.get(finished, headers={"If-Match": ETAG}).status_code == 200
    problem(shared.client.get(finished, headers={"If-Match": '"other"'}), 412, "PRECONDITION_FAILED")
    modified = shared.client.head(finished).headers["last-modified"]
    assert shared.client.get(finished, headers={"If-Modified-Since": modified}).status_code == 304
    assert shared.client.get(finished, headers={"If-Modified-Since": "rubbish"}).status_code == 200


def test_parts_make_the_whole(shared: Api, finished: str) -> None:
    pieces = [
        shared.client.get(finished, headers={"Range": f"bytes={start}-{start + 999}", "If-Range": ETAG}).content
        for start in range(0, SIZE, 1000)
    ]
    assert b"".join(pieces) == VIDEO


class TestWithout:
    def test_unfinished_is_409_with_state_and_retry_after(self, api: Api) -> None:  # R1.5
        task_id = api.submit()["id"]
        for state in ("QUEUED", "RUNNING"):
            if state == "RUNNING":
                api.start(task_id)
            for method in ("GET", "HEAD"):
                answer = api.client.request(method, f"/tasks/{task_id}/output")
                assert answer.status_code == 409
                assert int(answer.headers["retry-after"]) >= 1
            body = problem(api.client.get(f"/tasks/{task_id}/output"), 409, "TASK_NOT_FINISHED")
            assert (body["state"], body["retryable"]) == (state, True)

    def test_failed_and_cancelled_is_404(self, api: Api) -> None:
        failed, cancelled = api.submit()["id"], api.submit()["id"]
        api.fail(api.start(failed))
        api.client.post(f"/tasks/{cancelled}/cancel")
        body = problem(api.client.get(f"/tasks/{failed}/output"), 404, "TASK_HAS_NO_OUTPUT")
        assert (body["state"], body["error_code"]) == ("FAILED", "WORKER_CRASHED")
        problem(api.client.get(f"/tasks/{cancelled}/output"), 404, "TASK_HAS_NO_OUTPUT")

    def test_removed_is_410(self, api: Api) -> None:
        task_id = api.finished()
        (api.data_dir / "results" / f"{task_id}.mp4").unlink()
        problem(api.client.get(f"/tasks/{task_id}/output"), 410, "OUTPUT_GONE")

    def test_expired_is_410_and_the_task_reads_as_before(self, api: Api) -> None:  # R0.13
        task_id = api.finished()
        before = api.client.get(f"/tasks/{task_id}")
        api.store.expire_results(time.time())
        body = problem(api.client.get(f"/tasks/{task_id}/output"), 410, "OUTPUT_EXPIRED")
        assert (body["state"], body["retryable"]) == ("SUCCEEDED", False)
        after = api.client.get(f"/tasks/{task_id}")
        assert (after.content, after.headers["etag"]) == (before.content, before.headers["etag"])
        api.store.purge_tasks(time.time())
        problem(api.client.get(f"/tasks/{task_id}/output"), 404, "TASK_NOT_FOUND")

    def test_a_file_of_another_length_is_not_passed_off_as_the_result(self, api: Api) -> None:
        task_id = api.finished()
        (api.data_dir / "results" / f"{task_id}.mp4").write_bytes(VIDEO[:-1])
        problem(api.client.get(f"/tasks/{task_id}/output"), 410, "OUTPUT_GONE")

    def test_unknown_is_404(self, shared: Api) -> None:
        problem(shared.client.get("/tasks/none/output"), 404, "TASK_NOT_FOUND")


def test_a_download_goes_on_when_the_file_is_removed_meanwhile(start_api: ApiFactory) -> None:
    api = start_api()
    content = VIDEO * 1000
    task_id = api.finished(content)
    with api.client.stream("GET", f"/tasks/{task_id}/output") as answer:
        pieces = answer.iter_bytes(65_536)
        first = next(pieces)
        (api.data_dir / "results" / f"{task_id}.mp4").unlink()
        assert first + b"".join(pieces) == content


def test_a_client_that_leaves_in_the_middle_frees_the_file(start_api: ApiFactory) -> None:
    api = start_api()
    task_id = api.finished(VIDEO * 4000)
    api.observed.clear()
    with socket.create_connection(("127.0.0.1", api.port), timeout=20) as connection:
        connection.sendall(f"GET /tasks/{task_id}/output HTTP/1.1\r\nHost: x\r\n\r\n".encode())
        connection.recv(1000)
    api.observed.until(1)
    # Which files this process holds open, the server being in it.
    opened = {os.path.realpath(link) for link in Path("/proc/self/fd").iterdir()}
    assert not any(task_id in path for path in opened)


def test_the_file_name_is_made_of_the_sources(api: Api) -> None:
    parts = [
        ("source", '顔 "ü".png', api.media.portrait.read_bytes()),
        ("audio", "a.wav", api.media.speech.read_bytes()),
        as_part({}),
    ]
    body, headers = multipart([(n, f.replace('"', "%22") if f else None, c) for n, f, c in parts])
    task_id = api.client.post("/generate", content=body, headers=headers).json()["id"]
    api.succeed(api.start(task_id))
    header = api.client.get(f"/tasks/{task_id}/output").headers["content-disposition"]
    assert header.startswith('inline; filename="')
    assert f"filename*=UTF-8''%E9%A1%94%20%22%C3%BC%22-{task_id}.mp4" in header


@pytest.mark.parametrize("name", ['a"b.mp4', "a\\b.mp4", "a;b.mp4", "a\r\nX: y.mp4", "ü.mp4"])
def test_a_disposition_cannot_be_broken_out_of(name: str) -> None:
    header = content_disposition(name)
    header.encode("ascii")
    assert "\r" not in header
    assert header.count('"') == 2
    assert header.count(";") == 2


class TestPure:
    def test_an_empty_file_has_no_ranges(self) -> None:
        assert parse_range("bytes=0-", 0) == "unsatisfiable"
        assert parse_range("bytes=-5", 0) == "unsatisfiable"

    def test_only_get_has_ranges(self) -> None:
        headers = Headers({"range": "bytes=0-1"})
        assert judge(headers, size=10, etag='"x"', modified=0, is_get=False) == "full"
        assert judge(headers, size=10, etag='"x"', modified=0) == Span(0, 2)

    def test_an_entity_tag_goes_before_a_date(self) -> None:
        headers = Headers({"if-none-match": '"y"', "if-modified-since": formatdate(1e9, usegmt=True)})
        assert judge(headers, size=10, etag='"x"', modified=0) == "full"
