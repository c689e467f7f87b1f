"""Looking names up: a silent name server costs who asks it, and nobody else."""

from __future__ import annotations

import asyncio
import socket
import threading
from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest
import uvloop

from app.intake.lookup import Names

WAIT_S = 30.0


class NameServer:
    """Answers at once, but for names that begin with `silent`: those when it is released."""

    def __init__(self) -> None:
        self.asked: Counter[str] = Counter()
        self.speak = threading.Event()

    def __call__(self, host: str, *_: Any, **__: Any) -> list[tuple[Any, ...]]:
        self.asked[host] += 1
        if host.startswith("silent"):
            assert self.speak.wait(WAIT_S)
        if host.startswith("none"):
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        return [(0, 0, 0, "", ("203.0.113.7", 0)), (0, 0, 0, "", ("203.0.113.7", 0))]


@pytest.fixture
def server() -> Iterator[NameServer]:
    made = NameServer()
    yield made
    made.speak.set()


def test_names_whose_server_is_silent_hold_up_no_other(server: NameServer) -> None:
    async def scenario() -> None:
        names = Names(ask=server)
        asking = [asyncio.create_task(names.addresses(f"silent-{n % 8}.example")) for n in range(32)]
        await asyncio.sleep(0)
        assert await asyncio.wait_for(names.addresses("good.example"), WAIT_S) == ["203.0.113.7"]
        for one in asking:
            one.cancel()
        await asyncio.gather(*asking, return_exceptions=True)
        # The look-ups that were given up go on, and still hold up nobody.
        assert await asyncio.wait_for(names.addresses("good.example"), WAIT_S) == ["203.0.113.7"]

    uvloop.run(scenario())  # whose own pool has room for two


def test_who_asks_for_one_name_at_a_time_shares_one_look_up(server: NameServer) -> None:
    async def scenario() -> None:
        names = Names(ask=server)
        first, second = (asyncio.create_task(names.addresses("silent.example")) for _ in range(2))
        await asyncio.sleep(0)
        first.cancel()
        await asyncio.gather(first, return_exceptions=True)
        server.speak.set()
        assert await asyncio.wait_for(second, WAIT_S) == ["203.0.113.7"], "one that gives up takes nothing from others"
        assert server.asked["silent.example"] == 1
        await names.addresses("silent.example")
        assert server.asked["silent.example"] == 2, "nothing is remembered: the address is vetted when it is used"

    uvloop.run(scenario())


def test_of_too_many_silent_names_the_next_is_refused_for_now(server: NameServer) -> None:
    async def scenario() -> None:
        names = Names(ask=server, most=2)
        asking = [asyncio.create_task(names.addresses(f"silent-{n}.example")) for n in range(2)]
        await asyncio.sleep(0)
        with pytest.raises(socket.gaierror) as refused:
            await names.addresses("good.example")
        assert refused.value.errno == socket.EAI_AGAIN
        assert await names.addresses("203.0.113.9") == ["203.0.113.9"], "an address needs no look-up"
        server.speak.set()
        await asyncio.wait_for(asyncio.gather(*asking), WAIT_S)
        assert await names.addresses("good.example") == ["203.0.113.7"]

    uvloop.run(scenario())


def test_a_name_that_does_not_exist_is_told_to_all_who_asked(server: NameServer) -> None:
    async def scenario() -> None:
        names = Names(ask=server)
        told = await asyncio.gather(*(names.addresses("none.example") for _ in range(3)), return_exceptions=True)
        assert [type(error) for error in told] == [socket.gaierror] * 3
        assert server.asked["none.example"] == 1

    uvloop.run(scenario())
