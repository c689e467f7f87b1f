"""Templates whose head turns and whose light changes: the new mouth is where the head is, and in its light."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from torch import Tensor

from app.face.analyser import FaceAnalyser
from app.face.topology import INNER_LIP_LOWER, INNER_LIP_UPPER
from app.media.image import load_image
from app.render.contract import RenderJob
from app.render.film import points
from app.render.film.pose import HeadPose, fit_poses
from app.render.warp.renderer import WarpRenderer
from tests.render.scenes import OPEN, SHUT, RecordingWriter, Reports, ScriptedSpeech, read_video, write_silence
from tests.render.turning import TurningHead, lit, write_frames

FACES = Path(__file__).parents[2] / "evaluation" / "faces"
FRAMES = 17
TURN = 40.0
"""Degrees about the vertical axis. The mesh's depth is flat: it reads the frames as turned by 26 to 36."""


@dataclass(frozen=True)
class Seen:
    """Frames [T, H, W, 3], the mesh in them [T, 478, 3], and the poses of their heads."""

    frames: Tensor
    mesh: Tensor
    poses: HeadPose

    @property
    def degrees(self) -> Tensor:
        """How far the head is turned, [T]."""
        return torch.rad2deg(torch.atan2(self.poses.rotation[:, 0, 2], self.poses.rotation[:, 2, 2]))

    @property
    def gaps(self) -> Tensor:
        """How far the lips are apart in the middle, [T] in distances of the outer eye corners."""
        return (self.mesh[:, 14] - self.mesh[:, 13]).norm(dim=1) / (self.mesh[:, 33] - self.mesh[:, 263]).norm(dim=1)


def look(frames: Tensor) -> Seen:
    analyser = FaceAnalyser(torch.device("cpu"))
    mesh = torch.from_numpy(np.concatenate([analyser.portrait(frame).landmarks for frame in frames]))
    return Seen(frames, mesh, fit_poses(points.select(mesh), torch.ones(len(frames), dtype=torch.bool)))


@pytest.fixture
def speak(
    renderer: WarpRenderer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[[Path, dict[int, float]], Tensor]:
    monkeypatch.setattr("app.render.film.renderer.VideoWriter", RecordingWriter)

    def render(template: Path, sound: dict[int, float]) -> Tensor:
        """The frames made of all of the template while that sound lasts."""
        monkeypatch.setattr(renderer, "speech", ScriptedSpeech([(FRAMES / 25, sound)]))
        RecordingWriter.taken.clear()
        out = tmp_path / f"out-{len(list(tmp_path.iterdir()))}"
        out.mkdir()
        renderer.render(RenderJob(template, write_silence(tmp_path / "a.wav", FRAMES / 25), out, {}), Reports())
        return torch.from_numpy(RecordingWriter.take())

    return render


def photo(name: str, side: int = 320) -> Tensor:
    return torch.from_numpy(cv2.resize(load_image(FACES / name), (side, side), interpolation=cv2.INTER_AREA))


@pytest.mark.parametrize("face", ["sample", "london_034.jpg"])
def test_the_mouth_follows_a_head_that_turns_by_30_degrees_to_either_side(
    face: str, picture: Tensor, speak: Callable[[Path, dict[int, float]], Tensor], tmp_path: Path
) -> None:
    head = TurningHead(picture if face == "sample" else photo(face))
    template = write_frames(tmp_path / "turn.mp4", [head.at(float(d)) for d in np.linspace(-TURN, TURN, FRAMES)])
    given = look(read_video(template))
    opened, shut = look(speak(template, OPEN)), look(speak(template, SHUT))
    off = [(made.degrees - given.degrees).abs().max() for made in (opened, shut)]
    lips = list(points.CORNERS)
    at = [given.poses.to_head(points.select(seen.mesh))[:, lips, 0].mean(1) for seen in (given, opened, shut)]
    away = [float((there - at[0]).abs().max()) for there in at[1:]]
    assert given.degrees.max() > 27
    assert given.degrees.min() < -27
    assert max(off) < 4, "degrees: the head is still turned as it was"
    assert max(away) < 0.05, "of the eyes' distance, beside where the mouth was"
    straight = opened.gaps[FRAMES // 2]
    assert straight > 0.15
    assert (opened.gaps / straight - 1).abs().max() < 0.3, "as open when turned"
    assert shut.gaps[given.degrees.abs() < 15].max() < 0.04
    assert shut.gaps.max() < 0.08, "a seal is hard to see from the side, for the mesh as well"


def test_the_mouth_is_in_the_light_of_its_frame(
    picture: Tensor, speak: Callable[[Path, dict[int, float]], Tensor], tmp_path: Path
) -> None:
    gains, slopes = np.linspace(0.5, 1.0, FRAMES), np.linspace(-0.25, 0.25, FRAMES)
    even = write_frames(tmp_path / "even.mp4", [picture.numpy()] * FRAMES)
    changing = write_frames(
        tmp_path / "changing.mp4", [lit(picture.numpy(), g, s) for g, s in zip(gains, slopes, strict=True)]
    )
    plain, made = speak(even, OPEN), speak(changing, OPEN)
    mesh = look(plain[:1]).mesh[0]
    opening = np.zeros(picture.shape[:2], np.uint8)
    inner = [*INNER_LIP_UPPER, *reversed(INNER_LIP_LOWER)]
    cv2.fillPoly(opening, [mesh[inner, :2].round().int().numpy()], 1)
    inside = torch.from_numpy(cv2.erode(opening, np.ones((3, 3), np.uint8)) > 0)
    white = np.full(picture.shape, 200, np.uint8)
    wanted = torch.from_numpy(np.stack([lit(white, g, s) for g, s in zip(gains, slopes, strict=True)])) / 200
    followed = made[:, inside].float().mean((1, 2)) / plain[:, inside].float().mean((1, 2))
    assert inside.sum() > 100
    assert (followed / wanted[:, inside].mean((1, 2)) - 1).abs().max() < 0.08
