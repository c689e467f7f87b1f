"""Deliverers on real stores, sending to real sockets."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from app.api.notice import notice_body
from app.notify.deliverer import Deliverer, DeliverySettings
from app.notify.sender import Sender, Timeouts
from app.store.deliveries import Delivery
from app.store.sql import SqlStore, open_store
from tests.database import empty_database
from tests.notify.receiver import WAIT_S

OWN_KEY = b"the service's own key, 32 bytes."


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture
def store(tmp_path: Path) -> Iterator[SqlStore]:
    opened = open_store(empty_database(tmp_path / "greenroom.db"))
    yield opened
    opened.close()


class Tries(list[tuple[str, float]]):
    """What a deliverer tells the telemetry."""

    def notice_tried(self, outcome: str, seconds: float) -> None:
        self.append((outcome, seconds))


@pytest.fixture
def delivering(store: SqlStore) -> Callable[..., Any]:
    """Runs a deliverer on the store for as long as the block lasts."""

    @asynccontextmanager
    async def running(
        *,
        allow_private: bool = True,
        timeouts: Timeouts | None = None,
        keys: tuple[bytes, ...] = (OWN_KEY,),
        owner: str = "node-1",
        on: SqlStore = store,
        ca_file: Path | None = None,
        **settings: Any,
    ) -> AsyncIterator[Tries]:
        tries = Tries()
        deliverer = Deliverer(
            on.outbox,
            Sender(allow_private=allow_private, timeouts=timeouts or Timeouts(), connections=32, ca_file=ca_file),
            owner=owner,
            keys=keys,
            render=notice_body,
            settings=DeliverySettings(**({"schedule_s": (0, 0.05, 0.05)} | settings)),
            observer=tries,
        )
        await deliverer.start()
        try:
            yield tries
        finally:
            await deliverer.stop()

    return running


async def until_over(store: SqlStore, task_id: str) -> list[Delivery]:
    """The deliveries of a task once none is pending."""
    end = time.monotonic() + WAIT_S
    while True:
        found = await store.outbox.adeliveries(task_id)
        if not any(one.state == "pending" for one in found):
            return found
        assert time.monotonic() < end, found
        await asyncio.sleep(0.01)
