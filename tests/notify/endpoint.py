"""An endpoint with threads, for tests that speak to whole services."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

Told = tuple[str, dict[str, Any]]
"""`webhook-id` and body."""


class Endpoint:
    """Takes every notice, after `look` was called with it. `received` and `traces` (each one's traceparent) are in the
    order of arrival."""

    def __init__(self, look: Callable[[str, dict[str, Any]], None]) -> None:
        self.received: list[Told] = []
        self.traces: list[str | None] = []
        self.failures: list[str] = []
        self.looked_at: list[str] = []
        self._look = look
        self._lock = threading.Lock()
        endpoint = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["content-length"])))
                endpoint._take(self.headers["webhook-id"], body, self.headers["traceparent"])
                self.send_response(204)
                self.end_headers()

            def log_message(self, *_words: Any) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_port}/hook"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,))
        self._thread.start()

    def _take(self, notice: str, body: dict[str, Any], trace: str | None) -> None:
        with self._lock:
            self.traces.append(trace)
            self.received.append((notice, body))
        try:
            self._look(notice, body)
        except Exception as error:
            self.failures.append(f"{notice}: {error!r}")
        self.looked_at.append(notice)

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


@contextmanager
def listening(look: Callable[[str, dict[str, Any]], None] = lambda _id, _body: None) -> Iterator[Endpoint]:
    endpoint = Endpoint(look)
    try:
        yield endpoint
    finally:
        endpoint.close()


def assert_in_order(received: list[Told]) -> None:
    """Per task no notice comes before one that it follows. Repeats may come."""
    seen: dict[str, int] = {}
    for notice, body in received:
        task_id, _, event = notice.rpartition("_")
        assert body["data"]["id"] == task_id
        assert int(event) >= seen.get(task_id, 0), f"{notice} after {seen[task_id]}"
        seen[task_id] = int(event)
