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
    pixels = np.array(flat, dtype=np.uint8)
    return pixels if max_side is None else shrink(pixels, max_side)


def save_png(pixels: npt.NDArray[np.uint8], path: Path) -> None:
    """Write uint8 RGB `[H, W, 3]` as a PNG. Raises OSError."""
    Image.fromarray(pixels).save(path, format="PNG", compress_level=1)


def write_even_png(path: Path, out: Path, max_side: int) -> tuple[int, int]:
    """Write a picture as PNG, upright and opaque, its sides even and at most `max_side`. Returns width and height.

    An odd last row or column is cut off. Raises as `load_image` does.
    """
    pixels = load_image(path, max_side)
    height, width = (max(side // 2 * 2, 1) for side in pixels.shape[:2])
    Image.fromarray(pixels[:height, :width]).save(out, format="PNG", compress_level=1)
    return width, height


def shrink(pixels: npt.NDArray[np.uint8], max_side: int) -> npt.NDArray[np.uint8]:
    """Scale `[H, W, 3]` down so that neither side is longer than `max_side`; never up. Averages areas: no aliasing."""
    height, width = pixels.shape[:2]
    scale = max_side / max(height, width)
    if scale >= 1:
        return pixels
    return resize(pixels, (max(round(width * scale), 1), max(round(height * scale), 1)))


def resize(pixels: npt.NDArray[np.uint8], size: tuple[int, int]) -> npt.NDArray[np.uint8]:
    """Scale `[H, W, 3]` down to `size` (width, height), averaging areas."""
    if pixels.shape[1::-1] == size:
        return pixels
    import cv2  # 16 MB that whoever only reads and writes pictures does without

    return np.asarray(cv2.resize(pixels, size, interpolation=cv2.INTER_AREA), dtype=np.uint8)


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
