"""New tiers and the tasks that wait: all get their routes, beside the work, and whoever is stopped begins again."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest

from app.service.reload import TierControl
from app.store.records import TaskFilter
from app.store.sql import SqlStore, open_store
from app.tiers.settings import TierSettings
from app.tiers.tiers import Tiers
from app.worker.board import TierBoard
from tests.database import empty_database
from tests.store.kit import create


class NoSlots:
    """Slots of which there are none: routes do not depend on them."""

    def group_size(self, group: str) -> tuple[int, int, int]:
        return 0, 0, 0

    def reconfigure(self, plans: object, serves: object) -> None:
        return None


class Silent:
    def breaker_changed(self, tier: str, state: str) -> None:
        return None


@pytest.fixture
def store(tmp_path: Path) -> Iterator[SqlStore]:
    store = open_store(empty_database(tmp_path / "greenroom.db"))
    yield store
    store.close()


def tiers(name: str) -> Tiers:
    return Tiers([TierSettings(name=name, renderer="rehearsal")])


def control(store: SqlStore, name: str) -> TierControl:
    board = TierBoard(tiers(name), NoSlots(), store, node="node-1", observer=Silent())
    return TierControl(
        read=lambda: tiers(name),
        board=board,
        pool=NoSlots(),  # type: ignore[arg-type]
        plan=lambda tiers: ([], {}),
        store=store,
    )


async def routes(store: SqlStore) -> list[str]:
    """Of all tasks, oldest first."""
    return [",".join(task.route) for task in (await store.alist(TaskFilter(), limit=1000, oldest_first=True)).tasks]


async def until_all_are(store: SqlStore, name: str) -> None:
    async with asyncio.timeout(30):
        while set(await routes(store)) != {name}:
            await asyncio.sleep(0.01)


def test_tasks_that_waited_get_the_routes_of_the_tiers_in_force(store: SqlStore) -> None:
    for _ in range(220):
        create(store, route=("gone",))

    async def scenario() -> None:
        first = control(store, "one")
        await first.start()
        await until_all_are(store, "one")
        await first.stop()
        reloaded = control(store, "two")
        await reloaded.reload()
        await until_all_are(store, "two")
        await reloaded.stop()

    asyncio.run(scenario())


def test_a_start_does_not_wait_for_the_routes_of_all_and_the_oldest_are_first(
    store: SqlStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("app.service.reload._HEAD_START_S", 0.0)
    for _ in range(220):
        create(store, route=("gone",))

    async def scenario() -> None:
        started = control(store, "one")
        await started.start()
        half = await routes(store)
        await until_all_are(store, "one")
        await started.stop()
        assert half[-1] == "gone"
        assert half == sorted(half, reverse=True)  # all of "one" before all of "gone"

    asyncio.run(scenario())


def test_what_was_stopped_half_way_begins_again_although_the_tiers_are_those_of_before(
    store: SqlStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    for _ in range(600):
        create(store, route=("one",))

    async def scenario() -> None:
        await control(store, "one").start()
        monkeypatch.setattr("app.service.reload._HEAD_START_S", 0.0)
        other = control(store, "two")
        await other.start()
        async with asyncio.timeout(30):
            while (await store.alist(TaskFilter(), limit=1, oldest_first=True)).tasks[0].route != ("two",):
                await asyncio.sleep(0)
        await other.stop()
        assert set(await routes(store)) == {"one", "two"}
        again = control(store, "one")
        await again.start()
        await until_all_are(store, "one")
        await again.stop()

    asyncio.run(scenario())
