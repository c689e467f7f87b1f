"""Names looked up, each in a thread of its own, since who asks a name server may wait for it for half a minute.

The event loop's own threads for that are two (libuv lets no more than half of its four wait for names): with them, two
names whose servers are silent kept all others from being found.
"""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import socket
import threading
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

_MOST = 64
"""Names that are looked up at once. One whose server is silent takes one of these, however many ask for it."""

Ask = Callable[..., Sequence[tuple[Any, ...]]]


class Names:
    """Looks names up. For one event loop; a look-up goes on when who asked for it does not wait any more."""

    def __init__(self, *, ask: Ask = socket.getaddrinfo, most: int = _MOST) -> None:
        """`ask` is called as `socket.getaddrinfo` is, and blocks."""
        self._ask = ask
        self._most = most
        self._under_way: dict[str, asyncio.Future[list[str]]] = {}

    async def addresses(self, host: str) -> list[str]:
        """The addresses of `host`, in the system's order. Raises what `socket.getaddrinfo` does."""
        with contextlib.suppress(ValueError):
            return [str(ipaddress.ip_address(host))]
        found = self._under_way.get(host)
        if found is None:
            found = self._begin(host)
        # Who asks may give up, and must not take the answer from the others.
        return await asyncio.shield(found)

    def _begin(self, host: str) -> asyncio.Future[list[str]]:
        if len(self._under_way) >= self._most:
            raise socket.gaierror(socket.EAI_AGAIN, f"{self._most} names are being looked up already")
        loop = asyncio.get_running_loop()
        found: asyncio.Future[list[str]] = loop.create_future()
        work = partial(self._look_up, host, loop, found)
        try:
            threading.Thread(target=work, name=f"look-up-{host}", daemon=True).start()
        except RuntimeError as error:
            raise socket.gaierror(socket.EAI_AGAIN, str(error)) from error
        self._under_way[host] = found
        return found

    def _look_up(self, host: str, loop: asyncio.AbstractEventLoop, found: asyncio.Future[list[str]]) -> None:
        """In the thread."""
        answer: list[str] | Exception
        try:
            entries = self._ask(host, None, type=socket.SOCK_STREAM)
            answer = list(dict.fromkeys(str(entry[4][0]) for entry in entries))
        except Exception as error:  # noqa: BLE001 - whoever asked gets it
            answer = error
        with contextlib.suppress(RuntimeError):  # the loop is closed: nobody asks any more
            loop.call_soon_threadsafe(self._answer, host, found, answer)

    def _answer(self, host: str, found: asyncio.Future[list[str]], answer: list[str] | Exception) -> None:
        del self._under_way[host]
        if isinstance(answer, Exception):
            found.set_exception(answer)
            found.exception()  # seen, also where nobody waits any more
        else:
            found.set_result(answer)
