"""A file as an answer: opened once, so that its removal meanwhile does not cut the transfer, read in a thread."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Mapping
from pathlib import Path

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from app.api.ranges import Span
from app.api.waiting import disconnected

CHUNK_BYTES = 256 * 1024


class OpenFile:
    """A file held open. Raises OSError where it cannot be opened; `close` it."""

    def __init__(self, path: Path) -> None:
        self.descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        self.size = os.fstat(self.descriptor).st_size

    def close(self) -> None:
        """Safe to repeat."""
        if self.descriptor >= 0:
            os.close(self.descriptor)
            self.descriptor = -1


class FileSpanResponse(Response):
    """The bytes `span` of `file`, streamed; closes the file at the end. HEAD sends the same headers and no bytes."""

    def __init__(self, file: OpenFile, span: Span, status: int, headers: Mapping[str, str], media_type: str) -> None:
        super().__init__(None, status, dict(headers), media_type)
        self._file = file
        self._span = span
        self.headers["Content-Length"] = str(span.stop - span.start)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        leaving = None
        try:
            await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
            if scope["method"] == "HEAD":
                await send({"type": "http.response.body", "body": b""})
                return
            # The server drops what is sent to a client that has left: unless we look, we read the rest for nobody.
            leaving = asyncio.create_task(disconnected(receive))
            await self._send_span(send, leaving)
        finally:
            if leaving is not None:
                leaving.cancel()
            self._file.close()

    async def _send_span(self, send: Send, leaving: asyncio.Task[None]) -> None:
        position, stop = self._span.start, self._span.stop
        while position < stop and not leaving.done():
            chunk = await asyncio.to_thread(
                os.pread, self._file.descriptor, min(CHUNK_BYTES, stop - position), position
            )
            if not chunk:
                # Shorter than when it was opened. The server must see an error: the length was announced.
                raise EOFError(f"the file ended at byte {position}")
            position += len(chunk)
            await send({"type": "http.response.body", "body": chunk, "more_body": position < stop})
        if self._span.start >= stop:
            await send({"type": "http.response.body", "body": b""})
