"""The command line as a user has it: real processes, the bundled samples, one real service for all tests here."""

from __future__ import annotations

import os
import subprocess
import sys
import wave
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from app.cli.service_process import ServiceProcess

PROJECT = Path(__file__).resolve().parents[2]
PORTRAIT = PROJECT / "samples" / "portrait.png"
SPEECH = PROJECT / "samples" / "speech.wav"

Cli = Callable[..., "subprocess.CompletedProcess[str]"]


def clean_environment() -> dict[str, str]:
    """This process's environment without any setting of Greenroom."""
    return {name: value for name, value in os.environ.items() if not name.startswith("GREENROOM_")}


def cut_speech(target: Path, seconds: float) -> Path:
    """The first `seconds` of the sample speech as a file of its own."""
    with wave.open(str(SPEECH), "rb") as whole, wave.open(str(target), "wb") as part:
        part.setparams(whole.getparams())
        part.writeframes(whole.readframes(round(seconds * whole.getframerate())))
    return target


@pytest.fixture(scope="session")
def short_speech(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A second of speech."""
    return cut_speech(tmp_path_factory.mktemp("speech") / "one second.wav", 1.0)


@pytest.fixture
def cli(tmp_path: Path) -> Cli:
    """Run `greenroom ...` in an empty folder, without settings from outside."""

    def run(*arguments: object, env: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "app", *map(str, arguments)]
        return subprocess.run(
            command, cwd=tmp_path, env=clean_environment() | (env or {}), capture_output=True, text=True, timeout=150
        )

    return run


@pytest.fixture(scope="package")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServiceProcess]:
    """A running service that renders each time, since the tests send the same inputs again, and that rehearses."""
    settings = ("--set", "cache=false", "--set", "rehearsals=true")
    running = ServiceProcess(tmp_path_factory.mktemp("service"), "--slots", "1", *settings)
    try:
        running.wait_live()
        yield running
    finally:
        assert running.stop() == 0, running.log_tail()
