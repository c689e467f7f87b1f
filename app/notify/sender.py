"""One POST to an endpoint: layered timeouts, vetted addresses, no redirects, and a word for every way to fail."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import httpcore
import httpx

from app.intake.fetch import parse_url
from app.intake.guard import GuardedBackend
from app.intake.trust import tls_context
from app.notify.address import private
from app.retry.taxonomy import CodedError

_GONE = 410


@dataclass(frozen=True, slots=True)
class Timeouts:
    """Limits of one try, in seconds. `connect` includes name resolution, `read` is the wait for the answer."""

    connect_s: float = 3.0
    read_s: float = 10.0
    total_s: float = 15.0


@dataclass(frozen=True, slots=True)
class Answer:
    """What came back. Without an HTTP status, `error` (a stable word) and `message` say why."""

    status: int | None = None
    error: str | None = None
    message: str | None = None
    retry_after: str = ""

    @property
    def is_success(self) -> bool:
        """Whether the endpoint has taken the notice."""
        return self.status is not None and 200 <= self.status < 300

    @property
    def is_gone(self) -> bool:
        """Whether the endpoint wants nothing more."""
        return self.status == _GONE


class Sender:
    """Sends. No proxies, no cookies, no credentials; a connection serves one notice."""

    def __init__(
        self, *, allow_private: bool, timeouts: Timeouts, connections: int, ca_file: Path | None = None
    ) -> None:
        """`ca_file`: authorities that are believed beside the public ones (PEM)."""
        self._ca_file = ca_file
        self._backend = GuardedBackend(allow_private=allow_private)
        self._timeouts = timeouts
        self._connections = connections
        self._pool: httpcore.AsyncConnectionPool | None = None
        self._opening = asyncio.Lock()

    async def post(self, url: str, headers: Mapping[str, str], body: bytes) -> Answer:
        """Send `body`. Never raises for what an endpoint or a network can do."""
        limits = self._timeouts
        try:
            async with asyncio.timeout(limits.total_s):
                return await self._post(url, headers, body)
        except TimeoutError:
            return Answer(error="TOTAL_TIMEOUT", message=f"The delivery took longer than {limits.total_s:g} s.")
        except httpcore.ConnectTimeout:
            return Answer(error="CONNECT_TIMEOUT", message=f"No connection within {limits.connect_s:g} s.")
        except httpcore.TimeoutException:
            return Answer(error="READ_TIMEOUT", message=f"No answer within {limits.read_s:g} s.")
        except CodedError as error:
            return _refused(url, error)
        except (httpcore.NetworkError, httpcore.ProtocolError, ssl.SSLError, OSError) as error:
            return _failed(error)

    async def close(self) -> None:
        """Close all connections."""
        if self._pool is not None:
            await self._pool.aclose()
            self._pool = None

    async def _post(self, url: str, headers: Mapping[str, str], body: bytes) -> Answer:
        parsed, limits = parse_url(url), self._timeouts
        pool = await self._open()
        async with pool.stream(
            "POST",
            httpcore.URL(scheme=parsed.raw_scheme, host=parsed.raw_host, port=parsed.port, target=parsed.raw_path),
            headers=[
                (b"Host", parsed.netloc),
                (b"Content-Length", str(len(body)).encode()),
                *((name.encode(), value.encode()) for name, value in headers.items()),
            ],
            content=body,
            extensions={
                "timeout": {
                    "connect": limits.connect_s,
                    "read": limits.read_s,
                    "write": limits.read_s,
                    "pool": limits.total_s,
                }
            },
        ) as response:
            return _understood(response)

    async def _open(self) -> httpcore.AsyncConnectionPool:
        async with self._opening:
            if self._pool is None:
                # Loading the certificate bundle takes tens of milliseconds: once, and not in the event loop.
                context = await asyncio.to_thread(tls_context, self._ca_file)
                self._pool = httpcore.AsyncConnectionPool(
                    ssl_context=context,
                    max_connections=self._connections,
                    max_keepalive_connections=0,
                    network_backend=self._backend,
                )
            return self._pool


def _understood(response: httpcore.Response) -> Answer:
    """Only the status counts; the body is not read."""
    headers = {name.lower(): value for name, value in response.headers}
    error = message = None
    if 300 <= response.status < 400:
        error, message = "REDIRECT", "Redirects are not followed: the callback has to name the final address."
    return Answer(response.status, error, message, headers.get(b"retry-after", b"").decode("latin-1"))


def _refused(url: str, error: CodedError) -> Answer:
    """The guard or the name server said no."""
    reason = str(error.failure.detail.get("reason", "")).upper()
    if reason == "PRIVATE_ADDRESS":
        return Answer(error=reason, message=private(httpx.URL(url).host))
    return Answer(error=reason or "ADDRESS", message=error.failure.message)


def _failed(error: BaseException) -> Answer:
    """What failed first may stand in an error below, the last one without words."""
    chain: list[BaseException] = []
    below: BaseException | None = error
    while below is not None and below not in chain:
        chain.append(below)
        below = below.__cause__ or below.__context__
    text = next((str(found) for found in chain if str(found)), type(error).__name__)
    for found in chain:
        if isinstance(found, ssl.SSLCertVerificationError):
            reason = found.verify_message.rstrip(".")
            return Answer(error="TLS", message=f"The endpoint's certificate is not accepted: {reason}.")
    if any(isinstance(found, ssl.SSLError) for found in chain):
        return Answer(error="TLS", message=f"The TLS connection failed: {text}")
    if isinstance(error, httpcore.ProtocolError):
        return Answer(error="PROTOCOL", message=f"The answer is no HTTP: {text}")
    return Answer(error="CONNECTION", message=f"The connection failed: {text}")
