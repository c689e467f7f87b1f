from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from app.face import track as module
from app.face.track import FaceTrack, TrackFormatError


def sample(frames: int = 4) -> FaceTrack:
    points = np.random.default_rng(frames).normal(size=(frames, 478, 3)).astype(np.float32)
    return FaceTrack(points, np.arange(frames) % 2 == 0, np.arange(frames) % 4 == 0, 640, 360)


def test_a_saved_track_loads_as_it_was(tmp_path: Path) -> None:
    before = sample()
    before.save(tmp_path / "a.npz")
    after = FaceTrack.load(tmp_path / "a.npz")
    assert (after.landmarks == before.landmarks).all()
    assert (after.present == before.present).all()
    assert (after.width, after.height, len(after), after.present_share) == (640, 360, 4, 0.5)
    assert [path.name for path in tmp_path.iterdir()] == ["a.npz"]


def test_a_track_of_another_model_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MODEL_VERSION", "older")
    sample().save(tmp_path / "a.npz")
    monkeypatch.undo()
    with pytest.raises(TrackFormatError, match="older"):
        FaceTrack.load(tmp_path / "a.npz")


@pytest.mark.parametrize("keep", [0, 1, 100, 5000, -1])
def test_a_cut_off_file_is_refused(tmp_path: Path, keep: int) -> None:
    path = tmp_path / "a.npz"
    sample().save(path)
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(TrackFormatError):
        FaceTrack.load(path)


def test_a_flipped_bit_is_noticed(tmp_path: Path) -> None:
    path = tmp_path / "a.npz"
    sample().save(path)
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    with pytest.raises(TrackFormatError):
        FaceTrack.load(path)


def test_a_pickle_is_not_opened(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", version=np.array([{}], dtype=object))
    with pytest.raises(TrackFormatError):
        FaceTrack.load(tmp_path / "a.npz")


def test_a_failed_save_leaves_the_old_file_and_no_scratch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.npz"
    sample(2).save(path)

    def full_disk(*args: object, **kwargs: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(module.np, "savez", full_disk)
    with pytest.raises(OSError, match="No space"):
        sample(4).save(path)
    assert [p.name for p in tmp_path.iterdir()] == ["a.npz"]
    assert len(FaceTrack.load(path)) == 2


def test_shapes_must_fit() -> None:
    with pytest.raises(ValueError, match="do not fit"):
        FaceTrack(np.zeros((2, 478, 3), np.float32), np.zeros(3, np.bool_), np.zeros(3, np.bool_), 1, 1)
