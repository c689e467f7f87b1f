"""The rehearsal renderer where nothing fails: what it says of itself, and the render that costs next to nothing."""

from __future__ import annotations

import time
import wave
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from app.quality.checks import check_output
from app.render import registry
from app.render.contract import Phase, Renderer, RenderJob, RenderResult

NO_OP = {"fps": 1, "size": 16, "reuse": True}


class Unheard:
    def report(self, phase: Phase, done: int, total: int) -> None:
        """Nobody listens."""

    def check(self) -> None:
        """Nobody cancels."""


def tone(path: Path, seconds: float) -> Path:
    samples = (np.sin(np.arange(round(seconds * 16_000)) * 0.2) * 8000).astype("<i2")
    with wave.open(str(path), "wb") as out:
        out.setparams((1, 2, 16_000, 0, "NONE", ""))
        out.writeframes(samples.tobytes())
    return path


class Room:
    """A process's renderer, and a folder for each of its jobs."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._jobs = 0
        self._renderer: Renderer = registry.create("rehearsal", {})
        self._renderer.load("cpu")

    def render(self, audio: Path, **options: Any) -> tuple[RenderResult, RenderJob]:
        self._jobs += 1
        out = self._folder / str(self._jobs)
        out.mkdir()
        job = RenderJob(audio, audio, out, registry.validate_options("rehearsal", options))
        return self._renderer.render(job, Unheard()), job


@pytest.fixture
def room(tmp_path: Path) -> Room:
    return Room(tmp_path)


def test_a_render_that_is_reused_is_a_copy_of_its_own_and_passes_the_check(room, tmp_path):
    audio = tone(tmp_path / "a.wav", 0.5)
    first, _ = room.render(audio, **NO_OP)
    second, job = room.render(audio, **NO_OP)
    assert second.path != first.path
    assert second.path.read_bytes() == first.path.read_bytes()
    assert not second.path.samefile(first.path)
    check_output(second, job)


@pytest.mark.parametrize("change", [{"fps": 5}, {"size": 32}, {"fault": "mute"}])
def test_what_was_asked_for_differently_is_made_anew(room, tmp_path, change):
    audio = tone(tmp_path / "a.wav", 0.5)
    first, _ = room.render(audio, **NO_OP)
    other, _ = room.render(audio, **NO_OP | change)
    assert other.path.read_bytes() != first.path.read_bytes()


def test_another_sound_under_the_same_name_is_not_taken_for_the_old_one(room, tmp_path):
    audio = tone(tmp_path / "a.wav", 0.5)
    room.render(audio, **NO_OP)
    result, job = room.render(tone(audio, 3.0), **NO_OP)
    assert result.frames == 3
    check_output(result, job)


def test_a_result_tells_the_moments_of_its_first_and_last_line(room, tmp_path):
    before = time.time()
    result, _ = room.render(tone(tmp_path / "a.wav", 0.5), frame_s=0.05, fps=2)
    assert before <= result.facts["began_at"] <= result.facts["ended_at"] - 0.05
    assert result.facts["ended_at"] <= time.time()
