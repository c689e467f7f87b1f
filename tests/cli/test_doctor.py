"""The doctor tries things, survives what kills or hangs, and exits 1 when something fails."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from app.cli import checks
from app.cli.database_check import database_check
from app.config import Settings
from app.store.sql import open_store
from tests.cli.conftest import PROJECT, Cli
from tests.e2e.test_plugins import PYTHON, install
from tests.render.checkpoints import save_small

SETTINGS = Settings(device="cpu")


def by_name(output: str) -> dict[str, dict[str, Any]]:
    return {check["name"]: check for check in json.loads(output)["checks"]}


def test_this_machine_is_fit_and_nothing_is_left_behind(cli: Cli, tmp_path: Path) -> None:
    done = cli("doctor", "--json", "--device", "cpu", "--data-dir", tmp_path / "not" / "there")
    found = by_name(done.stdout)
    wanted = {
        "python",
        "configuration",
        "host",
        "shared memory",
        "disk",
        "database",
        "torch",
        "cuda",
        "libx264",
        "jpeg",
    }
    assert wanted | {"libx264", "jpeg", "png", "webp", "renderer", "wav2lip"} <= set(found), done.stdout
    assert [check for check in found.values() if check["verdict"] == "fail"] == []
    assert done.returncode == 0
    assert json.loads(done.stdout)["ok"] is True
    assert list(tmp_path.iterdir()) == []


def test_a_data_directory_that_cannot_be_written_fails_with_a_hint(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    inside = tmp_path / "file" / "data"
    for check in (checks.disk_check(inside), database_check(inside)):
        assert check.verdict == "fail"
        assert check.hint


def test_cuda_that_is_asked_for_and_not_there_fails(cli: Cli) -> None:
    done = cli("doctor", "--json", "--device", "cuda", env={"CUDA_VISIBLE_DEVICES": ""})
    found = by_name(done.stdout)
    assert done.returncode == 1
    assert found["cuda"]["verdict"] == "fail"
    assert "GPU_UNAVAILABLE" in found["renderer"]["finding"]


def test_a_misspelled_variable_is_a_warning() -> None:
    from app.config_sources import load_settings

    check = checks.configuration_check(load_settings(), ("GREENROOM_PROT",))
    assert check.verdict == "warn"
    assert "GREENROOM_PROT" in check.hint


def test_the_service_s_own_database_is_looked_at_and_not_changed(tmp_path: Path) -> None:
    database = tmp_path / "greenroom.db"
    open_store(database).close()
    before = database.read_bytes()
    check = database_check(tmp_path)
    assert check.verdict == "ok"
    assert "schema" in check.finding
    assert database.read_bytes() == before


def test_a_damaged_database_fails(tmp_path: Path) -> None:
    (tmp_path / "greenroom.db").write_bytes(b"not a database" * 500)
    check = database_check(tmp_path)
    assert check.verdict == "fail"
    assert check.hint


def test_a_check_that_crashes_is_a_finding_with_the_signal_s_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "executable", script(tmp_path, "kill -SEGV $$"))
    (check,) = checks.isolated("torch", SETTINGS)
    assert check.verdict == "fail"
    assert "SIGSEGV" in check.finding


def test_a_check_that_hangs_is_a_finding(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", script(tmp_path, "exec sleep 600"))
    monkeypatch.setattr(checks, "ISOLATED_WITHIN_S", 0.2)
    (check,) = checks.isolated("torch", SETTINGS)
    assert check.verdict == "fail"
    assert "no answer" in check.finding


def script(folder: Path, line: str) -> str:
    path = folder / "python"
    path.write_text(f"#!/bin/sh\n{line}\n")
    path.chmod(0o755)
    return str(path)


def test_a_checkpoint_is_tried_where_one_is_configured_and_told_where_none_is(tmp_path: Path) -> None:
    (check,) = checks.isolated("wav2lip", SETTINGS)
    assert (check.verdict, check.finding) == (
        "ok",
        "not offered: no checkpoint is configured (setting `wav2lip_checkpoint`, or `checkpoint` of its tier)",
    )
    path = save_small(tmp_path / "small.pth")
    (check,) = checks.isolated("wav2lip", Settings(device="cpu", wav2lip_checkpoint=path))
    assert check.verdict == "ok"
    assert "wav2lip loads on cpu" in check.finding
    path.unlink()
    (check,) = checks.isolated("wav2lip", Settings(device="cpu", wav2lip_checkpoint=path))
    assert check.verdict == "fail"
    assert "is not there" in check.finding
    path.write_bytes(b"<html>")
    (check,) = checks.isolated("wav2lip", Settings(device="cpu", wav2lip_checkpoint=path))
    assert check.verdict == "fail"
    assert "not a torch checkpoint" in check.finding


def test_each_plug_in_is_tried_and_what_is_wrong_with_one_is_told(cli: Cli, tmp_path: Path) -> None:
    site = tmp_path / "site"
    install(site, "card", {"card": "talking_card:PLUGIN"}, dict(PYTHON))
    described = "from dataclasses import replace\nfrom talking_card import PLUGIN as CARD\nPLUGIN = replace(CARD, {})\n"
    broken = {
        "gone": 'factory="nowhere.at_all:Renderer"',
        "lacking": 'factory="app.render.contract:Renderer"',
        "other": 'factory="pathlib:Path"',
        "plain": "capabilities=7",
    }
    for name, changed in broken.items():
        install(site, name, {name: f"plug_{name}:PLUGIN"}, {f"plug_{name}.py": described.format(changed)})
    crash = {
        "plug_dying.py": described.format('factory="crashing:Renderer"'), "crashing.py": "import os\nos.abort()\n"
    }  # fmt: skip
    install(site, "dying", {"dying": "plug_dying:PLUGIN"}, crash)
    install(site, "unlicensed", {"unlicensed": "plug_un:PLUGIN"}, {"plug_un.py": "raise RuntimeError('no licence')\n"})
    file = tmp_path / "greenroom.toml"
    file.write_text(
        '[[tiers]]\nname = "good"\nrenderer = "card"\n[[tiers]]\nname = "bad"\nrenderer = "unlicensed"\nmodel = "x"\n'
    )
    done = cli("doctor", "--json", "--device", "cpu", "--config", file, env={"PYTHONPATH": f"{site}:{PROJECT}"})
    found = {name: check for name, check in by_name(done.stdout).items() if name.startswith("plug-in ")}
    told = {name.removeprefix("plug-in "): (check["verdict"], check["finding"]) for name, check in found.items()}
    assert told["card"] == ("ok", "its description and its renderer load (used by good)")
    assert told["gone"][0] == "warn"
    assert "nowhere.at_all:Renderer cannot be imported: ModuleNotFoundError" in told["gone"][1]
    assert "lacks load, render (used by no tier)" in told["lacking"][1]
    assert "pathlib:Path is no Renderer" in told["other"][1]
    assert "its capabilities are not a Capabilities" in told["plain"][1]
    assert told["dying"][0] == "fail"
    assert "SIGABRT" in told["dying"][1]
    assert told["unlicensed"][0] == "fail"
    assert "RuntimeError: no licence (used by bad)" in told["unlicensed"][1]
    assert all(check["hint"] for name, check in found.items() if check["verdict"] != "ok")
    assert done.returncode == 1
