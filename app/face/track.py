"""The result of face analysis: one face's points over the frames of a video or for one picture."""

from __future__ import annotations

import os
import tempfile
import zipfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

MODEL_VERSION = "attention-mesh-2"  # changes with the weights or with anything that a track says; voids cached ones
POINTS = 478


class TrackFormatError(ValueError):
    """A file holds no readable track of this model version."""


@dataclass(frozen=True)
class FaceTrack:
    """Points of one face in every frame.

    Attributes:
        landmarks: ``[T, 478, 3]`` float32, in pixels of the frame counted from the centre of the top left one; the
            third value is depth in the same unit, smaller is nearer. Frames without the face hold the nearest known
            points, zeros if there are none at all.
        present: ``[T]`` bool, whether the face was seen in the frame.
        covered: ``[T]`` bool, whether something hides the mouth of a face that was seen, see ``occlusion``.
        width: of the frames, in pixels.
        height: of the frames, in pixels.
    """

    landmarks: npt.NDArray[np.float32]
    present: npt.NDArray[np.bool_]
    covered: npt.NDArray[np.bool_]
    width: int
    height: int

    def __post_init__(self) -> None:
        frames = len(self.present)
        if self.landmarks.shape != (frames, POINTS, 3) or {self.present.shape, self.covered.shape} != {(frames,)}:
            raise ValueError(f"landmarks {self.landmarks.shape} do not fit present {self.present.shape}")

    def __len__(self) -> int:
        return len(self.present)

    @property
    def present_share(self) -> float:
        """The share of frames that show the face, 0..1; 0 for an empty track."""
        return float(self.present.mean()) if len(self.present) else 0.0

    def save(self, path: Path) -> None:
        """Write the track to ``path`` as npz; readers see the old file or the whole new one.

        Raises:
            OSError: the folder is missing, full or not writable.
        """
        handle, scratch = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".part")
        try:
            with os.fdopen(handle, "wb") as file:
                np.savez(
                    file,
                    version=np.array(MODEL_VERSION),
                    landmarks=self.landmarks.astype(np.float32, copy=False),
                    present=self.present,
                    covered=self.covered,
                    size=np.array([self.width, self.height]),
                )
            Path(scratch).replace(path)
        except BaseException:
            Path(scratch).unlink(missing_ok=True)
            raise

    @classmethod
    def load(cls, path: Path) -> FaceTrack:
        """Read a track written by ``save``.

        Raises:
            FileNotFoundError: no such file.
            TrackFormatError: the file is damaged or was made by another model version.
        """
        try:
            with np.load(path, allow_pickle=False) as stored:
                version = str(stored["version"])
                if version != MODEL_VERSION:
                    raise TrackFormatError(f"{path} was made by {version}, not {MODEL_VERSION}")
                width, height = (int(n) for n in stored["size"])
                landmarks = stored["landmarks"].astype(np.float32, copy=False)
                present, covered = (stored[name].astype(np.bool_, copy=False) for name in ("present", "covered"))
                return cls(landmarks, present, covered, width, height)
        except (KeyError, ValueError, EOFError, zipfile.BadZipFile) as error:
            raise error if isinstance(error, TrackFormatError) else TrackFormatError(f"{path}: {error}") from error
