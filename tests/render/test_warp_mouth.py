"""The mouth in single sounds, on real faces: what a viewer would notice first."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor

from app.media.image import load_image
from app.render.film import points
from app.render.warp.animation import Animator
from tests.render.test_warp_picture import REST, look

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
