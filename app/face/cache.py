"""Analyses of template videos kept on disk, so that a template is analysed once and not for every job."""

from __future__ import annotations

import hashlib
import os
import time
from dataclasses import dataclass
from pathlib import Path

import structlog

from app.face.track import MODEL_VERSION, FaceTrack, TrackFormatError

SUFFIX = ".track.npz"
ABANDONED_AFTER = 3600.0  # seconds; a half-written file this old has no living writer
READ_AT_ONCE = 1 << 20  # bytes

log = structlog.get_logger()


def track_key(content_sha256: str, fps: float) -> str:
    """The key of a file's track: its content, the frame rate its frames were brought to, and the model version.

    Args:
        content_sha256: hexadecimal, of the whole file; see ``file_sha256``.
        fps: frames a second after normalisation; a thousandth of a frame tells two rates apart.
    """
    text = f"{content_sha256}:{fps:.3f}:{MODEL_VERSION}"
    return hashlib.sha256(text.encode()).hexdigest()


def file_sha256(path: Path) -> str:
    """The hexadecimal SHA-256 of a file's content. Raises OSError where it cannot be read."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(READ_AT_ONCE):
            digest.update(block)
    return digest.hexdigest()


@dataclass(frozen=True)
class _Entry:
    path: Path
    size: int
    used: float


class TrackCache:
    """Tracks in a folder, the longest unused removed once they exceed ``max_bytes`` together.

    Several processes may share the folder without a lock: entries appear whole by rename, "last used" is the file's
    modification time, and a file that another process removed first is no error.
    """

    def __init__(self, folder: Path, max_bytes: int) -> None:
        self._folder = folder
        self._max_bytes = max_bytes
        folder.mkdir(parents=True, exist_ok=True)

    def get(self, key: str) -> FaceTrack | None:
        """The track stored under ``key``, now counted as just used; None if there is none or it is damaged.

        A damaged entry is removed and logged.
        """
        path = self._path(key)
        try:
            track = FaceTrack.load(path)
            os.utime(path)
        except FileNotFoundError:
            return None
        except (TrackFormatError, OSError) as error:
            log.warning("face.cache.dropped", path=str(path), reason=str(error))
            _remove(path)
            return None
        return track

    def put(self, key: str, track: FaceTrack) -> None:
        """Store ``track``, then make room. A full or read-only disk is logged, not raised: it only costs time."""
        path = self._path(key)
        try:
            track.save(path)
        except OSError as error:
            log.warning("face.cache.not_stored", path=str(path), reason=str(error))
            return
        self._make_room()

    def _path(self, key: str) -> Path:
        if not key.isalnum():
            raise ValueError(f"not a cache key: {key!r}")
        return self._folder / f"{key}{SUFFIX}"

    def _make_room(self) -> None:
        entries = sorted(self._entries(), key=lambda entry: entry.used)
        total = sum(entry.size for entry in entries)
        for entry in entries:
            if total <= self._max_bytes:
                return
            _remove(entry.path)
            total -= entry.size

    def _entries(self) -> list[_Entry]:
        """The finished entries; half-written files without a living writer are removed on the way."""
        entries = []
        for path in self._folder.iterdir():
            try:
                facts = path.stat()
            except FileNotFoundError:
                continue
            if path.name.endswith(SUFFIX):
                entries.append(_Entry(path, facts.st_size, facts.st_mtime))
            elif path.suffix == ".part" and time.time() - facts.st_mtime > ABANDONED_AFTER:
                _remove(path)
        return entries


def _remove(path: Path) -> None:
    try:
        path.unlink(missing_ok=True)
    except OSError as error:
        log.warning("face.cache.not_removed", path=str(path), reason=str(error))
