"""The schema: made from nothing, left alone when it is right, refused when it is newer."""

from __future__ import annotations

import json
import sqlite3
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory

import app.store.migrate
from app.store.errors import SchemaTooNew
from app.store.migrate import HEAD, KNOWN
from app.store.schema import metadata
from app.store.sql import open_store
from app.store.sqlite import Sqlite
from tests.store.kit import ERROR, START, Clock, blob, create, migrations_break


def scripts() -> ScriptDirectory:
    config = Config()
    config.set_main_option("script_location", str(Path(app.store.migrate.__file__).parent / "migrations"))
    return ScriptDirectory.from_config(config)


def test_the_known_revisions_are_those_of_the_scripts() -> None:
    assert scripts().get_current_head() == HEAD
    assert {script.revision for script in scripts().walk_revisions()} == KNOWN


def test_migrations_make_the_schema_that_the_code_uses(tmp_path: Path) -> None:
    path = tmp_path / "new %41 ü.db"
    open_store(path).close()
    engine = Sqlite(path).write_engine()
    with engine.connect() as connection:
        assert compare_metadata(MigrationContext.configure(connection), metadata) == []
        made = set(connection.exec_driver_sql("SELECT name FROM sqlite_master WHERE sql LIKE '%WHERE%'").scalars())
    assert {name for name in made if name.startswith("ix_")} == {
        index.name for table in metadata.tables.values() for index in table.indexes if index.dialect_kwargs
    }


def test_a_newer_database_is_refused_and_left_alone(tmp_path: Path, clock: Clock) -> None:
    path = tmp_path / "greenroom.db"
    store = open_store(path, clock)
    task = create(store)
    store.close()
    with sqlite3.connect(path) as connection:
        connection.execute("UPDATE alembic_version SET version_num = '9999'")
    connection.close()
    with pytest.raises(SchemaTooNew, match=r"9999.*newer version"):
        open_store(path, clock)
    with sqlite3.connect(path) as connection:
        assert connection.execute("SELECT id FROM tasks").fetchall() == [(task.id,)]
        connection.execute("UPDATE alembic_version SET version_num = ?", (HEAD,))
    connection.close()
    again = open_store(path, clock)
    assert again.get(task.id) == task
    again.close()


def test_a_migration_that_fails_leaves_nothing_behind(tmp_path: Path) -> None:
    path = tmp_path / "greenroom.db"
    with migrations_break(), pytest.raises(RuntimeError, match="power cut"):
        open_store(path)
    connection = sqlite3.connect(path)
    assert connection.execute("SELECT count(*) FROM sqlite_master").fetchone() == (0,)
    connection.close()
    open_store(path).close()


def database_at(path: Path, revision: str) -> None:
    """A database as an older version made it."""
    from alembic import command

    config = Config()
    config.set_main_option("script_location", str(Path(app.store.migrate.__file__).parent / "migrations"))
    engine = Sqlite(path).write_engine()
    with engine.begin() as connection:
        config.attributes["connection"] = connection
        command.upgrade(config, revision)
    engine.dispose()


OLD_TASK = {
    "id": "task_old", "status": "FAILED", "priority": 5, "rank": 1.0, "source": asdict(blob()), "audio": asdict(blob()),
    "source_sha256": blob().sha256, "audio_sha256": blob().sha256, "fallback": "any", "options": {}, "metadata": {},
    "client": "", "trace_id": "", "created_at": START, "enqueued_at": START, "finished_at": START, "attempt": 0,
    "retries": 0, "error": ERROR, "degraded": False, "last_event_id": 1,
}  # fmt: skip


def test_a_database_of_the_first_revision_is_upgraded_with_what_it_holds(tmp_path: Path, clock: Clock) -> None:
    path = tmp_path / "greenroom.db"
    database_at(path, "0001")
    connection = sqlite3.connect(path)
    columns = {name: json.dumps(value) if isinstance(value, dict) else value for name, value in OLD_TASK.items()}
    marks = ", ".join("?" * len(columns))
    with connection:
        connection.execute(f"INSERT INTO tasks ({', '.join(columns)}) VALUES ({marks})", list(columns.values()))
        connection.execute("UPDATE counters SET value = 1 WHERE name = 'FAILED'")
    connection.close()
    store = open_store(path, clock)
    old = store.get("task_old")
    assert old is not None
    assert (old.status, old.error, old.retry_of, old.result_removed_at) == ("FAILED", ERROR, None, None)
    assert create(store, retry_of=old.id).retry_of == old.id
    assert sum(store.queue().by_status.values()) == 2
    store.close()
    engine = Sqlite(path).write_engine()
    with engine.connect() as checked:
        assert compare_metadata(MigrationContext.configure(checked), metadata) == []


OPEN = """
import sys
from app.store.sql import open_store
from app.store.sqlite import Sqlite
store = open_store(sys.argv[1])
print("alembic" in sys.modules, flush=True)
store.close()
"""


def opened(path: Path | str) -> subprocess.Popen[str]:
    return subprocess.Popen([sys.executable, "-c", OPEN, str(path)], stdout=subprocess.PIPE, text=True)


def test_processes_that_open_a_new_database_together_migrate_it_once(tmp_path: Path) -> None:
    path = tmp_path / "greenroom.db"
    processes = [opened(path) for _ in range(3)]
    for process in processes:
        process.communicate(timeout=60)
        assert process.returncode == 0
    connection = sqlite3.connect(path)
    assert connection.execute("SELECT version_num FROM alembic_version").fetchall() == [(HEAD,)]
    connection.close()


def test_an_ordinary_start_does_not_import_alembic(sqlite_template: Path) -> None:
    process = opened(sqlite_template)
    out, _ = process.communicate(timeout=60)
    assert out.strip() == "False"
