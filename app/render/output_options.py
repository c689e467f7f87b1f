"""What callers may choose of a result with more than one renderer: how it is encoded, and which part is shown."""

from __future__ import annotations

QUALITIES: dict[str, tuple[int, str]] = {
    "draft": (27, "veryfast"),
    "standard": (20, "veryfast"),
    "high": (15, "medium"),
}
"""x264's constant rate factor and preset by the name of the quality."""

SMALLEST_BOX = 0.05
"""Share of the picture's width and height that a crop leaves at least."""


def check_box(box: list[float]) -> list[float]:
    """A crop box [left, top, right, bottom] in shares of the picture. Raises ValueError for one that is none."""
    left, top, right, bottom = box
    if not (left >= 0 and right <= 1 and top >= 0 and bottom <= 1):
        raise ValueError("a crop box is [left, top, right, bottom] in shares of the picture, each 0 to 1")
    if right - left < SMALLEST_BOX or bottom - top < SMALLEST_BOX:
        raise ValueError(
            "a crop box is [left, top, right, bottom]: right and bottom must exceed left and top by 0.05 or more"
        )
    return box
