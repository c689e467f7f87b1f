"""Fetching over HTTP: limits of size and time, redirects, and the address guard at every step."""

from __future__ import annotations

import asyncio
import hashlib
import socket
from pathlib import Path

import pytest

from app.intake.blobs import BlobStore
from app.intake.fetch import Fetcher, FetchLimits
from app.retry.taxonomy import CodedError, FailureCode
from tests.certificates import self_signed, server_side
from tests.intake.conftest import Origin, running_origin, stored_files

pytestmark = pytest.mark.anyio

QUICK = FetchLimits(connect_s=2, read_s=0.2, total_s=1.0)


def fetcher(blobs: BlobStore, limits: FetchLimits = QUICK) -> Fetcher:
    """One that may fetch from loopback, where the tests' servers are."""
    return Fetcher(blobs, allow_private_addresses=True, limits=limits)


async def refused(work: object) -> tuple[FailureCode, str]:
    with pytest.raises(CodedError) as error:
        await work  # type: ignore[misc]
    assert str(error.value).strip()
    assert error.value.failure.hint.strip()
    return error.value.code, error.value.failure.detail["reason"]


async def test_a_file_is_fetched_and_named(blobs: BlobStore) -> None:
    content = b"x" * 300_000
    async with running_origin() as origin:
        url = origin.answer("/a/my%20voice.wav?x=1", content)
        blob, name = await fetcher(blobs).fetch(url, max_bytes=len(content))
    assert (blob.sha256, blob.bytes, name) == (hashlib.sha256(content).hexdigest(), 300_000, "my voice.wav")
    assert blobs.path(blob.sha256).read_bytes() == content


async def test_the_request_names_its_host_and_asks_for_the_plain_bytes(blobs: BlobStore) -> None:
    async with running_origin() as origin:
        origin.answer("/x", b"abc", Content_Disposition="attachment; filename*=UTF-8''%E5%A3%B0.wav")
        _, name = await fetcher(blobs).fetch(origin.url("/x", "localhost"), max_bytes=10)
        ((path, headers),) = origin.requests
    assert (path, name) == ("/x", "声.wav")
    assert headers["host"] == f"localhost:{origin.port}"
    assert headers["accept-encoding"] == "identity"
    assert "cookie" not in headers
    assert "traceparent" not in headers, "it may be anybody's server"
    assert "authorization" not in headers


async def test_proxies_of_the_environment_are_not_used(blobs: BlobStore, monkeypatch: pytest.MonkeyPatch) -> None:
    async with running_origin() as origin, running_origin() as proxy:
        for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
            monkeypatch.setenv(name, f"http://127.0.0.1:{proxy.port}")
        blob, _ = await fetcher(blobs).fetch(origin.answer("/x", b"abc"), max_bytes=10)
        assert (blob.bytes, proxy.connections) == (3, 0)


class TestGuard:
    @pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "127.1", "2130706433", "0x7f.1", "0.0.0.0"])
    async def test_loopback_is_refused_and_never_connected_to(self, blobs: BlobStore, host: str) -> None:
        async with running_origin() as origin:
            origin.answer("/x", b"secret")
            result = await refused(Fetcher(blobs, limits=QUICK).fetch(origin.url("/x", host), max_bytes=10))
            assert result == (FailureCode.INPUT_FORBIDDEN, "private_address")
            assert origin.connections == 0

    async def test_ipv6_loopback_too(self, blobs: BlobStore) -> None:
        for host in ("[::1]", "[::ffff:127.0.0.1]", "[0:0:0:0:0:0:0:1]"):
            result = await refused(Fetcher(blobs, limits=QUICK).fetch(f"http://{host}:9/x", max_bytes=10))
            assert result == (FailureCode.INPUT_FORBIDDEN, "private_address")

    async def test_a_redirect_to_loopback_is_refused_and_never_connected_to(
        self, blobs: BlobStore, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """The first server stands for a public one; the second listens on loopback and would notice."""
        async with running_origin() as public, running_origin("127.0.0.2") as inner:
            monkeypatch.setattr("app.intake.guard.is_public", lambda address: str(address) == "127.0.0.1")
            inner.answer("/secret", b"secret")
            url = public.answer("/x", status="302 Found", Location=inner.url("/secret", "127.0.0.2"))
            result = await refused(Fetcher(blobs, limits=QUICK).fetch(url, max_bytes=10))
            assert result == (FailureCode.INPUT_FORBIDDEN, "private_address")
            assert (public.connections, inner.connections) == (1, 0)


class TestAddresses:
    @pytest.mark.parametrize(
        ("url", "reason"),
        [
            ("ftp://example.com/x", "url"),
            ("http://", "url"),
            ("http:///x", "url"),
            ("http://user:secret@127.0.0.1/x", "userinfo"),
            ("http://user@127.0.0.1/x", "userinfo"),
            ("http://127.0.0.1:99999/x", "url"),
            ("http://127.0.0.1:0/x", "url"),
            ("http://[::1/x", "url"),
            ("http://exa mple.com/", "url"),
            ("http://\ud800/", "url"),
            ("http://a\nb/", "url"),
        ],
    )
    async def test_an_address_that_cannot_be_fetched(self, blobs: BlobStore, url: str, reason: str) -> None:
        assert await refused(fetcher(blobs).fetch(url, max_bytes=10)) == (FailureCode.INPUT_INVALID, reason)


class TestRedirects:
    @pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
    async def test_are_followed_relative_ones_too(self, blobs: BlobStore, status: int) -> None:
        async with running_origin() as origin:
            origin.answer("/b/file.png", b"abc")
            url = origin.answer("/a/x", status=f"{status} Moved", Location="../b/file.png")
            blob, name = await fetcher(blobs).fetch(url, max_bytes=10)
        assert (blob.bytes, name) == (3, "file.png")

    async def test_five_are_followed_a_sixth_is_not(self, blobs: BlobStore) -> None:
        async with running_origin() as origin:
            for n in range(6):
                origin.answer(f"/{n}", status="302 Found", Location=f"/{n + 1}")
            origin.answer("/6", b"abc")
            blob, _ = await fetcher(blobs).fetch(origin.url("/1"), max_bytes=10)
            assert blob.bytes == 3
            result = await refused(fetcher(blobs).fetch(origin.url("/0"), max_bytes=10))
        assert result == (FailureCode.UPSTREAM_REJECTED, "too_many_redirects")

    @pytest.mark.parametrize(
        "location", ["file:///etc/passwd", "ftp://x/y", "http://u:p@127.0.0.1/", "http://[", "gopher:x"]
    )
    async def test_only_to_plain_http_addresses(self, blobs: BlobStore, location: str) -> None:
        async with running_origin() as origin:
            url = origin.answer("/x", status="302 Found", Location=location)
            code, _ = await refused(fetcher(blobs).fetch(url, max_bytes=10))
        assert code is FailureCode.INPUT_INVALID

    async def test_to_nowhere(self, blobs: BlobStore) -> None:
        async with running_origin() as origin:
            url = origin.answer("/x", status="302 Found")
            assert (await refused(fetcher(blobs).fetch(url, max_bytes=10)))[1] == "redirect"


@pytest.mark.parametrize(
    ("status", "code"),
    [
        (204, FailureCode.UPSTREAM_REJECTED),
        (206, FailureCode.UPSTREAM_REJECTED),
        (304, FailureCode.UPSTREAM_REJECTED),
        (400, FailureCode.UPSTREAM_REJECTED),
        (401, FailureCode.INPUT_FORBIDDEN),
        (403, FailureCode.INPUT_FORBIDDEN),
        (404, FailureCode.INPUT_NOT_FOUND),
        (408, FailureCode.UPSTREAM_TIMEOUT),
        (410, FailureCode.INPUT_NOT_FOUND),
        (429, FailureCode.UPSTREAM_BUSY),
        (500, FailureCode.UPSTREAM_5XX),
        (503, FailureCode.UPSTREAM_BUSY),
    ],
)
async def test_any_status_but_200_is_told(blobs: BlobStore, status: int, code: FailureCode) -> None:
    async with running_origin() as origin:
        url = origin.answer("/x", b"" if status in {204, 304} else b"error page", status=f"{status} Told")
        assert await refused(fetcher(blobs).fetch(url, max_bytes=100)) == (code, "http_status")


class TestLimits:
    async def test_a_declared_length_over_the_limit_is_refused_unread(self, blobs: BlobStore) -> None:
        async with running_origin() as origin:

            async def huge(_path: str, _headers: dict[str, str], writer: asyncio.StreamWriter) -> None:
                writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 99999999999999\r\n\r\n")
                await writer.drain()
                await asyncio.sleep(30)

            origin.answers["/x"] = huge
            code, _ = await refused(fetcher(blobs).fetch(origin.url("/x"), max_bytes=10))
        assert code is FailureCode.INPUT_TOO_LARGE

    async def test_an_endless_body_is_cut_at_the_limit(self, blobs: BlobStore, tmp_path: Path) -> None:
        sent = 0
        async with running_origin() as origin:

            async def endless(_path: str, _headers: dict[str, str], writer: asyncio.StreamWriter) -> None:
                nonlocal sent
                writer.write(b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n")
                while True:
                    writer.write(b"x" * 65_536)
                    sent += 65_536
                    await writer.drain()

            origin.answers["/x"] = endless
            code, _ = await refused(fetcher(blobs).fetch(origin.url("/x"), max_bytes=2_000_000))
        assert code is FailureCode.INPUT_TOO_LARGE
        assert sent < 50_000_000
        blobs.close()
        assert stored_files(tmp_path) == []

    async def test_a_silent_server(self, blobs: BlobStore) -> None:
        async with running_origin() as origin:

            async def silent(*_: object) -> None:
                await asyncio.sleep(30)

            origin.answers["/x"] = silent
            result = await refused(fetcher(blobs).fetch(origin.url("/x"), max_bytes=10))
        assert result == (FailureCode.UPSTREAM_TIMEOUT, "read_timeout")

    async def test_a_trickle_that_never_ends(self, blobs: BlobStore) -> None:
        async with running_origin() as origin:

            async def trickle(_path: str, _headers: dict[str, str], writer: asyncio.StreamWriter) -> None:
                writer.write(b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n")
                while True:
                    writer.write(b"x")
                    await writer.drain()
                    await asyncio.sleep(0.02)

            origin.answers["/x"] = trickle
            limits = FetchLimits(read_s=5, total_s=0.3)
            result = await refused(fetcher(blobs, limits).fetch(origin.url("/x"), max_bytes=10_000))
        assert result == (FailureCode.UPSTREAM_TIMEOUT, "total_timeout")

    async def test_a_name_server_that_hangs_is_within_the_connect_limit(
        self, blobs: BlobStore, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        async def hang(_host: str, _names: object) -> list[str]:
            await asyncio.sleep(30)
            return []

        monkeypatch.setattr("app.intake.guard.resolve", hang)
        limits = FetchLimits(connect_s=0.1, total_s=5)
        result = await refused(fetcher(blobs, limits).fetch("http://slow.invalid/x", max_bytes=10))
        assert result == (FailureCode.UPSTREAM_TIMEOUT, "connect_timeout")


class TestBrokenServers:
    async def test_nobody_listens(self, blobs: BlobStore) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        result = await refused(fetcher(blobs).fetch(f"http://127.0.0.1:{port}/x", max_bytes=10))
        assert result == (FailureCode.UPSTREAM_CONNECTION, "connection")

    @pytest.mark.parametrize(
        "reply",
        [
            b"",
            b"rubbish\r\n\r\n",
            b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nshort",
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
            b"HTTP/1.1 200 OK\r\nContent-Length: -5\r\n\r\n",
        ],
    )
    async def test_a_broken_answer_is_no_file(self, blobs: BlobStore, tmp_path: Path, reply: bytes) -> None:
        async with running_origin() as origin:

            async def broken(_path: str, _headers: dict[str, str], writer: asyncio.StreamWriter) -> None:
                writer.write(reply)
                await writer.drain()

            origin.answers["/x"] = broken
            result = await refused(fetcher(blobs).fetch(origin.url("/x"), max_bytes=1000))
        assert result == (FailureCode.UPSTREAM_CONNECTION, "connection")
        blobs.close()
        assert stored_files(tmp_path) == []

    async def test_tls_names_the_host_that_was_asked_for(self, blobs: BlobStore, tmp_path: Path) -> None:
        """The connection goes to the vetted address; certificate and SNI still are those of the name."""
        certificate, key = self_signed(tmp_path / "tls", "DNS:localhost")
        names: list[str | None] = []
        presented = server_side(certificate, key)
        presented.sni_callback = lambda _socket, name, _context: names.append(name)
        trusting = Fetcher(blobs, allow_private_addresses=True, limits=QUICK, ca_file=certificate)
        async with running_origin(tls=presented) as origin:
            origin.answer("/x", b"abc")
            url = origin.url("/x", "localhost").replace("http:", "https:")
            blob, _ = await trusting.fetch(url, max_bytes=10)
            assert (blob.bytes, names) == (3, ["localhost"])
            by_number = origin.url("/x").replace("http:", "https:")
            assert (await refused(trusting.fetch(by_number, max_bytes=10)))[0] is FailureCode.UPSTREAM_CONNECTION
            assert (await refused(fetcher(blobs).fetch(url, max_bytes=10)))[0] is FailureCode.UPSTREAM_CONNECTION

    async def test_tls_that_is_none(self, blobs: BlobStore) -> None:
        async with running_origin() as origin:
            origin.answer("/x", b"abc")
            url = origin.url("/x").replace("http:", "https:")
            code, _ = await refused(fetcher(blobs).fetch(url, max_bytes=10))
        assert code in {FailureCode.UPSTREAM_CONNECTION, FailureCode.UPSTREAM_TIMEOUT}

    async def test_a_compressed_body_is_refused(self, blobs: BlobStore) -> None:
        async with running_origin() as origin:
            url = origin.answer("/x", b"\x1f\x8b", Content_Encoding="gzip")
            assert (await refused(fetcher(blobs).fetch(url, max_bytes=10)))[1] == "content_encoding"


async def test_closing_lets_it_start_again(blobs: BlobStore) -> None:
    async with running_origin() as origin:
        url = origin.answer("/x", b"abc")
        one = fetcher(blobs)
        await one.fetch(url, max_bytes=10)
        await one.close()
        await one.fetch(url, max_bytes=10)
        await one.close()


def test_origin_counts(tmp_path: Path) -> None:
    """The listener would notice: it is what the guard's tests rest on."""

    async def connect() -> int:
        async with running_origin() as origin:
            _, writer = await asyncio.open_connection("127.0.0.1", origin.port)
            writer.close()
            await writer.wait_closed()
            while origin.connections == 0:
                await asyncio.sleep(0)
            return origin.connections

    assert asyncio.run(connect()) == 1
    assert isinstance(Origin(), Origin)


class TestCauses:
    """What went wrong with the connection is told in words, and ends in one full stop."""

    @pytest.mark.parametrize(
        ("scheme", "answer", "words"),
        [
            ("https", b"HTTP/1.1 400 Bad Request\r\n\r\n", "The TLS handshake failed: wrong version number."),
            ("https", b"", "The TLS handshake failed: EOF occurred in violation of protocol."),
            ("http", b"", "The transfer failed: Server disconnected without sending a response."),
        ],
    )
    async def test_a_server_that_does_not_speak_as_asked(
        self, blobs: BlobStore, scheme: str, answer: bytes, words: str
    ) -> None:
        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            if answer:
                await reader.read(100)
                writer.write(answer)
            writer.close()

        server = await asyncio.start_server(serve, "127.0.0.1", 0)
        async with server:
            port = server.sockets[0].getsockname()[1]
            with pytest.raises(CodedError) as caught:
                await fetcher(blobs).fetch(f"{scheme}://127.0.0.1:{port}/x", max_bytes=10)
        assert str(caught.value) == words
        assert caught.value.code is FailureCode.UPSTREAM_CONNECTION
        assert ("http://" in caught.value.failure.hint) == (scheme == "https")

    @pytest.mark.parametrize("url", ["http://127.0.0.1:1/x", "https://127.0.0.1:1/x", "http://[x/", "http://a:b/"])
    async def test_no_message_ends_in_two_stops(self, blobs: BlobStore, url: str) -> None:
        with pytest.raises(CodedError) as caught:
            await fetcher(blobs).fetch(url, max_bytes=10)
        assert str(caught.value).endswith(".")
        assert not str(caught.value).endswith("..")
