"""Inputs at http(s) addresses, streamed into the blob store under limits of size and time."""

from __future__ import annotations

import asyncio
import re
import ssl
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import httpcore
import httpx

from app.intake.blobs import Blob, BlobStore
from app.intake.guard import GuardedBackend
from app.intake.names import name_from_disposition, name_from_path
from app.intake.refusal import refuse, too_large
from app.intake.trust import tls_context
from app.retry.taxonomy import CodedError, FailureCode

_REDIRECTS = frozenset({301, 302, 303, 307, 308})
_MAX_CONNECTIONS = 32
_HOST = re.compile(r"[A-Za-z0-9._-]{1,253}|[0-9A-Fa-f:.]{2,45}")
"""A name after IDNA, or an IPv6 address without its brackets."""
_USER_AGENT = b"greenroom-intake"


@dataclass(frozen=True, slots=True)
class FetchLimits:
    """Limits of one fetch, in seconds. Connect and read as DESIGN section 11; connect includes name resolution."""

    connect_s: float = 2.0
    read_s: float = 10.0
    total_s: float = 60.0
    max_redirects: int = 5


class Fetcher:
    """Fetches with GET. No proxies, no cookies, no credentials, no decompression; redirects are followed and vetted."""

    def __init__(
        self,
        blobs: BlobStore,
        *,
        allow_private_addresses: bool = False,
        limits: FetchLimits | None = None,
        ca_file: Path | None = None,
    ) -> None:
        """`ca_file`: authorities that are believed beside the public ones (PEM)."""
        self._blobs = blobs
        self._ca_file = ca_file
        self._limits = limits or FetchLimits()
        self._backend = GuardedBackend(allow_private=allow_private_addresses)
        self._pool: httpcore.AsyncConnectionPool | None = None

    async def fetch(self, url: str, *, max_bytes: int) -> tuple[Blob, str]:
        """The content at `url` as a blob, and a file name for it. Raises `CodedError` with a `reason`."""
        try:
            async with asyncio.timeout(self._limits.total_s):
                return await self._follow(parse_url(url), max_bytes)
        except TimeoutError:
            raise _timeout(
                f"The whole transfer took longer than {self._limits.total_s:g} s.", "total_timeout"
            ) from None

    async def close(self) -> None:
        """Close all connections."""
        if self._pool is not None:
            await self._pool.aclose()
            self._pool = None

    async def _follow(self, url: httpx.URL, max_bytes: int) -> tuple[Blob, str]:
        for _ in range(self._limits.max_redirects + 1):
            async with self._get(url) as response:
                headers = {k.decode("latin-1").lower(): v.decode("latin-1") for k, v in response.headers}
                if response.status in _REDIRECTS:
                    url = _redirected(url, headers)
                    continue
                _check(response.status, headers, max_bytes)
                blob = await self._blobs.put(response.aiter_stream(), max_bytes=max_bytes)
                name = name_from_disposition(headers.get("content-disposition", ""))
                return blob, name or name_from_path(url.path, url.host)
        raise refuse(
            FailureCode.UPSTREAM_REJECTED,
            f"The address redirects more than {self._limits.max_redirects} times.",
            "Give the final address.",
            reason="too_many_redirects",
        )

    @asynccontextmanager
    async def _get(self, url: httpx.URL) -> AsyncIterator[httpcore.Response]:
        if self._pool is None:
            # Loading the certificate bundle takes tens of milliseconds: once, and not in the event loop.
            context = await self._blobs.in_thread(tls_context, self._ca_file)
            self._pool = self._pool or httpcore.AsyncConnectionPool(
                ssl_context=context,
                max_connections=_MAX_CONNECTIONS,
                max_keepalive_connections=0,
                network_backend=self._backend,
            )
        connect, read = self._limits.connect_s, self._limits.read_s
        try:
            async with self._pool.stream(
                "GET",
                httpcore.URL(scheme=url.raw_scheme, host=url.raw_host, port=url.port, target=url.raw_path),
                headers=[
                    (b"Host", url.netloc),
                    (b"Accept", b"*/*"),
                    (b"Accept-Encoding", b"identity"),
                    (b"User-Agent", _USER_AGENT),
                ],
                extensions={"timeout": {"connect": connect, "read": read, "write": read, "pool": None}},
            ) as response:
                yield response
        except httpcore.ConnectTimeout:
            raise _timeout(f"No connection within {connect:g} s.", "connect_timeout") from None
        except httpcore.TimeoutException:
            raise _timeout(f"Nothing arrived for {read:g} s.", "read_timeout") from None
        except (httpcore.NetworkError, httpcore.ProtocolError, ssl.SSLError, OSError) as error:
            if isinstance(error, TimeoutError):
                raise
            raise refuse(
                FailureCode.UPSTREAM_CONNECTION,
                *_cause(error),
                reason="connection",
            ) from error


_OPENSSL = re.compile(r"^\[[^\]]*\] ?| ?\(_ssl\.c:\d+\)$")
"""What Python puts around OpenSSL's words."""


def _cause(error: BaseException) -> tuple[str, str]:
    """Message and hint for a transfer that failed. What failed first may stand in an error below, the last without."""
    chain: list[BaseException] = []
    below: BaseException | None = error
    while below is not None and below not in chain:
        chain.append(below)
        below = below.__cause__ or below.__context__
    hint = "Check the address and that its server is up, then try again."
    for found in chain:
        if isinstance(found, ssl.SSLCertVerificationError):
            return f"The server's certificate is not accepted: {found.verify_message.rstrip('.')}.", hint
        if isinstance(found, ssl.SSLError):
            text = _OPENSSL.sub("", _OPENSSL.sub("", str(found))).rstrip(".")
            what = "handshake" if isinstance(error, httpcore.ConnectError) else "connection"
            hint = "Check that the server speaks https at this port; where it does not, write http://."
            return f"The TLS {what} failed: {text}.", hint
    text = next((str(found) for found in chain if str(found)), type(error).__name__)
    return f"The transfer failed: {text.rstrip('.')}.", hint


def parse_url(raw: str) -> httpx.URL:
    try:
        url = httpx.URL(raw)
        port = url.port
    except (httpx.InvalidURL, ValueError, UnicodeError) as error:
        raise _bad_url(f"The address cannot be read: {str(error).rstrip('.')}.") from None
    if url.scheme not in {"http", "https"}:
        raise _bad_url(f"{url.scheme or 'no scheme'}: only http and https are fetched.")
    if url.userinfo:
        raise _bad_url("The address carries a user name or password.", "userinfo")
    if not _HOST.fullmatch(url.raw_host.decode("ascii", "replace")):
        raise _bad_url("The address names no host.")
    if port is not None and not 0 < port < 65_536:
        raise _bad_url("The address names a port that does not exist.")
    return url


def _redirected(url: httpx.URL, headers: Mapping[str, str]) -> httpx.URL:
    try:
        return parse_url(str(url.join(headers["location"])))
    except KeyError:
        raise refuse(
            FailureCode.UPSTREAM_REJECTED, "The server redirects to nowhere.", "Check the address.", reason="redirect"
        ) from None
    except (httpx.InvalidURL, ValueError, UnicodeError):
        raise _bad_url("The server redirects to an address that cannot be read.", "redirect") from None


def _check(status: int, headers: Mapping[str, str], max_bytes: int) -> None:
    if status not in {200, 203}:
        raise _bad_status(status)
    if headers.get("content-encoding", "identity").strip().lower() not in {"", "identity"}:
        raise refuse(
            FailureCode.INPUT_INVALID,
            "The server sends a compressed body although it was asked not to.",
            "Serve the file as it is, or upload it.",
            reason="content_encoding",
        )
    length = headers.get("content-length", "")
    if length.isascii() and length.isdigit() and int(length[:20]) > max_bytes:
        raise too_large(max_bytes)


def _bad_status(status: int) -> CodedError:
    message, hint = f"The server answered {status}.", "Check that the address is right and public."
    if status in {404, 410}:
        code = FailureCode.INPUT_NOT_FOUND
    elif status in {401, 403, 407}:
        code = FailureCode.INPUT_FORBIDDEN
    elif status in {425, 429, 503}:
        code, hint = FailureCode.UPSTREAM_BUSY, "Try again later."
    elif status == 408:
        code, hint = FailureCode.UPSTREAM_TIMEOUT, "Try again later."
    elif status >= 500:
        code, hint = FailureCode.UPSTREAM_5XX, "Try again later; if it persists, look into that server."
    else:
        code = FailureCode.UPSTREAM_REJECTED
    return refuse(code, message, hint, reason="http_status", http_status=status)


def _bad_url(message: str, reason: str = "url") -> CodedError:
    return refuse(FailureCode.INPUT_INVALID, message, "Give a plain http or https address.", reason=reason)


def _timeout(message: str, reason: str) -> CodedError:
    return refuse(
        FailureCode.UPSTREAM_TIMEOUT, message, "Try again; if it persists, upload the file instead.", reason=reason
    )
