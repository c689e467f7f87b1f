"""Takes due notices from the outbox and delivers them, many at once, in the service's event loop.

It sleeps until a commit writes a notice, a delivery ends, or the next try falls due. What can not be had: exactly one
delivery. A notice whose endpoint has answered is sent again if the answer cannot be written down.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import structlog

from app.failpoints import hit
from app.notify import body as bodies
from app.notify.schedule import SCHEDULE_S, next_try, seconds_of
from app.notify.sender import Answer, Sender
from app.notify.signing import key_of, signature
from app.store.deliveries import Notice, Try, Verdict
from app.store.errors import StoreUnavailable
from app.store.outbox import Outbox
from app.tasks.trace import TraceContext
from app.telemetry.tracing import Span, Tracing, Untraced, task_span
from app.vital import task_fault

log = structlog.get_logger(__name__)

LEASE_S = 60.0
"""A notice that is being sent belongs to this service so long: well above the longest try."""
_POLL_S = 5.0
"""How often the outbox is looked at although nothing is announced: another service may have died."""
_BREATH_S = 0.005
_STORE_PAUSE_S = 0.5
"""Pause after the database could not be reached, so that the loop does not spin."""
_GRACE_S = 3.0
"""What is being sent may finish when the service stops."""
_USER_AGENT = "greenroom-webhooks"


@dataclass(frozen=True, slots=True)
class DeliverySettings:
    """How many at once, and when again."""

    concurrency: int = 32
    per_endpoint: int = 4
    schedule_s: Sequence[float] = SCHEDULE_S


class DeliveryObserver(Protocol):
    """What the deliverer tells the telemetry."""

    def notice_tried(self, outcome: str, seconds: float) -> None:
        """One try is over: `delivered`, `retry`, `dead` or `gone`."""


class Deliverer:
    """Delivers until it is stopped. Belongs to one event loop."""

    def __init__(
        self,
        outbox: Outbox,
        sender: Sender,
        *,
        owner: str,
        keys: Sequence[bytes],
        render: Callable[[Notice], dict[str, Any]],
        settings: DeliverySettings,
        observer: DeliveryObserver,
        tracing: Tracing | None = None,
        clock: Callable[[], float] = time.time,
        chance: Callable[[], float] = random.random,
    ) -> None:
        """`owner` is the node that takes notices; `keys` sign for callers that gave no secret, the newest first.

        `render` makes a body of a notice: `type`, `timestamp` and `data`, JSON-ready.
        """
        self._outbox = outbox
        self._sender = sender
        self._owner = owner
        self._keys = keys
        self._render = render
        self._settings = settings
        self._observer = observer
        self._tracing = tracing or Untraced()
        self._clock = clock
        self._chance = chance
        self._wake = asyncio.Event()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._running: asyncio.Task[None] | None = None
        self._sending: set[asyncio.Task[None]] = set()
        self._in_flight: Counter[str] = Counter()

    async def start(self) -> None:
        """Take back what this node had taken when it died, and begin."""
        self._loop = asyncio.get_running_loop()
        self._outbox.subscribe(self._on_notices)
        with contextlib.suppress(StoreUnavailable):  # Then its leases run out.
            if count := await self._outbox.arelease(self._owner):
                log.info("notices_taken_back", count=count)
        self._running = asyncio.create_task(self._run())

    async def stop(self) -> None:
        """Take nothing more, let what is being sent finish for a moment, and give the rest back."""
        if self._running is None:
            return
        self._running.cancel()
        await asyncio.gather(self._running, return_exceptions=True)
        if self._sending:
            await asyncio.wait(self._sending, timeout=_GRACE_S)
        for task in self._sending:
            task.cancel()
        await asyncio.gather(*self._sending, return_exceptions=True)
        with contextlib.suppress(StoreUnavailable):
            await self._outbox.arelease(self._owner)
        await self._sender.close()

    @property
    def fault(self) -> str:
        """See `Vital.fault`."""
        return task_fault("deliverer", self._running)

    def _on_notices(self) -> None:
        """In the writer's thread."""
        if self._loop is not None and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._wake.set)

    # -- the loop -------------------------------------------------------------------------------------------------
    async def _run(self) -> None:
        while True:
            self._wake.clear()
            try:
                pause = await self._take()
            except StoreUnavailable as error:
                log.warning("store_unavailable", error=str(error))
                pause = _STORE_PAUSE_S
            except Exception:
                log.exception("deliverer_error")
                pause = _STORE_PAUSE_S
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(pause):
                    await self._wake.wait()

    async def _take(self) -> float:
        """Begin to send what is due and has room; how long to sleep, in seconds."""
        room = self._settings.concurrency - len(self._sending)
        if room <= 0:
            return _POLL_S
        full = [name for name, count in self._in_flight.items() if count >= self._settings.per_endpoint]
        due = await self._outbox.anext_at(full)
        if due is None or due > self._clock():
            return _POLL_S if due is None else min(max(due - self._clock(), _BREATH_S), _POLL_S)
        notices = await self._outbox.atake(
            self._owner,
            lease_s=LEASE_S,
            limit=room,
            per_endpoint=self._settings.per_endpoint,
            in_flight=dict(self._in_flight),
        )
        for notice in notices:
            hit("noticing")
            self._in_flight[notice.callback.endpoint] += 1
            task = asyncio.create_task(self._deliver(notice))
            self._sending.add(task)
            task.add_done_callback(self._sending.discard)
        return _BREATH_S

    async def _deliver(self, notice: Notice) -> None:
        at, started = self._clock(), time.perf_counter()
        try:
            trace = notice.task.trace
            here = trace and self._tracing.below(trace, notice.id, notice.taken)
            answer = await self._send(notice, here)
            hit("noticed")
            tried = Try(at, time.perf_counter() - started, answer.status, answer.error, answer.message)
            if here is not None and self._tracing.on:
                self._tracing.record(_span(here, notice, tried, answer))
            await self._write_down(notice, answer, tried)
        except Exception:
            log.exception("delivery_not_settled", **_about(notice))  # Its lease runs out, and it is sent again.
        finally:
            endpoint = notice.callback.endpoint
            self._in_flight[endpoint] -= 1
            if not self._in_flight[endpoint]:
                del self._in_flight[endpoint]
            self._wake.set()

    async def _send(self, notice: Notice, here: TraceContext | None) -> Answer:
        try:
            return await self._post(notice, here)
        except Exception as error:
            # A fault of ours counts as a try: one that stays must end with a dead notice, not with a loop.
            log.exception("notice_not_sent", **_about(notice))
            return Answer(error="INTERNAL", message=f"The service could not send the notice: {error!r}")

    async def _post(self, notice: Notice, here: TraceContext | None) -> Answer:
        body = bodies.encode(self._render(notice))
        timestamp = int(self._clock())
        headers = {
            "Content-Type": "application/json",
            "User-Agent": _USER_AGENT,
            "webhook-id": notice.id,
            "webhook-timestamp": str(timestamp),
            "webhook-signature": self._sign(notice, timestamp, body),
        }
        if here is not None:
            headers["traceparent"] = here.traceparent
        return await self._sender.post(notice.callback.url, headers, body)

    def _sign(self, notice: Notice, timestamp: int, body: bytes) -> str:
        # No secret becomes a variable here: a traceback on a terminal shows those.
        keys = self._keys if notice.callback.secret is None else [key_of(notice.callback.secret)]
        return signature(keys, notice.id, timestamp, body)

    async def _write_down(self, notice: Notice, answer: Answer, tried: Try) -> None:
        verdict, retry_at = self._judge(notice, answer)
        until = self._clock() + LEASE_S
        while True:
            try:
                settled = await self._outbox.asettle(notice, self._owner, tried, verdict, retry_at)
                break
            except StoreUnavailable:
                if self._clock() >= until:
                    raise
                await asyncio.sleep(_STORE_PAUSE_S)
        self._observer.notice_tried(verdict, tried.seconds)
        facts = {"outcome": verdict, "status": answer.status, "error": answer.error, "message": answer.message}
        say = {"delivered": log.info, "retry": log.warning, "dead": log.error, "gone": log.warning}[verdict]
        say(
            "notice_delivered" if verdict == "delivered" else "notice_not_delivered",
            **_about(notice), **facts, tries=notice.tries + 1, retry_at=retry_at, elapsed_s=round(tried.seconds, 3),
            settled=settled,
        )  # fmt: skip

    def _judge(self, notice: Notice, answer: Answer) -> tuple[Verdict, float | None]:
        """What a try means, and when the next one comes."""
        if answer.is_success:
            return "delivered", None
        if answer.is_gone:
            return "gone", None
        now = self._clock()
        at = next_try(
            notice.tries + 1,
            now,
            schedule=self._settings.schedule_s,
            chance=self._chance(),
            retry_after=seconds_of(answer.retry_after, now),
        )
        return ("dead", None) if at is None else ("retry", at)


def _about(notice: Notice) -> dict[str, Any]:
    """What every line about a notice carries. Of the address only the endpoint: a path may hold a caller's token."""
    return {
        "task_id": notice.task.id,
        "trace_id": notice.task.trace_id,
        "notice": notice.id,
        "type": notice.type,
        "endpoint": notice.callback.endpoint,
    }


def _span(here: TraceContext, notice: Notice, tried: Try, answer: Answer) -> Span:
    """One try. Of the address only the endpoint, as in the log."""
    attributes: dict[str, str | int] = {
        "http.request.method": "POST",
        "server.address": notice.callback.endpoint.partition("://")[2],
        "greenroom.task.id": notice.task.id,
        "greenroom.notice": notice.id,
        "greenroom.notice.type": notice.type,
        "greenroom.try": notice.tries + 1,
    }
    if answer.status is not None:
        attributes["http.response.status_code"] = answer.status
    error = None
    if not answer.is_success:
        attributes["error.type"] = answer.error or str(answer.status)
        error = answer.message or f"The answer was {answer.status}."
    parent = task_span(notice.task.id)
    return Span(here, parent, "webhook", "client", tried.at, tried.at + tried.seconds, attributes, error)
