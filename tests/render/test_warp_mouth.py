"""The mouth in single sounds, on real faces: what a viewer would notice first."""

from __future__ import annotations

from pathlib import Path

import cv2
import pytest
import torch
from torch import Tensor
from torch.nn import functional

from app.media.image import load_image
from app.render.film import points
from app.render.warp.animation import Animator
from app.render.warp.dentition import drawn_plate
from app.render.warp.subject import teeth_plate
from app.render.warp.teeth import Plate
from app.render.warp.teeth_build import build_of
from tests.render.test_warp_picture import OPEN, REST, look, speak

FACES = Path(__file__).parents[2] / "evaluation" / "faces"
FULL_LIPS = ("london_045", "london_061", "london_126")
U = torch.tensor([0.2, 0.25, 0.95, 0.0, 0.0, 1.0])


def photo(name: str) -> Tensor:
    return torch.from_numpy(load_image(FACES / f"{name}.jpg"))


def area(upper: Tensor, lower: Tensor) -> float:
    """Between two contours [11, 2] that share their ends."""
    ring = torch.cat([upper, lower.flip(0)[1:-1]])
    after = ring.roll(-1, 0)
    return abs(float((ring[:, 0] * after[:, 1] - after[:, 0] * ring[:, 1]).sum())) / 2


def lips_area(shape: Tensor) -> float:
    """Of the red of the lips, without the opening between them."""
    outer, inner = (
        area(shape[list(upper), :2], shape[list(lower), :2])
        for upper, lower in ((points.OUTER_UPPER, points.OUTER_LOWER), (points.INNER_UPPER, points.INNER_LOWER))
    )
    return outer - inner


@pytest.mark.parametrize("name", [*FULL_LIPS, "london_120", "hopper"])
def test_rounded_lips_narrow_a_little_and_lose_nothing_of_their_red(name: str) -> None:
    rest, rounded = Animator(look(photo(name)).rest, 1.0).pose(torch.stack([REST, U])).shape
    first, last = points.CORNERS
    assert 0.78 < float((rounded[last] - rounded[first]).norm() / (rest[last] - rest[first]).norm()) < 0.88
    assert 0.97 < lips_area(rounded) / lips_area(rest) < 1.2


@pytest.mark.parametrize("name", FULL_LIPS)
def test_rounded_lips_touch_beside_a_small_opening(name: str) -> None:
    shape = Animator(look(photo(name)).rest, 1.0).pose(U[None]).shape[0]
    gaps = shape[list(points.INNER_LOWER), 1] - shape[list(points.INNER_UPPER), 1]
    assert gaps[5] > 0.03
    assert (gaps[[0, 1, 9, 10]] < 0.005).all()


@pytest.mark.parametrize("name", FULL_LIPS)
def test_rounding_leaves_the_skin_below_the_nose_where_it_is(name: str) -> None:
    rest, rounded = Animator(look(photo(name)).rest, 1.0).pose(torch.stack([REST, U])).shape
    philtrum = points.MESH.index(164)
    assert (rounded - rest)[philtrum, :2].norm() < 0.015


ALL = tuple(sorted(path.stem for path in FACES.glob("*.jpg")))
WITHOUT_TEETH = ("hopper", "london_045", "london_061", "london_092", "london_136", "london_140")


def test_everybody_has_teeth_of_their_own() -> None:
    plates = [teeth_plate(look(picture), picture, 0) for picture in map(photo, WITHOUT_TEETH)]
    assert not any(plate.own for plate in plates)
    rows = torch.linspace(-0.05, 0.06, 60)[None, :, None].expand(1, 60, 240)
    across = torch.linspace(-0.25, 0.25, 240)[None, None].expand(1, 60, 240)
    edges = [plate.sample(across, (plate.top + plate.bottom) / 2 + 0.02 + rows)[0, 3].sum(0) for plate in plates]
    for number, one in enumerate(edges):
        for other in edges[:number]:
            assert (one - other).abs().max() > 2.0, "rows of 60 in 0.11 units"


def test_everybody_has_lower_teeth_of_their_own() -> None:
    lower = [teeth_plate(look(picture), picture, 0).lower for picture in map(photo, ALL)]
    down = torch.linspace(-0.01, 0.04, 60)[None, :, None].expand(1, 60, 240)
    across = torch.linspace(-0.15, 0.15, 240)[None, None].expand(1, 60, 240)
    seen = [plate.sample(across, down)[0] for plate in lower if plate is not None]
    shades = [one[3] * one[:3].mean(0) / one[:3].mean() for one in seen]
    assert len(shades) == len(ALL)
    for number, one in enumerate(shades):
        for other in shades[:number]:
            assert (one - other).abs().mean() > 0.015, "of their brightness, colour apart"


@pytest.mark.parametrize("name", ["london_034", "london_120", "london_126"])
def test_lower_teeth_have_the_colour_of_ones_own_upper_teeth(name: str) -> None:
    picture = photo(name)
    plate = teeth_plate(look(picture), picture, 0)
    assert plate.own
    assert plate.lower is not None
    upper, lower = (one.rgba[:3, one.rgba[3] > 0.9].mean(1) for one in (plate, plate.lower))
    assert 0.35 < lower.mean() / upper.mean() < 0.85, "in shade"
    hues = [colour / colour.mean() for colour in (upper, lower)]
    assert (hues[0] - hues[1]).abs().max() < 0.2


def test_the_same_face_has_the_same_teeth_in_a_smaller_photo() -> None:
    large = photo("london_045")
    small = torch.from_numpy(cv2.resize(large.numpy(), (300, 300), interpolation=cv2.INTER_AREA))
    one, other = (build_of(look(picture).rest.shape, 1.0) for picture in (large, small))
    assert one.tooth_width == pytest.approx(other.tooth_width, abs=0.02)
    assert one.shown == pytest.approx(other.shown, abs=0.003)
    assert one.lower_heights == pytest.approx(other.lower_heights, abs=0.002)
    assert one == build_of(look(large).rest.shape, 1.0)


@pytest.mark.parametrize(("scale", "most"), [(30.0, 0.055), (60.0, 0.03), (120.0, 0.012)])
def test_drawn_teeth_have_no_steps_in_small_faces(scale: float, most: float) -> None:
    """Seen at one place per pixel they look as they do through a lens: averaged over each pixel."""
    subject = look(photo("london_045"))
    lip = subject.rest.shape[list(points.INNER_UPPER), :2]
    skin, build = torch.tensor([200.0, 150.0, 125.0]), build_of(subject.rest.shape, 1.0)
    coarse, fine = (drawn_plate(lip, size, skin, 1.0, build) for size in (scale, 480.0))
    seen, true = _pixels(coarse, scale, 1), _pixels(fine, scale, 16)
    assert (seen - true).square().mean().sqrt() < most


def _pixels(plate: Plate, scale: float, each: int) -> Tensor:
    """Coverage in pixels of 1 / `scale` units, from `each` x `each` places in every one."""
    v = (torch.arange(int(0.20 * scale) * each) + 0.5) / (scale * each) + plate.top + 0.02
    u = (torch.arange(int(0.60 * scale) * each) + 0.5) / (scale * each) - 0.30
    rows, columns = torch.meshgrid(v, u, indexing="ij")
    return functional.avg_pool2d(plate.sample(columns[None], rows[None])[0, 3][None], each)[0]


def test_lower_teeth_show_in_wide_openings_only() -> None:
    picture = photo("london_136")
    subject = look(picture)
    said = torch.stack([OPEN, torch.tensor([0.5, 0.5, 0.0, 0.0, 0.0, 1.0])])
    frames = speak(picture, subject, said).float()
    shapes = Animator(subject.rest, 1.0).pose(said).shape
    scale = float(subject.poses.scale[0])
    above_lip = []
    for frame, shape in zip(frames, shapes, strict=True):
        x, y = subject.poses.to_pixels(shape[None])[0, points.INNER_LOWER[5], :2].tolist()
        band = frame[int(y - 0.022 * scale) : int(y - 0.005 * scale), int(x - 4) : int(x + 5)]
        above_lip.append(band.mean((0, 1)))
    wide, narrow = (float(colour[1] / colour[0]) for colour in above_lip)
    assert wide > 0.7, "enamel"
    assert narrow < 0.6, "tongue and gums"
