"""Calls to another server: one pool of connections, a limit for every stage of a call, a word for every failure."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import urlsplit

import httpx
from tenacity import AsyncRetrying, RetryCallState, retry_if_exception, stop_after_attempt, wait_random_exponential
from tenacity.stop import stop_base

from app.render.remote.errors import Request, may_pass
from app.render.remote.settings import RemoteSettings
from app.retry.taxonomy import CodedError, FailureCode

_TRIES = 4
_PAUSE = wait_random_exponential(multiplier=0.2, max=2.0)
_TEXT_TYPES = ("text/html", "text/plain", "application/json", "application/problem+json")
"""What a server sends in place of a file when something is wrong."""
_MOST_OF_AN_ERROR = 256 * 1024

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Context:
    """What the calls of one render share."""

    called: Callable[[str, float], None]
    """Told of every request: which call it was, and how long it took in seconds."""
    traceparent: str = ""


class Refused(CodedError):
    """An answer whose status is no success, with its body for those who understand it."""

    def __init__(self, error: CodedError, body: bytes) -> None:
        failure = error.failure
        super().__init__(failure.code, failure.message, failure.hint, **failure.detail)
        self.body = body


class _Rest(stop_base):
    """Stop when the next pause would end past the call's budget."""

    def __init__(self, until: float) -> None:
        self._until = until

    def __call__(self, state: RetryCallState) -> bool:
        return time.monotonic() + state.upcoming_sleep >= self._until


def _pause(state: RetryCallState) -> float:
    """As long as the server asks for, and never less than the backoff."""
    error = None if state.outcome is None else state.outcome.exception()
    asked = error.failure.detail.get("retry_after_s", 0.0) if isinstance(error, CodedError) else 0.0
    return max(float(asked), _PAUSE(state))


class Peer:
    """The server behind a tier. Belongs to one event loop; open it once and keep it: connections are used again."""

    def __init__(self, settings: RemoteSettings) -> None:
        self._settings = settings
        headers = {"Accept": "*/*", "User-Agent": "greenroom"}
        if settings.token:
            headers["Authorization"] = f"Bearer {settings.token}"
        self._client = httpx.AsyncClient(
            headers=headers,
            # Stages are bounded here, as a whole each; httpx's own limits begin anew with every packet.
            timeout=httpx.Timeout(None, connect=settings.connect_s, write=settings.read_s),
            trust_env=False,
            follow_redirects=False,
        )

    async def close(self) -> None:
        """Close all connections."""
        await self._client.aclose()

    async def reach(self, context: Context) -> None:
        """See that something listens there, before inputs are laid out for it.

        Raises CodedError UPSTREAM_CONNECTION at once: nothing is lost by trying another tier first.
        """
        parts = urlsplit(self._settings.url)
        port = parts.port or (443 if parts.scheme == "https" else 80)
        began = time.monotonic()
        asked = Request("CONNECT", self.host, "", began)
        limit = self._settings.connect_s
        try:
            async with asyncio.timeout(limit):
                _, writer = await asyncio.open_connection(parts.hostname, port)
        except TimeoutError:
            what = f"found no connection (limit {limit:g} s)"
            raise asked.fail(FailureCode.UPSTREAM_CONNECTION, "connect_timeout", what) from None
        except OSError as error:
            raise asked.fail(FailureCode.UPSTREAM_CONNECTION, "connect", f"found no connection ({error})") from error
        finally:
            context.called("connect", time.monotonic() - began)
        writer.close()

    async def call(
        self,
        context: Context,
        name: str,
        method: str,
        path: str,
        *,
        repeatable: bool = True,
        allowed_s: float | None = None,
        **request: Any,
    ) -> dict[str, Any]:
        """The JSON object that `method path` answers, by whatever content type; `{}` for an empty success.

        `name` is the call's in the metrics, `request` what httpx takes (`params`, `json`, `files`, ...). Answers that
        may pass are tried again, within `allowed_s` (`call_s`) in all; see `may_pass` for `repeatable`. Raises
        CodedError UPSTREAM_..., with method, host, path, reason, and where known status and body in its detail.
        """

        async def once() -> dict[str, Any]:
            async with self._answer(context, name, method, self._settings.url + path, request) as (asked, answer):
                body = await self._body(asked, answer)
                if not body.strip():
                    return {}
                try:
                    value = json.loads(body)
                except (ValueError, RecursionError):
                    kind = answer.headers.get("content-type", "nothing named").partition(";")[0]
                    reason, what = "not_json", f"answered {answer.status_code} with {kind} that is no JSON"
                    raise asked.fail(FailureCode.UPSTREAM_5XX, reason, what, body=body) from None
                if not isinstance(value, dict):
                    what = f"answered {answer.status_code} with JSON that is no object"
                    raise asked.fail(FailureCode.UPSTREAM_5XX, "not_an_object", what, body=body)
                return value

        return await self._patiently(once, repeatable, allowed_s or self._settings.call_s, method, path)

    async def fetch(
        self,
        context: Context,
        name: str,
        path: str,
        target: Path,
        report: Callable[[int, int], None],
        **request: Any,
    ) -> int:
        """Stream the file that `GET path` answers to `target`; `path` may be a whole URL. Returns its bytes.

        `report` is told of bytes done and bytes in all (0: not announced). Limits: `max_result_bytes`, `transfer_s`.
        Raises as `call` does; an answer of text or JSON in place of a file is one of reason `wrong_type`.
        """
        url = path if "://" in path else self._settings.url + path

        async def once() -> int:
            async with self._answer(context, name, "GET", url, request) as (asked, answer):
                kind = answer.headers.get("content-type", "").partition(";")[0].strip().lower()
                if kind in _TEXT_TYPES:
                    body = await self._body(asked, answer, _MOST_OF_AN_ERROR)
                    what = f"answered {answer.status_code} with {kind} in place of a video"
                    raise asked.fail(FailureCode.UPSTREAM_5XX, "wrong_type", what, body=body)
                length = answer.headers.get("content-length", "")
                total = int(length) if length.isdecimal() else 0
                done = 0
                if total > self._settings.max_result_bytes:
                    raise self._too_large(asked, total, self._settings.max_result_bytes)
                with target.open("wb") as file:
                    async for piece in self._pieces(asked, answer):
                        done += len(piece)
                        if done > self._settings.max_result_bytes:
                            raise self._too_large(asked, done, self._settings.max_result_bytes)
                        file.write(piece)
                        report(done, total)
                if done == 0:
                    what = f"answered {answer.status_code} with an empty file"
                    raise asked.fail(FailureCode.UPSTREAM_5XX, "empty", what)
                return done

        return await self._patiently(once, True, self._settings.transfer_s, "GET", urlsplit(url).path)

    async def _patiently(
        self, once: Callable[[], Coroutine[Any, Any, T]], repeatable: bool, allowed_s: float, method: str, path: str
    ) -> T:
        began = time.monotonic()
        asked = Request(method, self.host, path, began)
        last: list[BaseException] = []

        def note(state: RetryCallState) -> None:
            if state.outcome is not None and (error := state.outcome.exception()) is not None:
                last.append(error)

        try:
            async with asyncio.timeout(allowed_s):
                async for attempt in AsyncRetrying(
                    retry=retry_if_exception(lambda error: may_pass(error, repeatable=repeatable)),
                    stop=stop_after_attempt(_TRIES) | _Rest(began + allowed_s),
                    wait=_pause,
                    after=note,
                    reraise=True,
                ):
                    with attempt:
                        return await once()
        except TimeoutError:
            if last:
                raise last[-1] from None
            raise asked.fail(
                FailureCode.UPSTREAM_TIMEOUT, "call_timeout", f"was not done (limit {allowed_s:g} s)"
            ) from None
        raise AssertionError("tenacity either returns or raises")

    @property
    def host(self) -> str:
        """Host and port, as errors name the server."""
        return urlsplit(self._settings.url).netloc

    @asynccontextmanager
    async def _answer(
        self, context: Context, name: str, method: str, url: str, request: Mapping[str, Any]
    ) -> AsyncIterator[tuple[Request, httpx.Response]]:
        """A successful answer whose body is not read yet. Everything else becomes a coded error."""
        began = time.monotonic()
        parts = urlsplit(url)
        asked = Request(method, parts.netloc, parts.path, began)
        headers = {"traceparent": context.traceparent} if context.traceparent else {}
        answer: httpx.Response | None = None
        try:
            answer = await self._head(asked, self._client.build_request(method, url, headers=headers, **request))
            if not answer.is_success:
                body = await self._body(asked, answer, _MOST_OF_AN_ERROR)
                raise Refused(asked.refused(answer.status_code, answer.reason_phrase, answer.headers, body), body)
            yield asked, answer
        except httpx.HTTPError as error:
            raise self._broken(asked, error) from error
        finally:
            if answer is not None:
                await answer.aclose()
            context.called(name, time.monotonic() - began)

    async def _head(self, asked: Request, request: httpx.Request) -> httpx.Response:
        """The head of the answer; `header_s` begins when the request is sent."""
        sent = asyncio.get_running_loop().create_future()

        async def trace(event: str, _info: Any) -> None:
            if event.endswith("send_request_body.complete") and not sent.done():
                sent.set_result(None)

        request.extensions["trace"] = trace
        sending = asyncio.ensure_future(self._client.send(request, stream=True))
        try:
            await asyncio.wait({sending, sent}, return_when=asyncio.FIRST_COMPLETED)
            done, _ = await asyncio.wait({sending}, timeout=self._settings.header_s)
            if not done:
                limit = self._settings.header_s
                what = f"sent no answer (limit {limit:g} s from the request's end)"
                raise asked.fail(FailureCode.UPSTREAM_TIMEOUT, "header_timeout", what)
            return sending.result()
        finally:
            if not sending.done():
                sending.cancel()
                await asyncio.wait({sending})

    async def _body(self, asked: Request, answer: httpx.Response, most: int | None = None) -> bytes:
        """The whole body, or its first `most` bytes. Raises UPSTREAM_5XX, reason `too_large`, beyond our limit."""
        limit = most or self._settings.max_answer_bytes
        parts, size = [], 0
        async for piece in self._pieces(asked, answer):
            parts.append(piece)
            size += len(piece)
            if size > limit:
                if most is not None:
                    break
                raise self._too_large(asked, size, limit)
        return b"".join(parts)

    async def _pieces(self, asked: Request, answer: httpx.Response) -> AsyncIterator[bytes]:
        pieces = answer.aiter_bytes()
        while True:
            try:
                async with asyncio.timeout(self._settings.read_s):
                    piece = await anext(pieces, None)
            except TimeoutError:
                what = f"stopped in the middle of its answer (limit {self._settings.read_s:g} s)"
                raise asked.fail(FailureCode.UPSTREAM_TIMEOUT, "read_timeout", what) from None
            if piece is None:
                return
            yield piece

    def _too_large(self, asked: Request, size: int, limit: int) -> CodedError:
        what = f"answered with {size} bytes or more (limit {limit})"
        return asked.fail(FailureCode.UPSTREAM_5XX, "too_large", what, limit=limit)

    def _broken(self, asked: Request, error: httpx.HTTPError) -> CodedError:
        """The coded error for what went wrong below HTTP, or with it."""
        text = " ".join(str(error).split()) or type(error).__name__
        if isinstance(error, httpx.ConnectTimeout):
            what = f"found no connection (limit {self._settings.connect_s:g} s)"
            return asked.fail(FailureCode.UPSTREAM_CONNECTION, "connect_timeout", what)
        if isinstance(error, httpx.ConnectError):
            return asked.fail(FailureCode.UPSTREAM_CONNECTION, "connect", f"found no connection ({text})")
        if isinstance(error, httpx.WriteTimeout):
            what = f"could not be sent (limit {self._settings.read_s:g} s without progress)"
            return asked.fail(FailureCode.UPSTREAM_TIMEOUT, "write_timeout", what)
        if isinstance(error, httpx.RemoteProtocolError | httpx.ReadError | httpx.WriteError | httpx.CloseError):
            return asked.fail(FailureCode.UPSTREAM_CONNECTION, "cut_off", f"was cut off ({text})")
        return asked.fail(FailureCode.UPSTREAM_5XX, "protocol", f"got no proper answer ({text})")
