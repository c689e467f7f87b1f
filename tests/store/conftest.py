"""The suite asks a factory for stores, so that another database can join by adding a factory to the list."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Protocol

import pytest

from app.store.interface import Store
from app.store.sql import SqlStore, open_store
from tests.store.kit import Clock


class StoreFactory(Protocol):
    """Opens stores on one database; `url` opens it in another process."""

    url: str

    def __call__(self, clock: Callable[[], float], **options: Any) -> SqlStore:
        """One more store."""

    def fresh(self) -> StoreFactory:
        """A factory for another, empty database."""

    def close(self) -> None:
        """Close all stores and forget the database."""


class SqliteFactory:
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


@pytest.fixture(params=["sqlite"])
def store_factory(sqlite_template: Path) -> Iterator[StoreFactory]:
    factory = SqliteFactory(sqlite_template)
    yield factory
    factory.close()


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def store(store_factory: StoreFactory, clock: Clock) -> Store:
    return store_factory(clock)
