"""Finding the face in the footage, or remembering where it was."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from app.face import roi
from app.face.analyser import FaceAnalyser
from app.face.cache import TrackCache, file_sha256, track_key
from app.face.track import FaceTrack
from app.face.tracker import FaceTracker
from app.render.batching import Batch
from app.render.film import points
from app.render.film.footage import Footage
from app.retry.taxonomy import CodedError, FailureCode

_BATCH = 16


@dataclass(frozen=True)
class Track:
    """The selected points `pixels` [T, COUNT, 3], `present` [T] bool, `covered` [T] bool (something hides the mouth),
    and whether all that came from the cache."""

    pixels: Tensor
    present: Tensor
    covered: Tensor
    cached: bool


class FaceFinder:
    """Analyses footage, with a cache for templates if there is one."""

    def __init__(self, analyser: FaceAnalyser, cache: TrackCache | None) -> None:
        self._analyser = analyser
        self._cache = cache

    def find(
        self,
        footage: Footage,
        source: Path,
        sha256: str,
        needed: int,
        seen: Callable[[int, int], None],
        *,
        batch_scale: float = 1.0,
    ) -> Track:
        """The face in the first frames of `footage`, as many of the `needed` as one forward pass has.

        `seen(done, total)` is called after every batch. `batch_scale`: as in `RenderJob`. Raises CodedError
        INPUT_NO_FACE.
        """
        if footage.still:
            return _checked(self._analyser.portrait(footage.frame(0)), cached=False)
        total = min(footage.frame_count, needed)
        key = ""
        if self._cache is not None:
            key = track_key(sha256 or file_sha256(source), float(footage.rate))
            known = self._cache.get(key)
            if known is not None and len(known) >= total:
                return _checked(known, cached=True)
        tracker = FaceTracker(self._analyser)
        batch = Batch(_BATCH, batch_scale)
        done = 0
        for frames, _ in footage.batches(batch.size, total):
            batch.over(len(frames), partial(_feed, tracker, frames))
            done += len(frames)
            seen(done, total)
        track = tracker.finish()
        if self._cache is not None:
            self._cache.put(key, track)
        return _checked(track, cached=False)


def face_at(track: Track) -> list[float]:
    """The middle [x, y] of the face in the first frame that shows it, in pixels."""
    first = int(track.present.nonzero()[0, 0])
    middle = track.pixels[first, :, :2].mean(0)
    return [round(float(value), 1) for value in middle]


def face_region(track: Track) -> list[float]:
    """Where to look for that face, as in `app.face.roi`: x, y and side in pixels, the angle in radians."""
    first = int(track.present.nonzero()[0, 0])
    region = roi.from_landmarks(track.pixels[first : first + 1], points.OUTER_EYES)
    return [round(float(value), 3) for value in region[0]]


def _feed(tracker: FaceTracker, frames: Tensor, part: slice) -> None:
    tracker.feed(frames[part])


def _checked(track: FaceTrack, *, cached: bool) -> Track:
    present = torch.from_numpy(track.present.copy())
    if not bool(present.any()):
        raise CodedError(FailureCode.INPUT_NO_FACE, frames_searched=len(track), share_searched=1.0)
    return Track(
        points.select(torch.from_numpy(track.landmarks)), present, torch.from_numpy(track.covered.copy()), cached
    )
