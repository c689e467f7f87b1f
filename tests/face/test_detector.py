from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from app.face.analyser import FaceAnalyser
from app.face.detector import merge_overlapping
from tests.face.portraits import placement, portrait, scene


def detect(analyser: FaceAnalyser, picture: np.ndarray) -> Tensor:
    return analyser.detect(torch.from_numpy(picture)[None])[0]


def centre_and_width(face: Tensor) -> tuple[float, float, float]:
    left, top, right, bottom = face[:4].tolist()
    return (left + right) / 2, (top + bottom) / 2, right - left


@pytest.mark.parametrize(
    ("width", "height", "face"),
    [
        (640, 360, 64),
        (1280, 720, 64),
        (1920, 1080, 72),
        (3840, 2160, 96),
        (1280, 720, 300),
        (640, 360, 250),
        (720, 1280, 70),
    ],
)
@pytest.mark.parametrize("corner", [(0.25, 0.35), (0.7, 0.6)])
def test_finds_a_face(analyser: FaceAnalyser, width: int, height: int, face: int, corner: tuple[float, float]) -> None:
    x, y = width * corner[0], height * corner[1]
    if face > 200:
        x, y = width / 2, height / 2
    faces = detect(analyser, scene(width, height, placement(x, y, face)))
    found_x, found_y, found_width = centre_and_width(faces[0])
    assert abs(found_x - x) < 0.25 * face
    assert abs(found_y - y) < 0.25 * face
    assert 0.7 * face < found_width < 1.4 * face


def test_eyes_show_the_rotation(analyser: FaceAnalyser) -> None:
    faces = detect(analyser, scene(640, 480, placement(320, 240, 150, degrees=25)))
    across = faces[0, 7:9] - faces[0, 5:7]
    level = detect(analyser, scene(640, 480, placement(320, 240, 150)))
    before = level[0, 7:9] - level[0, 5:7]
    turned = torch.atan2(across[1], across[0]) - torch.atan2(before[1], before[0])
    assert abs(float(turned.rad2deg()) - 25) < 7  # the eyes of the short-range network are this coarse


@pytest.mark.parametrize("value", [0, 128, 255])
def test_a_blank_frame_has_no_face(analyser: FaceAnalyser, value: int) -> None:
    assert detect(analyser, np.full((360, 640, 3), value, dtype=np.uint8)).shape == (0, 17)


def test_noise_has_no_face(analyser: FaceAnalyser) -> None:
    noise = np.random.default_rng(7).integers(0, 256, (360, 640, 3), dtype=np.uint8)
    assert not analyser.portrait(torch.from_numpy(noise)).present.any()


def test_frames_of_a_batch_are_judged_apart(analyser: FaceAnalyser) -> None:
    face, blank = scene(640, 360, placement(300, 180, 120)), scene(640, 360)
    found = analyser.detect(torch.from_numpy(np.stack([blank, face, blank])))
    assert [len(faces) for faces in found] == [0, 1, 0]


def test_two_faces_are_two_detections(analyser: FaceAnalyser) -> None:
    picture = scene(1280, 720, placement(330, 330, 200), placement(930, 330, 260))
    assert len(detect(analyser, picture)) == 2


def test_a_portrait_filling_the_frame(analyser: FaceAnalyser) -> None:
    face = portrait()[60:200, 165:285]
    assert len(detect(analyser, np.ascontiguousarray(face))) == 1


def test_overlapping_detections_become_one_weighted_mean() -> None:
    faces = torch.zeros(3, 17)
    faces[0, :5] = torch.tensor([0.0, 0.0, 10.0, 10.0, 0.9])
    faces[1, :5] = torch.tensor([1.0, 0.0, 11.0, 10.0, 0.6])
    faces[2, :5] = torch.tensor([50.0, 50.0, 60.0, 60.0, 0.7])
    merged = merge_overlapping(faces)
    assert torch.allclose(merged[:, 4], torch.tensor([0.9, 0.7]))
    assert torch.allclose(merged[0, :4], torch.tensor([0.4, 0.0, 10.4, 10.0]))
