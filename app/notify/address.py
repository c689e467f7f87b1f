"""Which addresses notices may be sent to: the same as those that inputs may be fetched from."""

from __future__ import annotations

import asyncio
import ipaddress

from app.intake.fetch import parse_url
from app.intake.guard import is_public, resolve
from app.intake.lookup import Names
from app.intake.refusal import refuse
from app.retry.taxonomy import CodedError, FailureCode

_LOOK_UP_S = 1.0
"""A submission waits so long for a name server, not longer: the address is checked again at every delivery."""


class TargetGuard:
    """Checks the address of a callback when it is given. What is connected to later is checked by `GuardedBackend`."""

    def __init__(self, *, allow_private: bool) -> None:
        self._allow_private = allow_private
        self._names = Names()

    async def check(self, url: str) -> None:
        """Raise `CodedError`, with a `reason`, for an address that notices are not sent to.

        A name that cannot be resolved now is let pass, one that does not exist is not.
        """
        parsed = parse_url(url)
        if self._allow_private:
            return
        host = parsed.host
        try:
            addresses = [str(ipaddress.ip_address(host))]
        except ValueError:
            addresses = await self._look_up(host)
        if addresses and not any(is_public(ipaddress.ip_address(address)) for address in addresses):
            raise refuse(FailureCode.INPUT_FORBIDDEN, private(host), "Give a public address.", reason="private_address")

    async def _look_up(self, host: str) -> list[str]:
        try:
            async with asyncio.timeout(_LOOK_UP_S):
                return await resolve(host, self._names)
        except TimeoutError:
            return []
        except CodedError as error:
            if error.code is FailureCode.UPSTREAM_CONNECTION:
                return []
            raise


def private(host: str) -> str:
    """What is said of a host inside a private network."""
    return f"{host!r} is an address inside a private network, which this service sends nothing to."
