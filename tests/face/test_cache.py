from __future__ import annotations

import hashlib
import multiprocessing
import os
from pathlib import Path

import numpy as np
import pytest
from structlog.testing import capture_logs

from app.face import cache as module
from app.face.cache import ABANDONED_AFTER, TrackCache, file_sha256, track_key
from app.face.track import FaceTrack

ROOM = 10_000_000


def sample(width: int = 640, frames: int = 3) -> FaceTrack:
    return FaceTrack(
        np.full((frames, 478, 3), width, np.float32), np.ones(frames, np.bool_), np.zeros(frames, np.bool_), width, 360
    )


def age(folder: Path, key: str, seconds: float) -> None:
    """Make an entry look last used so long ago."""
    path = next(folder.glob(f"{key}*"))
    then = path.stat().st_mtime - seconds
    os.utime(path, (then, then))


def test_what_was_put_is_got(tmp_path: Path) -> None:
    cache = TrackCache(tmp_path / "tracks", ROOM)
    assert cache.get("a") is None
    cache.put("a", sample(320))
    found = TrackCache(tmp_path / "tracks", ROOM).get("a")
    assert found is not None
    assert found.width == 320


def test_the_key_tells_content_rate_and_model_apart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "film").write_bytes(b"film")
    content = file_sha256(tmp_path / "film")
    assert content == hashlib.sha256(b"film").hexdigest()
    keys = {track_key(content, 25), track_key(content, 29.97), track_key("0" * 64, 25)}
    monkeypatch.setattr(module, "MODEL_VERSION", "next")
    keys.add(track_key(content, 25))
    assert len(keys) == 4


def test_the_longest_unused_goes_first(tmp_path: Path) -> None:
    one = len_on_disk(tmp_path / "probe")
    cache = TrackCache(tmp_path / "tracks", int(one * 2.5))
    cache.put("a", sample())
    cache.put("b", sample())
    age(tmp_path / "tracks", "a", 200)
    age(tmp_path / "tracks", "b", 100)
    assert cache.get("a") is not None  # now b is the older
    cache.put("c", sample())
    assert [cache.get(key) is not None for key in "abc"] == [True, False, True]


def len_on_disk(folder: Path) -> int:
    TrackCache(folder, ROOM).put("a", sample())
    return next(folder.iterdir()).stat().st_size


def test_the_folder_stays_within_its_bound(tmp_path: Path) -> None:
    one = len_on_disk(tmp_path / "probe")
    cache = TrackCache(tmp_path / "tracks", one * 3)
    for number in range(9):
        cache.put(f"k{number}", sample())
        assert sum(path.stat().st_size for path in (tmp_path / "tracks").iterdir()) <= one * 3


def test_a_track_larger_than_the_cache_is_not_kept(tmp_path: Path) -> None:
    cache = TrackCache(tmp_path, 100)
    cache.put("a", sample())
    assert list(tmp_path.iterdir()) == []


def test_a_damaged_entry_is_dropped_and_logged(tmp_path: Path) -> None:
    cache = TrackCache(tmp_path, ROOM)
    cache.put("a", sample())
    path = next(tmp_path.iterdir())
    path.write_bytes(path.read_bytes()[:700])
    with capture_logs() as logs:
        assert cache.get("a") is None
    assert [(entry["event"], entry["log_level"]) for entry in logs] == [("face.cache.dropped", "warning")]
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_costs_only_the_entry(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full_disk(self: FaceTrack, path: Path) -> None:
        raise OSError(28, "No space left on device", str(path))

    monkeypatch.setattr(FaceTrack, "save", full_disk)
    with capture_logs() as logs:
        TrackCache(tmp_path, ROOM).put("a", sample())
    assert logs[0]["event"] == "face.cache.not_stored"


def test_abandoned_halves_are_swept_and_fresh_ones_kept(tmp_path: Path) -> None:
    cache = TrackCache(tmp_path, ROOM)
    for name in ("old.part", "new.part"):
        (tmp_path / name).write_bytes(b"half")
    age(tmp_path, "old", ABANDONED_AFTER + 1)
    cache.put("a", sample())
    assert {path.name for path in tmp_path.iterdir()} == {"a.track.npz", "new.part"}


@pytest.mark.parametrize("key", ["", "../a", "a/b", "a.b"])
def test_a_key_is_never_a_path(tmp_path: Path, key: str) -> None:
    with pytest.raises(ValueError, match="not a cache key"):
        TrackCache(tmp_path, ROOM).get(key)


def hammer(folder: Path, max_bytes: int, seed: int) -> None:
    cache = TrackCache(folder, max_bytes)
    random = np.random.default_rng(seed)
    for _ in range(60):
        width = int(random.integers(1, 6))
        if random.random() < 0.5:
            cache.put(f"k{width}", sample(width))
        else:
            found = cache.get(f"k{width}")
            assert found is None or found.width == width


def test_processes_share_a_folder(tmp_path: Path) -> None:
    one = len_on_disk(tmp_path / "probe")
    context = multiprocessing.get_context("spawn")
    workers = [context.Process(target=hammer, args=(tmp_path / "tracks", one * 3, seed)) for seed in range(2)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(60)
    assert [worker.exitcode for worker in workers] == [0, 0]
    assert not list((tmp_path / "tracks").glob("*.part"))
