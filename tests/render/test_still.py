"""The last resort: whole and of the speech's length whatever the source, light, and never taken for the real thing."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
from pydantic import ValidationError

from app.media.video_in import VideoSource
from app.quality.checks import check_output
from app.render import registry
from app.render.contract import Cancelled, Phase, RenderJob
from app.retry.taxonomy import CodedError, FailureCode
from tests.media.makers import read_number, tone, write_audio, write_video, write_wav


class Silent:
    """Takes every report; raises `Cancelled` after `patience` of them."""

    def __init__(self, patience: int = 10**9) -> None:
        self.reports: list[tuple[Phase, int, int]] = []
        self._patience = patience

    def report(self, phase: Phase, done: int, total: int) -> None:
        self.reports.append((phase, done, total))
        self.check()

    def check(self) -> None:
        if len(self.reports) > self._patience:
            raise Cancelled


@pytest.fixture
def render(tmp_path):
    def make(source: Path, audio: Path, progress=None, **options):
        renderer = registry.create("still")
        renderer.load("cpu")
        out = tmp_path / "out"
        out.mkdir(exist_ok=True)
        job = RenderJob(source, audio, out, registry.validate_options("still", options))
        result = renderer.render(job, progress or Silent())
        return result, check_output(result, job)

    return make


@pytest.fixture
def picture(tmp_path) -> Path:
    """[90, 161]: odd, left half dark, right half bright."""
    pixels = np.full((90, 161, 3), 40, np.uint8)
    pixels[:, 80:] = 200
    path = tmp_path / "picture.png"
    cv2.imwrite(str(path), pixels)
    return path


@pytest.mark.parametrize("seconds", [0.05, 1.0, 2.345])
def test_a_picture_becomes_a_video_of_the_speechs_length(render, picture, tmp_path, seconds):
    result, checks = render(picture, write_wav(tmp_path / "a.wav", tone(seconds)))
    assert abs(checks["audio_seconds"] - seconds) <= 1 / 25
    assert (result.width, result.height, result.fps) == (160, 90, 25.0)
    with VideoSource(result.path) as video:
        assert abs(int(video.frame(result.frames - 1)[45, 20].mean()) - 40) < 6


def test_a_template_plays_forward_and_backward_until_the_speech_ends(render, tmp_path):
    source = write_video(tmp_path / "t.mp4", frames=5)
    result, _ = render(source, write_wav(tmp_path / "a.wav", tone(0.48)))
    with VideoSource(result.path) as video:
        numbers = [read_number(video.frame(n)) for n in range(result.frames)]
    assert numbers == [0, 1, 2, 3, 4, 3, 2, 1, 0, 1, 2, 3]


def test_compressed_speech_and_a_turned_template_are_taken(render, tmp_path):
    source = write_video(tmp_path / "t.mp4", rotation=90)
    result, checks = render(source, write_audio(tmp_path / "a.opus", "libopus", 1.0))
    assert (result.width, result.height) == (48, 64)
    assert checks["frames"] == 25


@pytest.mark.parametrize(
    ("options", "size"),
    [
        ({"crop": [0.5, 0.0, 1.0, 1.0]}, (80, 90)),
        ({"max_side": 80}, (80, 44)),
        ({"crop": [0.5, 0.0, 1.0, 1.0], "max_side": 64}, (56, 64)),
        ({"crop": "face"}, (160, 90)),
        ({"max_side": 4096}, (160, 90)),
    ],
)
@pytest.mark.parametrize("kind", ["picture", "template"])
def test_box_and_size_are_as_with_warp(render, picture, tmp_path, kind, options, size):
    source = picture if kind == "picture" else write_video(tmp_path / "t.mp4", frames=3, width=160, height=90)
    result, _ = render(source, write_wav(tmp_path / "a.wav", tone(0.2)), **options)
    assert (result.width, result.height) == size


def test_a_crop_shows_that_part(render, picture, tmp_path):
    result, _ = render(picture, write_wav(tmp_path / "a.wav", tone(0.2)), crop=[0.5, 0.0, 1.0, 1.0])
    with VideoSource(result.path) as video:
        assert video.frame(0).min() > 180


def test_quality_and_rate_are_kept(render, picture, tmp_path):
    audio = write_wav(tmp_path / "a.wav", tone(1.0))
    small = render(picture, audio, quality="draft")[1]["bytes"]
    assert render(picture, audio, crf=10)[1]["bytes"] > small
    assert render(picture, audio, fps=50)[0].frames == 50


def test_a_cancel_is_heard_within_a_batch_and_leaves_no_file(render, picture, tmp_path):
    with pytest.raises(Cancelled):
        render(picture, write_wav(tmp_path / "a.wav", tone(3600.0, rate=8000)), Silent(patience=2))
    assert not list((tmp_path / "out").iterdir())


def test_an_unreadable_source_is_the_callers(render, tmp_path):
    broken = tmp_path / "s.mp4"
    broken.write_bytes(b"nothing of the kind" * 9)
    with pytest.raises(CodedError) as told:
        render(broken, write_wav(tmp_path / "a.wav", tone(0.2)))
    assert told.value.code is FailureCode.INPUT_INVALID


@pytest.mark.parametrize("options", [{"strength": 1.0}, {"crop": [0, 0, 0.01, 1]}, {"quality": "best"}])
def test_by_itself_it_takes_no_other_options(options):
    with pytest.raises(ValidationError):
        registry.validate_options("still", options)


def test_its_process_never_loads_torch():
    script = (
        "import sys, app.worker.child; from app.render import registry; registry.create('still').load('cpu'); "
        "sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", script], timeout=120).returncode == 0
