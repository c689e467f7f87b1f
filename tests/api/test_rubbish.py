"""Whatever is sent, the answer is a problem that names something: never a 500, never a stack trace."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.api.kit import Api

QUICK = settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
FIELDS = (
    "source", "audio", "renderer", "fallback", "options", "priority", "not_before", "after", "start_deadline_s",
    "deadline_s", "cache", "callback", "metadata", "request_id",
)  # fmt: skip
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)
URIS = st.one_of(
    st.text(),
    st.builds(
        "{}{}".format,
        st.sampled_from(
            ["upload:", "file://", "file:///", "http://127.0.0.1", "https://[::1]", "http://localhost:", "task:"]
        ),
        st.text(),
    ),
)


def never_worse_than_a_refusal(answer: Any) -> None:
    assert 400 <= answer.status_code < 500, f"{answer.status_code}: {answer.text}"
    body = answer.json()
    assert body["code"]
    assert body["detail"]
    assert body["hint"]
    assert "Traceback" not in answer.text


@QUICK
@given(body=st.dictionaries(st.sampled_from(FIELDS) | st.text(), JSON, max_size=6))
def test_any_object_in_the_body(shared: Api, body: dict[str, Any]) -> None:
    content = json.dumps(body)
    answer = shared.client.post("/generate", content=content, headers={"Content-Type": "application/json"})
    never_worse_than_a_refusal(answer)


@QUICK
@given(source=URIS, audio=URIS)
def test_any_address(shared: Api, source: str, audio: str) -> None:
    content = json.dumps({"source": source, "audio": audio})
    never_worse_than_a_refusal(
        shared.client.post("/generate", content=content, headers={"Content-Type": "application/json"})
    )


@QUICK
@given(content=st.binary(max_size=300), kind=st.sampled_from(["application/json", "multipart/form-data; boundary=b"]))
def test_any_bytes(shared: Api, content: bytes, kind: str) -> None:
    never_worse_than_a_refusal(shared.client.post("/generate", content=content, headers={"Content-Type": kind}))


@QUICK
@given(
    before=st.binary(max_size=40),
    header=st.binary(max_size=60),
    inside=st.binary(max_size=60),
    after=st.binary(max_size=40),
)
def test_almost_a_form(shared: Api, before: bytes, header: bytes, inside: bytes, after: bytes) -> None:
    content = before + b"--b\r\nContent-Disposition: form-data; " + header + b"\r\n\r\n" + inside + b"\r\n--b--" + after
    headers = {"Content-Type": "multipart/form-data; boundary=b"}
    never_worse_than_a_refusal(shared.client.post("/generate", content=content, headers=headers))


@QUICK
@given(
    options=st.dictionaries(st.sampled_from(["fps", "strength", "crf"]) | st.text(), JSON, min_size=1, max_size=3),
)
def test_any_options(shared: Api, options: dict[str, Any]) -> None:
    body = {"source": "upload:none", "audio": "upload:none", "options": options}
    content = json.dumps(body)
    never_worse_than_a_refusal(
        shared.client.post("/generate", content=content, headers={"Content-Type": "application/json"})
    )


@QUICK
@given(status=st.text(max_size=20), cursor=st.text(max_size=60), limit=st.text(max_size=8), moment=st.text(max_size=30))
def test_any_query(shared: Api, status: str, cursor: str, limit: str, moment: str) -> None:
    query = {"status": status, "cursor": cursor, "limit": limit, "created_after": moment}
    never_worse_than_a_refusal(shared.client.get("/tasks", params=query))


@pytest.fixture(scope="module")
def inputs(shared: Api) -> dict[str, str]:
    return shared.inputs()


@settings(QUICK, max_examples=30)
@given(metadata=st.dictionaries(st.text(max_size=20), JSON, max_size=4))
def test_any_metadata_comes_back_as_it_was(shared: Api, inputs: dict[str, str], metadata: dict[str, Any]) -> None:
    answer = shared.client.post("/generate", json=inputs | {"metadata": metadata, "not_before": "2100-01-01T00:00:00Z"})
    assert answer.status_code == 202, answer.text
    task = shared.client.get(answer.headers["location"]).json()
    assert task["metadata"] == answer.json()["metadata"] == metadata


HEADERS = ("Range", "If-Range", "If-None-Match", "If-Match", "If-Modified-Since", "Prefer", "traceparent")


@pytest.fixture(scope="module")
def finished(shared: Api) -> str:
    return shared.finished()


@QUICK
@given(
    headers=st.dictionaries(
        st.sampled_from(HEADERS), st.text(st.characters(min_codepoint=33, max_codepoint=126), max_size=40)
    )
)
def test_any_header(shared: Api, finished: str, headers: dict[str, str]) -> None:
    answer = shared.client.get(f"/tasks/{finished}/output", headers=headers)
    assert answer.status_code in {200, 206, 304, 412, 416}


@QUICK
@given(
    name=st.text(max_size=40),
    headers=st.dictionaries(
        st.sampled_from(["Content-Disposition", "X-File-Name", "Content-Digest", "Content-Type"]),
        st.binary(max_size=40).filter(lambda b: min(b, default=32) >= 32 and b.strip() == b),
    ),
)
def test_any_upload_header(shared: Api, name: str, headers: dict[str, bytes]) -> None:
    raw = {k.encode(): v for k, v in headers.items()}
    answer = shared.client.post("/uploads", content=b"x", params={"name": name}, headers=raw)  # type: ignore[arg-type]
    assert answer.status_code in {201, 400, 422}, answer.text


@pytest.mark.parametrize(
    "sent",
    [
        b"GET /tasks/\xff\xfe HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n",
        b"GET /tasks?cursor=%ff HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n",
        b"GET /tasks/%00/output HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n",
        b"POST /generate HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: abc\r\n\r\n",
        b"POST /generate HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Type: \xff\r\nContent-Length: 2\r\n\r\n{}",
        b"POST /uploads HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: -5\r\n\r\n",
    ],
)
def test_bytes_on_the_wire(shared: Api, sent: bytes) -> None:
    assert shared.raw(sent).split(b" ")[1].startswith(b"4")


ODD_NAMES = ["%00", "%ff%fe", "%ed%a0%80", "..%2f..", "%2e%2e", "a" * 5000, "9" * 40, "\N{BUG}"]
ODD_QUERIES = [
    "after=" + "9" * 18, "after=" + "9" * 40, "limit=" + "9" * 40, "cursor=" + "A" * 512, "cursor=%00",
    "cursor=WzEuMCwiXHVkODAwIl0", "renderer=%00", "retry_of=%ed%a0%80", "type=%00", "status=%00",
    "created_after=9999-12-31T23:59:59-12:00", "created_before=0001-01-01T00:00:00%2B14:00",
]  # fmt: skip
ODD_FIELDS: list[dict[str, Any]] = [
    {"metadata": {"\0": "\0"}}, {"metadata": {"n": 10**400}}, {"request_id": "\0"}, {"renderer": "\0"},
    {"deadline_s": 1e308}, {"deadline_s": 5e-324}, {"start_deadline_s": 1e-300}, {"priority": 1e300},
    {"not_before": "9999-12-31T23:59:59Z", "deadline_s": 2_592_000}, {"not_before": "9999-12-31T23:59:59-12:00"},
    {"not_before": "0001-01-01T00:00:00Z"}, {"after": ["\0"]}, {"after": ["x"] * 101}, {"options": {"\0": 1}},
    {"source": "task:\0"}, {"source": "upload:\0"}, {"source": "file:///%00"}, {"source": "file://[/x"},
    {"source": "http://\0/"}, {"source": "http://[::1"}, {"source": "http://a:99999999/"},
    {"source": f"https://{'a' * 300}/"}, {"callback": {"url": "http://\0"}}, {"callback": {"url": "http://[::1"}},
]  # fmt: skip


@pytest.mark.parametrize("name", ODD_NAMES)
def test_odd_names_in_addresses(shared: Api, name: str) -> None:
    for path in ("/tasks/{}", "/tasks/{}/events", "/tasks/{}/output", "/uploads/{}", "/tasks/x/deliveries/{}/replay"):
        for method in ("GET", "HEAD", "POST", "PUT"):
            assert shared.client.request(method, path.format(name)).status_code < 500


@pytest.mark.parametrize("query", ODD_QUERIES)
def test_odd_queries(shared: Api, query: str) -> None:
    for path in ("/tasks", "/deliveries", "/events", "/tasks/x/events"):
        with shared.client.stream("GET", f"{path}?{query}") as answer:
            assert answer.status_code < 500


@pytest.mark.parametrize("fields", ODD_FIELDS, ids=range(len(ODD_FIELDS)))
def test_odd_fields_spoil_nothing_for_others(api: Api, fields: dict[str, Any]) -> None:
    answer = api.client.post("/generate", json=api.inputs() | fields)
    assert answer.status_code in (202, 422), answer.text
    listed = api.client.get("/tasks")
    assert listed.status_code == 200
    for task in listed.json()["tasks"]:
        assert api.client.get(task["links"]["self"]).status_code == 200
        assert api.client.post(f"{task['links']['self']}/derive", json=fields).status_code in (202, 422)
        assert api.client.post(task["links"]["cancel"]).status_code == 202
