"""Following one face through a video, batch after batch."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from app.face import occlusion, roi
from app.face.analyser import PRESENCE_THRESHOLD, FaceAnalyser
from app.face.smoothing import fill_absent, smooth
from app.face.track import POINTS, FaceTrack

CHUNK = 16  # frames looked at together; more gains no speed and lets the region age
PROBE_EVERY = 5  # frames between searches while there is no face; the frames between are looked at once one is found
TILED_EVERY = 5  # of so many searches without a face, one also looks at tiles, which at 4K takes ten times as long
VERIFY_EVERY = 250  # frames after which the detector confirms that what is followed is a face

# A region is kept while the face stays within these bounds of it, since every new cut shifts the points a little;
# shares of its side, and radians.
KEPT_SHIFT, KEPT_GROWTH, KEPT_TURN = 0.04, 0.05, 0.06
# Beyond these the points of a frame are located again in a region of their own.
REFINED_SHIFT, REFINED_GROWTH, REFINED_TURN = 0.07, 0.08, 0.10
REFINEMENTS = 3  # a face half out of its region is pulled in by about half of its distance each time
MOTION_FRAMES = 5  # the last frames that tell how fast the face moves


class FaceTracker:
    """Follows one face: the largest of the first frame that has any; when lost, the one nearest to where it was.

    Not safe to share between threads. Keeps 6 kB a frame.
    """

    def __init__(self, analyser: FaceAnalyser) -> None:
        self._analyser = analyser
        self._region: Tensor | None = None  # [1, 4], where the face was last seen; None while there is no face
        self._centre: Tensor | None = None  # [2], the last known place
        self._motion = torch.zeros(1, 4)  # of the region, a frame
        self._searches = 0  # without success, since the face was lost
        self._unverified = 0  # frames since the detector last saw the face
        self._landmarks: list[npt.NDArray[np.float32]] = []
        self._present: list[npt.NDArray[np.bool_]] = []
        self._tones: list[npt.NDArray[np.uint8]] = []
        self._size: tuple[int, int] | None = None

    def feed(self, frames: Tensor) -> None:
        """Take the next frames of the video. Where it raises, the tracker is as it was before.

        Args:
            frames: ``[B, H, W, 3]`` uint8, RGB; every call with the same height and width.

        Raises:
            ValueError: another shape, or another frame size than before.
        """
        if frames.ndim != 4 or frames.shape[3] != 3:
            raise ValueError(f"frames must be [B, H, W, 3], not {tuple(frames.shape)}")
        size = (int(frames.shape[2]), int(frames.shape[1]))
        if self._size not in (None, size):
            raise ValueError(f"the frame size changed from {self._size} to {size}")
        self._size = size
        landmarks = np.zeros((len(frames), POINTS, 3), dtype=np.float32)
        present = np.zeros(len(frames), dtype=np.bool_)
        before = self._region, self._centre, self._motion, self._searches, self._unverified
        try:
            done = 0
            while done < len(frames):
                step = self._search if self._region is None else self._follow
                done += step(frames[done:], landmarks[done:], present[done:])
        except BaseException:
            self._region, self._centre, self._motion, self._searches, self._unverified = before
            raise
        self._landmarks.append(landmarks)
        self._present.append(present)
        self._tones.append(occlusion.tones(frames, landmarks))

    def finish(self, *, smoothed: bool = True) -> FaceTrack:
        """The track of all frames fed; an empty track if there were none.

        Args:
            smoothed: without jitter, as is right for moving a face; False gives each frame's own points, as is right
                for judging whether lips shut for one frame.
        """
        width, height = self._size or (0, 0)
        if not self._present:
            none = np.zeros(0, np.bool_)
            return FaceTrack(np.zeros((0, POINTS, 3), np.float32), none, none, width, height)
        landmarks, present = np.concatenate(self._landmarks), np.concatenate(self._present)
        covered = occlusion.covered(np.concatenate(self._tones), present)
        steady = smooth(landmarks, present) if smoothed else landmarks
        return FaceTrack(fill_absent(steady, present), present, covered, width, height)

    def _follow(self, frames: Tensor, landmarks: npt.NDArray[np.float32], present: npt.NDArray[np.bool_]) -> int:
        """Locate the face in the next frames up to the first that lost it; returns how many that were."""
        assert self._region is not None
        if self._unverified >= VERIFY_EVERY and not self._verified(frames[:1]):
            self._region = None
            return 0
        frames = frames[:CHUNK]
        points, presence = self._locate(frames, self._regions_ahead(len(frames)))
        lost = (presence < PRESENCE_THRESHOLD).nonzero().flatten()
        seen = int(lost[0]) if len(lost) else len(frames)
        if seen == 0:
            self._region = None
            return 0
        landmarks[:seen] = points[:seen].numpy()
        present[:seen] = True
        self._unverified += seen
        self._settle(points[:seen])
        return seen

    def _locate(self, frames: Tensor, regions: Tensor) -> tuple[Tensor, Tensor]:
        """The points and presence of the face, located again where it turns out to lie elsewhere in its region."""
        points, presence = self._analyser.landmarks(frames, regions)
        for _ in range(REFINEMENTS):
            own = roi.from_landmarks(points)
            moved = ~_within(regions, own, REFINED_SHIFT, REFINED_GROWTH, REFINED_TURN)
            again = (moved & (presence >= PRESENCE_THRESHOLD)).nonzero().flatten()
            if not len(again):
                break
            regions = regions.index_copy(0, again, own[again])
            points[again], presence[again] = self._analyser.landmarks(frames[again], own[again])
        return points, presence

    def _regions_ahead(self, count: int) -> Tensor:
        """Where the face is expected in the next frames ``[count, 4]``: moving on as it did last."""
        assert self._region is not None
        return self._region + torch.arange(1, count + 1).unsqueeze(1) * self._motion

    def _search(self, frames: Tensor, landmarks: npt.NDArray[np.float32], present: npt.NDArray[np.bool_]) -> int:
        """Look for the face until it is found or the frames end; returns how many frames are settled."""
        begin = 0
        while begin < len(frames):
            probe = 0 if begin == 0 else min(begin + PROBE_EVERY - 1, len(frames) - 1)
            points = self._find(frames[probe : probe + 1])
            if points is None:
                begin = probe + 1
                continue
            landmarks[probe], present[probe] = points[0].numpy(), True
            self._settle(points)
            if probe > begin:
                regions = roi.from_landmarks(points).expand(probe - begin, 4)
                between, presence = self._analyser.landmarks(frames[begin:probe], regions)
                seen = (presence >= PRESENCE_THRESHOLD).numpy()
                landmarks[begin:probe][seen], present[begin:probe] = between.numpy()[seen], seen
            return probe + 1
        return len(frames)

    def _find(self, frame: Tensor) -> Tensor | None:
        """The points ``[1, 478, 3]`` of the face to follow in one frame ``[1, H, W, 3]``, if it shows one."""
        tiled = self._searches % TILED_EVERY == 0
        self._searches += 1
        points = self._analyser.locate(frame, near=self._centre, tiled=tiled)
        if points is not None:
            self._searches = self._unverified = 0
        return points

    def _settle(self, points: Tensor) -> None:
        """Take over the place and motion of the face from its latest frames ``[n, 478, 3]``, unless it hardly moved."""
        path = roi.from_landmarks(points[-MOTION_FRAMES:])
        region = path[-1:]
        self._centre = region[0, :2]
        motion = region - path[:1]
        motion[:, 3] = _wrapped(motion[:, 3])
        motion /= max(len(path) - 1, 1)
        if self._region is not None and _kept(region, region + CHUNK * motion) and _kept(self._region, region):
            self._motion = torch.zeros(1, 4)
        else:
            self._region, self._motion = region, motion

    def _verified(self, frame: Tensor) -> bool:
        """Whether the detector sees the followed face, or no face at all (it misses profiles the mesh still holds)."""
        assert self._centre is not None
        self._unverified = 0
        faces = self._analyser.detect(frame, tiled=False)[0]
        around = (faces[:, 0:2] <= self._centre) & (self._centre <= faces[:, 2:4])
        return len(faces) == 0 or bool(around.all(dim=1).any())


def _kept(old: Tensor, new: Tensor) -> bool:
    return bool(_within(old, new, KEPT_SHIFT, KEPT_GROWTH, KEPT_TURN).all())


def _within(old: Tensor, new: Tensor, shift: float, growth: float, turn: float) -> Tensor:
    """Whether regions ``new`` ``[B, 4]`` lie within these bounds of ``old``: ``[B]`` bool."""
    moved = torch.linalg.vector_norm(new[:, :2] - old[:, :2], dim=1) / old[:, 2]
    grown = (new[:, 2] / old[:, 2]).log().abs()
    turned = _wrapped(new[:, 3] - old[:, 3]).abs()
    within: Tensor = (moved <= shift) & (grown <= growth) & (turned <= turn)
    return within


def _wrapped(angle: Tensor) -> Tensor:
    """Bring differences of angles to -pi..pi."""
    return torch.remainder(angle + torch.pi, 2 * torch.pi) - torch.pi
