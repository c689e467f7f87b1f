"""Where the service listens: the socket, the server on it, and the file that tells other programs of it."""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import socket
from collections.abc import Iterator
from pathlib import Path

import uvicorn


class Server(uvicorn.Server):
    """uvicorn without its signal handlers: this service decides when HTTP ends."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


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
