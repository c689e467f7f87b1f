"""Uploads: streamed to disk, held to their digest and limit, and told what is in them."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterator
from typing import Any

import pytest

from tests.api.kit import Api, ApiFactory, multipart, problem


def digest(content: bytes) -> str:
    return f"sha-256=:{base64.b64encode(hashlib.sha256(content).digest()).decode()}:"


def blobs_of(api: Api) -> list[Any]:
    """Once the background work is done."""
    api.blobs.close()
    return [p for p in (api.data_dir / "blobs").rglob("*") if p.is_file()]


def test_a_raw_body(shared: Api) -> None:
    content = shared.media.portrait.read_bytes()
    answer = shared.client.post("/uploads", content=content, headers={"Content-Disposition": "x; filename=face.png"})
    assert answer.status_code == 201
    upload = answer.json()
    assert set(upload) == {
        "id", "uri", "sha256", "bytes", "name", "created_at", "expires_at", "media", "media_problem",
    }  # fmt: skip
    assert answer.headers["location"] == f"/uploads/{upload['id']}"
    assert upload["uri"] == f"upload:{upload['id']}"
    assert (upload["sha256"], upload["bytes"]) == (hashlib.sha256(content).hexdigest(), len(content))
    assert (upload["name"], upload["media_problem"]) == ("face.png", None)
    assert upload["media"]["kind"] == "image"
    assert upload["expires_at"] > upload["created_at"]
    assert shared.client.get(f"/uploads/{upload['id']}").json() == upload
    assert shared.blobs.path(upload["sha256"]).read_bytes() == content


def test_a_form(shared: Api) -> None:
    answer = shared.client.post("/uploads", files={"file": ("v.wav", shared.media.speech.read_bytes())})
    assert answer.status_code == 201
    assert (answer.json()["name"], answer.json()["media"]["kind"]) == ("v.wav", "audio")


def test_one_content_has_many_ids_and_one_file(api: Api) -> None:
    ids = {api.upload(api.media.portrait) for _ in range(3)}
    assert len(ids) == 3
    assert len(blobs_of(api)) == 1


@pytest.mark.parametrize(
    ("headers", "query", "name"),
    [
        ({}, {}, "upload"),
        ({}, {"name": "a b 顔.png"}, "a b 顔.png"),
        ({}, {"name": "../../x.png"}, "x.png"),
        ({"X-File-Name": "a%20b%20%E9%A1%94.png"}, {}, "a b 顔.png"),
        ({"Content-Disposition": "attachment; filename*=UTF-8''%E9%A1%94.png"}, {}, "顔.png"),
        ({"Content-Disposition": 'attachment; filename="it\'s.png"'}, {}, "it's.png"),
        ({"Content-Disposition": "rubbish ;;="}, {}, "upload"),
    ],
)
def test_names(shared: Api, headers: dict[str, str], query: dict[str, str], name: str) -> None:
    answer = shared.client.post("/uploads", content=b"x", headers=headers, params=query)
    assert answer.json()["name"] == name


@pytest.mark.parametrize("file", ["rubbish", "empty", "bomb"])
def test_a_file_that_cannot_be_opened_is_kept_and_told_so(shared: Api, file: str) -> None:
    content = getattr(shared.media, file).read_bytes()
    answer = shared.client.post("/uploads", content=content, params={"name": "my file.png"})
    assert answer.status_code == 201
    told = answer.json()["media_problem"]
    assert answer.json()["media"] is None
    assert told["code"].startswith("INPUT_")
    assert told["reason"]
    assert told["message"]
    assert told["hint"]
    assert answer.json()["sha256"] not in told["message"]
    used = {"source": answer.json()["uri"], "audio": shared.upload(shared.media.speech)}
    assert shared.client.post("/generate", json=used).json()["code"] == told["code"]


class TestDigests:
    @pytest.mark.parametrize("header", ["Content-Digest", "Repr-Digest"])
    def test_the_right_one(self, shared: Api, header: str) -> None:
        answer = shared.client.post("/uploads", content=b"abc", headers={header: digest(b"abc")})
        assert answer.status_code == 201

    @pytest.mark.parametrize("header", ["Content-Digest", "Repr-Digest"])
    def test_a_wrong_one_keeps_nothing(self, api: Api, header: str) -> None:
        answer = api.client.post("/uploads", content=b"abc", headers={header: digest(b"abd")})
        assert problem(answer, 400, "DIGEST_MISMATCH", "Content-Digest")["retryable"] is True
        assert blobs_of(api) == []

    @pytest.mark.parametrize("value", ["sha-256=abc", "sha-256=:abc:", "sha-256=:!!!!:", "sha-256=::", "SHA-256=x"])
    def test_one_that_cannot_be_read(self, shared: Api, value: str) -> None:
        answer = shared.client.post("/uploads", content=b"abc", headers={"Content-Digest": value})
        problem(answer, 400, "DIGEST_INVALID", "Content-Digest")

    def test_two_that_differ(self, shared: Api) -> None:
        headers = {"Content-Digest": digest(b"a"), "Repr-Digest": digest(b"b")}
        problem(shared.client.post("/uploads", content=b"a", headers=headers), 400, "DIGEST_INVALID", "Repr-Digest")

    def test_other_algorithms_are_ignored(self, shared: Api) -> None:
        headers = {"Content-Digest": f"sha-512=:AAAA:, {digest(b'abc')}, md5=:x:"}
        assert shared.client.post("/uploads", content=b"abc", headers=headers).status_code == 201


class TestLimits:
    def test_exactly_the_limit(self, start_api: ApiFactory) -> None:
        api = start_api(max_upload_bytes=1000)
        assert api.client.post("/uploads", content=b"x" * 1000).status_code == 201
        body = problem(api.client.post("/uploads", content=b"x" * 1001), 413, "INPUT_TOO_LARGE")
        assert body["facts"]["limit"] == 1000

    def test_a_declared_length_over_it_is_refused_unread(self, start_api: ApiFactory) -> None:
        api = start_api(max_upload_bytes=1000)
        for kind in (b"", b"Content-Type: multipart/form-data; boundary=b\r\n"):
            head = b"POST /uploads HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: 99999999\r\n"
            assert api.raw(head + kind + b"\r\n").startswith(b"HTTP/1.1 413")

    @pytest.mark.parametrize("form", [False, True])
    def test_a_stream_without_a_declared_length(self, start_api: ApiFactory, form: bool) -> None:
        api = start_api(max_upload_bytes=1000)

        def pieces() -> Iterator[bytes]:
            if form:
                yield multipart([("file", "x", b"")])[0].partition(b"\r\n\r\n")[0] + b"\r\n\r\n"
            for _ in range(100):
                yield b"x" * 1000

        headers = multipart([])[1] if form else {}
        answer = api.client.post("/uploads", content=pieces(), headers=headers)
        problem(answer, 413, "INPUT_TOO_LARGE", "file" if form else None)
        assert blobs_of(api) == []

    def test_an_upload_that_breaks_off_keeps_nothing(self, api: Api) -> None:
        head = b"POST /uploads HTTP/1.1\r\nHost: x\r\nContent-Length: 5000000\r\n\r\n"
        api.raw(head + b"x" * 3_000_000, then_close=True)
        api.observed.until(1)
        assert blobs_of(api) == []

    def test_a_sender_that_stalls_is_given_up(self, start_api: ApiFactory) -> None:
        api = start_api(body_idle_s=0.1)
        for path in ("/uploads", "/generate"):
            head = f"POST {path} HTTP/1.1\r\nHost: x\r\nContent-Length: 5000\r\n\r\n"
            assert api.raw(head.encode() + b"x").startswith(b"HTTP/1.1 408")
        assert blobs_of(api) == []

    def test_a_large_one_is_stored_whole(self, api: Api) -> None:
        content = bytes(range(256)) * 40_000
        answer = api.client.post("/uploads", content=content, headers={"Content-Digest": digest(content)})
        assert answer.json()["bytes"] == len(content)


@pytest.mark.parametrize(
    "parts",
    [
        [],
        [("file", None, b"a text")],
        [("a", "a", b"x"), ("b", "b", b"y")],
        [("a", "a", b"x"), ("note", None, b"y")],
    ],
)
def test_a_form_without_exactly_one_file(shared: Api, parts: list[tuple[str, str | None, bytes]]) -> None:
    body, headers = multipart(parts)
    problem(shared.client.post("/uploads", content=body, headers=headers), 422, "REQUEST_INVALID", "file")


@pytest.mark.parametrize("upload_id", ["none", "x" * 500, "..%252f..%252fetc"])
def test_unknown_is_404(shared: Api, upload_id: str) -> None:
    problem(shared.client.get(f"/uploads/{upload_id}"), 404, "UPLOAD_NOT_FOUND")


def test_expired_is_404(start_api: ApiFactory) -> None:
    api = start_api(upload_ttl_s=0.001)
    uri = api.upload(api.media.portrait)
    problem(api.client.get(f"/uploads/{uri.removeprefix('upload:')}"), 404, "UPLOAD_NOT_FOUND")
