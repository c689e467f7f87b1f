"""Calls to servers that are slow, broken, lying or busy: what each becomes, and how often each is tried."""

from __future__ import annotations

import asyncio
import email.utils
import json
import socket
import time
from pathlib import Path
from typing import Any

import pytest

from app.render.remote.errors import retry_after
from app.render.remote.peer import Context, Peer
from app.render.remote.settings import RemoteSettings
from app.retry.taxonomy import CodedError, Failure
from tests.render.remote.rough_peer import (
    HALF_BODY,
    HALF_CHUNK,
    HANG_UP,
    NO_HTTP,
    RoughPeer,
    answer,
    dripping_head,
    raw,
    silent,
    stalling_body,
)

QUICK = {"connect_s": 0.3, "header_s": 0.3, "read_s": 0.3, "call_s": 5.0, "transfer_s": 5.0}


class Caller:
    """A peer with its loop, and what its calls were told as."""

    def __init__(self, url: str, **settings: Any) -> None:
        self.calls: list[tuple[str, float]] = []
        self.runner = asyncio.Runner()
        self.peer = self.runner.run(self._open(RemoteSettings(url=url, **{**QUICK, **settings})))
        self.context = Context(lambda call, seconds: self.calls.append((call, seconds)))

    async def _open(self, settings: RemoteSettings) -> Peer:
        return Peer(settings)

    def call(self, method: str = "GET", **more: Any) -> dict[str, Any]:
        return self.runner.run(self.peer.call(self.context, "query", method, "/thing", **more))

    def fails(self, **more: Any) -> Failure:
        with pytest.raises(CodedError) as caught:
            self.call(**more)
        return caught.value.failure

    def fetch(self, target: Path) -> int:
        return self.runner.run(self.peer.fetch(self.context, "result", "/file", target, lambda _done, _total: None))

    def close(self) -> None:
        self.runner.run(self.peer.close())
        self.runner.close()


@pytest.fixture
def caller(rough):
    made = []

    def start(*script: Any, **settings: Any) -> tuple[Caller, RoughPeer]:
        peer = rough(*script)
        made.append(Caller(peer.url, **settings))
        return made[-1], peer

    yield start
    for one in made:
        one.close()


def test_an_answer_is_its_json_and_connections_are_used_again(caller):
    client, peer = caller(answer("200 OK", b'{"a": 1}'))
    assert [client.call() for _ in range(3)] == [{"a": 1}] * 3
    assert (peer.connections, len(peer.requests)) == (1, 3)
    assert [name for name, _ in client.calls] == ["query"] * 3


def test_json_is_taken_under_any_content_type(caller):
    client, _ = caller(answer("200 OK", b'{"a": 1}', "Content-Type: text/html; charset=utf-8"))
    assert client.call() == {"a": 1}


@pytest.mark.parametrize(
    ("play", "code", "reason", "tries"),
    [
        (silent(3), "UPSTREAM_TIMEOUT", "header_timeout", 4),
        (dripping_head(0.1), "UPSTREAM_TIMEOUT", "header_timeout", 4),
        (stalling_body(3), "UPSTREAM_TIMEOUT", "read_timeout", 4),
        (HANG_UP, "UPSTREAM_CONNECTION", "cut_off", 4),
        (HALF_BODY, "UPSTREAM_CONNECTION", "cut_off", 4),
        (HALF_CHUNK, "UPSTREAM_CONNECTION", "cut_off", 4),
        (NO_HTTP, "UPSTREAM_CONNECTION", "cut_off", 4),
        (answer("200 OK", b"<html>", "Content-Type: text/html"), "UPSTREAM_5XX", "not_json", 1),
        (answer("200 OK", b'{"a": '), "UPSTREAM_5XX", "not_json", 1),
        (answer("200 OK", b"\xff\xfe\x00"), "UPSTREAM_5XX", "not_json", 1),
        (answer("200 OK", b"[" * 100_000), "UPSTREAM_5XX", "not_json", 1),
        (answer("200 OK", b"[1]"), "UPSTREAM_5XX", "not_an_object", 1),
        (answer("200 OK", b'{"a": "' + b"x" * 200_000 + b'"}'), "UPSTREAM_5XX", "too_large", 1),
        (answer("200 OK", b"no gzip", "Content-Encoding: gzip"), "UPSTREAM_5XX", "protocol", 1),
        (answer("302 Found", b"", "Location: http://127.0.0.1:1/"), "UPSTREAM_REJECTED", "status", 1),
        (answer("400 Bad Request"), "UPSTREAM_REJECTED", "status", 1),
        (answer("404 Not Found"), "UPSTREAM_REJECTED", "status", 1),
        (answer("422 Unprocessable"), "UPSTREAM_REJECTED", "status", 1),
        (answer("401 Unauthorized"), "UPSTREAM_AUTH", "status", 1),
        (answer("403 Forbidden"), "UPSTREAM_AUTH", "status", 1),
        (answer("408 Request Timeout"), "UPSTREAM_TIMEOUT", "status", 4),
        (answer("425 Too Early"), "UPSTREAM_TIMEOUT", "status", 4),
        (answer("429 Too Many Requests"), "UPSTREAM_BUSY", "status", 4),
        (answer("503 Service Unavailable"), "UPSTREAM_BUSY", "status", 4),
        (answer("500 Internal Server Error"), "UPSTREAM_5XX", "status", 4),
        (answer("502 Bad Gateway"), "UPSTREAM_5XX", "status", 4),
        (answer("501 Not Implemented"), "UPSTREAM_REJECTED", "status", 1),
        (answer("505 HTTP Version Not Supported"), "UPSTREAM_REJECTED", "status", 1),
    ],
)  # R3.7
def test_every_bad_answer_has_its_code_and_its_number_of_tries(caller, play, code, reason, tries):
    client, peer = caller(play, max_answer_bytes=150_000)
    failure = client.fails()
    assert (failure.code, failure.detail["reason"], len(peer.requests)) == (code, reason, tries), failure.message
    assert len(client.calls) == tries
    assert peer.url.removeprefix("http://") + "/thing" in failure.message
    assert failure.message.startswith("GET ")


def test_an_error_says_method_host_path_status_time_and_body_but_not_the_query(caller):
    client, peer = caller(answer("418 I'm a teapot", b'{"error": "no\ncoffee"}'))
    failure = client.fails(method="POST", params={"key": "secret"}, json={})
    host = peer.url.removeprefix("http://")
    assert failure.message.startswith(f"POST {host}/thing answered 418 I'm a teapot after 0.")
    assert failure.message.endswith('s: {"error": "no coffee"}')
    assert failure.detail | {"seconds": 0} == {
        "reason": "status", "method": "POST", "host": host, "path": "/thing", "seconds": 0, "status": 418,
        "body": '{"error": "no coffee"}',
    }  # fmt: skip


def test_a_long_body_is_quoted_in_part(caller):
    client, _ = caller(answer("400 Bad Request", b"x" * 100_000))
    assert len(client.fails().message) < 500


def test_a_refused_connection_is_tried_again_also_for_what_must_not_happen_twice():
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    client = Caller(f"http://127.0.0.1:{port}")
    failure = client.fails(method="POST", repeatable=False)
    assert (failure.code, failure.detail["reason"], len(client.calls)) == ("UPSTREAM_CONNECTION", "connect", 4)
    client.close()


def test_a_server_that_is_not_there_is_known_at_once_and_not_waited_for():
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    client = Caller(f"http://127.0.0.1:{port}")
    with pytest.raises(CodedError) as caught:
        client.runner.run(client.peer.reach(client.context))
    failure = caught.value.failure
    assert (failure.code, failure.detail["reason"]) == ("UPSTREAM_CONNECTION", "connect")
    assert f"127.0.0.1:{port} found no connection" in failure.message
    assert [call for call, _ in client.calls] == ["connect"]
    client.close()


def test_a_connection_that_is_not_accepted_ends_at_its_own_limit():
    """A full backlog: the kernel drops what comes."""
    with socket.socket() as full:
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        address = full.getsockname()
        held = [socket.socket() for _ in range(3)]
        for one in held:
            one.setblocking(False)
            one.connect_ex(address)
        client = Caller(f"http://127.0.0.1:{address[1]}", header_s=5.0, read_s=5.0)
        failure = client.fails()
        assert (failure.code, failure.detail["reason"]) == ("UPSTREAM_CONNECTION", "connect_timeout")
        with pytest.raises(CodedError) as caught:
            client.runner.run(client.peer.reach(client.context))
        assert caught.value.failure.detail["reason"] == "connect_timeout"
        client.close()
        for one in held:
            one.close()


@pytest.mark.parametrize(
    ("play", "tries"),
    [
        (silent(3), 1),
        (HALF_BODY, 1),
        (answer("500 Internal Server Error"), 1),
        (answer("502 Bad Gateway"), 1),
        (answer("429 Too Many Requests"), 4),
        (answer("503 Service Unavailable"), 4),
    ],
)  # R3.7
def test_a_submission_is_sent_again_only_where_it_was_surely_not_taken(caller, play, tries):
    client, peer = caller(play)
    client.fails(method="POST", repeatable=False, json={})
    assert len(peer.requests) == tries


def test_what_passes_on_a_later_try_is_no_failure(caller):
    client, peer = caller(answer("502 Bad Gateway"), HALF_BODY, answer("429 Too Many"), answer("200 OK", b'{"a": 2}'))
    assert client.call() == {"a": 2}
    assert len(peer.requests) == 4


def test_retry_after_is_waited_for(caller):  # R3.7
    client, peer = caller(answer("429 Too Many", b"", "Retry-After: 1"), answer("200 OK", b'{"a": 3}'))
    began = time.monotonic()
    assert client.call() == {"a": 3}
    assert time.monotonic() - began >= 1.0
    assert len(peer.requests) == 2


def test_a_retry_after_beyond_the_calls_limit_is_told_at_once(caller):  # R3.7
    client, peer = caller(answer("503 Service Unavailable", b"", "Retry-After: 120"))
    began = time.monotonic()
    failure = client.fails()
    assert (failure.code, failure.detail["retry_after_s"], len(peer.requests)) == ("UPSTREAM_BUSY", 120.0, 1)
    assert time.monotonic() - began < 4


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        ("7", 7.0),
        (" 0 ", 0.0),
        ("999999", 3600.0),
        ("", None),
        ("soon", None),
        ("-3", None),
        ("Thu, 01 Jan 1970 00:00:00 +9999999999999", None),
    ],
)
def test_retry_after_is_a_bounded_number(value, seconds):
    assert retry_after(value) == seconds


def test_retry_after_may_be_a_date():
    wait = retry_after(email.utils.formatdate(time.time() + 60, usegmt=True))
    assert wait is not None
    assert 50 < wait <= 61
    assert retry_after(email.utils.formatdate(time.time() - 60, usegmt=True)) == 0.0


def test_a_whole_call_has_a_limit_of_its_own(caller):  # R3.7
    client, _ = caller(raw(*[b"HTTP/1.1 200 OK\r\n\r\n"] + [b" "] * 100, pause_s=0.1, end=False), call_s=0.8)
    began = time.monotonic()
    failure = client.fails()
    assert (failure.code, failure.detail["reason"]) == ("UPSTREAM_TIMEOUT", "call_timeout")
    assert 0.7 < time.monotonic() - began < 3


def test_the_trace_goes_along_and_the_token_too(caller):
    client, peer = caller(answer("200 OK"), token="s3cret")
    client.context = Context(lambda _call, _seconds: None, "00-" + "a" * 32 + "-" + "b" * 16 + "-01")
    client.call()
    head = peer.requests[0].lower()
    assert b"traceparent: 00-" + b"a" * 32 in head
    assert b"authorization: bearer s3cret" in head


def test_a_file_is_streamed_to_its_place(caller, tmp_path):
    client, _ = caller(answer("200 OK", b"v" * 300_000, "Content-Type: video/mp4"))
    assert client.fetch(tmp_path / "got") == 300_000
    assert (tmp_path / "got").read_bytes() == b"v" * 300_000


@pytest.mark.parametrize(
    ("play", "reason", "tries"),
    [
        (answer("200 OK", b"<html>sorry", "Content-Type: text/html"), "wrong_type", 1),
        (answer("200 OK", b'{"error": 1}'), "wrong_type", 1),
        (answer("200 OK", b"", "Content-Type: video/mp4"), "empty", 1),
        (answer("200 OK", b"v" * 2000, "Content-Type: video/mp4"), "too_large", 1),
        (raw(b"HTTP/1.1 200 OK\r\nContent-Type: video/mp4\r\n\r\n" + b"v" * 2000), "too_large", 1),
        (raw(b"HTTP/1.1 200 OK\r\nContent-Length: 900\r\n\r\n" + b"v" * 500), "cut_off", 4),
    ],
)
def test_a_file_that_is_none_is_told(caller, tmp_path, play, reason, tries):
    client, peer = caller(play, max_result_bytes=1000)
    with pytest.raises(CodedError) as caught:
        client.fetch(tmp_path / "got")
    assert (caught.value.failure.detail["reason"], len(peer.requests)) == (reason, tries)


@pytest.mark.parametrize("url", ["ftp://x/", "10.0.0.5:8383", "http://", "http://user:pass@host/", "http://host/?a=1"])
def test_an_address_that_cannot_be_meant_is_refused_with_the_configuration(url):
    with pytest.raises(ValueError):
        RemoteSettings(url=url)


def test_errors_are_ready_for_json(caller):
    client, _ = caller(answer("503 Service Unavailable", b"\xff\x00busy", "Retry-After: 9"))
    assert json.loads(json.dumps(client.fails().detail))["body"].endswith("busy")
