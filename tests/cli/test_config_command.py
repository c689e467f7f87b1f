"""Flags, then variables, then the file, then defaults; and each value says where it came from."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from app.cli import app


@pytest.fixture(autouse=True)
def _nothing_configured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in list(__import__("os").environ):
        if name.startswith("GREENROOM_"):
            monkeypatch.delenv(name)


def config(*arguments: str) -> dict[str, Any]:
    result = CliRunner().invoke(app, ["config", "--json", *arguments])
    assert result.exit_code == 0, result.output
    found: dict[str, Any] = json.loads(result.stdout)
    return found


def test_a_flag_goes_before_a_variable_before_a_file_before_the_default(monkeypatch: pytest.MonkeyPatch) -> None:
    Path("greenroom.toml").write_text("host = '10.0.0.1'\nport = 1\nslots = 3\nlease_s = 12.5\n")
    monkeypatch.setenv("GREENROOM_PORT", "2")
    monkeypatch.setenv("GREENROOM_HOST", "10.0.0.2")
    settings = config("--host", "10.0.0.3", "--set", "slots=4")["settings"]
    assert settings["host"] == {"value": "10.0.0.3", "origin": "flag"}
    assert settings["slots"] == {"value": 4, "origin": "flag"}
    assert settings["port"] == {"value": 2, "origin": "GREENROOM_PORT"}
    assert settings["lease_s"] == {"value": 12.5, "origin": "greenroom.toml"}
    assert settings["max_retries"] == {"value": 3, "origin": "default"}


def test_the_file_is_named_by_flag_or_variable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a.toml").write_text("port = 11")
    (tmp_path / "b.toml").write_text("port = 12")
    monkeypatch.setenv("GREENROOM_CONFIG", "a.toml")
    assert config()["settings"]["port"] == {"value": 11, "origin": "a.toml"}
    assert config("--config", "b.toml")["settings"]["port"] == {"value": 12, "origin": "b.toml"}


def test_the_collector_of_traces_is_found_in_the_standard_variables_too(monkeypatch: pytest.MonkeyPatch) -> None:
    base, whole = "OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT"

    def found() -> dict[str, Any]:
        return dict(config()["settings"]["otlp_endpoint"])

    Path("greenroom.toml").write_text("otlp_endpoint = 'http://file:4318/v1/traces'\n")
    assert found() == {"value": "http://file:4318/v1/traces", "origin": "greenroom.toml"}
    monkeypatch.setenv(base, "http://base:4318/")
    assert found() == {"value": "http://base:4318/v1/traces", "origin": base}
    monkeypatch.setenv(whole, "http://whole:4318/here")
    assert found() == {"value": "http://whole:4318/here", "origin": whole}
    monkeypatch.setenv("OTEL_SDK_DISABLED", "true")
    assert found()["origin"] == "greenroom.toml"
    monkeypatch.setenv("GREENROOM_OTLP_ENDPOINT", "")
    assert found() == {"value": None, "origin": "GREENROOM_OTLP_ENDPOINT"}
    monkeypatch.setenv("GREENROOM_OTLP_ENDPOINT", "collector:4318")
    assert "http://localhost:4318/v1/traces is wanted" in CliRunner().invoke(app, ["config"]).stderr


def test_a_misspelled_variable_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GREENROOM_PROT", "9000")
    monkeypatch.setenv("GREENROOM_URL", "http://elsewhere:8000")
    assert config()["unknown_variables"] == ["GREENROOM_PROT"]
    result = CliRunner().invoke(app, ["config"])
    assert "GREENROOM_PROT" in result.stderr
    assert "GREENROOM_URL" not in result.stderr


def test_plain_output_has_a_line_for_each_setting() -> None:
    from app.config import Settings

    lines = CliRunner().invoke(app, ["config"]).stdout.splitlines()
    assert [line.split("\t")[0] for line in lines] == list(Settings.model_fields)
    assert "port\t8000\tdefault" in lines


@pytest.mark.parametrize(
    ("arguments", "variables", "words"),
    [
        (["--port", "70000"], {}, ["port", "flag"]),
        ([], {"GREENROOM_SLOTS": "many"}, ["slots", "GREENROOM_SLOTS"]),
        (
            [],
            {"GREENROOM_SATURATION": "cached", "GREENROOM_CACHE": "false"},
            ["cache", "GREENROOM_CACHE", "saturation = cached"],
        ),  # R3.9
        (["--port", "70000"], {}, ["hint: Correct `port` on the command line"]),
        ([], {"GREENROOM_SLOTS": "many"}, ["hint: Correct `slots` in the variable GREENROOM_SLOTS"]),
        (
            ["--config", "wrong.toml"],
            {},
            ["hint: Correct `port` in the file wrong.toml, `colour` in the file wrong.toml"],
        ),
        (["--config", "none.toml"], {}, ["none.toml does not exist", "hint: Name a TOML file"]),
        (["--config", "/dev/null"], {}, ["/dev/null is not a file", "hint: Name a TOML file"]),
        (["--config", "."], {}, ["The configuration file . is not a file"]),
        ([], {"GREENROOM_CONFIG": "/"}, ["The configuration file / is not a file"]),
        (["--set", "colour=red"], {}, ["colour"]),
        (["--set", "ca_file=wrong.toml"], {}, ["ca_file", "wrong.toml holds no certificates in PEM"]),
        (["--set", "colour"], {}, ["NAME=VALUE"]),
    ],
)
def test_what_cannot_be_used_is_named_with_its_origin(
    arguments: list[str], variables: dict[str, str], words: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    Path("wrong.toml").write_text("colour = 'red'\nport = -1\n")
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    result = CliRunner().invoke(app, ["config", *arguments])
    assert result.exit_code == 2
    assert "prints what is in force" not in result.stderr
    assert all(word in result.stderr for word in words), result.stderr
    assert "Traceback" not in result.output


def test_secrets_are_taken_as_a_list_and_never_printed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GREENROOM_WEBHOOK_SECRETS", "whsec_bmV3, old one")
    monkeypatch.setenv("GREENROOM_WEBHOOK_SCHEDULE_S", "0, 1.5,60")
    settings = config()["settings"]
    assert settings["webhook_secrets"] == {"value": ["**********"] * 2, "origin": "GREENROOM_WEBHOOK_SECRETS"}
    assert settings["webhook_schedule_s"]["value"] == [0.0, 1.5, 60.0]
    table = CliRunner().invoke(app, ["config"]).output
    assert "bmV3" not in table
    assert "old one" not in table


def test_a_secret_that_cannot_be_used_is_refused_and_not_repeated(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GREENROOM_WEBHOOK_SECRETS", "whsec_%%%%")
    refused = CliRunner().invoke(app, ["config"])
    assert refused.exit_code != 0
    assert "webhook_secrets" in refused.output
    assert "%%%%" not in refused.output


TIERS = """
[[tiers]]
name = "studio"
renderer = "duix"
url = "http://10.0.0.5:8383"
shared_dir = "/mnt/face2face"
token = "s3cret"

[[tiers]]
name = "night"
renderer = "command"
argv = ["render", "{source}", "{audio}", "{output}"]
env = { HF_TOKEN = "s3cret" }
breaker = { failures = 5 }
"""


def test_tiers_are_shown_as_they_were_written_and_their_secrets_are_not() -> None:
    Path("greenroom.toml").write_text(TIERS)
    shown = config()["settings"]["tiers"]
    assert shown["origin"] == "greenroom.toml"
    studio, night = shown["value"]
    assert studio == {
        "name": "studio", "renderer": "duix", "url": "http://10.0.0.5:8383", "shared_dir": "/mnt/face2face",
        "token": "**********",
    }  # fmt: skip
    assert night["env"] == {"HF_TOKEN": "**********"}
    assert night["breaker"] == {"failures": 5}
    lines = CliRunner().invoke(app, ["config"])
    assert lines.exit_code == 0, lines.output
    assert '"name": "studio"' in next(line for line in lines.stdout.splitlines() if line.startswith("tiers\t"))
    assert "s3cret" not in lines.output
