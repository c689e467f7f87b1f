"""`greenroom render`: one real video, and what it says when it cannot make one."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from app.media.info import MediaLimits
from app.media.sandbox import probe_sync
from tests.cli.conftest import PORTRAIT, SPEECH, Cli, clean_environment


def test_a_second_of_speech_becomes_a_second_of_video(cli: Cli, short_speech: Path, tmp_path: Path) -> None:
    done = cli("render", PORTRAIT, short_speech, "-o", "out.mp4", "--json", "--device", "cpu")
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout.splitlines()[-1])
    assert set(said) == {"frames", "seconds", "stages"}
    assert said["seconds"] > 0
    assert all(seconds >= 0 for seconds in said["stages"].values())
    video = probe_sync(tmp_path / "out.mp4", MediaLimits())
    assert video.kind == "video"
    assert video.audio_codec == "aac"
    assert said["frames"] == pytest.approx(1.0 * video.fps, abs=1)
    assert video.duration_s == pytest.approx(1.0, abs=1 / video.fps + 0.001)
    assert [path.name for path in tmp_path.iterdir()] == ["out.mp4"]
    assert "render" in done.stderr, "without a terminal, progress is plain lines"


@pytest.mark.parametrize(
    ("source", "audio", "more", "code", "word"),
    [
        ("missing.png", SPEECH, [], "INPUT_NOT_FOUND", "source"),
        (PORTRAIT, "missing.wav", [], "INPUT_NOT_FOUND", "audio"),
        (SPEECH, SPEECH, [], "INPUT_INVALID", "source"),
        (PORTRAIT, PORTRAIT, [], "INPUT_INVALID", "audio"),
        (__file__, SPEECH, [], "INPUT_INVALID", "source"),
        (PORTRAIT, SPEECH, ["--option", "no_such=1"], "OPTION_INVALID", "no_such"),
        (PORTRAIT, SPEECH, ["--option", "no_such"], "OPTION_INVALID", "NAME=VALUE"),
        (PORTRAIT, SPEECH, ["--set", "tier_renderer=magic"], "RENDERER_UNKNOWN", "magic"),
        (PORTRAIT, SPEECH, ["--set", "max_input_s=1"], "INPUT_TOO_LARGE", "audio"),
        (PORTRAIT, SPEECH, ["-o", "no/such/folder/out.mp4"], "OUTPUT_INVALID", "folder"),
    ],
)
def test_what_the_caller_got_wrong_is_named_and_exits_2(
    source: str | Path, audio: str | Path, more: list[str], code: str, word: str, cli: Cli, tmp_path: Path
) -> None:
    done = cli("render", source, audio, "-o", "out.mp4", *more)
    assert done.returncode == 2
    first = done.stderr.splitlines()[0]
    assert first.startswith(f"error {code}: ")
    assert word in first
    assert "Traceback" not in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_a_device_that_is_not_there_exits_1_with_a_hint(cli: Cli, short_speech: Path, tmp_path: Path) -> None:
    done = cli("render", PORTRAIT, short_speech, "-o", "o.mp4", "--device", "cuda", env={"CUDA_VISIBLE_DEVICES": ""})
    assert done.returncode == 1
    assert "error GPU_UNAVAILABLE: " in done.stderr
    assert "\nhint: " in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_debug_shows_the_trace(cli: Cli) -> None:
    assert "Traceback" in cli("render", "missing.png", SPEECH, "-o", "out.mp4", "--debug").stderr


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_stops_it_and_leaves_nothing_behind(number: signal.Signals, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "app", "render", str(PORTRAIT), str(SPEECH), "-o", "out.mp4"]
    with subprocess.Popen(
        command, cwd=tmp_path, env=clean_environment(), stderr=subprocess.PIPE, text=True, start_new_session=True
    ) as process:
        assert process.stderr is not None
        line = next(line for line in process.stderr if line.startswith("render"))
        os.kill(process.pid, number)
        rest = process.stderr.read()
        assert process.wait(60) == 130, line + rest
    assert "error CANCELLED" in rest
    assert list(tmp_path.iterdir()) == []
