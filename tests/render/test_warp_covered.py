"""Something in front of the mouth: a hand or a microphone is never painted over."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from torch import Tensor

from app.face.analyser import FaceAnalyser
from app.media.encode import VideoWriter
from app.media.image import load_image
from app.render.contract import RenderJob, RenderResult
from app.render.warp.renderer import WarpRenderer
from tests.render.scenes import (
    OPEN,
    SAMPLES,
    RecordingWriter,
    Reports,
    ScriptedSpeech,
    lip_gaps,
    read_video,
    write_silence,
)

FACES = Path(__file__).parents[2] / "evaluation" / "faces"
COVERED = range(12, 24)
FRAMES = 36


def microphone(frame: np.ndarray, mouth: np.ndarray, unit: float) -> None:
    cv2.circle(frame, mouth.astype(int).tolist(), int(0.35 * unit), (24, 24, 28), -1)


def hand(frame: np.ndarray, mouth: np.ndarray, unit: float) -> None:
    """Skin of somebody else: a cheek and a forehead, cut out as a palm."""
    skin = load_image(FACES / "london_034.jpg")[170:215, 215:300]
    width, height = int(1.1 * unit), int(0.75 * unit)
    left, top = (mouth - [width / 2, height * 0.4]).astype(int)
    palm = np.zeros((height, width), np.uint8)
    cv2.ellipse(palm, (width // 2, height // 2), (width // 2, height // 2), 0, 0, 360, 1, -1)
    part = frame[top : top + height, left : left + width]
    part[palm > 0] = cv2.resize(skin, (width, height))[palm > 0]


def passed_in_front(path: Path, picture: Tensor, thing) -> Path:
    """A video of the picture, in which `thing` is in front of the mouth in the frames `COVERED`."""
    mesh = FaceAnalyser(torch.device("cpu")).portrait(picture).landmarks[0, :, :2]
    unit = float(np.linalg.norm(mesh[33] - mesh[263]))
    with VideoWriter(path, picture.shape[1], picture.shape[0], 25.0, None, crf=14) as writer:
        for number in range(FRAMES):
            frame = picture.numpy().copy()
            if number in COVERED:
                thing(frame, mesh[[61, 291, 17]].mean(0), unit)
            writer.write(frame[None])
    return path


def speak(renderer: WarpRenderer, monkeypatch: pytest.MonkeyPatch, source: Path, folder: Path) -> RenderResult:
    monkeypatch.setattr(renderer, "speech", ScriptedSpeech([(FRAMES / 25, OPEN)]))
    monkeypatch.setattr("app.render.film.renderer.VideoWriter", RecordingWriter)
    RecordingWriter.taken.clear()
    audio = write_silence(folder / "a.wav", FRAMES / 25)
    (folder / "out").mkdir()
    return renderer.render(RenderJob(source, audio, folder / "out", {}), Reports())


@pytest.mark.parametrize("thing", [microphone, hand])
def test_what_hides_the_mouth_is_left_alone(
    thing, renderer: WarpRenderer, picture: Tensor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    template = passed_in_front(tmp_path / "t.mp4", picture, thing)
    result = speak(renderer, monkeypatch, template, tmp_path)
    shown, given = RecordingWriter.take(), read_video(template).numpy()
    hidden = list(COVERED)
    assert result.facts["frames_covered"] == len(hidden)
    assert np.array_equal(shown[hidden], given[hidden])
    free = [number for number in range(FRAMES) if min(abs(number - other) for other in hidden) > 4]
    assert lip_gaps(torch.from_numpy(shown[free])).min() > 0.1, "it speaks where the mouth is free"


def test_the_new_mouth_comes_and_goes_over_a_few_frames(
    renderer: WarpRenderer, picture: Tensor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    template = passed_in_front(tmp_path / "t.mp4", picture, microphone)
    speak(renderer, monkeypatch, template, tmp_path)
    change = np.abs(RecordingWriter.take().astype(int) - read_video(template).numpy().astype(int)).mean((1, 2, 3))
    before, after = change[COVERED.start - 5 : COVERED.start], change[COVERED.stop : COVERED.stop + 5]
    assert (np.diff(before[1:]) < 0).all(), "less and less"
    assert (np.diff(after[:-1]) > 0).all(), "more and more"


@pytest.mark.parametrize("face", ["london_061", "london_092", "hopper"])
def test_a_mouth_that_speaks_is_not_taken_for_a_covered_one(face: str, renderer: WarpRenderer, tmp_path: Path) -> None:
    """Dark skin, a beard, glasses; widely open, with a lively head."""
    speech = SAMPLES / "speech.wav"
    loud, again = tmp_path / "loud", tmp_path / "again"
    loud.mkdir()
    again.mkdir()
    options = {"strength": 1.4, "head_motion": 1.0, "seed": 1, "max_side": 256}
    template = renderer.render(RenderJob(FACES / f"{face}.jpg", speech, loud, options), Reports()).path
    assert renderer.render(RenderJob(template, speech, again, {}), Reports()).facts["frames_covered"] == 0
