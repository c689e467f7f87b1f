"""The client against a real socket that misbehaves: what is tried again, what is told, what is left on disk."""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from app.cli.client import Refused, ServiceClient
from app.cli.errors import CommandError

Answer = tuple[int, dict[str, str], bytes]


class Scripted(ThreadingHTTPServer):
    """Gives the scripted answers one after the other (the last one for ever) and keeps what it was asked."""

    def __init__(self, *answers: Answer) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.answers = list(answers)
        self.asked: list[tuple[str, str, dict[str, str], bytes]] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Scripted

    def _answer(self) -> None:
        body = self.rfile.read(int(self.headers.get("content-length") or 0))
        self.server.asked.append((self.command, self.path, dict(self.headers), body))
        answers = self.server.answers
        status, headers, content = answers.pop(0) if len(answers) > 1 else answers[0]
        self.send_response(status)
        for name, value in ({"content-length": str(len(content))} | headers).items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(content)

    do_GET = do_POST = _answer

    def log_message(self, format: str, *args: object) -> None:
        pass


Serve = Callable[..., Scripted]


@pytest.fixture
def serve() -> Iterator[Serve]:
    servers: list[Scripted] = []

    def start(*answers: Answer) -> Scripted:
        server = Scripted(*answers)
        servers.append(server)
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        return server

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


def ok(body: Any) -> Answer:
    return 200, {}, json.dumps(body).encode()


def problem(status: int, **fields: Any) -> Answer:
    headers = {"content-type": "application/problem+json", "retry-after": "0"}
    return status, headers, json.dumps({"status": status, **fields}).encode()


@pytest.mark.parametrize("status", [408, 425, 429, 500, 502, 503, 504, 507])
def test_a_transient_answer_is_asked_again_with_the_same_key(status: int, serve: Serve) -> None:
    server = serve(problem(status), problem(status), ok({"id": "t1"}))
    with ServiceClient(server.url) as client:
        assert client.generate({"source": "upload:a"}, "key-1")["id"] == "t1"
    assert len(server.asked) == 3
    assert {headers["idempotency-key"] for _m, _p, headers, _b in server.asked} == {"key-1"}


@pytest.mark.parametrize(("status", "exit_code"), [(400, 2), (404, 1), (413, 2), (422, 2), (501, 1), (505, 1)])
def test_a_final_answer_is_told_at_once_in_the_service_s_words(status: int, exit_code: int, serve: Serve) -> None:
    server = serve(problem(status, code="SOME_CODE", detail="It is wrong.", field="audio", hint="Do better."))
    with ServiceClient(server.url) as client, pytest.raises(Refused) as caught:
        client.generate({}, "k")
    assert len(server.asked) == 1
    assert (caught.value.code, str(caught.value), caught.value.hint) == (
        "SOME_CODE",
        "audio: It is wrong.",
        "Do better.",
    )
    assert caught.value.exit_code == exit_code


def test_an_error_that_is_no_problem_document_has_words_too(serve: Serve) -> None:
    server = serve((403, {}, b"<html>Forbidden</html>"))
    with ServiceClient(server.url) as client, pytest.raises(Refused, match="403") as caught:
        client.task("t")
    assert caught.value.code == "HTTP_403"


def test_transient_answers_end_after_the_last_attempt(serve: Serve) -> None:
    server = serve(problem(503, code="BUSY", detail="Later."))
    with ServiceClient(server.url, attempts=3) as client, pytest.raises(Refused, match="Later"):
        client.task("t")
    assert len(server.asked) == 3


def test_a_service_that_is_not_there_is_named_with_a_hint() -> None:
    with ServiceClient("http://127.0.0.1:1", attempts=2) as client, pytest.raises(CommandError) as caught:
        client.task("t")
    assert caught.value.code == "UPSTREAM_CONNECTION"
    assert "127.0.0.1:1" in str(caught.value)
    assert "greenroom serve" in caught.value.hint


def test_an_upload_is_sent_again_from_its_beginning(serve: Serve, tmp_path: Path) -> None:
    content = bytes(range(256)) * 4000
    (tmp_path / "a ü.bin").write_bytes(content)
    server = serve(problem(503), (201, {}, b'{"id": "upl_1", "uri": "upload:upl_1"}'))
    seen: list[tuple[int, int]] = []
    with ServiceClient(server.url) as client:
        assert client.upload(tmp_path / "a ü.bin", lambda *at: seen.append(at)) == "upload:upl_1"
    assert [body for _m, _p, _h, body in server.asked] == [content, content]
    assert "a%20%C3%BC.bin" in server.asked[0][1] or "a+%C3%BC.bin" in server.asked[0][1]
    assert seen[-1] == (len(content), len(content))


def test_a_download_appears_whole_or_not_at_all(serve: Serve, tmp_path: Path) -> None:
    content = b"video" * 1000
    output = {"url": "/tasks/t/output", "bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
    target = tmp_path / "out.mp4"
    with ServiceClient(serve((200, {}, b"other" * 1000)).url) as client, pytest.raises(CommandError, match="SHA-256"):
        client.download({"output": output}, target, lambda *_: None)
    assert list(tmp_path.iterdir()) == []
    cut_short = (200, {"content-length": str(len(content)), "connection": "close"}, content[:100])
    with ServiceClient(serve(cut_short, (200, {}, content)).url) as client:
        client.download({"output": output}, target, lambda *_: None)
    assert target.read_bytes() == content
    assert list(tmp_path.iterdir()) == [target]


def test_the_listing_follows_its_pages(serve: Serve) -> None:
    server = serve(
        ok({"tasks": [{"id": "3"}, {"id": "2"}], "links": {"next": "/tasks?limit=3&cursor=abc"}}),
        ok({"tasks": [{"id": "1"}], "links": {"next": None}}),
    )
    with ServiceClient(server.url) as client:
        found = client.tasks(status=["RUNNING", "QUEUED"], limit=3)
    assert [task["id"] for task in found] == ["3", "2", "1"]
    assert server.asked[0][1] == "/tasks?limit=3&status=RUNNING&status=QUEUED"
    assert server.asked[1][1] == "/tasks?limit=3&cursor=abc"
