"""How the gate finds the face in the frames that it looks at, and what it reads from its lips."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest
import torch

from app.face import roi
from app.face.analyser import FaceAnalyser
from app.quality.lips import LipReader, LipReading
from app.quality.models import Models
from tests.face.portraits import placement, scene

SIZE = (640, 360)
FACE = 120


class Counting(FaceAnalyser):
    """Counts the frames that the detector is asked about."""

    searched = 0

    def locate(self, frame: torch.Tensor, **how: object) -> torch.Tensor | None:
        self.searched += 1
        return super().locate(frame, **how)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def models() -> Models:
    return Models("cpu")


@pytest.fixture
def analyser() -> Counting:
    return Counting(torch.device("cpu"))


def walk(steps: int, stride: float) -> list[npt.NDArray[np.uint8]]:
    """A face that goes to the right by `stride` pixels a frame."""
    return [scene(*SIZE, placement(160 + stride * step, 170, FACE)) for step in range(steps)]


def region(analyser: FaceAnalyser, frame: npt.NDArray[np.uint8]) -> list[float]:
    found = roi.from_landmarks(torch.from_numpy(analyser.portrait(torch.from_numpy(frame)).landmarks))
    return [float(value) for value in found[0]]


def read(reader: LipReader, frames: list[npt.NDArray[np.uint8]]) -> LipReading:
    for frame in frames:
        reader.look(frame)
    return reader.reading()


def test_where_the_renderer_saw_the_face_nobody_searches_for_it(analyser: Counting) -> None:
    frames = walk(6, 2)
    known = region(analyser, frames[0])
    analyser.searched = 0
    told = read(LipReader(analyser, region=known, near=None), frames)
    assert analyser.searched == 0
    found = read(LipReader(analyser, region=None, near=None), frames)
    assert analyser.searched == 1
    assert told.present.all()
    assert found.present.all()
    np.testing.assert_allclose(told.openings, found.openings, atol=0.02)


def test_a_face_that_is_not_where_it_was_said_to_be_is_searched_for(analyser: Counting) -> None:
    frames = walk(3, 2)
    reading = read(LipReader(analyser, region=[560.0, 300.0, 100.0, 0.0], near=None), frames)
    assert reading.present.all()
    assert analyser.searched > 0


def test_a_face_that_goes_far_between_two_frames_is_followed(analyser: Counting) -> None:
    frames = walk(4, 90)
    reading = read(LipReader(analyser, region=region(analyser, frames[0]), near=None), frames)
    assert reading.present.all()
    still = read(LipReader(analyser, region=region(analyser, frames[0]), near=None), frames[:1] * 4)
    np.testing.assert_allclose(reading.openings, still.openings, atol=0.03)


def test_frames_without_a_face_are_told(analyser: Counting) -> None:
    wall = np.full((SIZE[1], SIZE[0], 3), 128, np.uint8)
    reading = read(LipReader(analyser, region=None, near=None), [wall, *walk(2, 2), wall])
    assert reading.present.tolist() == [False, True, True, False]
    assert reading.mesh is not None
    assert len(read(LipReader(analyser, region=None, near=None), [wall, wall]).openings) == 2


def test_large_pictures_do_not_pile_up(analyser: Counting, monkeypatch: pytest.MonkeyPatch) -> None:
    frame = scene(3840, 2160, placement(1900, 1100, 900))
    known, together, follow = region(analyser, frame), [], analyser.landmarks

    def counted(frames: list[torch.Tensor], rois: torch.Tensor, *, eyes: bool) -> tuple[torch.Tensor, torch.Tensor]:
        together.append(len(frames))
        return follow(frames, rois, eyes=eyes)

    monkeypatch.setattr(analyser, "landmarks", counted)
    reading = read(LipReader(analyser, region=known, near=None), [frame] * 4)
    assert together == [3, 1]
    assert reading.present.all()


def test_lips_are_read_on_one_thread_and_the_others_come_back(models: Models) -> None:
    torch.set_num_threads(2)
    try:
        with models.one_thread():
            assert torch.get_num_threads() == 1
        assert torch.get_num_threads() == 2
        with pytest.raises(ValueError), models.one_thread():
            raise ValueError
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(1)
