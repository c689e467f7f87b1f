"""The address guard: which network addresses this service may open a connection to for a caller.

The check is made on the address that is connected to, at the moment of connecting: a name is resolved once, its
addresses are vetted, and the connection goes to one of those. A name that answers differently the second time (DNS
rebinding) gains nothing.
"""

from __future__ import annotations

import asyncio
import ipaddress
import socket
from collections.abc import Iterable

import httpcore

from app.intake.lookup import Names
from app.intake.refusal import refuse
from app.retry.taxonomy import FailureCode

IpAddress = ipaddress.IPv4Address | ipaddress.IPv6Address

_NAT64 = ipaddress.ip_network("64:ff9b::/96")
_IPV4_COMPATIBLE = ipaddress.ip_network("::/96")
_IPV4_TRANSLATED = ipaddress.ip_network("::ffff:0:0:0/96")
_RELAY_6TO4 = ipaddress.ip_network("192.88.99.0/24")


def _embedded(address: ipaddress.IPv6Address) -> ipaddress.IPv4Address | None:
    """The IPv4 address that a packet to `address` may end up at, None where there is none."""
    if address.ipv4_mapped is not None:
        return address.ipv4_mapped
    if address.sixtofour is not None:
        return address.sixtofour
    if any(address in network for network in (_NAT64, _IPV4_COMPATIBLE, _IPV4_TRANSLATED)):
        return ipaddress.IPv4Address(int(address) & 0xFFFF_FFFF)
    return None


def is_public(address: IpAddress) -> bool:
    """Whether `address` is a global unicast address, also after unwrapping an IPv4 address inside an IPv6 one.

    Private, loopback, link-local, shared (100.64/10), reserved, documentation, multicast, unspecified and broadcast
    addresses are not (IANA special-purpose registries, as the `ipaddress` module has them).
    """
    if isinstance(address, ipaddress.IPv6Address):
        if address.is_site_local or address.teredo is not None:
            return False
        inner = _embedded(address)
        if inner is not None:
            return is_public(inner)
    elif address in _RELAY_6TO4:
        return False
    return address.is_global and not address.is_multicast and not address.is_reserved


async def resolve(host: str, names: Names) -> list[str]:
    """The addresses of `host`, in the system's order. Raises INPUT_NOT_FOUND or UPSTREAM_CONNECTION."""
    try:
        return await names.addresses(host)
    except socket.gaierror as error:
        if error.errno == socket.EAI_AGAIN:
            raise refuse(
                FailureCode.UPSTREAM_CONNECTION,
                f"The name {host!r} could not be resolved now.",
                "Try again; if it persists, check the name server of this service.",
                reason="dns",
            ) from None
        raise refuse(
            FailureCode.INPUT_NOT_FOUND, f"There is no host {host!r}.", "Check the address.", reason="dns"
        ) from None
    except (UnicodeError, ValueError, OverflowError):
        raise refuse(
            FailureCode.INPUT_INVALID, f"{host!r} is not a host name.", "Check the address.", reason="url"
        ) from None


class GuardedBackend(httpcore.AsyncNetworkBackend):
    """Opens TCP connections for httpcore, to public addresses only. TLS above it still names the original host."""

    def __init__(self, *, allow_private: bool) -> None:
        self._allow_private = allow_private
        self._inner = httpcore.AnyIOBackend()
        self._names = Names()

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[httpcore.SOCKET_OPTION] | None = None,
    ) -> httpcore.AsyncNetworkStream:
        """Resolve once, vet, connect to what was vetted; `timeout` covers all of it."""
        last: Exception | None = None
        try:
            async with asyncio.timeout(timeout):
                for address in self._vetted(host, await resolve(host, self._names)):
                    try:
                        return await self._inner.connect_tcp(
                            address, port, local_address=local_address, socket_options=socket_options
                        )
                    except httpcore.ConnectError as error:
                        last = error
        except TimeoutError:
            raise httpcore.ConnectTimeout(f"no connection to {host} within {timeout} s") from None
        raise last or httpcore.ConnectError(f"{host} has no address")

    def _vetted(self, host: str, addresses: list[str]) -> list[str]:
        if self._allow_private:
            return addresses
        public = [a for a in addresses if is_public(ipaddress.ip_address(a))]
        if addresses and not public:
            raise refuse(
                FailureCode.INPUT_FORBIDDEN,
                f"{host!r} is an address inside a private network, which this service does not fetch from.",
                "Upload the file, or ask the operator to allow private addresses.",
                reason="private_address",
            )
        return public

    async def connect_unix_socket(
        self,
        path: str,  # noqa: ARG002
        timeout: float | None = None,  # noqa: ARG002
        socket_options: Iterable[httpcore.SOCKET_OPTION] | None = None,  # noqa: ARG002
    ) -> httpcore.AsyncNetworkStream:
        """Never."""
        raise httpcore.ConnectError("UNIX sockets are not fetched from")

    async def sleep(self, seconds: float) -> None:
        """As the inner backend."""
        await self._inner.sleep(seconds)
