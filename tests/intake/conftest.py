"""Shared parts of the intake tests: an event loop, a blob store, and an HTTP server that notices every connection."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from app.intake.blobs import BlobStore

Handler = Callable[[str, dict[str, str], asyncio.StreamWriter], Awaitable[None]]


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture
def blobs(tmp_path: Path) -> Iterator[BlobStore]:
    store = BlobStore(tmp_path / "blobs")
    yield store
    store.close()


def stored_files(root: Path) -> list[Path]:
    """All files of a blob store, temporary ones too."""
    return sorted(p for p in root.rglob("*") if p.is_file())


class Origin:
    """A server on loopback that answers each request line with what a test tells it to, byte by byte."""

    def __init__(self) -> None:
        self.connections = 0
        self.requests: list[tuple[str, dict[str, str]]] = []
        self.answers: dict[str, Handler] = {}
        self.port = 0

    def url(self, path: str, host: str = "127.0.0.1") -> str:
        return f"http://{host}:{self.port}{path}"

    def answer(self, path: str, body: bytes = b"", status: str = "200 OK", **headers: str) -> str:
        """Answer `path` with a whole response; returns its address."""

        async def handler(_path: str, _headers: dict[str, str], writer: asyncio.StreamWriter) -> None:
            lines = {"Content-Length": str(len(body)), "Connection": "close"}
            lines |= {name.replace("_", "-"): value for name, value in headers.items()}
            head = "".join(f"{name}: {value}\r\n" for name, value in lines.items())
            writer.write(f"HTTP/1.1 {status}\r\n{head}\r\n".encode() + body)
            await writer.drain()

        self.answers[path] = handler
        return self.url(path)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        try:
            head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
            path = head[0].split(" ")[1]
            headers = {k.lower(): v for k, _, v in (line.partition(": ") for line in head[1:] if line)}
            self.requests.append((path, headers))
            await self.answers[path](path, headers, writer)
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()


@asynccontextmanager
async def running_origin(host: str = "127.0.0.1", tls: ssl.SSLContext | None = None) -> AsyncIterator[Origin]:
    origin = Origin()
    server = await asyncio.start_server(origin._serve, host, 0, ssl=tls)
    origin.port = server.sockets[0].getsockname()[1]
    async with server:
        yield origin
