"""The address guard. Tried on loopback in its many spellings; classes of addresses are judged without connecting."""

from __future__ import annotations

import ipaddress

import httpcore
import pytest

from app.intake.guard import GuardedBackend, is_public
from app.retry.taxonomy import CodedError, FailureCode
from tests.intake.conftest import running_origin


@pytest.mark.parametrize(
    "address",
    [
        "127.0.0.1", "127.255.255.254", "0.0.0.0", "0.1.2.3", "10.0.0.1", "172.16.0.1", "192.168.0.1",
        "169.254.169.254", "100.64.0.1", "192.0.0.1", "192.0.2.1", "198.18.0.1", "224.0.0.1", "239.1.1.1",
        "240.0.0.1", "255.255.255.255", "192.88.99.1", "::", "::1", "fe80::1", "fe80::1%1", "fc00::1", "fd12::1",
        "fec0::1", "ff02::1", "ff0e::1", "2001:db8::1", "::ffff:127.0.0.1", "::ffff:10.0.0.1", "::127.0.0.1",
        "::ffff:0:127.0.0.1", "64:ff9b::7f00:1", "64:ff9b:1::1", "2002:7f00:1::", "2002:a00:1::1",
        "2001:0:7f00:1::1", "100::1",
    ],
)  # fmt: skip
def test_not_public(address: str) -> None:
    assert not is_public(ipaddress.ip_address(address))


@pytest.mark.parametrize(
    "address", ["8.8.8.8", "1.1.1.1", "2001:4860:4860::8888", "::ffff:8.8.8.8", "64:ff9b::808:808", "2002:808:808::1"]
)
def test_public(address: str) -> None:
    assert is_public(ipaddress.ip_address(address))


@pytest.mark.anyio
@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "127.1", "2130706433", "0x7f000001", "0", "::1"])
async def test_every_spelling_of_loopback_is_refused_before_a_connection(host: str) -> None:
    async with running_origin() as origin:
        with pytest.raises(CodedError) as error:
            await GuardedBackend(allow_private=False).connect_tcp(host, origin.port, timeout=2)
        assert error.value.code is FailureCode.INPUT_FORBIDDEN
        assert error.value.failure.detail["reason"] == "private_address"
        assert origin.connections == 0


@pytest.mark.anyio
async def test_a_name_that_answers_differently_the_second_time_gains_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """The address that was vetted is the one connected to: resolving happens once (DNS rebinding)."""
    answers = [["203.0.113.7"], ["127.0.0.1"]]
    monkeypatch.setattr("app.intake.guard.is_public", lambda address: str(address) == "203.0.113.7")
    connected: list[str] = []

    async def resolve(_host: str, _names: object) -> list[str]:
        return answers.pop(0)

    async def connect_tcp(_self: object, host: str, *_: object, **__: object) -> None:
        connected.append(host)

    monkeypatch.setattr("app.intake.guard.resolve", resolve)
    monkeypatch.setattr(httpcore.AnyIOBackend, "connect_tcp", connect_tcp)
    await GuardedBackend(allow_private=False).connect_tcp("rebinding.example", 80, timeout=2)
    assert connected == ["203.0.113.7"]


@pytest.mark.anyio
async def test_of_mixed_addresses_only_public_ones_are_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    tried: list[str] = []

    async def resolve(_host: str, _names: object) -> list[str]:
        return ["127.0.0.1", "8.8.8.8", "10.0.0.1"]

    async def connect_tcp(_self: object, host: str, *_: object, **__: object) -> None:
        tried.append(host)
        raise httpcore.ConnectError("refused")

    monkeypatch.setattr("app.intake.guard.resolve", resolve)
    monkeypatch.setattr(httpcore.AnyIOBackend, "connect_tcp", connect_tcp)
    with pytest.raises(httpcore.ConnectError):
        await GuardedBackend(allow_private=False).connect_tcp("mixed.example", 80, timeout=2)
    assert tried == ["8.8.8.8"]


@pytest.mark.anyio
@pytest.mark.parametrize("host", ["no-such-host.invalid", "a" * 64 + ".invalid", "xn--"])
async def test_a_name_that_does_not_resolve(host: str) -> None:
    with pytest.raises(CodedError) as error:
        await GuardedBackend(allow_private=False).connect_tcp(host, 80, timeout=2)
    assert error.value.code in {
        FailureCode.INPUT_NOT_FOUND, FailureCode.INPUT_INVALID, FailureCode.UPSTREAM_CONNECTION,
    }  # fmt: skip
