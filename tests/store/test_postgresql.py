"""What only PostgreSQL does: connections that break, locks of other sessions, servers that are away or do not fit."""

from __future__ import annotations

import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import text

pytest.importorskip("psycopg", reason="PostgreSQL's driver is not installed")

import app.store.postgresql
from app.store import endings
from app.store.databases import database_at
from app.store.errors import SchemaTooNew, StoreUnavailable
from app.store.migrate import HEAD
from app.store.postgresql import IDLE_S, Postgresql
from app.store.schema import metadata
from app.store.sql import SqlStore, open_store
from app.store.transaction import Transaction
from tests.postgresql import Cluster
from tests.store.conftest import PostgresqlFactory
from tests.store.kit import ERROR, Clock, assert_consistent, create, migrations_break, must_claim, new_task, run
from tests.store.test_migrations import opened

WAIT_S = 30.0


@pytest.fixture
def database(make_postgresql: Callable[[], PostgresqlFactory]) -> Iterator[PostgresqlFactory]:
    factory = make_postgresql()
    yield factory
    factory.close()


@pytest.fixture
def store(database: PostgresqlFactory, clock: Clock) -> SqlStore:
    return database(clock, patience_s=WAIT_S)


@pytest.fixture
def empty(cluster: Cluster) -> str:
    """The URL of a database without tables."""
    return cluster.url(cluster.create())


def name_in(url: str) -> str:
    return url.partition("@/")[2].partition("?")[0]


def test_a_service_that_was_held_up_in_the_middle_of_a_transaction_makes_it_anew(
    database: PostgresqlFactory, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(app.store.postgresql, "_WRITER", "SET idle_in_transaction_session_timeout = '0.1s'")
    store = database(clock, patience_s=0.2)
    tries = []

    def held_up(transaction: Transaction) -> int:
        tries.append(1)
        if len(tries) == 1:
            time.sleep(0.5)  # longer than server and writer wait
        return transaction.connection.execute(text("SELECT 7")).scalar_one()

    assert store._writer.run(held_up) == 7
    assert len(tries) == 2


def test_writes_and_reads_go_on_when_the_server_ends_every_connection(cluster: Cluster, store: SqlStore) -> None:
    first = create(store)
    assert store.get(first.id) == first
    cluster.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'greenroom'")
    assert store.get(first.id) == first
    second = create(store)
    cluster.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'greenroom'")
    assert run(store.aget(second.id)) == second
    assert_consistent(store)


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGQUIT], ids=["stopped", "crashed"])
def test_a_write_waits_for_a_server_that_is_started_again(
    cluster: Cluster, database: PostgresqlFactory, store: SqlStore, clock: Clock, how: signal.Signals
) -> None:
    impatient = database(clock, patience_s=0.2)
    accepted = [create(store)]
    cluster.stop(how)
    try:
        with pytest.raises(StoreUnavailable, match="connection"):
            create(impatient)
        with pytest.raises(StoreUnavailable, match="connection"):
            impatient.queue()
        thread = threading.Thread(target=lambda: accepted.append(create(store)))
        thread.start()
    finally:
        cluster.start()
    thread.join(WAIT_S)
    assert len(accepted) == 2
    accepted.append(create(impatient))
    assert [impatient.get(task.id) for task in accepted] == accepted
    assert_consistent(store)


def test_the_lock_of_another_session_is_waited_for_and_told(
    database: PostgresqlFactory, store: SqlStore, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(app.store.postgresql, "_WRITER", "SET lock_timeout = '100ms'")
    impatient = database(clock, patience_s=0.1)
    with Postgresql(database.url).write_engine().connect() as other, other.begin():
        with pytest.raises(StoreUnavailable, match=r"lock timeout \(55P03\)"):
            create(impatient)
        with pytest.raises(StoreUnavailable, match="lock timeout"):
            impatient.ping()
        assert impatient.queue().runnable == 0  # reads go on
        thread = threading.Thread(target=lambda: create(store))
        thread.start()
    thread.join(WAIT_S)
    assert store.queue().runnable == 1


def test_who_holds_the_lock_and_does_nothing_is_shut_out(database: PostgresqlFactory, store: SqlStore) -> None:
    """A service that is stopped in the middle of a write, or whose machine is gone."""
    with Postgresql(database.url).write_engine().connect() as stuck:
        stuck.begin()
        began = time.monotonic()
        create(store)
        assert time.monotonic() - began < IDLE_S + WAIT_S / 2
        stuck.invalidate()


def test_commits_are_durable_and_readers_see_one_moment_and_cannot_write(
    cluster: Cluster, database: PostgresqlFactory, clock: Clock
) -> None:
    name = name_in(database.url)
    cluster.execute(f"ALTER DATABASE {name} SET synchronous_commit = off")
    store = database(clock)
    assert store._writer.run(lambda tx: tx.connection.exec_driver_sql("SHOW synchronous_commit").scalar_one()) == "on"
    with store._reading.connect() as connection:
        assert connection.exec_driver_sql("SHOW transaction_read_only").scalar_one() == "on"
        assert connection.exec_driver_sql("SHOW transaction_isolation").scalar_one() == "repeatable read"
    cluster.execute(f"ALTER DATABASE {name} RESET synchronous_commit")


def test_a_nul_in_a_text_is_replaced_and_in_json_is_kept(store: SqlStore) -> None:
    task = create(store, client="a\0b", metadata={"note": "c\0d"})
    stored = store.get(task.id)
    assert stored is not None
    assert (stored.client, stored.metadata) == ("a\ufffdb", {"note": "c\0d"})
    store.end_attempt(must_claim(store), "fail", error=ERROR | {"message": "e\0f"})
    [ended] = store._read(lambda connection: endings.list_attempt_endings(connection, "node-1", 0.0, 10))
    assert ended.code == ERROR["code"]


# -- opening --------------------------------------------------------------------------------------------------------
def test_migrations_make_the_schema_that_the_code_uses(empty: str) -> None:
    open_store(empty).close()
    engine = Postgresql(empty).read_engine(1)
    with engine.connect() as connection:
        assert compare_metadata(MigrationContext.configure(connection), metadata) == []
    engine.dispose()
    partial = Cluster.fetch(empty, "SELECT indexname FROM pg_indexes WHERE indexdef LIKE '%WHERE%'")
    assert {name for (name,) in partial} == {
        index.name for table in metadata.tables.values() for index in table.indexes if index.dialect_kwargs
    }


def test_processes_that_open_a_new_database_together_migrate_it_once(empty: str) -> None:
    processes = [opened(empty) for _ in range(2)]
    for process in processes:
        process.communicate(timeout=60)
        assert process.returncode == 0
    assert Cluster.fetch(empty, "SELECT version_num FROM alembic_version") == [(HEAD,)]


def test_a_migration_that_fails_leaves_nothing_behind(empty: str) -> None:
    with migrations_break(), pytest.raises(RuntimeError, match="power cut"):
        open_store(empty)
    assert Cluster.fetch(empty, "SELECT count(*) FROM pg_tables WHERE schemaname = 'public'") == [(0,)]


def test_a_newer_database_is_refused_and_left_alone(empty: str, clock: Clock) -> None:
    store = open_store(empty, clock)
    task = create(store)
    store.close()
    Cluster.fetch(empty, "UPDATE alembic_version SET version_num = '9999'")
    with pytest.raises(SchemaTooNew, match=r"9999.*newer version"):
        open_store(empty, clock)
    assert Cluster.fetch(empty, "SELECT id FROM tasks") == [(task.id,)]


def test_a_server_that_is_too_old_or_in_another_encoding_is_refused(
    cluster: Cluster, empty: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = cluster.url(cluster.create(ENCODING="'LATIN1'"))
    with pytest.raises(StoreUnavailable, match=r"encoded in LATIN1.*UTF8"):
        open_store(other)
    monkeypatch.setattr(app.store.postgresql, "LEAST_VERSION", 99)
    with pytest.raises(StoreUnavailable, match=r"PostgreSQL \d+; Greenroom needs 99 or newer"):
        open_store(empty)


def test_a_database_that_is_missing_or_forbidden_is_told(cluster: Cluster, empty: str) -> None:
    with pytest.raises(StoreUnavailable, match=r'Cannot open the PostgreSQL database nope at .*"nope" does not exist'):
        open_store(cluster.url("nope"), patience_s=0.1)
    cluster.execute("CREATE ROLE guest LOGIN")
    with pytest.raises(StoreUnavailable, match=r"permission denied.*\(42501\)"):
        open_store(empty.replace("//greenroom@", "//guest@"), patience_s=0.1)


def test_a_password_is_in_no_message(caplog: pytest.LogCaptureFixture) -> None:
    url = "postgresql://someone:s3cr3t@127.0.0.1:1/queue"
    with pytest.raises(StoreUnavailable, match=r"database queue at 127\.0\.0\.1:1: .*refused") as told:
        open_store(url, patience_s=0.1)
    dialect = Postgresql(url)
    assert dialect.words(RuntimeError("the word is s3cr3t")) == "the word is ***"
    seen = [str(told.value), repr(told.value), dialect.place, repr(dialect.write_engine()), caplog.text]
    assert not [text for text in seen if "s3cr3t" in text]


@pytest.mark.parametrize(
    "url", ["postgresql://u:s3c@r3t@h/db", "postgresql://u:s3cr3t%zz@h/db", "postgresql://u:s3/cr3t@h/db"]
)
def test_a_url_that_cannot_be_read_is_refused_without_being_repeated(url: str) -> None:
    with pytest.raises(ValueError, match=r"no URL of a PostgreSQL database.*%40") as told:
        database_at(url)
    assert "cr3t" not in str(told.value)
    assert "r3t" not in str(told.value)


def test_of_several_servers_the_primary_is_asked(empty: str) -> None:
    dialect = Postgresql("postgresql://u@one:5432,two:5433/queue?sslmode=verify-full")
    assert dialect.place == "the PostgreSQL database queue at one:5432, two:5433"
    assert dialect._parameters["target_session_attrs"] == "read-write"
    Cluster.fetch(empty, f"ALTER DATABASE {name_in(empty)} SET default_transaction_read_only = on")
    with pytest.raises(StoreUnavailable, match="read-only"):
        open_store(empty, patience_s=0.1)


def test_a_missing_driver_is_told_with_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "app.store.postgresql")
    monkeypatch.setitem(sys.modules, "psycopg", None)
    with pytest.raises(ValueError, match=r"greenroom\[postgresql\].*psycopg\[binary\]"):
        database_at("postgresql://h/db")


def test_a_failed_value_fails_alone_among_creates_that_wait_together(store: SqlStore) -> None:
    good = store._writer.submit(lambda tx: tx.count)
    with pytest.raises(ValueError, match="JSON"):
        store.create(new_task(metadata={"x": float("nan")}))
    good.result(WAIT_S)
    create(store)
    assert_consistent(store)
