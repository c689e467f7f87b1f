"""An HTTP peer that misbehaves on cue, byte by byte: what no HTTP library would send."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Callable

Play = Callable[[socket.socket], None]
"""What the peer does once it has read a request."""

_OK = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"


def answer(status: str, body: bytes = b"{}", *headers: str) -> Play:
    """A proper answer; the connection stays open."""
    lines = [f"HTTP/1.1 {status}", f"Content-Length: {len(body)}", *headers]
    if not any(line.lower().startswith("content-type") for line in headers):
        lines.append("Content-Type: application/json")
    return lambda connection: connection.sendall("\r\n".join(lines).encode() + b"\r\n\r\n" + body)


def raw(*pieces: bytes, pause_s: float = 0.0, end: bool = True) -> Play:
    """These bytes, with a pause between, then the end of the connection."""

    def play(connection: socket.socket) -> None:
        for number, piece in enumerate(pieces):
            if number:
                time.sleep(pause_s)
            connection.sendall(piece)
        if end:
            connection.shutdown(socket.SHUT_RDWR)

    return play


HALF_BODY = raw(_OK + b"Content-Length: 1000\r\n\r\n" + b'{"half": ')
HALF_CHUNK = raw(_OK + b'Transfer-Encoding: chunked\r\n\r\n8\r\n{"a": 1,\r\n')
NO_HTTP = raw(b"220 mail.example ESMTP\r\n")
HANG_UP = raw(b"")


def silent(seconds: float) -> Play:
    """No answer."""
    return lambda _connection: time.sleep(seconds)


def dripping_head(seconds: float) -> Play:
    """A head that comes byte by byte: never silent, never done."""
    return raw(*(bytes([byte]) for byte in (_OK * 20)), pause_s=seconds, end=False)


def stalling_body(seconds: float) -> Play:
    """A head and a part of a body, then silence."""
    return raw(_OK + b"Content-Length: 1000\r\n\r\n{", b"}", pause_s=seconds, end=False)


class RoughPeer:
    """Plays its script, one entry a request; the last entry again and again."""

    def __init__(self, *script: Play) -> None:
        self.script = list(script)
        self.requests: list[bytes] = []
        self.connections = 0
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._open: list[socket.socket] = []
        threading.Thread(target=self._listen, daemon=True).start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._listener.getsockname()[1]}"

    def close(self) -> None:
        # shutdown wakes the accept, close alone does not
        for held in (self._listener, *self._open):
            with contextlib.suppress(OSError):
                held.shutdown(socket.SHUT_RDWR)
            held.close()

    def _listen(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            self.connections += 1
            self._open.append(connection)
            threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        try:
            while request := _read_request(connection):
                self.requests.append(request)
                play = self.script.pop(0) if len(self.script) > 1 else self.script[0]
                play(connection)
        except OSError:
            return


def _read_request(connection: socket.socket) -> bytes:
    data = b""
    while b"\r\n\r\n" not in data:
        piece = connection.recv(65536)
        if not piece:
            return b""
        data += piece
    head, _, body = data.partition(b"\r\n\r\n")
    length = next(
        (int(line.split(b":")[1]) for line in head.split(b"\r\n") if line.lower().startswith(b"content-length")), 0
    )
    while len(body) < length:
        body += connection.recv(65536)
    return head + b"\r\n\r\n" + body
