"""The suite asks a factory for stores, so that another database can join by adding a factory to the list."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Protocol

import pytest

from app.store.interface import Store
from app.store.schema import counters, metadata
from app.store.sql import SqlStore, open_store
from tests.postgresql import Cluster
from tests.store.kit import Clock


class StoreFactory(Protocol):
    """Opens stores on one database."""

    url: str
    """Opens it in another process."""
    histories: int
    """How many random histories are enough each time that all tests are run."""

    def __call__(self, clock: Callable[[], float], **options: Any) -> SqlStore:
        """One more store."""

    def fresh(self) -> StoreFactory:
        """A factory for another, empty database."""

    def close(self) -> None:
        """Close all stores and forget the database."""


class SqliteFactory:
    histories = 30

    def __init__(self, template: Path) -> None:
        self._template = template
        self._folder = tempfile.TemporaryDirectory(prefix="greenroom-store-")
        self.url = str(Path(self._folder.name) / "greenroom.db")
        shutil.copyfile(template, self.url)
        self._opened: list[SqlStore] = []

    def __call__(self, clock: Callable[[], float], **options: Any) -> SqlStore:
        store = open_store(self.url, clock, **options)
        self._opened.append(store)
        return store

    def fresh(self) -> SqliteFactory:
        return SqliteFactory(self._template)

    def close(self) -> None:
        for store in self._opened:
            store.close()
        self._folder.cleanup()


@pytest.fixture(scope="session")
def sqlite_template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("template") / "empty.db"
    open_store(path).close()
    return path


_EMPTY = f"UPDATE {counters.name} SET value = 0"
for _table in metadata.sorted_tables:
    if _table is not counters:
        _EMPTY = f"DELETE FROM {_table.name}; {_EMPTY}"


class PostgresqlFactory:
    """Databases of one server. To empty one is ten times as fast as to make one."""

    histories = 3

    def __init__(self, cluster: Cluster, template: str, free: list[str]) -> None:
        self._cluster, self._template, self._free = cluster, template, free
        self._name = free.pop() if free else cluster.create(template)
        self.url = cluster.url(self._name)
        self._opened: list[SqlStore] = []

    def __call__(self, clock: Callable[[], float], **options: Any) -> SqlStore:
        store = open_store(self.url, clock, **options)
        self._opened.append(store)
        return store

    def fresh(self) -> PostgresqlFactory:
        return PostgresqlFactory(self._cluster, self._template, self._free)

    def close(self) -> None:
        for store in self._opened:
            store.close()
        self._cluster.execute(_EMPTY, self._name)
        self._free.append(self._name)


@pytest.fixture(scope="session")
def make_postgresql(cluster: Cluster) -> Callable[[], PostgresqlFactory]:
    template, free = cluster.create(), list[str]()
    open_store(cluster.url(template)).close()
    return lambda: PostgresqlFactory(cluster, template, free)


SEEDS = 1
"""Random histories of a parametrised test that PostgreSQL plays without `--long`: it is slower, and the code is one."""


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "long_on_postgresql: only with --long where the database is PostgreSQL")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if config.getoption("--long"):
        return
    left, kept = [], []
    for item in items:
        params = getattr(getattr(item, "callspec", None), "params", {})
        long = params.get("seed", 0) >= SEEDS or item.get_closest_marker("long_on_postgresql") is not None
        (left if params.get("store_factory") == "postgresql" and long else kept).append(item)
    items[:] = kept
    config.hook.pytest_deselected(items=left)


@pytest.fixture(params=["sqlite", "postgresql"])
def store_factory(request: pytest.FixtureRequest) -> Iterator[StoreFactory]:
    factory: StoreFactory
    if request.param == "sqlite":
        factory = SqliteFactory(request.getfixturevalue("sqlite_template"))
    else:
        factory = request.getfixturevalue("make_postgresql")()
    yield factory
    factory.close()


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def store(store_factory: StoreFactory, clock: Clock) -> Store:
    return store_factory(clock)
