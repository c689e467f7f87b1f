"""Where the service listens: the socket, the server on it, and the file that tells other programs of it."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import secrets
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import uvicorn
from starlette.types import ASGIApp
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

HEAD_S = 30.0
"""How long the head of a request may take to come, from the connection or its own first byte on. A peer that is gone
says nothing more, for ever, and each of its connections holds a descriptor."""
_DATE_S = 1.0
"""How often the `Date` of answers changes: it is told in seconds."""


class Server(uvicorn.Server):
    """uvicorn without its signal handlers: this service decides when HTTP ends."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self._ended = asyncio.Event()

    def end(self) -> None:
        """Take no more connections, answer what is open, and return from `serve`. Called in its event loop."""
        self.should_exit = True
        self._ended.set()

    async def main_loop(self) -> None:
        """Keep the date in the answers' heads until the end. uvicorn looks ten times a second whether it has come."""
        while not await self.on_tick(0):
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_DATE_S):
                    await self._ended.wait()

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


class WholeAnswers(HttpToolsProtocol):
    """HTTP/1.1 as uvicorn speaks it, with the head and the body of an answer in one packet.

    uvicorn writes them one by one, and a write is the dearest call of a short answer: it wakes the caller, twice. Nor
    does it ever give up on a request that was begun and not sent, or on a connection without one.
    """

    _gives_up: asyncio.TimerHandle | None = None
    _in_head = True
    """A head is awaited, or has come in part."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Gather what is written to `transport`."""
        self._gathering = Gathering(transport, self.loop)
        super().connection_made(self._gathering)
        self._expect_head()

    def data_received(self, data: bytes) -> None:
        """Take in what came. Heads that come whole, as nearly all do, cost no timer."""
        super().data_received(data)
        if self._in_head:
            self._expect_head()

    def on_message_begin(self) -> None:
        """A request begins."""
        self._in_head = True
        super().on_message_begin()

    def on_headers_complete(self) -> None:
        """Its head is there."""
        self._in_head = False
        self._stop_waiting()
        super().on_headers_complete()

    def connection_lost(self, exc: Exception | None) -> None:
        """The connection is gone."""
        self._stop_waiting()
        self._in_head = False
        super().connection_lost(exc)

    def _expect_head(self) -> None:
        if self._gives_up is None and not self.transport.is_closing():
            self._gives_up = self.loop.call_later(HEAD_S, self._give_up)

    def _give_up(self) -> None:
        self._gives_up = None
        if self.cycle is None or self.cycle.response_complete:
            self.transport.close()
        else:
            self._expect_head()  # an answer is on its way to the request before

    def _stop_waiting(self) -> None:
        if self._gives_up is not None:
            self._gives_up.cancel()
            self._gives_up = None

    def on_response_complete(self) -> None:
        """Let the answer go."""
        self._gathering.flush()
        super().on_response_complete()


class Gathering(asyncio.Transport):
    """A transport that holds what is written until `flush`, or until the event loop's next turn."""

    def __init__(self, transport: asyncio.Transport, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__()
        self._transport = transport
        self._loop = loop
        self._held: list[bytes | bytearray | memoryview] = []

    def write(self, data: bytes | bytearray | memoryview) -> None:
        """Hold `data`, which may change no more."""
        if not self._held:
            self._loop.call_soon(self.flush)
        self._held.append(data)

    def flush(self) -> None:
        """Write all that is held, unless the connection is gone."""
        if self._held:
            held, self._held = self._held, []
            if not self._transport.is_closing():
                self._transport.writelines(held)

    def close(self) -> None:
        """Write what is held, then close."""
        self.flush()
        self._transport.close()

    def abort(self) -> None:
        """Close at once; what is held is lost."""
        self._held = []
        self._transport.abort()

    def is_closing(self) -> bool:
        """Whether it is closed or will be."""
        return self._transport.is_closing()

    def pause_reading(self) -> None:
        """Take nothing in for now."""
        self._transport.pause_reading()

    def resume_reading(self) -> None:
        """Go on taking in."""
        self._transport.resume_reading()

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        """As the transport itself."""
        return self._transport.get_extra_info(name, default)


def server_of(app: ASGIApp, *, keep_alive_s: int, grace_s: int) -> Server:
    """A server of `app` that logs nothing itself. Idle connections are kept for `keep_alive_s`; when it stops, open
    requests have `grace_s`."""
    return Server(
        uvicorn.Config(
            app,
            http=WholeAnswers,
            ws="none",  # An upgrade that is asked for is not made: the request is answered as any other.
            log_config=None,
            access_log=False,
            lifespan="off",
            server_header=False,
            timeout_keep_alive=keep_alive_s,
            timeout_graceful_shutdown=grace_s,
        )
    )


def listen(host: str, port: int) -> socket.socket:
    """A bound socket for HTTP. Raises OSError naming the address."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # The protocol must be named: asyncio switches Nagle's algorithm off only where it reads TCP from the socket, and
    # with it on, an answer in two writes takes 40 ms longer.
    listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
    except OSError as error:
        listener.close()
        raise OSError(error.errno, f"cannot listen on {host}:{port}: {error.strerror or error}") from error
    listener.set_inheritable(False)
    return listener


def url_of(listener: socket.socket) -> str:
    """The address at which this machine reaches a bound socket."""
    host, port = listener.getsockname()[:2]
    shown = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}.get(host, f"[{host}]" if ":" in host else host)  # noqa: S104
    return f"http://{shown}:{port}"


@contextlib.contextmanager
def service_file(path: Path, url: str) -> Iterator[None]:
    """Tell other programs on this host where the service listens, while it does."""
    part = path.with_suffix(f".{secrets.token_hex(4)}")
    own = {"url": url, "pid": os.getpid(), "host": socket.gethostname()}
    part.write_text(json.dumps(own))
    part.replace(path)
    try:
        yield
    finally:
        # Another service on this directory may have put its own in place.
        with contextlib.suppress(OSError, ValueError):
            if json.loads(path.read_text()) == own:
                path.unlink()
