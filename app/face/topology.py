"""Which of the 478 points lies where. Facts of the published mesh; "right" and "left" are the person's own.

Contours run in order. Lips and jaw go from the person's right to the left (left to right in an unmirrored picture),
eyes and brows from the outer corner inwards. Upper and lower contours share their corners.
"""

from __future__ import annotations

from typing import Final

Group = tuple[int, ...]

LIP_CORNERS: Final[Group] = (61, 291)
OUTER_LIP_UPPER: Final[Group] = (61, 185, 40, 39, 37, 0, 267, 269, 270, 409, 291)
OUTER_LIP_LOWER: Final[Group] = (61, 146, 91, 181, 84, 17, 314, 405, 321, 375, 291)
INNER_LIP_UPPER: Final[Group] = (78, 191, 80, 81, 82, 13, 312, 311, 310, 415, 308)
INNER_LIP_LOWER: Final[Group] = (78, 95, 88, 178, 87, 14, 317, 402, 318, 324, 308)

# The two rings between the outer and the inner contour.
LIP_UPPER_RINGS: Final[tuple[Group, Group]] = (
    (76, 184, 74, 73, 72, 11, 302, 303, 304, 408, 306),
    (62, 183, 42, 41, 38, 12, 268, 271, 272, 407, 292),
)
LIP_LOWER_RINGS: Final[tuple[Group, Group]] = (
    (76, 77, 90, 180, 85, 16, 315, 404, 320, 307, 306),
    (62, 96, 89, 179, 86, 15, 316, 403, 319, 325, 292),
)

JAW_LINE: Final[Group] = (
    234, 93, 132, 58, 172, 136, 150, 149, 176, 148, 152, 377, 400, 378, 379, 365, 397, 288, 361, 323, 454,
)  # fmt: skip
CHIN: Final[Group] = (176, 148, 152, 377, 400, 171, 175, 396, 208, 199, 428)
CHIN_TIP: Final[int] = 152
FOREHEAD: Final[Group] = (
    234, 127, 162, 21, 54, 103, 67, 109, 10, 338, 297, 332, 284, 251, 389, 356, 454,
)  # fmt: skip
FACE_OVAL: Final[Group] = JAW_LINE + FOREHEAD[-2:0:-1]

RIGHT_EYE_UPPER: Final[Group] = (33, 246, 161, 160, 159, 158, 157, 173, 133)
RIGHT_EYE_LOWER: Final[Group] = (33, 7, 163, 144, 145, 153, 154, 155, 133)
LEFT_EYE_UPPER: Final[Group] = (263, 466, 388, 387, 386, 385, 384, 398, 362)
LEFT_EYE_LOWER: Final[Group] = (263, 249, 390, 373, 374, 380, 381, 382, 362)
RIGHT_EYE_CORNERS: Final[Group] = (33, 133)
LEFT_EYE_CORNERS: Final[Group] = (263, 362)
RIGHT_IRIS: Final[Group] = (468, 469, 470, 471, 472)  # the centre first
LEFT_IRIS: Final[Group] = (473, 474, 475, 476, 477)

RIGHT_BROW_UPPER: Final[Group] = (70, 63, 105, 66, 107)
RIGHT_BROW_LOWER: Final[Group] = (46, 53, 52, 65, 55)
LEFT_BROW_UPPER: Final[Group] = (300, 293, 334, 296, 336)
LEFT_BROW_LOWER: Final[Group] = (276, 283, 282, 295, 285)

NOSE_BRIDGE: Final[Group] = (168, 6, 197, 195, 5, 4, 1)
NOSE_BOTTOM: Final[Group] = (98, 97, 2, 326, 327)
NOSE_TIP: Final[int] = 1

# Points that speech does not move: eye corners, bridge of the nose, temples, forehead. They show how the head moves.
FIXED: Final[Group] = (33, 133, 362, 263, 168, 6, 197, 195, 8, 9, 151, 10, 127, 356, 54, 284)
