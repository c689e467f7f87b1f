"""The named points must lie where their names say: checked on the portrait's mesh."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest

from app.face import topology

Points = npt.NDArray[np.float32]
CONTOURS = {
    name: group
    for name, group in vars(topology).items()
    if name.isupper() and isinstance(group, tuple) and group and isinstance(group[0], int)
}


@pytest.mark.parametrize("name", CONTOURS)
def test_groups_hold_distinct_points_of_the_mesh(name: str) -> None:
    group = CONTOURS[name]
    assert len(set(group)) == len(group)
    assert all(0 <= point < 478 for point in group)


@pytest.mark.parametrize(
    "group",
    [
        topology.OUTER_LIP_UPPER, topology.OUTER_LIP_LOWER, topology.INNER_LIP_UPPER, topology.INNER_LIP_LOWER,
        *topology.LIP_UPPER_RINGS, *topology.LIP_LOWER_RINGS, topology.RIGHT_EYE_UPPER, topology.RIGHT_EYE_LOWER,
    ],
)  # fmt: skip
def test_contours_run_from_left_to_right(portrait_points: Points, group: tuple[int, ...]) -> None:
    assert (np.diff(portrait_points[list(group), 0]) > 0).all()


def test_the_persons_left_eye_runs_from_right_to_left(portrait_points: Points) -> None:
    for group in (topology.LEFT_EYE_UPPER, topology.LEFT_EYE_LOWER):
        assert (np.diff(portrait_points[list(group), 0]) < 0).all()


def test_upper_lies_above_lower(portrait_points: Points) -> None:
    pairs = [
        (topology.OUTER_LIP_UPPER, topology.OUTER_LIP_LOWER),
        (topology.INNER_LIP_UPPER, topology.INNER_LIP_LOWER),
        (topology.RIGHT_EYE_UPPER, topology.RIGHT_EYE_LOWER),
        (topology.LEFT_EYE_UPPER, topology.LEFT_EYE_LOWER),
        (topology.RIGHT_BROW_UPPER, topology.RIGHT_BROW_LOWER),
        (topology.LEFT_BROW_UPPER, topology.LEFT_BROW_LOWER),
    ]
    for upper, lower in pairs:
        inner = slice(1, -1)
        assert (portrait_points[list(upper), 1][inner] < portrait_points[list(lower), 1][inner]).all()


def test_irises_lie_between_the_lids(portrait_points: Points) -> None:
    for iris, corners in (
        (topology.RIGHT_IRIS, topology.RIGHT_EYE_CORNERS),
        (topology.LEFT_IRIS, topology.LEFT_EYE_CORNERS),
    ):
        low, high = sorted(portrait_points[list(corners), 0])
        assert low < portrait_points[iris[0], 0] < high


def test_the_oval_is_a_ring_around_everything(portrait_points: Points) -> None:
    oval = portrait_points[list(topology.FACE_OVAL), :2]
    steps = np.linalg.norm(np.roll(oval, -1, axis=0) - oval, axis=1)
    assert len(topology.FACE_OVAL) == 36
    assert steps.max() < 3 * np.median(steps)
    assert portrait_points[topology.CHIN_TIP, 1] == pytest.approx(oval[:, 1].max(), abs=2)
