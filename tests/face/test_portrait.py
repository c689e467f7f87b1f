from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest
import torch

from app.face import topology
from app.face.analyser import FaceAnalyser
from app.face.track import FaceTrack
from tests.face.portraits import moved, placement, scene

Points = npt.NDArray[np.float32]


def analyse(analyser: FaceAnalyser, picture: npt.NDArray[np.uint8]) -> FaceTrack:
    return analyser.portrait(torch.from_numpy(picture))


def error(track: FaceTrack, expected: Points, face: float) -> float:
    """Mean distance to the expected points as a share of the face's width."""
    return float(np.linalg.norm(track.landmarks[0, :, :2] - expected, axis=1).mean()) / face


@pytest.mark.parametrize("degrees", [-25, 25])
def test_a_turned_head(analyser: FaceAnalyser, portrait_points: Points, degrees: int) -> None:
    transform = placement(640, 360, 190, degrees)
    track = analyse(analyser, scene(1280, 720, transform))
    assert track.present.all()
    assert (track.width, track.height) == (1280, 720)
    assert error(track, moved(portrait_points, transform), 190) < 0.015


def test_a_small_face(analyser: FaceAnalyser, portrait_points: Points) -> None:
    transform = placement(900, 300, 64)
    track = analyse(analyser, scene(1280, 720, transform))
    assert error(track, moved(portrait_points, transform), 64) < 0.02


def test_a_large_face_in_4k(analyser: FaceAnalyser, portrait_points: Points) -> None:
    transform = placement(1900, 1100, 900)
    track = analyse(analyser, scene(3840, 2160, transform))
    assert error(track, moved(portrait_points, transform), 900) < 0.02


def test_a_face_partly_out_of_the_frame(analyser: FaceAnalyser, portrait_points: Points) -> None:
    transform = placement(60, 300, 190)  # a fifth of the face is cut off
    track = analyse(analyser, scene(1280, 720, transform))
    assert track.present.all()
    lips = list(topology.OUTER_LIP_LOWER)
    expected = moved(portrait_points, transform)
    assert np.linalg.norm(track.landmarks[0, lips, :2] - expected[lips], axis=1).mean() < 0.05 * 190


def test_the_largest_of_several(analyser: FaceAnalyser, portrait_points: Points) -> None:
    small, large = placement(300, 330, 100), placement(900, 330, 180)
    for order in ((small, large), (large, small)):
        track = analyse(analyser, scene(1280, 720, *order))
        assert error(track, moved(portrait_points, large), 180) < 0.02


def test_no_face(analyser: FaceAnalyser) -> None:
    track = analyse(analyser, scene(640, 360))
    assert not track.present.any()
    assert track.present_share == 0
    assert not track.landmarks.any()


def test_a_tiny_picture_is_no_error(analyser: FaceAnalyser) -> None:
    for height, width in ((1, 1), (3, 200), (200, 3)):
        assert not analyse(analyser, np.zeros((height, width, 3), dtype=np.uint8)).present.any()
