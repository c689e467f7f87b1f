"""The mesh without its eyes, as lips are read, beside the whole mesh."""

from __future__ import annotations

import torch

from app.face import roi, topology
from app.face.analyser import FaceAnalyser
from tests.face.portraits import placement, scene

EYE = 33, 133, 159, 145  # corners and middles of the lids


def test_without_eyes_the_lips_are_where_they_were(analyser: FaceAnalyser) -> None:
    frames = torch.from_numpy(scene(640, 360, placement(300, 170, 140, 10)))[None].expand(5, -1, -1, -1)
    whole = analyser.portrait(frames[0])
    regions = roi.from_landmarks(torch.from_numpy(whole.landmarks)).expand(5, 4)
    points, presence = analyser.landmarks(frames, regions)
    quick, quick_presence = analyser.landmarks(list(frames), regions, eyes=False)
    lips = [*topology.INNER_LIP_UPPER, *topology.OUTER_LIP_LOWER]
    torch.testing.assert_close(quick[:, lips], points[:, lips])
    torch.testing.assert_close(quick_presence, presence)
    assert (quick[:, EYE, :2] - points[:, EYE, :2]).norm(dim=2).max() < 0.03 * 140
    iris = quick[:, list(topology.RIGHT_IRIS), :2]
    assert (iris - points[:, list(topology.RIGHT_IRIS), :2]).norm(dim=2).max() < 0.06 * 140


def test_how_many_crops_are_looked_at_together_makes_no_difference(analyser: FaceAnalyser) -> None:
    frames = torch.from_numpy(scene(640, 360, placement(300, 170, 140)))[None].expand(7, -1, -1, -1)
    regions = roi.from_landmarks(torch.from_numpy(analyser.portrait(frames[0]).landmarks))
    together, _ = analyser.landmarks(frames, regions.expand(7, 4))
    alone, _ = analyser.landmarks(frames[:1], regions)
    torch.testing.assert_close(together, alone.expand_as(together), atol=1e-3, rtol=0)
