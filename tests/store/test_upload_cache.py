"""Uploads that were read lately: believed for a moment, never past their time, and forgotten when they are deleted."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from sqlalchemy import event

from app.store.records import UploadRecord
from app.store.sql import SqlStore
from app.store.upload_cache import FRESH_S, UploadCache
from tests.store.conftest import StoreFactory
from tests.store.kit import START, Clock, run


def kept(upload_id: str, expires_at: float = 1e12) -> UploadRecord:
    return UploadRecord(upload_id, "0" * 64, 4, "face.png", START, expires_at)


@pytest.fixture
def sql(store_factory: StoreFactory, clock: Clock) -> SqlStore:
    return store_factory(clock)


@pytest.fixture
def reads(sql: SqlStore) -> Iterator[list[str]]:
    counted: list[str] = []

    def note(_connection: object, _cursor: object, statement: str, *_: object) -> None:
        if statement.startswith("SELECT"):
            counted.append(statement)

    event.listen(sql._reading, "before_cursor_execute", note)
    yield counted
    event.remove(sql._reading, "before_cursor_execute", note)


def test_what_was_just_read_is_not_read_again_and_the_rest_is_read_together(sql: SqlStore, reads: list[str]) -> None:
    records = {name: kept(name) for name in ("a", "b", "c")}
    for record in records.values():
        run(sql.aput_upload(record))
    assert run(sql.aget_uploads(["a", "b"])) == {name: records[name] for name in ("a", "b")}
    assert len(reads) == 1
    assert run(sql.aget_uploads(["b", "a"])) == {name: records[name] for name in ("a", "b")}
    assert len(reads) == 1
    assert run(sql.aget_uploads(["a", "b", "c"])) == records
    assert len(reads) == 2


def test_one_that_is_deleted_here_is_gone_at_once(sql: SqlStore) -> None:
    run(sql.aput_upload(kept("a")))
    assert run(sql.aget_uploads(["a"]))
    sql.delete_uploads(["a"])
    assert run(sql.aget_uploads(["a"])) == {}


def test_one_that_was_not_there_is_looked_for_again(sql: SqlStore) -> None:
    assert run(sql.aget_uploads(["late"])) == {}
    run(sql.aput_upload(kept("late")))
    assert set(run(sql.aget_uploads(["late"]))) == {"late"}


def test_one_that_expires_is_gone_from_that_moment_on() -> None:
    now = START
    cache = UploadCache(lambda: now, monotonic=lambda: 0.0)
    cache.put([kept("a", expires_at=START + 0.5)])
    assert cache.get("a") is not None
    now += 0.5
    assert cache.get("a") is None


def test_one_that_another_process_deletes_is_believed_for_a_moment_only() -> None:
    passed = 0.0
    cache = UploadCache(lambda: START, monotonic=lambda: passed)
    cache.put([kept("a")])
    passed = FRESH_S - 0.01
    assert cache.get("a") is not None
    passed = FRESH_S
    assert cache.get("a") is None


def test_memory_is_bounded() -> None:
    cache = UploadCache(lambda: START, entries=2)
    cache.put([kept("a"), kept("b"), kept("c")])
    assert [cache.get(name) is not None for name in ("a", "b", "c")] == [False, True, True]
