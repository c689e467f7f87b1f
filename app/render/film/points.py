"""The mesh points that renderers work with, and where each group of them lies in that selection.

Arrays of points in this package are `[.., COUNT, ..]` in the order of `MESH`; the groups are positions in it.
"""

from __future__ import annotations

from typing import Final

from torch import Tensor

from app.face import topology as mesh

_LIPS = (
    *mesh.INNER_LIP_UPPER, *mesh.INNER_LIP_LOWER[1:-1], *mesh.OUTER_LIP_UPPER, *mesh.OUTER_LIP_LOWER[1:-1],
)  # fmt: skip

_SKIN = (
    # philtrum and upper lip up to the nose
    164, 167, 393, 186, 410, 98, 97, 2, 326, 327,
    # beside the corners, and the fold from nose to corner
    57, 287, 212, 432, 216, 436, 206, 426,
    # below the lip, chin
    18, 83, 313, 106, 335, 204, 424, 200, 32, 262, 199, 208, 428, 211, 431,
    # jaw
    152, 176, 400, 149, 378, 150, 379, 136, 365, 172, 397, 58, 288, 132, 361,
    # cheeks
    205, 425, 203, 423, 36, 266, 50, 280, 207, 427, 192, 416,
)  # fmt: skip

_UPPER_FACE = (
    *mesh.RIGHT_EYE_UPPER, *mesh.RIGHT_EYE_LOWER, *mesh.LEFT_EYE_UPPER, *mesh.LEFT_EYE_LOWER,
    *mesh.RIGHT_IRIS, *mesh.LEFT_IRIS, *mesh.RIGHT_BROW_LOWER, *mesh.LEFT_BROW_LOWER, *mesh.FACE_OVAL,
)  # fmt: skip

MESH: Final[tuple[int, ...]] = tuple(dict.fromkeys((*_LIPS, *_SKIN, *mesh.FIXED, *_UPPER_FACE)))
"""Numbers of the selected points in the published mesh."""

COUNT: Final[int] = len(MESH)


def _places(group: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(MESH.index(number) for number in group)


INNER_UPPER: Final = _places(mesh.INNER_LIP_UPPER)
INNER_LOWER: Final = _places(mesh.INNER_LIP_LOWER)
OUTER_UPPER: Final = _places(mesh.OUTER_LIP_UPPER)
OUTER_LOWER: Final = _places(mesh.OUTER_LIP_LOWER)
CORNERS: Final = _places(mesh.LIP_CORNERS)
LIPS: Final = _places(_LIPS)
SKIN: Final = _places(_SKIN)
FIXED: Final = _places(mesh.FIXED)
EYE_CORNERS: Final = _places((33, 133, 362, 263))
OUTER_EYES: Final = _places((33, 263))
CHIN_TIP: Final = MESH.index(mesh.CHIN_TIP)
NOSE_BASE: Final = MESH.index(2)
FACE_OVAL: Final = _places(mesh.FACE_OVAL)
LIDS: Final = (
    (_places(mesh.RIGHT_EYE_UPPER), _places(mesh.RIGHT_EYE_LOWER)),
    (_places(mesh.LEFT_EYE_UPPER[::-1]), _places(mesh.LEFT_EYE_LOWER[::-1])),
)
"""Edges of the upper and the lower lid of each eye, left to right in an unmirrored picture; they share their ends."""
IRISES: Final = (_places(mesh.RIGHT_IRIS), _places(mesh.LEFT_IRIS))
BROWS: Final = (_places(mesh.RIGHT_BROW_LOWER), _places(mesh.LEFT_BROW_LOWER[::-1]))
"""Lower edges of the brows, left to right in an unmirrored picture."""
CHEEK_RIGHT: Final = _places((205, 203, 36, 207))
"""The cheek on the left of an unmirrored picture."""
CHEEK_LEFT: Final = _places((425, 423, 266, 427))


def select(landmarks: Tensor) -> Tensor:
    """The selected points `[T, COUNT, 3]` of full meshes `[T, 478, 3]`."""
    return landmarks[:, list(MESH)]
