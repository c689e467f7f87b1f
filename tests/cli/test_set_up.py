"""Makefile, container files and the docs that must keep up with the code."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml

from app.config import Settings
from app.health.alarms import Alarms
from app.health.rules import RULES
from app.telemetry.metrics import Metrics
from app.telemetry.statistics import Statistics
from tests.cli.conftest import PROJECT
from tests.health.test_alarms import WELL

PYPROJECT = tomllib.loads((PROJECT / "pyproject.toml").read_text(encoding="utf-8"))
OPERATIONS = (PROJECT / "docs" / "operations.md").read_text(encoding="utf-8")


def make(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    mine = {name: value for name, value in os.environ.items() if name not in {"MAKEFLAGS", "MAKELEVEL", "MFLAGS"}}
    return subprocess.run(["make", *arguments], cwd=folder, env=mine, capture_output=True, text=True)


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    """What the environment is made from, without an environment."""
    for name in ("Makefile", "pyproject.toml", "constraints.txt"):
        shutil.copy(PROJECT / name, tmp_path / name)
    return tmp_path


@pytest.mark.parametrize("target", ["venv", "demo", "serve", "test", "lint", "format", "bench"])
def test_every_target_makes_the_environment_first(target: str, clone: Path) -> None:
    done = make(clone, "-n", target, f"PYTHON={sys.executable}")
    assert done.returncode == 0, done.stderr
    assert "-m venv .venv" in done.stdout
    assert "-c constraints.txt -e '.[dev]'" in done.stdout


def test_a_second_make_installs_nothing_until_the_dependencies_change(clone: Path) -> None:
    (clone / ".venv").mkdir()
    (clone / ".venv" / ".installed").touch()
    assert "pip install" not in make(clone, "-n", "demo", f"PYTHON={sys.executable}").stdout
    later = (clone / ".venv" / ".installed").stat().st_mtime + 10
    os.utime(clone / "constraints.txt", (later, later))
    assert "pip install" in make(clone, "-n", "demo", f"PYTHON={sys.executable}").stdout


@pytest.mark.parametrize("python", ["", "/bin/false"])
def test_a_machine_without_a_fitting_python_is_told_so(python: str, clone: Path) -> None:
    done = make(clone, "venv", f"PYTHON={python}")
    assert done.returncode != 0
    assert "error: " in done.stderr
    assert "3.11" in done.stderr
    assert not (clone / ".venv").exists()


def test_ci_runs_lint_and_tests() -> None:
    script = PROJECT / ".ci" / "run"
    assert os.access(script, os.X_OK)
    lines = script.read_text(encoding="utf-8").splitlines()
    assert "set -euo pipefail" in lines
    assert lines[-2:] == ["make lint", "make test"]


def requirement_names(requirements: list[str]) -> set[str]:
    return {re.match(r"[\w.-]+(\[[\w,]+\])?", requirement)[0] for requirement in requirements}  # type: ignore[index]


def test_every_direct_dependency_has_its_line_and_its_exact_version() -> None:
    text = (PROJECT / "docs" / "dependencies.md").read_text(encoding="utf-8")
    told = set(re.findall(r"^\| ([\w.-]+(?:\[[\w,]+\])?) \| .{30,} \|$", text, re.MULTILINE))
    extras = PYPROJECT["project"]["optional-dependencies"]
    wanted = requirement_names(
        PYPROJECT["project"]["dependencies"] + extras["otlp"] + extras["postgresql"] + extras["dev"]
    )
    wanted.remove("greenroom[otlp,postgresql]")
    assert told == wanted
    pinned = {
        line.partition("==")[0].lower().replace("_", "-")
        for line in (PROJECT / "constraints.txt").read_text(encoding="utf-8").splitlines()
        if "==" in line
    }
    assert {name.partition("[")[0].lower().replace("_", "-") for name in wanted} <= pinned


def shown_default(value: object) -> str:
    if value is None or value == ():
        return ""
    return f"`{str(value).lower() if isinstance(value, bool) else value}`"


def test_the_table_of_settings_is_that_of_the_code() -> None:
    rows = re.findall(r"^\| `(\w+)` \| (.*?) \| (.{10,}) \|$", OPERATIONS, re.MULTILINE)
    told = {name: default.strip() for name, default, _meaning in rows if name in Settings.model_fields}
    assert told == {name: shown_default(field.default) for name, field in Settings.model_fields.items()}


def test_the_table_of_metrics_is_that_of_the_code() -> None:
    told = set(re.findall(r"^\| `(greenroom_\w+)` \|", OPERATIONS, re.MULTILINE))
    metrics = Metrics()
    metrics.watch_statistics(Statistics())
    metrics.watch_listeners(SimpleNamespace(listening=0, dropped=0))
    metrics.watch_health(SimpleNamespace(alarms=Alarms(), resources=WELL.resources, scale_out=list))
    families = {family.name + ("_total" if family.type == "counter" else "") for family in metrics.registry.collect()}
    own = {name for name in families if name.startswith("greenroom_")}
    scraped = {"greenroom_slots", "greenroom_store_up", "greenroom_tasks", "greenroom_queue_depth"}
    scraped |= {"greenroom_queue_oldest_age_seconds", "greenroom_queue_paused", "greenroom_disk_free_bytes"}
    scraped |= {"greenroom_webhook_pending", "greenroom_webhook_dead", "greenroom_judge_videos"}
    scraped |= {"greenroom_cache_results", "greenroom_cache_bytes"}
    assert told == own | scraped


def test_the_table_of_alarms_is_that_of_the_code() -> None:  # R0.12
    rows = re.findall(
        r"^\| `(\w+)` \| (warning|critical) \| .{10,} \| (\d+) \| .{5,} \| (\d+) \|$", OPERATIONS, re.MULTILINE
    )
    assert rows == [(rule.name, rule.severity.value, f"{rule.hold_s:g}", f"{rule.clear_s:g}") for rule in RULES]


def test_the_rules_for_prometheus_name_alarms_and_metrics_that_exist() -> None:
    text = (PROJECT / "deploy" / "greenroom.rules.yml").read_text(encoding="utf-8")
    documented = set(re.findall(r"^\| `(greenroom_\w+)` \|", OPERATIONS, re.MULTILINE))
    assert {name.removesuffix("_count") for name in re.findall(r"\bgreenroom_\w+", text)} <= documented
    assert 'greenroom_alarms{severity="critical"} == 1' in text
    assert 'greenroom_alarms{severity="warning"} == 1' in text


def test_the_image_copies_only_what_the_builder_is_sent() -> None:
    sent = {
        line[1:] for line in (PROJECT / ".dockerignore").read_text(encoding="utf-8").splitlines() if line[:1] == "!"
    }
    copied = {
        name.strip("./")
        for line in (PROJECT / "Dockerfile").read_text(encoding="utf-8").splitlines()
        if line.startswith("COPY ") and "--from" not in line
        for name in line.split()[1:-1]
    }
    assert copied == sent
    assert [name for name in sorted(copied) if not (PROJECT / name).exists()] == []


def test_the_image_has_every_package_of_the_project() -> None:
    found = tomllib.loads((PROJECT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["setuptools"]["packages"]
    packages = {name.partition(".")[0] for name in found["find"]["include"]}
    lines = (PROJECT / "Dockerfile").read_text(encoding="utf-8").splitlines()
    assert packages == {"app", "greenroom"}
    assert all(f"COPY {name} ./{name}" in lines for name in packages)


def compose() -> dict[str, Any]:
    return dict(yaml.safe_load((PROJECT / "compose.yaml").read_text(encoding="utf-8")))


@pytest.mark.parametrize("name", ["greenroom", "greenroom-gpu", "greenroom-postgresql"])
def test_what_compose_starts_is_configured_by_settings_that_exist(name: str) -> None:
    service = compose()["services"][name]
    assert {variable.removeprefix("GREENROOM_").lower() for variable in service["environment"]} <= set(
        Settings.model_fields
    )
    assert service["healthcheck"]["test"][0] == "CMD"
    assert [volume.split(":")[1] for volume in service["volumes"]] == ["/data"]
    assert service.get("profiles", []) == [name.partition("-")[2]] * (name != "greenroom")


def test_compose_gives_the_service_the_database_that_it_starts() -> None:
    file = compose()
    service, database = (file["services"][name] for name in ("greenroom-postgresql", "database"))
    own = database["environment"]
    url = f"postgresql://{own['POSTGRES_USER']}:{own['POSTGRES_PASSWORD']}@database:5432/{own['POSTGRES_DB']}"
    assert service["environment"]["GREENROOM_DATABASE_URL"] == url
    assert service["depends_on"] == {"database": {"condition": "service_healthy"}}
    assert (database["profiles"], "ports" in database) == (service["profiles"], False)
    # A folder belongs to one database, so that none is shared with the services that use SQLite.
    used = [volume.split(":")[0] for one in file["services"].values() for volume in one["volumes"]]
    assert set(used) == set(file["volumes"])
    assert used.count("greenroom-shared") == used.count("greenroom-database") == 1


def test_the_grace_given_by_deployments_is_longer_than_the_service_s_own() -> None:
    grace = Settings.model_fields["shutdown_grace_s"].default
    compose = (PROJECT / "compose.yaml").read_text(encoding="utf-8")
    unit = (PROJECT / "deploy" / "greenroom.service").read_text(encoding="utf-8")
    assert int(re.search(r"stop_grace_period: (\d+)s", compose)[1]) > grace + 10  # type: ignore[index]
    assert int(re.search(r"TimeoutStopSec=(\d+)", unit)[1]) > grace + 10  # type: ignore[index]
