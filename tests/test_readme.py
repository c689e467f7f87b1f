"""What the README says is run: every block marked `tested`, in its order, against a service started as it says."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import wave
from collections.abc import Iterator
from pathlib import Path

import pytest

from app.cli.service_process import ServiceProcess
from app.media.info import MediaLimits
from app.media.sandbox import probe_sync

PROJECT = Path(__file__).resolve().parents[1]
README = (PROJECT / "README.md").read_text(encoding="utf-8")
SCRIPTS = Path(sys.executable).parent
"""Where `greenroom` is installed: `.venv/bin` of whoever runs the tests."""

_BLOCK = re.compile(r"^(<!-- tested -->\n)?```sh\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_LINK = re.compile(r"\]\(([^)#]+?)(?:#[^)]*)?\)")


def blocks(*, tested: bool) -> list[str]:
    return [found[2] for found in _BLOCK.finditer(README) if bool(found[1]) == tested]


def environment(**more: str) -> dict[str, str]:
    mine = {name: value for name, value in os.environ.items() if not name.startswith("GREENROOM_")}
    return mine | {"PATH": f"{SCRIPTS}{os.pathsep}{mine.get('PATH', '')}"} | more


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder as the README's reader has it, with a speech of one second."""
    place = tmp_path_factory.mktemp("reader")
    (place / ".venv").mkdir()
    (place / ".venv" / "bin").symlink_to(SCRIPTS)
    (place / "samples").mkdir()
    (place / "samples" / "portrait.png").symlink_to(PROJECT / "samples" / "portrait.png")
    with (
        wave.open(str(PROJECT / "samples" / "speech.wav"), "rb") as whole,
        wave.open(str(place / "samples" / "speech.wav"), "wb") as part,
    ):
        part.setparams(whole.getparams())
        part.writeframes(whole.readframes(whole.getframerate()))
    return place


@pytest.fixture(scope="module")
def service(folder: Path) -> Iterator[ServiceProcess]:
    running = ServiceProcess(folder)
    try:
        running.wait_live()
        yield running
    finally:
        assert running.stop() == 0, running.log_tail()


def test_it_opens_with_the_two_commands() -> None:
    assert blocks(tested=False)[0] == "make demo\nmake test\n"
    assert README.index("make demo") < 100


def test_every_make_command_is_a_target() -> None:
    commands = {
        line for block in blocks(tested=False) for line in block.splitlines() if line.startswith("make ")
    } | set(re.findall(r"`(make [a-z]+)`", README))
    assert {"make demo", "make test", "make serve"} <= commands
    for command in commands:
        done = subprocess.run(f"{command} -n", shell=True, cwd=PROJECT, capture_output=True, text=True)
        assert done.returncode == 0, (command, done.stderr)


def test_the_demo_does_what_the_readme_says(tmp_path: Path) -> None:
    done = subprocess.run(
        [SCRIPTS / "greenroom", "demo"], cwd=tmp_path, env=environment(), capture_output=True, text=True, timeout=170
    )
    assert done.returncode == 0, done.stdout + done.stderr
    video = probe_sync(tmp_path / "demo.mp4", MediaLimits())
    assert (video.kind, video.video_codec, video.audio_codec) == ("video", "h264", "aac")
    with wave.open(str(PROJECT / "samples" / "speech.wav"), "rb") as speech:
        assert video.duration_s == pytest.approx(speech.getnframes() / speech.getframerate(), abs=1.5 / video.fps)


def test_there_are_blocks_to_run() -> None:
    assert len(blocks(tested=True)) >= 4
    for command in ("serve", "submit", "tasks", "render", "doctor", "config"):
        assert any(f"greenroom {command}" in block or f"make {command}" in block for block in all_blocks())


def all_blocks() -> list[str]:
    return blocks(tested=True) + blocks(tested=False)


@pytest.mark.parametrize("block", blocks(tested=True), ids=lambda block: block.split("\n")[0][:50])
def test_a_block_runs_as_it_stands(block: str, folder: Path, service: ServiceProcess) -> None:
    if "curl " in block and shutil.which("curl") is None:
        pytest.skip("this machine has no curl, which the README's block needs")
    assert "127.0.0.1:8000" in block or "curl" not in block
    video = folder / "talking.mp4"
    video.unlink(missing_ok=True)
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", block.replace("http://127.0.0.1:8000", service.url)],
        cwd=folder,
        env=environment(GREENROOM_URL=service.url),
        capture_output=True,
        text=True,
        timeout=170,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert '"status":4' not in done.stdout, "an answer is a problem document"
    if "talking.mp4" in block:
        assert probe_sync(video, MediaLimits()).kind == "video"


def test_every_link_leads_somewhere() -> None:
    missing = [target for target in _LINK.findall(README) if "://" not in target and not (PROJECT / target).exists()]
    assert missing == []
