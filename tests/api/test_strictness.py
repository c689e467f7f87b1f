"""Nothing that a caller says is ignored: unknown and repeated query parameters, keys that are there twice."""

from __future__ import annotations

import base64
import gzip
import json

import pytest

from tests.api.kit import Api, multipart, problem

ROUTES = [
    ("GET", "/tasks"), ("GET", "/tasks/none"), ("POST", "/tasks/none/cancel"), ("POST", "/tasks/none/retry"),
    ("POST", "/tasks/none/derive"),
    ("POST", "/tasks/none/approve"), ("POST", "/tasks/none/reject"), ("POST", "/tasks/none/rerender"),
    ("GET", "/tasks/none/output"), ("POST", "/generate"), ("POST", "/uploads"), ("GET", "/uploads/none"),
    ("GET", "/tasks/none/deliveries"), ("POST", "/tasks/none/deliveries/replay"),
    ("POST", "/tasks/none/deliveries/one/replay"), ("GET", "/deliveries"),
    ("GET", "/queue"), ("POST", "/queue/pause"), ("POST", "/queue/resume"), ("GET", "/stats"),
    ("GET", "/alarms"), ("GET", "/resources"), ("GET", "/events"), ("GET", "/tasks/none/events"),
    ("GET", "/tiers"), ("POST", "/tiers/reload"), ("PUT", "/tiers/none/breaker"),
]  # fmt: skip
FREE = ["/health/live", "/health/ready", "/metrics"]


@pytest.mark.parametrize(("method", "path"), ROUTES)
def test_an_unknown_query_parameter_is_named(shared: Api, method: str, path: str) -> None:
    answer = shared.client.request(method, path, params={"foo": "1"})
    body = problem(answer, 422, "REQUEST_INVALID", "foo")
    assert (body["reason"], len(body["errors"])) == ("unknown_parameter", 1)
    assert "This address takes" in body["hint"]
    assert shared.client.get("/queue").json()["paused"] is False


def test_the_routes_above_are_all_that_there_are(shared: Api) -> None:
    paths = shared.client.get("/openapi.json").json()["paths"]
    found = {(method.upper(), path) for path, item in paths.items() for method in item}
    ids = {
        "/tasks/none": "/tasks/{task_id}",
        "/uploads/none": "/uploads/{upload_id}",
        "/tiers/none": "/tiers/{name}",
        "/one/": "/{delivery_id}/",
    }
    named = set(ROUTES)
    for written, template in ids.items():
        named = {(method, path.replace(written, template)) for method, path in named}
    assert found == named | {("GET", path) for path in FREE}
    for path, item in paths.items():
        assert all(("422" in operation["responses"]) != (path in FREE) for operation in item.values()), path


@pytest.mark.parametrize("path", [*FREE, "/docs", "/openapi.json"])
def test_probes_may_add_what_they_like(shared: Api, path: str) -> None:
    assert shared.client.get(path, params={"_": "123"}).status_code == 200


@pytest.mark.parametrize(
    ("method", "address", "name"),
    [
        ("GET", "/tasks?limit=1&limit=2", "limit"),
        ("GET", "/tasks?cursor=a&cursor=a", "cursor"),
        ("GET", "/tasks/none?wait=1&wait=2", "wait"),
        ("POST", "/uploads?name=a&name=b", "name"),
    ],
)
def test_a_repeated_query_parameter_is_named(shared: Api, method: str, address: str, name: str) -> None:
    body = problem(shared.client.request(method, address), 422, "REQUEST_INVALID", name)
    assert body["reason"] == "repeated_parameter"


def test_all_wrong_parameters_are_told_and_none_at_length(shared: Api) -> None:
    body = problem(shared.client.get(f"/queue?a=1&b=2&{'c' * 5000}=3"), 422, "REQUEST_INVALID", "a")
    assert [e["field"] for e in body["errors"]] == ["a", "b", "c" * 64]
    assert shared.client.get("/queue?=1").status_code == 422


@pytest.mark.parametrize("path", ["/tasks/", "/uploads/", "/queue/", "/generate/"])
def test_a_slash_too_many_is_no_redirect(shared: Api, path: str) -> None:
    for method in ("GET", "POST"):
        answer = shared.client.request(method, path, follow_redirects=False)
        problem(answer, 404, "NOT_FOUND")
        assert "location" not in answer.headers


def test_what_may_be_repeated_may(shared: Api) -> None:
    assert shared.client.get("/tasks?status=QUEUED&status=RUNNING").status_code == 200


@pytest.mark.parametrize(
    ("content", "key"),
    [
        ('{"source": "upload:a", "audio": "upload:b", "priority": 1, "priority": 2}', "priority"),
        (
            '{"source": "upload:a", "audio": "upload:b", "metadata": {"list": [{"x": 1, "y": 2, "x": 1}]}}',
            "metadata.list.0.x",
        ),
        ('{"metadata": {"a": [0, {}, {"b": {"c": 1}}], "d": {"e": {"f": 1, "f": 2}}}}', "metadata.d.e.f"),
        ('{"metadata": {"a": 1, "a": {"b": 1, "b": 2}}}', "metadata.a"),
    ],
)
def test_a_key_that_is_there_twice_is_named(shared: Api, content: str, key: str) -> None:
    answer = shared.client.post("/generate", content=content, headers={"Content-Type": "application/json"})
    body = problem(answer, 422, "REQUEST_INVALID", key)
    assert body["reason"] == "duplicate"
    assert repr(key.rsplit(".", 1)[-1]) in body["detail"]
    form, headers = multipart([("request", None, content.encode())])
    problem(shared.client.post("/generate", content=form, headers=headers), 422, "REQUEST_INVALID", key)


def test_numbers_of_any_length_and_deep_values_are_still_answered(shared: Api) -> None:
    for value in ("1" * 5000, "1e999", "[" * 150 + "]" * 150, "[" * 50_000):
        content = '{"source": "upload:a", "audio": "upload:b", "metadata": {"x": ' + value + "}}"
        answer = shared.client.post("/generate", content=content, headers={"Content-Type": "application/json"})
        assert answer.status_code == 422, answer.text


@pytest.mark.parametrize("content", [b"", b'{"source": ', b"[]", b"\xff", json.dumps("text").encode()])
def test_what_is_no_json_object_gets_a_hint_of_its_own(shared: Api, content: bytes) -> None:
    answer = shared.client.post("/generate", content=content, headers={"Content-Type": "application/json"})
    assert "JSON object" in problem(answer, 422, "REQUEST_INVALID")["hint"]


@pytest.mark.parametrize("path", ["/generate", "/uploads"])
@pytest.mark.parametrize("kind", ["multipart/form-data", "multipart/form-data; boundary=b"])
def test_a_form_that_is_none_gets_a_hint_of_its_own(shared: Api, path: str, kind: str) -> None:
    answer = shared.client.post(path, content=b"--b", headers={"Content-Type": kind})
    assert "boundary" in problem(answer, 422, "REQUEST_INVALID")["hint"]


def test_every_method_of_an_address_is_named(shared: Api) -> None:
    for path, methods in (("/tasks/x/output", "GET, HEAD"), ("/health/live", "GET, HEAD"), ("/tasks", "GET")):
        answer = shared.client.delete(path)
        problem(answer, 405, "METHOD_NOT_ALLOWED")
        assert answer.headers["allow"] == methods


def test_half_a_character_in_a_cursor_is_refused(shared: Api) -> None:
    cursor = base64.urlsafe_b64encode(b'[1.0, "\\ud800"]').decode().rstrip("=")
    problem(shared.client.get("/tasks", params={"cursor": cursor}), 422, "REQUEST_INVALID", "cursor")


@pytest.mark.parametrize("body", [b"\xff", b'{"state": "open", "state": "open"}', b"[]", b""])
def test_the_body_of_a_switch_is_read_as_strictly_as_any(shared: Api, body: bytes) -> None:
    headers = {"Content-Type": "application/json"}
    answer = shared.client.put("/tiers/warp/breaker", content=body, headers=headers)
    problem(answer, 422, "REQUEST_INVALID", "state" if b"state" in body else None)


def test_a_whole_number_may_be_written_with_a_point(api: Api) -> None:
    task = api.store.get(api.submit(priority=3.0)["id"])
    assert task is not None
    assert (task.priority, type(task.priority)) == (3, int)


BARE = [
    "/tasks/none/cancel", "/tasks/none/retry", "/tasks/none/deliveries/replay", "/tasks/none/deliveries/one/replay",
    "/queue/pause", "/queue/resume", "/tiers/reload",
]  # fmt: skip


@pytest.mark.parametrize("path", BARE)
def test_what_is_said_where_nothing_is_heard_is_named(shared: Api, path: str) -> None:
    body = problem(shared.client.post(path, json={"reason": "x", "priority": 9}), 422, "REQUEST_INVALID", "reason")
    assert [error["field"] for error in body["errors"]] == ["reason", "priority"]
    assert body["reason"] == "unexpected_body"
    problem(shared.client.post(path, content=b"stop"), 422, "REQUEST_INVALID")
    problem(shared.client.post(path, content=iter([b"[", b"]"])), 422, "REQUEST_INVALID")
    assert shared.client.get("/queue").json()["paused"] is False


@pytest.mark.parametrize("body", [b"", b"{}", b" \n"])
def test_a_body_that_says_nothing_is_none(api: Api, body: bytes) -> None:
    answer = api.client.post(f"/tasks/{api.submit()['id']}/cancel", content=body)
    assert (answer.status_code, answer.json()["outcome"]) == (202, "cancelled")


@pytest.mark.parametrize("path", ["/generate", "/uploads", "/tasks/none/derive", "/tasks/none/cancel"])
def test_a_compressed_body_is_told_as_such(shared: Api, path: str) -> None:
    headers = {"Content-Encoding": "gzip", "Content-Type": "application/json"}
    answer = shared.client.post(path, content=gzip.compress(b"{}"), headers=headers)
    body = problem(answer, 415, "UNSUPPORTED_MEDIA_TYPE", "Content-Encoding")
    assert (body["detail"], answer.headers["accept-encoding"]) == ("The body is sent as 'gzip'.", "identity")
    form = {"Content-Encoding": "br", "Content-Type": "multipart/form-data; boundary=x"}
    if path != "/tasks/none/cancel":
        answer = shared.client.post(path, content=b"--x--", headers=form)
        problem(answer, 415, "UNSUPPORTED_MEDIA_TYPE", "Content-Encoding")
