"""One key, one task: over repeats, races, lost files and both ways to name the key. # R3.5"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import pytest

from tests.api.kit import Api, ApiFactory, as_part, multipart, problem


def post(api: Api, fields: dict[str, Any], key: str | None = "k-1") -> httpx.Response:
    return api.client.post("/generate", json=fields, headers={"Idempotency-Key": key} if key else {})


def test_same_key_same_body_is_the_same_task(api: Api) -> None:
    fields = api.inputs()
    first, second = post(api, fields), post(api, fields)
    assert (first.status_code, second.status_code) == (202, 202)
    assert first.json()["id"] == second.json()["id"]
    assert "idempotent-replayed" not in first.headers
    assert second.headers["idempotent-replayed"] == "true"
    assert second.headers["location"] == first.headers["location"]


def test_same_key_other_body_is_refused(api: Api) -> None:
    fields = api.inputs()
    first = post(api, fields)
    body = problem(post(api, fields | {"priority": 6}), 422, "IDEMPOTENCY_KEY_REUSED", "Idempotency-Key")
    assert body["task_id"] == first.json()["id"]


def test_other_keys_and_no_keys_are_other_tasks(api: Api) -> None:
    fields = api.inputs()
    ids = {post(api, fields, key).json()["id"] for key in ("a", "b", None, None)}
    assert len(ids) == 4


def test_a_default_said_aloud_is_the_same_body(api: Api) -> None:
    fields = api.inputs()
    assert post(api, fields).json()["id"] == post(api, fields | {"priority": 5, "metadata": {}}).json()["id"]


def test_the_order_of_fields_does_not_matter(api: Api) -> None:
    fields = api.inputs() | {"metadata": {"a": 1, "b": 2}}
    turned = {name: fields[name] for name in reversed(fields)} | {"metadata": {"b": 2, "a": 1}}
    assert post(api, fields).json()["id"] == post(api, turned).json()["id"]


@pytest.mark.parametrize("key", ["", "two words", "a" * 256, "ümlaut", "tab\there", '""'])
def test_a_malformed_key_is_400(shared: Api, key: str) -> None:
    headers = {b"Idempotency-Key": key.encode()}
    answer = shared.client.post("/generate", json={}, headers=headers)  # type: ignore[arg-type]
    problem(answer, 400, "IDEMPOTENCY_KEY_INVALID", "Idempotency-Key")


def test_two_keys_are_400(shared: Api) -> None:
    headers = [("Idempotency-Key", "a"), ("Idempotency-Key", "b")]
    problem(
        shared.client.post("/generate", json={}, headers=headers), 400, "IDEMPOTENCY_KEY_INVALID", "Idempotency-Key"
    )


def test_a_quoted_key_is_the_key(api: Api) -> None:
    """The IETF draft writes the header as a quoted string; most clients do not."""
    fields = api.inputs()
    assert post(api, fields, "k").json()["id"] == post(api, fields, '"k"').json()["id"]


def test_request_id_in_the_body_is_the_same_key(api: Api) -> None:
    fields = api.inputs()
    first = post(api, fields | {"request_id": "k"}, None)
    assert post(api, fields, "k").json()["id"] == first.json()["id"]
    assert post(api, fields | {"request_id": "k"}, "k").json()["id"] == first.json()["id"]


def test_header_and_body_must_not_name_two_keys(shared: Api) -> None:
    fields = {"source": "upload:x", "audio": "upload:x", "request_id": "a"}
    problem(post(shared, fields, "b"), 422, "REQUEST_INVALID", "request_id")


def test_a_hundred_at_once_are_one_task(api: Api) -> None:
    fields = api.inputs()
    with ThreadPoolExecutor(20) as threads:
        answers = list(threads.map(lambda _: post(api, fields), range(100)))
    assert {a.status_code for a in answers} == {202}
    assert len({a.json()["id"] for a in answers}) == 1
    assert sum("idempotent-replayed" not in a.headers for a in answers) == 1


def test_a_repeat_finds_its_task_when_the_upload_is_gone(start_api: ApiFactory) -> None:
    api = start_api(upload_ttl_s=3600)
    fields = api.inputs()
    first = post(api, fields)
    api.store.delete_uploads([uri.removeprefix("upload:") for uri in fields.values()])
    assert post(api, fields).json()["id"] == first.json()["id"]
    problem(post(api, fields, None), 422, "INPUT_NOT_FOUND", "source")


def test_a_repeat_is_answered_by_a_full_queue(start_api: ApiFactory) -> None:
    api = start_api(max_waiting=1)
    fields = api.inputs()
    first = post(api, fields)
    assert post(api, fields).json()["id"] == first.json()["id"]
    assert post(api, fields, "other").status_code == 429


def test_a_refused_request_does_not_use_up_its_key(api: Api) -> None:
    fields = api.inputs()
    problem(post(api, fields | {"audio": "upload:none"}), 422, "INPUT_NOT_FOUND", "audio")
    assert post(api, fields).status_code == 202


def test_a_repeat_shows_the_task_as_it_is_now(api: Api) -> None:
    fields = api.inputs()
    task_id = post(api, fields).json()["id"]
    api.succeed(api.start(task_id))
    again = post(api, fields)
    assert (again.status_code, again.json()["status"]) == (202, "SUCCEEDED")
    assert "retry-after" not in again.headers


def test_files_in_the_request_count_by_content(api: Api) -> None:
    def send(portrait: bytes, boundary: str, name: str) -> httpx.Response:
        parts = [("source", name, portrait), ("audio", "a.wav", api.media.speech.read_bytes()), as_part({})]
        body, headers = multipart(parts, boundary)
        return api.client.post("/generate", content=body, headers=headers | {"Idempotency-Key": "k"})

    portrait = api.media.portrait.read_bytes()
    first = send(portrait, "one", "face.png")
    assert send(portrait, "two", "renamed.png").json()["id"] == first.json()["id"]
    problem(send(api.media.video.read_bytes(), "one", "face.png"), 422, "IDEMPOTENCY_KEY_REUSED", "Idempotency-Key")
