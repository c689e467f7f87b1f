"""The parts of the warp, one by one."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from app.media.image import load_image
from app.render.film import points
from app.render.film.pose import fit_poses
from app.render.warp.animation import Animator
from app.render.warp.aperture import aperture, lower_side
from app.render.warp.dentition import enamel
from app.render.warp.field import SplitField, cubic_rows
from app.render.warp.subject import Subject, best_teeth_frame, teeth_plate
from app.render.warp.voice import Voice
from tests.render.test_warp_picture import OPEN, SHUT, look, speak

FACES = Path(__file__).parents[2] / "evaluation" / "faces"


@pytest.fixture(scope="module")
def subject(picture: Tensor) -> Subject:
    return look(picture)


@settings(max_examples=30, deadline=None)
@given(knots=st.integers(4, 30), slope=st.floats(-3, 3), start=st.floats(-3, 3))
def test_cubic_interpolation_keeps_straight_lines_straight(knots: int, slope: float, start: float) -> None:
    places = torch.linspace(0, knots - 1, 57)
    values = start + slope * torch.arange(knots, dtype=torch.float32)
    assert torch.allclose(cubic_rows(places, knots) @ values, start + slope * places, atol=1e-4)


def test_the_field_takes_each_lip_where_it_is_wanted(subject: Subject) -> None:
    source = subject.rest.shape[None, :, :2]
    goal = source.clone()
    goal[:, [*points.INNER_LOWER[1:-1], *points.OUTER_LOWER[1:-1]], 1] += 0.2
    at = goal[:, [points.INNER_LOWER[5], points.INNER_UPPER[5]]]
    upper, lower = SplitField(torch.device("cpu")).displacements(goal, source, at)[0]
    assert torch.allclose(lower[0], torch.tensor([0.0, -0.2]), atol=0.01)
    assert torch.allclose(upper[1], torch.zeros(2), atol=0.01)


def test_an_aperture_knows_above_from_below() -> None:
    x = torch.linspace(-1, 1, 11)
    upper = torch.stack([x, torch.zeros(11)], 1)
    lower = torch.stack([x, 0.5 * (1 - x**2)], 1)
    mouth = aperture(upper[None], lower[None])
    places = torch.tensor([[[0.0, -0.1], [0.0, 0.2], [0.0, 0.6], [1.2, -0.5], [1.2, 0.5]]])[None]
    across, down = mouth.local(places)
    curves = mouth.curves(across)
    assert torch.allclose(curves[0, :, 0, 1], torch.tensor([0.0, 0.5]), atol=0.01)
    assert lower_side(mouth, across, down, curves)[0, 0].tolist() == [0, 0, 1, 0, 1]
    assert float(mouth.height()[0]) == pytest.approx(0.5, abs=0.01)


@settings(max_examples=20, deadline=None)
@given(turn=st.floats(-0.5, 0.5), nod=st.floats(-0.3, 0.3), roll=st.floats(-1, 1), scale=st.floats(0.5, 3))
def test_a_moved_head_is_found_again(turn: float, nod: float, roll: float, scale: float) -> None:
    generator = torch.Generator().manual_seed(1)
    head = torch.randn(points.COUNT, 3, generator=generator)
    head[list(points.OUTER_EYES)] = torch.tensor([[-0.5, -0.6, 0.1], [0.5, -0.6, 0.1]])
    head[list(points.CORNERS)] = torch.tensor([[-0.3, 0.2, 0.0], [0.3, 0.2, 0.0]])
    motion = _turned(turn, nod, roll) * scale
    pixels = torch.stack([head * 100, head @ motion.T * 100 + torch.tensor([30.0, -20.0, 5.0])])
    poses = fit_poses(pixels, torch.ones(2, dtype=torch.bool))
    shapes = poses.to_head(pixels)
    assert torch.allclose(shapes[0], shapes[1], atol=1e-3)
    assert torch.allclose(poses.to_pixels(shapes), pixels, atol=0.05)


def _turned(turn: float, nod: float, roll: float) -> Tensor:
    generators = torch.zeros(3, 3, 3)
    for axis, (i, j) in enumerate(((1, 2), (2, 0), (0, 1))):
        generators[axis, i, j], generators[axis, j, i] = -1.0, 1.0
    return torch.linalg.matrix_exp((torch.tensor([nod, turn, roll])[:, None, None] * generators).sum(0))


def test_the_rest_shape_has_shut_lips_and_no_wide_smile(subject: Subject) -> None:
    rest = subject.rest.shape
    assert torch.equal(rest[list(points.INNER_UPPER)], rest[list(points.INNER_LOWER)])
    seen = subject.rest.seen[list(points.CORNERS), 0]
    assert subject.rest.half_width < float(seen[1] - seen[0]) / 2


def test_a_closure_beats_an_open_jaw(subject: Subject) -> None:
    face = Animator(subject.rest, 1.0).pose(torch.stack([OPEN, SHUT]))
    gaps = face.shape[:, points.INNER_LOWER[5], 1] - face.shape[:, points.INNER_UPPER[5], 1]
    assert float(gaps[0]) > 0.18
    assert float(gaps[1]) == pytest.approx(0.0, abs=1e-5)


def test_teeth_are_the_persons_own_where_they_show_and_drawn_where_not(picture: Tensor, subject: Subject) -> None:
    assert teeth_plate(subject, picture, 0).own
    shut = speak(picture, subject, SHUT[None])[0]
    assert not teeth_plate(look(shut), shut, 0).own


def test_drawn_teeth_are_as_dim_as_the_picture() -> None:
    photo = torch.from_numpy(load_image(FACES / "london_045.jpg"))
    bright = teeth_plate(look(photo), photo, 0)
    dark = (photo.float() * 0.35).to(torch.uint8)
    dim = teeth_plate(look(dark), dark, 0)
    assert not bright.own
    assert not dim.own
    assert 0.2 < float(dim.rgba[:3].mean() / bright.rgba[:3].mean()) < 0.5


def test_dark_skin_in_good_light_has_bright_teeth() -> None:
    photo = torch.from_numpy(load_image(FACES / "london_061.jpg"))
    seen = look(photo)
    plate = teeth_plate(seen, photo, 0)
    assert plate.dim == 1.0
    assert plate.rgba[:3, plate.rgba[3] > 0.9].mean() > 1.3 * plate.light.mean()


@pytest.mark.parametrize("skin", [[240, 235, 215], [215, 195, 185], [200, 150, 125], [95, 65, 50]])
def test_drawn_teeth_are_ivory_beside_any_skin(skin: list[int]) -> None:
    red, green, blue = enamel(torch.tensor(skin).float()).tolist()
    assert 0.85 < green / red < 0.97
    assert blue < green


def test_a_black_and_white_photo_stays_black_and_white(picture: Tensor) -> None:
    grey = picture.float().mean(2, keepdim=True).round().to(torch.uint8).expand(-1, -1, 3).contiguous()
    frame = speak(grey, look(grey), OPEN[None])[0].int()
    assert (frame.amax(2) - frame.amin(2)).max() <= 2


def test_teeth_are_looked_for_where_the_mouth_is_open(subject: Subject) -> None:
    shapes = Animator(subject.rest, 1.0).pose(torch.stack([SHUT, SHUT, OPEN, SHUT])).shape
    poses = subject.poses.at(torch.zeros(4, dtype=torch.long))
    played = Subject(poses.to_pixels(shapes), poses, subject.rest)
    assert best_teeth_frame(played, torch.ones(4, dtype=torch.bool)) == 2


@settings(max_examples=30, deadline=None)
@given(rows=st.integers(0, 300), first=st.integers(0, 60), fps=st.sampled_from([10, 25, 30, 60]))
def test_articulation_does_not_depend_on_how_frames_are_batched(rows: int, first: int, fps: int) -> None:
    curve = np.random.default_rng(rows).random((rows, 6), np.float32)
    voice, rate = Voice(curve, rows * 160, *np.zeros((2, rows), np.float32)), Fraction(fps)
    whole = voice.articulation(0, first + 8, rate)
    assert np.allclose(voice.articulation(first, 8, rate), whole[first:], atol=1e-5)
