"""What leaves the socket: an answer as one packet, a stream as it is made, nothing after the end."""

from __future__ import annotations

import asyncio
import socket
import threading
import time
from collections.abc import AsyncIterator, Iterable, Iterator
from contextlib import contextmanager

import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, StreamingResponse
from starlette.routing import Route

from app.service import listening
from app.service.listening import Gathering, listen, server_of

WAIT_S = 20.0


class Wire(asyncio.Transport):
    """A transport that keeps what is written, write by write."""

    def __init__(self) -> None:
        super().__init__()
        self.packets: list[bytes] = []
        self.closed = False

    def writelines(self, list_of_data: Iterable[bytes | bytearray | memoryview]) -> None:
        assert not self.closed
        self.packets.append(b"".join(list_of_data))

    def close(self) -> None:
        self.closed = True

    def is_closing(self) -> bool:
        return self.closed


@pytest.mark.anyio
async def test_what_is_written_leaves_together_when_it_is_let_go() -> None:
    wire = Wire()
    gathering = Gathering(wire, asyncio.get_running_loop())
    gathering.write(b"head")
    gathering.write(b"body")
    assert wire.packets == []
    gathering.flush()
    await asyncio.sleep(0)
    assert wire.packets == [b"headbody"]


@pytest.mark.anyio
async def test_what_nobody_lets_go_leaves_at_the_loops_next_turn() -> None:
    wire = Wire()
    gathering = Gathering(wire, asyncio.get_running_loop())
    gathering.write(b"first event")
    await asyncio.sleep(0)
    gathering.write(b"second event")
    await asyncio.sleep(0)
    assert wire.packets == [b"first event", b"second event"]


@pytest.mark.anyio
async def test_what_was_written_before_a_close_still_leaves() -> None:
    wire = Wire()
    gathering = Gathering(wire, asyncio.get_running_loop())
    gathering.write(b"goodbye")
    gathering.close()
    assert wire.packets == [b"goodbye"]
    assert gathering.is_closing()


@pytest.mark.anyio
async def test_nothing_is_written_to_a_connection_that_was_lost() -> None:
    wire = Wire()
    gathering = Gathering(wire, asyncio.get_running_loop())
    gathering.write(b"too late")
    wire.close()
    await asyncio.sleep(0)
    assert wire.packets == []


async def _short(_request: Request) -> PlainTextResponse:
    return PlainTextResponse("short")


async def _long(_request: Request) -> PlainTextResponse:
    return PlainTextResponse("long " * 1_000_000)


async def _broken(_request: Request) -> StreamingResponse:
    async def half() -> AsyncIterator[bytes]:
        yield b"half"
        raise RuntimeError("on purpose")

    return StreamingResponse(half(), headers={"content-length": "8"})


async def _length(request: Request) -> PlainTextResponse:
    body = await request.body()
    await asyncio.sleep(1.0)
    return PlainTextResponse(f"{len(body)} bytes")


@contextmanager
def served() -> Iterator[int]:
    """A small application behind the protocol; its port."""
    app = Starlette(
        routes=[
            Route("/short", _short),
            Route("/long", _long),
            Route("/broken", _broken),
            Route("/length", _length, methods=["POST"]),
        ]
    )
    server = server_of(app, keep_alive_s=5, grace_s=5)
    listener = listen("127.0.0.1", 0)
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=lambda: loop.run_until_complete(server.serve(sockets=[listener])))
    thread.start()
    try:
        end = time.monotonic() + WAIT_S
        while not server.started:
            assert time.monotonic() < end
            time.sleep(0.01)
        yield listener.getsockname()[1]
    finally:
        loop.call_soon_threadsafe(server.end)
        thread.join(WAIT_S)
        assert not thread.is_alive()
        loop.close()


def test_a_server_that_is_told_to_end_does_not_wait_until_it_looks_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listening, "_DATE_S", 3600.0)
    with served() as port:
        assert b"short" in _ask(port, "/short")


def test_the_date_of_answers_moves_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listening, "_DATE_S", 0.05)

    def date(port: int) -> bytes:
        return next(line for line in _ask(port, "/short").split(b"\r\n") if line.startswith(b"date: "))

    with served() as port:
        first, end = date(port), time.monotonic() + WAIT_S
        while date(port) == first:
            assert time.monotonic() < end
            time.sleep(0.05)


def _ask(port: int, *paths: str) -> bytes:
    """All that comes back when `paths` are asked for at once on one connection, the last of which closes it."""
    with socket.create_connection(("127.0.0.1", port), timeout=WAIT_S) as caller:
        asked = [f"GET {path} HTTP/1.1\r\nHost: x\r\n" for path in paths]
        caller.sendall("\r\n".join([*asked[:-1], f"{asked[-1]}Connection: close\r\n\r\n"]).encode())
        return b"".join(iter(lambda: caller.recv(65536), b""))


def test_an_answer_comes_whole_in_one_packet() -> None:
    with served() as port, socket.create_connection(("127.0.0.1", port), timeout=WAIT_S) as caller:
        caller.sendall(b"GET /short HTTP/1.1\r\nHost: x\r\n\r\n")
        first = caller.recv(65536)
    assert first.startswith(b"HTTP/1.1 200")
    assert first.endswith(b"\r\n\r\nshort")


def test_requests_sent_at_once_are_answered_in_order_and_whole() -> None:
    with served() as port:
        answers = _ask(port, "/short", "/long", "/short")
    assert answers.count(b"HTTP/1.1 200 OK") == 3
    assert answers.endswith(b"\r\n\r\nshort")
    assert b"long " * 1_000_000 in answers


@pytest.mark.filterwarnings("ignore")
def test_an_answer_that_breaks_off_is_cut_off_after_what_was_made() -> None:
    with served() as port:
        answer = _ask(port, "/broken")
    assert answer.startswith(b"HTTP/1.1 200")
    assert answer.endswith(b"\r\n\r\nhalf")


@pytest.mark.parametrize("protocol", ["websocket", "h2c"])
def test_who_asks_for_another_protocol_is_answered_in_this_one(protocol: str) -> None:
    asked = ["GET /short HTTP/1.1", "Host: x", "Connection: Upgrade, close", f"Upgrade: {protocol}"]
    key = ["Sec-WebSocket-Version: 13", "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ=="]
    with served() as port, socket.create_connection(("127.0.0.1", port), timeout=WAIT_S) as caller:
        caller.sendall("\r\n".join([*asked, *key, "\r\n"]).encode())
        answer = b"".join(iter(lambda: caller.recv(65536), b""))
    assert answer.startswith(b"HTTP/1.1 200")
    assert answer.endswith(b"\r\n\r\nshort")


@pytest.mark.parametrize("sent", [b"", b"GET /short HT", b"GET /short HTTP/1.1\r\nHost: x\r\n"])
def test_a_request_that_never_comes_whole_is_given_up(sent: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    """A peer that is gone says nothing more, for ever, and its connection holds a descriptor."""
    monkeypatch.setattr(listening, "HEAD_S", 0.2)
    with served() as port, socket.create_connection(("127.0.0.1", port), timeout=WAIT_S) as caller:
        caller.sendall(sent)
        assert caller.recv(65536) == b""


def test_neither_is_one_after_an_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listening, "HEAD_S", 0.2)
    with served() as port, socket.create_connection(("127.0.0.1", port), timeout=WAIT_S) as caller:
        caller.sendall(b"GET /short HTTP/1.1\r\nHost: x\r\n\r\n")
        assert caller.recv(65536).endswith(b"short")
        caller.sendall(b"GET /sho")
        assert caller.recv(65536) == b""


def test_a_body_and_an_answer_may_take_longer_than_a_head(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listening, "HEAD_S", 0.5)
    with served() as port, socket.create_connection(("127.0.0.1", port), timeout=WAIT_S) as caller:
        caller.sendall(b"POST /length HTTP/1.1\r\n")
        caller.sendall(b"Host: x\r\nContent-Length: 2\r\n\r\n")
        time.sleep(1.0)
        caller.sendall(b"abGET /sho")  # the next one's head begins before the answer
        assert caller.recv(65536).endswith(b"2 bytes")
