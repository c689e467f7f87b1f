"""Opening untrusted pictures: which formats, which errors. Imports no numpy, so that the probe stays light."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from PIL import (
    GifImagePlugin,  # noqa: F401 - the plugins register themselves; Pillow's own start loads every one that it has
    Image,
    JpegImagePlugin,  # noqa: F401
    MpoImagePlugin,  # noqa: F401
    PngImagePlugin,  # noqa: F401
    UnidentifiedImageError,
    WebPImagePlugin,  # noqa: F401
)

from app.media.containers import invalid, too_large
from app.retry.taxonomy import CodedError, FailureCode

PICTURE_FORMATS = ("JPEG", "PNG", "WEBP", "GIF")
"""Of animated ones the first frame is the picture.

JPEG covers MPO, which is what phones write for a JPEG with a second picture behind the first.
"""

_MAGIC = (b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"GIF87a", b"GIF89a")

# What is too large, the caller's limits say, by the header, before anything is decoded (`open_picture`).
Image.MAX_IMAGE_PIXELS = None

MAX_PIXELS = 178_956_970
"""Pixels of a picture at most where the caller names no limit: about 0.5 GB as RGB."""

ORIENTATION_TAG = 0x0112
_CLOCKWISE = {3: 180, 4: 180, 5: 90, 6: 90, 7: 270, 8: 270}


def is_picture(head: bytes) -> bool:
    """Whether a file that begins with `head` (at least 12 bytes) says that it is a picture of a supported format."""
    return head.startswith(_MAGIC) or (head[:4] == b"RIFF" and head[8:12] == b"WEBP")


@contextmanager
def open_picture(path: Path, max_pixels: int = MAX_PIXELS) -> Iterator[Image.Image]:
    """Open a picture of at most `max_pixels` lazily (header only); Pillow's errors inside the block become coded ones.

    Raises CodedError: INPUT_NOT_FOUND; INPUT_TOO_LARGE (`too_many_pixels`, from the header alone); INPUT_INVALID with
    reason `truncated` or `undecodable_image`.
    """
    try:
        with Image.open(path, formats=PICTURE_FORMATS) as image:
            _check_pixels(path, image.width, image.height, max_pixels)
            yield image
    except FileNotFoundError as error:
        raise CodedError(FailureCode.INPUT_NOT_FOUND, f"{path.name} does not exist.", reason="not_found") from error
    except UnidentifiedImageError as error:
        message = f"{path.name} begins like a picture, but its header cannot be read."
        raise invalid("undecodable_image", message) from error
    except (OSError, SyntaxError, ValueError, EOFError, IndexError, TypeError) as error:
        # Pillow's plugins let these escape on damaged files.
        truncated = "truncated" in str(error).lower() or isinstance(error, EOFError)
        reason = "truncated" if truncated else "undecodable_image"
        raise invalid(reason, f"{path.name} cannot be decoded: {error}.") from error


def _check_pixels(path: Path, width: int, height: int, limit: int) -> None:
    if width * height > limit:
        message = f"{path.name} has {width}x{height} pixels; the limit is {limit} in all."
        raise too_large("too_many_pixels", message, limit=limit, measured=width * height)


def clockwise_turn(image: Image.Image) -> int:
    """The clockwise turn in degrees (0, 90, 180, 270) that the EXIF orientation asks for. May decode the picture."""
    return _CLOCKWISE.get(image.getexif().get(ORIENTATION_TAG, 1), 0)
