"""Which database and which data folder go together: a service with the wrong one says so and does not start."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from app import database
from app.config import ConfigError, Settings
from app.database import FOLDER_FILE, KEPT, open_database
from tests.postgresql import Cluster

Opens = Callable[..., None]


@pytest.fixture
def url(cluster: Cluster) -> str:
    return cluster.url(cluster.create())


@pytest.fixture
def folder(tmp_path: Path) -> Callable[[str], Path]:
    def make(name: str) -> Path:
        path = tmp_path / name
        path.mkdir(exist_ok=True)
        return path

    return make


def opens(data_dir: Path, url: str | None, **more: Any) -> None:
    settings = Settings.model_validate({"data_dir": data_dir, "database_url": url, **more})
    open_database(settings, data_dir).close()


def test_services_of_one_database_share_the_folder_of_the_first(url: str, folder) -> None:
    opens(folder("shared"), url)
    named = (folder("shared") / FOLDER_FILE).read_text()
    opens(folder("shared"), url)
    with pytest.raises(ConfigError, match=r"other is not the one that the other services.*Mount that folder"):
        opens(folder("other"), url)
    assert not (folder("other") / FOLDER_FILE).exists()
    (folder("other") / FOLDER_FILE).write_text(named)  # as one restores it by hand
    opens(folder("other"), url)


def test_a_folder_of_another_database_is_refused_both_ways(url: str, folder, cluster: Cluster) -> None:
    other = cluster.url(cluster.create())
    opens(folder("one"), url)
    opens(folder("two"), other)
    with pytest.raises(ConfigError, match=r"two belongs to another database \(db_\w+, not db_\w+\)"):
        opens(folder("two"), url)
    with pytest.raises(ConfigError, match=r"one belongs to a PostgreSQL database.*set database_url"):
        opens(folder("one"), None)
    opens(folder("three"), None)


def test_a_new_database_does_not_take_a_folder_that_holds_videos(url: str, folder) -> None:
    """Its janitor would remove them all."""
    (folder("full") / "results" / "task_1").mkdir(parents=True)
    (folder("full") / "results" / "task_1" / "1.mp4").write_bytes(b"video")
    with pytest.raises(ConfigError, match="holds inputs or videos of another one"):
        opens(folder("full"), url)
    opens(folder("empty"), url)


def test_of_two_services_that_start_at_once_on_two_folders_one_is_told(
    url: str, folder, monkeypatch: pytest.MonkeyPatch
) -> None:
    write = database._write_name

    def and_meanwhile_another(data_dir: Path) -> bool:
        monkeypatch.setattr(database, "_write_name", write)
        opens(folder("first"), url)
        return write(data_dir)

    monkeypatch.setattr(database, "_write_name", and_meanwhile_another)
    with pytest.raises(ConfigError, match="second is not the one that the other services"):
        opens(folder("second"), url)
    assert not (folder("second") / FOLDER_FILE).exists()
    opens(folder("first"), url)


def test_a_service_that_died_between_naming_the_folder_and_the_database_starts_again(url: str, folder) -> None:
    assert database._write_name(folder("data"))
    named = (folder("data") / FOLDER_FILE).read_text().strip()
    opens(folder("data"), url)
    assert Cluster.fetch(url, f"SELECT value FROM settings WHERE name = '{KEPT}'") == [(named,)]


def test_a_clock_that_leases_cannot_live_with_is_refused(url: str, folder, monkeypatch: pytest.MonkeyPatch) -> None:
    now = time.time
    monkeypatch.setattr(database.time, "time", lambda: now() + 20.0)
    with pytest.raises(ConfigError, match=r"clock is (19|20)\.\d s ahead of.*NTP"):
        opens(folder("data"), url)
    monkeypatch.setattr(database.time, "time", lambda: now() - 20.0)
    with pytest.raises(ConfigError, match="behind"):
        opens(folder("data"), url)
    opens(folder("data"), url, lease_s=60.0)


def test_a_url_that_cannot_be_read_is_a_fault_of_the_configuration(folder) -> None:
    with pytest.raises(ConfigError, match=r"database_url.*%40") as told:
        opens(folder("data"), "postgresql://u:s3c@r3t@h/db")
    assert "r3t" not in str(told.value)
