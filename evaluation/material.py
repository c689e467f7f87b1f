"""The faces and voices of an evaluation, and how they are rendered."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from app.face.analyser import FaceAnalyser
from app.face.track import FaceTrack
from app.face.tracker import FaceTracker
from app.media.video_in import VideoSource
from app.render.contract import Phase, RenderJob, RenderResult
from app.render.warp.renderer import WarpRenderer

HERE = Path(__file__).parent
ROOT = HERE.parent
FACES = {
    "astronaut": ROOT / "samples" / "portrait.png",
    **{path.stem: path for path in sorted((HERE / "faces").glob("*.jpg"))},
}
VOICES = {
    "english": ROOT / "samples" / "speech.wav",
    **{path.stem: path for path in sorted((HERE / "speech").glob("*.wav"))},
}
CPU = torch.device("cpu")

_UPPER, _LOWER, _EYES = 13, 14, (33, 263)


class Quiet:
    """Progress that nobody listens to."""

    def report(self, phase: Phase, done: int, total: int) -> None:
        """Take the report."""

    def check(self) -> None:
        """Never cancelled."""


@dataclass
class Studio:
    """Renders with one loaded renderer into a folder of its own."""

    renderer: WarpRenderer
    analyser: FaceAnalyser
    folder: Path

    @classmethod
    def open(cls, folder: Path) -> Studio:
        """With models loaded."""
        renderer = WarpRenderer({"cache_dir": str(folder / "cache")})
        renderer.load("cpu")
        return cls(renderer, FaceAnalyser(CPU), folder)

    def film(self, name: str, source: Path, audio: Path, **options: Any) -> RenderResult:
        """Render into the folder `name`."""
        out = self.folder / name
        out.mkdir()
        return self.renderer.render(RenderJob(source, audio, out, options), Quiet())

    def track(self, frames: Tensor) -> FaceTrack:
        """The face in frames [T, H, W, 3], each seen for itself: smoothing would part lips that shut for one frame."""
        tracker = FaceTracker(self.analyser)
        for first in range(0, len(frames), 16):
            tracker.feed(frames[first : first + 16])
        return tracker.finish(smoothed=False)


def read_frames(path: Path) -> Tensor:
    """All frames [T, H, W, 3] uint8."""
    with VideoSource(path) as video:
        return torch.from_numpy(np.concatenate(list(video.batches(32, video.frame_count))))


def lip_gaps(track: FaceTrack) -> npt.NDArray[np.float32]:
    """How far the lips are apart in each frame [T], in distances of the outer eye corners."""
    mesh = track.landmarks
    gap = np.linalg.norm(mesh[:, _LOWER] - mesh[:, _UPPER], axis=1)
    unit = np.linalg.norm(mesh[:, _EYES[0]] - mesh[:, _EYES[1]], axis=1)
    return (gap / unit).astype(np.float32)
