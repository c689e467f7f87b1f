"""What compositing changes and what it leaves alone, before any codec."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
import torch
from torch import Tensor

from app.face.analyser import FaceAnalyser
from app.render.film import points
from app.render.warp.animation import Animator
from app.render.warp.compositor import Compositor
from app.render.warp.mask import LowerFaceMask
from app.render.warp.subject import Subject, TeethPlane, read_subject, teeth_plate
from tests.render.scenes import lip_gaps

CPU = torch.device("cpu")
#                    jaw width protr. clos. f/v speech
REST = torch.tensor([0.0, 0.5, 0.0, 0.0, 0.0, 0.0])
OPEN = torch.tensor([0.9, 0.5, 0.0, 0.0, 0.0, 1.0])
ROUND = torch.tensor([0.4, 0.3, 1.0, 0.0, 0.0, 1.0])
SPREAD = torch.tensor([0.3, 1.0, 0.0, 0.0, 0.0, 1.0])
SHUT = torch.tensor([0.9, 0.5, 0.0, 1.0, 0.0, 1.0])


def look(picture: Tensor) -> Subject:
    track = FaceAnalyser(CPU).portrait(picture)
    return read_subject(points.select(torch.from_numpy(track.landmarks)), torch.tensor([True]))


def speak(picture: Tensor, subject: Subject, articulation: Tensor) -> Tensor:
    """[B, H, W, 3] for articulation [B, 6]."""
    count = len(articulation)
    frames = picture.repeat(count, 1, 1, 1)
    compositor = Compositor(subject, teeth_plate(subject, picture, 0), CPU, picture)
    face = Animator(subject.rest, 1.0).pose(articulation)
    compositor.render_into(frames, torch.arange(count), torch.zeros(count, dtype=torch.long), face)
    return frames


@pytest.fixture(scope="module")
def subject(picture: Tensor) -> Subject:
    return look(picture)


def test_nothing_changes_outside_the_lower_face(picture: Tensor, subject: Subject) -> None:
    frames = speak(picture, subject, torch.stack([OPEN, ROUND, SHUT]))
    height, width = picture.shape[:2]
    y, x = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    pose = subject.poses
    places = (torch.stack([x, y], 2)[None] - pose.origin[:, None, None, :2]) / pose.scale[:, None, None, None]
    plane = TeethPlane(pose, 0.0).to_plane(places)[0]
    weight = LowerFaceMask(subject.rest.shape).weight(plane[..., 0], plane[..., 1])
    # The mask is read at the knots of a lattice and interpolated: two of its steps beyond, nothing is left of it.
    reach = 2 * int(0.06 * float(pose.scale[0]) + 1) + 1
    outside = torch.nn.functional.max_pool2d(weight[None, None], 2 * reach + 1, 1, reach)[0, 0] == 0
    assert 0.5 < outside.float().mean() < 0.95
    assert torch.equal(frames[:, outside], picture[outside].expand(3, -1, -1))
    eyes = subject.pixels[0, list(points.EYE_CORNERS), :2].long()
    assert outside[eyes[:, 1], eyes[:, 0]].all(), "the eyes are outside"
    assert not torch.equal(frames[0][~outside], picture[~outside])


def test_each_sound_has_its_own_mouth(picture: Tensor, subject: Subject) -> None:
    analyser = FaceAnalyser(CPU)
    frames = speak(picture, subject, torch.stack([REST, OPEN, ROUND, SPREAD, SHUT]))
    meshes = [analyser.portrait(frame).landmarks[0] for frame in frames]
    eyes = [float(((mesh[33] - mesh[263]) ** 2).sum() ** 0.5) for mesh in meshes]
    widths = [float(((m[61] - m[291]) ** 2).sum() ** 0.5) / e for m, e in zip(meshes, eyes, strict=True)]
    rest, opened, rounded, spread, shut = range(5)
    gaps = lip_gaps(frames)
    assert gaps[opened] > 0.15 > gaps[spread] > gaps[rest]
    assert max(gaps[rest], gaps[shut]) < 0.04
    assert widths[rounded] < widths[rest] - 0.05
    assert widths[spread] > widths[rest] + 0.01
    chin = [float(m[152][1] - m[168][1]) / e for m, e in zip(meshes, eyes, strict=True)]
    assert chin[opened] > chin[rest] + 0.05, "the chin sinks"


def test_nothing_that_lay_between_the_lips_shows_when_they_shut(picture: Tensor, subject: Subject) -> None:
    assert subject.rest.gap > 0.08, "the sample smiles with parted lips"
    inner = [*points.INNER_UPPER, *reversed(points.INNER_LOWER)]
    opening = np.zeros(picture.shape[:2], np.uint8)
    cv2.fillPoly(opening, [subject.pixels[0, inner, :2].round().int().numpy()], 1)
    marked = picture.clone()
    marked[torch.from_numpy(cv2.erode(opening, np.ones((3, 3), np.uint8)) > 0)] = torch.tensor([0, 0, 255]).byte()
    frames = speak(marked, subject, torch.stack([REST, SHUT])).int()
    mouth = subject.pixels[0, list(points.LIPS), :2].long()
    (left, top), (right, bottom) = mouth.amin(0).tolist(), mouth.amax(0).tolist()
    around = frames[:, top - 5 : bottom + 5, left - 5 : right + 5]
    blue = around[..., 2] - around[..., 0]  # 255 where the mark shows fully, below 0 on skin and lips
    assert (blue > 0).sum() <= 4
    assert blue.max() < 90


def test_a_face_at_rest_is_left_as_it_is(picture: Tensor, subject: Subject) -> None:
    at_rest = speak(picture, subject, REST[None])[0]
    again = look(at_rest)
    assert again.rest.gap < 0.05
    once_more = speak(at_rest, again, REST[None])[0]
    change = (once_more.float() - at_rest.float()).abs()
    assert change.mean() < 0.3
    assert torch.quantile(change, 0.999) < 40


def test_lips_move_alike_however_frames_are_batched(picture: Tensor, subject: Subject) -> None:
    articulation = torch.stack([OPEN, ROUND, SPREAD, SHUT])
    together = speak(picture, subject, articulation)
    single = torch.cat([speak(picture, subject, one[None]) for one in articulation])
    assert (together.int() - single.int()).abs().max() <= 1


def test_frames_are_untouched_where_memory_runs_out_between_two_of_them(
    picture: Tensor, subject: Subject, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They are drawn again in a smaller batch: a face that was drawn already would be warped twice."""
    compose, calls = Compositor.compose, []

    def refuses_the_second(self, *arguments):
        calls.append(arguments)
        if len(calls) == 2:
            raise torch.OutOfMemoryError
        return compose(self, *arguments)

    monkeypatch.setattr("app.render.warp.compositor._CHUNK_PIXELS", 1)  # one frame after the other
    monkeypatch.setattr(Compositor, "compose", refuses_the_second)
    compositor = Compositor(subject, teeth_plate(subject, picture, 0), CPU, picture)
    face = Animator(subject.rest, 1.0).pose(torch.stack([OPEN, ROUND]))
    frames = picture.repeat(2, 1, 1, 1)
    with pytest.raises(torch.OutOfMemoryError):
        compositor.render_into(frames, torch.arange(2), torch.zeros(2, dtype=torch.long), face)
    assert torch.equal(frames, picture.expand(2, -1, -1, -1))
