"""Very small and very large faces, and faces that the frame cuts: a good video or a clear error."""

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
    SHUT,
    Reports,
    ScriptedSpeech,
    lip_gaps,
    read_video,
    save_picture,
    write_silence,
)

FACES = Path(__file__).parents[2] / "evaluation" / "faces"
RATE = 25


def on_a_wall(face_height: int, width: int, height: int) -> Tensor:
    """A bearded man before a wall [height, width, 3], from brows to chin about `face_height` pixels high, whole."""
    photo = load_image(FACES / "london_092.jpg")
    mesh = FaceAnalyser(torch.device("cpu")).portrait(torch.from_numpy(photo)).landmarks[0]
    scale = face_height / float(mesh[152, 1] - mesh[10, 1])
    head = cv2.resize(photo, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC)
    wall = np.full((height, width, 3), photo[4, 4], np.uint8)
    rows, columns = min(height, head.shape[0]), min(width, head.shape[1])
    left, top = (width - columns) // 2, (height - rows) // 2
    from_left, from_top = (head.shape[1] - columns) // 2, (head.shape[0] - rows) // 2
    wall[top : top + rows, left : left + columns] = head[from_top : from_top + rows, from_left : from_left + columns]
    return torch.from_numpy(wall)


def as_video(path: Path, picture: Tensor, frames: int) -> Path:
    with VideoWriter(path, picture.shape[1], picture.shape[0], float(RATE), None, crf=16) as writer:
        for _ in range(frames):
            writer.write(picture[None].numpy())
    return path


@pytest.fixture
def speaking(renderer: WarpRenderer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Renders three open frames and three shut ones."""

    def render(source: Path, **options: object) -> RenderResult:
        monkeypatch.setattr(renderer, "speech", ScriptedSpeech([(3 / RATE, OPEN), (3 / RATE, SHUT)]))
        out = tmp_path / "out"
        out.mkdir()
        audio = write_silence(tmp_path / "a.wav", 6 / RATE)
        return renderer.render(RenderJob(source, audio, out, options), Reports())

    return render


def gaps_around(result: RenderResult, size: int = 512) -> np.ndarray:
    """Of frames 1 (open) and 4 (shut), cut around the face and brought to `size`, as somebody would look closely."""
    frames = read_video(result.path)[[1, 4]]
    x, y = result.facts["face_at"]
    down = FaceAnalyser(torch.device("cpu")).portrait(frames[0]).landmarks[0, :, 1]
    reach = 1.1 * float(down.max() - down.min())
    left, top = max(0, int(x - reach)), max(0, int(y - reach))
    parts = [frame[top : int(y + reach), left : int(x + reach)].numpy() for frame in frames]
    return lip_gaps(torch.from_numpy(np.stack([cv2.resize(part, (size, size)) for part in parts])))


@pytest.mark.parametrize("video", [False, True])
def test_a_face_of_64_pixels_in_360p_speaks(speaking, video: bool, tmp_path: Path) -> None:
    picture = on_a_wall(64, 640, 360)
    source = tmp_path / "wall.png"
    save_picture(source, picture)
    if video:
        source = as_video(tmp_path / "wall.mp4", picture, 6)
    result = speaking(source, crf=12)
    assert (result.width, result.height) == (640, 360)
    opened, shut = gaps_around(result)
    assert opened > 0.08 > 0.06 > shut


def test_a_face_of_1500_pixels_speaks_in_a_4k_template(speaking, tmp_path: Path) -> None:
    result = speaking(as_video(tmp_path / "large.mp4", on_a_wall(1500, 3840, 2160), 2))
    assert (result.width, result.height) == (3840, 2160)
    assert result.facts["batch"] < 16, "fewer frames at once"
    opened, shut = gaps_around(result)
    assert opened > 0.1 > 0.04 > shut


def test_a_4k_portrait_is_brought_to_full_hd_unless_4k_is_asked_for(speaking, tmp_path: Path) -> None:
    save_picture(tmp_path / "large.png", on_a_wall(1500, 3840, 2160))
    result = speaking(tmp_path / "large.png")
    assert (result.width, result.height) == (1920, 1080)
    opened, shut = gaps_around(result)
    assert opened > 0.1 > 0.04 > shut


@pytest.mark.parametrize("cut", ["left", "chin"])
def test_a_face_half_out_of_the_frame_speaks_as_far_as_it_is_seen(speaking, cut: str, tmp_path: Path) -> None:
    picture = on_a_wall(240, 480, 480)
    mesh = FaceAnalyser(torch.device("cpu")).portrait(picture).landmarks[0]
    nose, lip = mesh[1, :2], mesh[17, :2]
    part = picture[:, int(nose[0]) // 2 * 2 - 20 :] if cut == "left" else picture[: int(lip[1]) // 2 * 2 + 6]
    source = as_video(tmp_path / "cut.mp4", part[: part.shape[0] // 2 * 2, : part.shape[1] // 2 * 2].contiguous(), 6)
    given = read_video(source)
    result = speaking(source, crf=12)
    shown = read_video(result.path)
    assert shown.shape == given.shape
    change = (shown[1].float() - given[1].float()).abs().mean(2)
    brows = int(mesh[[105, 334], 1].max())
    assert change[:brows].mean() < 1.5, "above the mouth nothing moves but the codec"
    assert change.max() > 30, "what is seen of the mouth opens"
