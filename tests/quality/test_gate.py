"""The gate on real videos: a good one passes, and each way of breaking it is seen by the check that is there for it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from app.media.encode import VideoWriter
from app.media.image import load_image
from app.quality.gate import Gate, Judgement
from app.quality.scoring import ACCEPTED
from app.render.contract import Cancelled, RenderJob, RenderResult
from app.render.warp.renderer import WarpRenderer
from app.retry.taxonomy import CodedError, FailureCode
from evaluation.faults import FAULTS, Made, read_frames, read_sound, write
from tests.render.scenes import SAMPLES, Reports, save_picture, write_silence, write_template


@pytest.fixture(scope="module")
def gate() -> Gate:
    return Gate("cpu")


@pytest.fixture(scope="module")
def renderer() -> WarpRenderer:
    made = WarpRenderer()
    made.load("cpu")
    return made


@pytest.fixture(scope="module")
def picture() -> torch.Tensor:
    """[240, 240, 3], face and shoulders."""
    cut = load_image(SAMPLES / "portrait.png")[:410, 43:453]
    return torch.from_numpy(cv2.resize(cut, (240, 240), interpolation=cv2.INTER_AREA))


@pytest.fixture(scope="module")
def good(
    renderer: WarpRenderer, picture: torch.Tensor, tmp_path_factory: pytest.TempPathFactory
) -> tuple[RenderJob, RenderResult]:
    """A portrait that says the sample speech."""
    folder = tmp_path_factory.mktemp("good")
    save_picture(folder / "portrait.png", picture)
    job = RenderJob(folder / "portrait.png", SAMPLES / "speech.wav", folder, {"seed": 1})
    return job, renderer.render(job, Reports())


@pytest.fixture(scope="module")
def made(good: tuple[RenderJob, RenderResult]) -> Made:
    job, result = good
    frames, sound = read_frames(result.path), read_sound(job.audio)
    # The same mouth, saying the same backwards, is the other speech.
    return Made(frames, sound, Fraction(result.fps), frames[::-1].copy(), sound[::-1].copy())


@pytest.fixture
def broken(gate: Gate, good: tuple[RenderJob, RenderResult], made: Made, tmp_path: Path) -> Callable[[str], Judgement]:
    return lambda fault: gate.judge(good[0], write(FAULTS[fault](made), tmp_path, good[1]), lip_sync=True)


def test_a_good_video_passes_with_all_its_checks(gate: Gate, good: tuple[RenderJob, RenderResult]) -> None:  # R3.3
    judgement = gate.judge(*good, lip_sync=True)
    assert judgement.confidence >= 0.9, judgement
    assert set(judgement.scores) >= {
        "not_black", "sound", "sound_in_time", "not_frozen", "face", "lips_follow", "lips_in_time", "mouth_moves",
    }  # fmt: skip
    assert judgement.values["lip_agreement"] > 0.6
    assert abs(judgement.values["lip_lag_ms"]) <= 40
    assert judgement.confidence == min(judgement.scores.values())


@pytest.mark.parametrize(
    ("fault", "checks"),
    [
        ("sound +2 frames", {"sound_in_time"}),
        ("sound -5 frames", {"sound_in_time"}),
        ("picture +2 frames", {"lips_in_time", "lips_follow"}),
        ("picture -2 frames", {"lips_in_time", "lips_follow"}),
        ("picture +10 frames", {"lips_in_time", "lips_follow"}),
        ("frozen", {"not_frozen", "mouth_moves", "lips_follow"}),
        ("frozen half", {"not_frozen"}),
        ("black", {"not_black"}),
        ("black third", {"not_black"}),
        ("muted", {"sound"}),
        ("other speech", {"sound"}),
        ("other lips", {"lips_follow"}),
        ("still image", {"not_frozen", "mouth_moves", "lips_follow"}),
    ],
)
def test_what_is_broken_does_not_pass(broken: Callable[[str], Judgement], fault: str, checks: set[str]) -> None:  # R3.3
    judgement = broken(fault)
    assert judgement.confidence < ACCEPTED, judgement
    assert all(judgement.scores[check] < ACCEPTED for check in checks if check in {"not_frozen", "not_black", "sound"})
    assert min(judgement.scores[check] for check in checks) < ACCEPTED, judgement


def test_a_renderer_that_promises_no_lips_is_not_judged_by_them(
    gate: Gate, good: tuple[RenderJob, RenderResult], made: Made, tmp_path: Path
) -> None:
    still = write(FAULTS["still image"](made), tmp_path, good[1])
    judgement = gate.judge(good[0], still, lip_sync=False)
    assert judgement.confidence >= 0.9
    assert set(judgement.scores) == {"not_black", "sound", "sound_in_time"}


@pytest.mark.parametrize("strength", [0.0, 0.5, 0.6])
def test_a_mouth_that_was_asked_to_move_little_is_not_missed(
    gate: Gate, renderer: WarpRenderer, good: tuple[RenderJob, RenderResult], tmp_path: Path, strength: float
) -> None:
    job = replace(good[0], output_dir=tmp_path, options={"strength": strength, "seed": 1})
    assert gate.judge(job, renderer.render(job, Reports()), lip_sync=True).confidence >= ACCEPTED


def test_silence_in_is_no_fault_of_the_video(
    gate: Gate, renderer: WarpRenderer, good: tuple[RenderJob, RenderResult], tmp_path: Path
) -> None:
    audio = write_silence(tmp_path / "silence.wav", 2.0)
    job = replace(good[0], audio=audio, output_dir=tmp_path, options={"seed": 1})
    judgement = gate.judge(job, renderer.render(job, Reports()), lip_sync=True)
    assert judgement.confidence >= 0.9, judgement
    assert "sound" not in judgement.scores
    assert "lips_follow" not in judgement.scores


def test_the_surroundings_of_a_template_are_held_against_it(
    gate: Gate, renderer: WarpRenderer, picture: torch.Tensor, tmp_path: Path
) -> None:
    template = write_template(tmp_path / "template.mp4", picture, frames=30)
    job = RenderJob(template, SAMPLES / "speech.wav", tmp_path)
    result = renderer.render(job, Reports())
    assert result.facts["moves"] == ["lower_face"]
    judgement = gate.judge(job, result, lip_sync=True)
    assert judgement.values["surroundings_db"] > 35
    frames = read_frames(result.path)
    frames[:, :60] = frames[:, :60, ::-1]
    altered = Made(frames, read_sound(job.audio), Fraction(result.fps), frames, frames[0, 0, :, 0].astype(np.float32))
    (tmp_path / "altered").mkdir()
    judgement = gate.judge(job, write(altered, tmp_path / "altered", result), lip_sync=True)
    assert judgement.scores["surroundings"] < ACCEPTED


def test_who_does_not_tell_where_the_face_is_is_judged_alike(gate: Gate, good: tuple[RenderJob, RenderResult]) -> None:
    facts = {key: value for key, value in good[1].facts.items() if key not in {"face_region", "face_at"}}
    told, found = gate.judge(*good, lip_sync=True), gate.judge(good[0], replace(good[1], facts=facts), lip_sync=True)
    assert found.confidence == told.confidence
    assert found.values["lip_agreement"] == pytest.approx(told.values["lip_agreement"], abs=0.03)


def test_a_video_with_another_number_of_frames_is_broken(gate: Gate, good: tuple[RenderJob, RenderResult]) -> None:
    job, result = good
    with pytest.raises(CodedError) as caught:
        gate.judge(job, replace(result, frames=result.frames + 1), lip_sync=False)
    assert caught.value.code is FailureCode.OUTPUT_INVALID


def test_it_can_be_stopped(gate: Gate, good: tuple[RenderJob, RenderResult]) -> None:
    def stop() -> None:
        raise Cancelled

    with pytest.raises(Cancelled):
        gate.judge(*good, lip_sync=True, alive=stop)


def test_a_face_half_as_wide_is_followed_through_a_moving_picture(
    gate: Gate, renderer: WarpRenderer, picture: torch.Tensor, tmp_path: Path
) -> None:
    wall = np.full((60, 320, 480, 3), 90, np.uint8)
    for number, frame in enumerate(wall):
        frame[40:280, 2 * number : 2 * number + 240] = picture.numpy()
    with VideoWriter(tmp_path / "walk.mp4", 480, 320, 25, None, crf=12) as writer:
        writer.write(wall)
    job = RenderJob(tmp_path / "walk.mp4", SAMPLES / "speech.wav", tmp_path)
    judgement = gate.judge(job, renderer.render(job, Reports()), lip_sync=True)
    assert judgement.values["face_share"] == 1.0
    assert judgement.confidence >= ACCEPTED, judgement
