"""Portrait photos of every mode become upright RGB."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from app.media.image import load_image
from app.retry.taxonomy import FailureCode
from tests.media.makers import png_header_only

RED, BLUE = (220, 30, 40), (20, 40, 200)


def two_tone(width: int = 60, height: int = 40) -> Image.Image:
    """Red, with a blue upper left quarter."""
    image = Image.new("RGB", (width, height), RED)
    image.paste(BLUE, (0, 0, width // 2, height // 2))
    return image


def near(pixel: np.ndarray, colour: tuple[int, int, int], tolerance: int = 12) -> bool:
    return bool((np.abs(pixel.astype(int) - colour) <= tolerance).all())


@pytest.mark.parametrize("name", ["p.jpg", "p.png", "p.webp", "with 'quote' 你好.png"])
def test_formats(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    two_tone().save(path, **({"quality": 95} if name.endswith(("jpg", "webp")) else {}))
    image = load_image(path)
    assert image.shape == (40, 60, 3)
    assert image.dtype == np.uint8
    assert image.flags["C_CONTIGUOUS"]
    assert near(image[5, 5], BLUE)
    assert near(image[35, 55], RED)


@pytest.mark.parametrize("mode", ["P", "RGBA", "L", "LA", "1"])
def test_png_modes(tmp_path: Path, mode: str) -> None:
    two_tone().convert(mode).save(tmp_path / "m.png")
    image = load_image(tmp_path / "m.png")
    assert image.shape == (40, 60, 3)
    if mode in ("P", "RGBA"):
        assert near(image[35, 55], RED, 40)


def test_cmyk_jpeg(tmp_path: Path) -> None:
    two_tone().convert("CMYK").save(tmp_path / "c.jpg", quality=95)
    assert near(load_image(tmp_path / "c.jpg")[35, 55], RED)


def test_sixteen_bits_are_scaled_not_clipped(tmp_path: Path) -> None:
    ramp = np.linspace(0, 65_535, 64).astype(np.uint16)
    Image.fromarray(np.repeat(ramp[None], 20, 0)).save(tmp_path / "deep.png")
    image = load_image(tmp_path / "deep.png")
    assert np.abs(image[0, :, 0].astype(int) - np.linspace(0, 255, 64)).max() <= 1


def test_transparency_is_laid_over_white(tmp_path: Path) -> None:
    cutout = two_tone().convert("RGBA")
    cutout.putalpha(Image.new("L", cutout.size, 0))
    cutout.save(tmp_path / "t.png")
    assert (load_image(tmp_path / "t.png") == 255).all()
    palette = two_tone().quantize(4)
    palette.info["transparency"] = palette.getpixel((55, 35))
    palette.save(tmp_path / "tp.png", transparency=palette.getpixel((55, 35)))
    image = load_image(tmp_path / "tp.png")
    assert (image[35, 55] == 255).all()
    assert near(image[5, 5], BLUE, 40)


@pytest.mark.parametrize(
    ("orientation", "shape", "blue_at"),
    [
        (1, (40, 60), (5, 5)),
        (2, (40, 60), (5, 54)),
        (3, (40, 60), (34, 54)),
        (4, (40, 60), (34, 5)),
        (6, (60, 40), (5, 34)),
        (8, (60, 40), (54, 5)),
    ],
)
def test_exif_orientation(tmp_path: Path, orientation: int, shape, blue_at) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    two_tone().save(tmp_path / "o.jpg", exif=exif, quality=95)
    image = load_image(tmp_path / "o.jpg")
    assert image.shape[:2] == shape
    assert near(image[blue_at], BLUE)


def test_max_side_scales_down_only(tmp_path: Path) -> None:
    two_tone(600, 400).save(tmp_path / "big.jpg")
    assert load_image(tmp_path / "big.jpg", 150).shape == (100, 150, 3)
    assert load_image(tmp_path / "big.jpg", 5000).shape == (400, 600, 3)


def test_first_frame_of_an_animation(tmp_path: Path) -> None:
    frames = [two_tone(), Image.new("RGB", (60, 40), "green")]
    for name in ("a.gif", "a.webp", "a.png"):
        frames[0].save(tmp_path / name, save_all=True, append_images=frames[1:])
        assert near(load_image(tmp_path / name)[35, 55], RED, 40)


def test_damage_is_named(tmp_path: Path, damaged, refused) -> None:
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 255, (80, 80, 3), dtype=np.uint8))
    for name in ("n.jpg", "n.png"):
        noise.save(tmp_path / name)
        half = damaged(tmp_path / name, 0.5)
        refused(lambda half=half: load_image(half), FailureCode.INPUT_INVALID, "truncated")
    bomb = png_header_only(tmp_path / "bomb.png", 60_000, 60_000)
    refused(lambda: load_image(bomb), FailureCode.INPUT_TOO_LARGE, "too_many_pixels")
    refused(lambda: load_image(tmp_path / "absent.png"), FailureCode.INPUT_NOT_FOUND)
