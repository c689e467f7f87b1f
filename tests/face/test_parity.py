"""The torch networks against MediaPipe's own runtime, whose answers lie in ``data/reference.npz``."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest
import torch

from app.face import roi
from app.face.analyser import FaceAnalyser
from tests.face.portraits import DATA, Picture, views

PICTURES = dict(views())
SAME_REGION = 0.05  # pixels; measured 0.008 to 0.013
OWN_REGION = 0.5  # pixels; measured 0.08 to 0.34


def reference(name: str, what: str) -> npt.NDArray[np.float32]:
    with np.load(DATA / "reference.npz") as stored:
        return stored[f"{name}.{what}"]


def mean_distance(ours: npt.NDArray[np.float32], theirs: npt.NDArray[np.float32]) -> float:
    return float(np.linalg.norm(ours[:, :2] - theirs[:, :2], axis=1).mean())


@pytest.fixture(params=PICTURES)
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def picture(name: str) -> Picture:
    return PICTURES[name]


def test_mesh_in_the_same_region_is_the_same(analyser: FaceAnalyser, name: str, picture: Picture) -> None:
    box = torch.from_numpy(reference(name, "box")).unsqueeze(0)
    points, presence = analyser.landmarks(torch.from_numpy(picture)[None], roi.from_detections(box))
    theirs = reference(name, "first")
    assert mean_distance(points[0].numpy(), theirs) < SAME_REGION
    assert np.abs(points[0, :, 2].numpy() - theirs[:, 2]).mean() < SAME_REGION
    assert float(presence[0]) > 0.99


def test_portrait_agrees_with_mediapipe_tracking_a_still(analyser: FaceAnalyser, name: str, picture: Picture) -> None:
    track = analyser.portrait(torch.from_numpy(picture))
    assert mean_distance(track.landmarks[0], reference(name, "second")) < OWN_REGION


def test_detector_finds_the_same_box(analyser: FaceAnalyser, name: str, picture: Picture) -> None:
    faces = analyser.detect(torch.from_numpy(picture)[None])[0].numpy()
    theirs = reference(name, "box")
    width = theirs[2] - theirs[0]
    assert len(faces) == 1
    # MediaPipe's box lies half a pixel of its 128 pixel picture to the lower right, a fiftieth of this face.
    assert np.abs(faces[0, :4] - theirs[:4]).max() < 0.06 * width
    assert abs(faces[0, 4] - theirs[4]) < 0.03
