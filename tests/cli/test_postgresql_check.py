"""`greenroom doctor` where the database is PostgreSQL, and what is shown of its URL."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from app.cli.postgresql_check import postgresql_checks
from app.config import ConfigError, Settings
from app.config_sources import load_settings
from app.database import FOLDER_FILE, open_database
from tests.postgresql import Cluster

SECRET = "postgresql://someone:s3cr3t@127.0.0.1:1/queue"


@pytest.fixture
def url(cluster: Cluster) -> str:
    return cluster.url(cluster.create())


def found(url: str, data_dir: Path) -> dict[str, tuple[str, str]]:
    return {check.name: (check.verdict, check.finding) for check in postgresql_checks(url, data_dir, 30.0)}


def test_a_database_is_tried_and_not_changed(url: str, tmp_path: Path) -> None:
    checks = found(url, tmp_path)
    assert checks["database"][0] == checks["data folder"][0] == checks["clock"][0] == "ok"
    assert "durable commit" in checks["database"][1]
    assert "empty" in checks["database"][1]
    assert checks["durability"][0] == "warn"  # the tests' server runs with fsync = off
    assert Cluster.fetch(url, "SELECT count(*) FROM pg_tables WHERE schemaname = 'public'") == [(0,)]
    assert list(tmp_path.iterdir()) == []
    open_database(Settings(data_dir=tmp_path, database_url=url), tmp_path).close()  # type: ignore[arg-type]
    checks = found(url, tmp_path)
    assert "schema" in checks["database"][1]
    assert checks["data folder"][0] == "ok"


def test_a_folder_that_is_not_the_database_s_own_is_a_failure(url: str, tmp_path: Path) -> None:
    open_database(Settings(data_dir=tmp_path, database_url=url), tmp_path).close()  # type: ignore[arg-type]
    (tmp_path / FOLDER_FILE).unlink()
    verdict, finding = found(url, tmp_path)["data folder"]
    assert verdict == "fail"
    assert FOLDER_FILE in finding


def test_a_server_that_cannot_be_reached_is_a_failure_without_the_password(tmp_path: Path) -> None:
    [check] = postgresql_checks(SECRET, tmp_path, 30.0)
    assert (check.name, check.verdict) == ("database", "fail")
    assert "127.0.0.1:1" in check.finding
    assert check.hint
    assert "s3cr3t" not in check.finding + check.hint


def test_the_url_is_shown_by_no_command(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from app.cli import app

    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("GREENROOM_DATABASE_URL", SECRET)
    told = CliRunner().invoke(app, ["config", "--json"])
    assert json.loads(told.stdout)["settings"]["database_url"] == {
        "value": "**********", "origin": "GREENROOM_DATABASE_URL",
    }  # fmt: skip
    assert "s3cr3t" not in told.output + CliRunner().invoke(app, ["config"]).output
    assert "s3cr3t" not in repr(load_settings().settings)


def test_another_kind_of_database_is_refused_without_its_url_being_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GREENROOM_DATABASE_URL", "mysql://someone:s3cr3t@h/db")
    with pytest.raises(ConfigError, match=r"database_url \(from GREENROOM_DATABASE_URL\).*postgresql://") as told:
        load_settings()
    assert "s3cr3t" not in str(told.value)


def test_an_empty_url_turns_back_to_sqlite(monkeypatch: pytest.MonkeyPatch) -> None:
    """As `greenroom demo` does for the service of its own, whatever variables say."""
    monkeypatch.setenv("GREENROOM_DATABASE_URL", SECRET)
    assert load_settings({"database_url": ""}).settings.database_url is None
