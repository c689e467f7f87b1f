"""A portrait photo as an upright RGB array, whatever its file holds."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageOps

from app.media.pictures import open_picture

BACKDROP = (255, 255, 255)
"""What transparent parts are laid over. Portraits that were cut out are mostly shown on white."""

_SIXTEEN_BIT_MODES = frozenset({"I;16", "I;16L", "I;16B", "I;16N", "I"})


def load_image(path: Path, max_side: int | None = None) -> npt.NDArray[np.uint8]:
    """Read a picture as uint8 RGB `[H, W, 3]`, upright by its EXIF orientation, transparency over white.

    `max_side` scales it down (never up) so that neither side is longer, in pixels. Of an animation, the first frame.
    Colours are taken as sRGB; an embedded colour profile is not applied.
    Raises CodedError INPUT_NOT_FOUND, INPUT_INVALID (`truncated`, `undecodable_image`) or INPUT_TOO_LARGE.
    """
    with open_picture(path) as image:
        if max_side is not None and image.mode == "RGB":
            image.draft("RGB", (max_side, max_side))  # lets libjpeg decode at 1/2, 1/4 or 1/8
        image.load()
        upright = ImageOps.exif_transpose(image)
        flat = _flatten(upright)
    if max_side is not None and max(flat.size) > max_side:
        scale = max_side / max(flat.size)
        size = (max(round(flat.width * scale), 1), max(round(flat.height * scale), 1))
        flat = flat.resize(size, Image.Resampling.LANCZOS, reducing_gap=3.0)
    return np.array(flat, dtype=np.uint8)


def _flatten(image: Image.Image) -> Image.Image:
    """Any mode as 8-bit RGB."""
    if image.mode in _SIXTEEN_BIT_MODES:
        grey = np.clip(np.asarray(image).astype(np.int64), 0, 65_535)
        return Image.fromarray(((grey + 128) // 257).astype(np.uint8)).convert("RGB")
    if image.mode == "F":
        return Image.fromarray(np.clip(np.nan_to_num(np.asarray(image)), 0, 255).astype(np.uint8)).convert("RGB")
    if image.has_transparency_data:
        cutout = image.convert("RGBA")
        backdrop = Image.new("RGBA", cutout.size, (*BACKDROP, 255))
        return Image.alpha_composite(backdrop, cutout).convert("RGB")
    return image.convert("RGB")
