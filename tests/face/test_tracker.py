from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import pytest
import torch
from torch import Tensor

from app.face.analyser import FaceAnalyser
from app.face.track import FaceTrack
from app.face.tracker import VERIFY_EVERY, FaceTracker
from tests.face.portraits import Transform, moved, placement, scene

Points = npt.NDArray[np.float32]
WIDTH, HEIGHT, FACE = 640, 360, 110


def path(frame: int) -> Transform:
    """A lively head: pans a sixth of the frame, nods, sways by 12 degrees and breathes by a tenth."""
    return placement(
        320 + 50 * np.sin(frame * 0.06), 180 + 20 * np.sin(frame * 0.09),
        FACE * (1 + 0.1 * np.sin(frame * 0.05)), 12 * np.sin(frame * 0.07),
    )  # fmt: skip


def video(frames: int, where: Callable[[int], Transform | None] = path) -> npt.NDArray[np.uint8]:
    pictures = [scene(WIDTH, HEIGHT, *([t] if t is not None else [])) for t in map(where, range(frames))]
    return np.stack(pictures)


def follow(analyser: FaceAnalyser, frames: npt.NDArray[np.uint8], batch: int = 16) -> FaceTrack:
    tracker = FaceTracker(analyser)
    for part in torch.from_numpy(frames).split(batch):  # type: ignore[no-untyped-call]
        tracker.feed(part)
    return tracker.finish()


def errors(track: FaceTrack, portrait_points: Points, where: Callable[[int], Transform] = path) -> Points:
    """Mean distance to the true points, for every frame, as a share of the face's width."""
    truth = np.stack([moved(portrait_points, where(frame)) for frame in range(len(track))])
    return np.linalg.norm(track.landmarks[:, :, :2] - truth, axis=2).mean(axis=1) / FACE


@pytest.mark.parametrize("batch", [7, 16, 64])
def test_follows_a_moving_head(analyser: FaceAnalyser, portrait_points: Points, batch: int) -> None:
    track = follow(analyser, video(64), batch)
    assert track.present_share == 1
    assert (len(track), track.width, track.height) == (64, WIDTH, HEIGHT)
    off = errors(track, portrait_points)
    assert off.mean() < 0.012
    assert off.max() < 0.03


def test_a_resting_head_does_not_tremble(analyser: FaceAnalyser) -> None:
    still = video(1, lambda _: placement(320, 180, FACE)).repeat(40, axis=0).astype(np.int16)
    noise = np.random.default_rng(3).normal(0, 4, still.shape)
    track = follow(analyser, np.clip(still + noise, 0, 255).astype(np.uint8))
    assert track.landmarks[:, :, :2].std(axis=0).mean() < 0.003 * FACE


def test_a_track_can_keep_what_each_frame_shows_for_itself(analyser: FaceAnalyser) -> None:
    still = video(1, lambda _: placement(320, 180, FACE)).repeat(10, axis=0).astype(np.int16)
    noise = np.random.default_rng(3).normal(0, 8, still.shape)
    tracker = FaceTracker(analyser)
    tracker.feed(torch.from_numpy(np.clip(still + noise, 0, 255).astype(np.uint8)))
    steady, own = tracker.finish().landmarks, tracker.finish(smoothed=False).landmarks
    assert np.abs(np.diff(own, axis=0)).mean() > 1.2 * np.abs(np.diff(steady, axis=0)).mean()


def test_a_gap_is_absent_and_the_face_is_found_after_it(analyser: FaceAnalyser, portrait_points: Points) -> None:
    hidden = range(20, 33)
    track = follow(analyser, video(60, lambda frame: None if frame in hidden else path(frame)))
    assert np.flatnonzero(~track.present).tolist() == list(hidden)
    off = errors(track, portrait_points)[track.present]
    assert off.max() < 0.03
    assert (track.landmarks[20] == track.landmarks[19]).all()
    assert (track.landmarks[32] == track.landmarks[33]).all()


def test_a_face_that_comes_late_is_present_from_its_first_frame(analyser: FaceAnalyser) -> None:
    for first in (1, 3, 14, 17):
        track = follow(analyser, video(24, lambda frame, first=first: path(frame) if frame >= first else None))
        assert np.flatnonzero(track.present).tolist() == list(range(first, 24))


def test_a_jump_within_the_frame_is_followed(analyser: FaceAnalyser, portrait_points: Points) -> None:
    def cut(frame: int) -> Transform:
        return placement(150 if frame < 10 else 480, 180, FACE)

    track = follow(analyser, video(20, cut))
    assert track.present.all()
    off = errors(track, portrait_points, cut)
    assert off[[0, 5, 14, 19]].max() < 0.03


def test_stays_with_the_face_it_began_with(analyser: FaceAnalyser, portrait_points: Points) -> None:
    followed = placement(150, 180, FACE)
    frames = [
        scene(WIDTH, HEIGHT, followed, placement(480, 180, 70 if frame < 5 else 150)) if frame not in (8, 9) else
        scene(WIDTH, HEIGHT, placement(480, 180, 150)) for frame in range(20)
    ]  # fmt: skip
    frames[8] = frames[9] = scene(WIDTH, HEIGHT)
    track = follow(analyser, np.stack(frames))
    off = errors(track, portrait_points, lambda _: followed)
    assert np.flatnonzero(~track.present).tolist() == [8, 9]
    assert off[track.present].max() < 0.03


def test_no_face_at_all(analyser: FaceAnalyser) -> None:
    track = follow(analyser, video(10, lambda _: None))
    assert not track.present.any()
    assert not track.landmarks.any()


def test_nothing_fed(analyser: FaceAnalyser) -> None:
    track = FaceTracker(analyser).finish()
    assert len(track) == 0
    assert track.present_share == 0


def test_the_detector_runs_only_to_find_and_now_and_then_to_confirm(analyser: FaceAnalyser) -> None:
    class Counting:
        def __init__(self) -> None:
            self.detections = 0

        def detect(self, frames: Tensor, *, tiled: bool = True) -> list[Tensor]:
            self.detections += len(frames)
            return analyser.detect(frames, tiled=tiled)

        def locate(self, frame: Tensor, *, near: Tensor | None = None, tiled: bool = True) -> Tensor | None:
            self.detections += 1
            return analyser.locate(frame, near=near, tiled=tiled)

        landmarks = staticmethod(analyser.landmarks)

    counting = Counting()
    tracker = FaceTracker(counting)  # type: ignore[arg-type]
    still = torch.from_numpy(video(1)).expand(VERIFY_EVERY + 30, -1, -1, -1)
    tracker.feed(still)
    assert tracker.finish().present.all()
    assert counting.detections == 2


def test_a_change_of_frame_size_is_refused(analyser: FaceAnalyser) -> None:
    tracker = FaceTracker(analyser)
    tracker.feed(torch.zeros(1, 90, 160, 3, dtype=torch.uint8))
    with pytest.raises(ValueError, match="frame size changed"):
        tracker.feed(torch.zeros(1, 90, 161, 3, dtype=torch.uint8))
    with pytest.raises(ValueError, match=r"\[B, H, W, 3\]"):
        tracker.feed(torch.zeros(90, 160, 3, dtype=torch.uint8))
