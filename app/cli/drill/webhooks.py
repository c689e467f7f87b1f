"""The drill of the webhooks: the endpoint is down when the first notice comes, and back later."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import socket
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, Self

from app.cli.drill import verify
from app.cli.drill.caller import Caller
from app.cli.drill.scene import PLAIN, Drill, Scene, Seen
from app.cli.drill.stage import until

_SECRET = "greenroom-drill"  # noqa: S105 - of an endpoint that lives for seconds
_EVENTS = ["task.queued", "task.running", "task.succeeded"]
_LEEWAY_S = 20.0


class Endpoint:
    """A webhook endpoint on a port of its own, which answers while it is up."""

    def __init__(self, caller: Caller) -> None:
        self._caller = caller
        self._held = socket.socket()
        self._held.bind(("127.0.0.1", 0))  # bound and not listening: connections are refused, and the port stays ours
        self._port = int(self._held.getsockname()[1])
        self._server: ThreadingHTTPServer | None = None
        self.url = f"http://127.0.0.1:{self._port}/notices"
        self.received: list[dict[str, Any]] = []
        """The bodies that came, without repeats, in the order of their arrival."""
        self.wrong: list[str] = []
        self._ids: set[str] = set()
        self._lock = threading.Lock()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._held.close()
        if self._server is not None:
            self._server.shutdown()
            self._server.server_close()

    def rise(self) -> None:
        """Answer from now on."""
        endpoint = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["content-length"]))
                endpoint.take({name.lower(): value for name, value in self.headers.items()}, body)
                self.send_response(204)
                self.end_headers()

            def log_message(self, format: str, *args: Any) -> None:
                """Nothing: what came is told in the report."""

        self._held.close()
        self._server = ThreadingHTTPServer(("127.0.0.1", self._port), Handler)
        threading.Thread(target=self._server.serve_forever, args=(0.05,), name="endpoint", daemon=True).start()

    def take(self, headers: dict[str, str], body: bytes) -> None:
        """Judge one notice: its signature, that it is new, and that the service says no less than it does."""
        notice = json.loads(body)
        told, task_id = notice["data"]["status"], notice["data"]["id"]
        now = self._caller.task(task_id)["status"]
        with self._lock:
            if not is_signed(headers, body):
                self.wrong.append(f"the signature of {notice['type']} is wrong")
            if told in verify.TERMINAL and now != told:
                self.wrong.append(f"{notice['type']} came while the task was {now}")
            if headers["webhook-id"] not in self._ids:
                self._ids.add(headers["webhook-id"])
                self.received.append(notice)


def is_signed(headers: dict[str, str], body: bytes) -> bool:
    """Whether a notice bears the signature of Standard Webhooks 1.0.0 with the drill's secret."""
    signed = f"{headers['webhook-id']}.{headers['webhook-timestamp']}.".encode() + body
    wanted = base64.b64encode(hmac.digest(_SECRET.encode(), signed, hashlib.sha256)).decode()
    return f"v1,{wanted}" in headers["webhook-signature"].split(" ")


def lose_the_endpoint(scene: Scene) -> Seen:
    """The endpoint refuses connections until the first try has failed; then it is there."""
    caller, terms = scene.caller, scene.terms
    with Endpoint(caller) as endpoint:
        callback = {"url": endpoint.url, "events": _EVENTS, "secret": _SECRET}
        struck = caller.hand_in(PLAIN, callback=callback)

        def tries() -> int:
            deliveries = caller.client.request("GET", f"/tasks/{struck}/deliveries")["deliveries"]
            return sum(len(one["tries"]) for one in deliveries)

        if not until(tries, terms.patience_s()):
            return Seen("nothing was sent", wrong=["no try to deliver a notice was made"])
        failed, risen = tries(), verify.now()
        endpoint.rise()
        beside = [caller.until_ended(other, terms.patience_s()) for other in scene.hand_in_beside()]
        task = caller.until_ended(struck, terms.patience_s())
        within_s = 1.2 * max(terms.settings.webhook_schedule_s[: failed + 1]) + _LEEWAY_S
        until(lambda: len(endpoint.received) >= len(_EVENTS), within_s)
        seen = Seen(f"{failed} in vain, then {len(endpoint.received)} of {len(_EVENTS)} notices came")
        seen.recovered(verify.now() - risen, within_s, "until all notices had come")
        types = [notice["type"] for notice in endpoint.received]
        if types != _EVENTS:
            seen.wrong.append(f"the notices that came are {', '.join(types) or 'none'}")
        seen.wrong += endpoint.wrong
    seen.wrong += verify.wrong_end(task, "SUCCEEDED", ["SUCCEEDED"]) + caller.wrong_about(task)
    for other in beside:
        seen.wrong += [f"a task beside it: {what}" for what in verify.wrong_end(other, "SUCCEEDED", ["SUCCEEDED"])]
    return seen


WEBHOOKS = (
    Drill(
        "webhook-down",
        "the webhook endpoint refuses connections when the first notice comes, and is back later",
        lambda _terms: "the task SUCCEEDED at once; each notice comes once it is back, in order, signed",
        lose_the_endpoint,
        lambda terms: sum(terms.settings.webhook_schedule_s[:2]) + 3.0,
        inside=False,
    ),
)
