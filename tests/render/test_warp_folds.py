"""Lines of the skin that deepen and smooth out."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor

from app.media.image import load_image
from app.render.film import points
from app.render.warp.animation import Animator, LowerFace
from app.render.warp.compositor import Compositor
from app.render.warp.subject import Subject, teeth_plate
from tests.render.scenes import SAMPLES
from tests.render.test_warp_picture import CPU, REST, SPREAD, look, speak

FACES = Path(__file__).parents[2] / "evaluation" / "faces"
U = torch.tensor([0.2, 0.25, 0.95, 0.0, 0.0, 1.0])


def drawn(picture: Tensor, subject: Subject, said: Tensor, *, folds: bool) -> Tensor:
    """One frame [H, W, 3]; without folds as templates are drawn, which have none."""
    source = picture[None].clone()
    compositor = Compositor(subject, teeth_plate(subject, picture, 0), CPU, picture if folds else None)
    face: LowerFace = Animator(subject.rest, 1.0).pose(said[None])
    compositor.render_into(source, torch.tensor([0]), torch.tensor([0]), face)
    return source[0].float()


def contrast(frame: Tensor, subject: Subject, shape: Tensor) -> float:
    """Of shades along lines across the folds beside the mouth: their standard deviation."""
    pixels = subject.poses.to_pixels(shape[None])[0, :, :2]
    found = []
    for number in (206, 216, 426, 436):
        x, y = pixels[points.MESH.index(number)].round().long().tolist()
        reach = int(0.07 * float(subject.poses.scale[0]))
        found.append(frame[y - 1 : y + 2, x - reach : x + reach + 1].mean((0, 2)).std())
    return float(torch.stack(found).mean())


@pytest.mark.parametrize("name", ["hopper", "london_136", "london_140"])
def test_lines_from_nose_to_mouth_deepen_when_it_widens_and_soften_when_it_is_rounded(name: str) -> None:
    photo = torch.from_numpy(load_image(FACES / f"{name}.jpg"))
    subject = look(photo)
    for said, low, high in ((SPREAD, 1.04, 2.0), (U, 0.3, 0.95)):
        shape = Animator(subject.rest, 1.0).pose(said[None]).shape[0]
        flat, folded = (contrast(drawn(photo, subject, said, folds=on), subject, shape) for on in (False, True))
        assert low < folded / flat < high


def test_a_smile_of_the_photo_leaves_the_cheeks_of_a_face_at_rest() -> None:
    photo = torch.from_numpy(load_image(SAMPLES / "portrait.png"))
    subject = look(photo)
    flat, folded = (
        contrast(drawn(photo, subject, REST, folds=on), subject, subject.rest.shape) for on in (False, True)
    )
    assert folded < 0.97 * flat


@pytest.mark.parametrize("name", ["london_034", "london_136"])
def test_a_pouting_lip_throws_a_shadow(name: str) -> None:
    photo = torch.from_numpy(load_image(FACES / f"{name}.jpg"))
    subject = look(photo)
    shape = Animator(subject.rest, 1.0).pose(U[None]).shape
    pixels = subject.poses.to_pixels(shape)[0, :, :2]
    x, y = torch.lerp(pixels[points.OUTER_LOWER[5]], pixels[points.MESH.index(200)], 0.45).round().long().tolist()
    flat, folded = (drawn(photo, subject, U, folds=on)[y - 3 : y + 4, x - 8 : x + 9].mean() for on in (False, True))
    assert folded < 0.98 * flat


def test_lips_that_are_shut_in_the_photo_rest_on_unchanged_skin() -> None:
    photo = torch.from_numpy(load_image(FACES / "london_045.jpg"))
    subject = look(photo)
    pixels = subject.pixels[0, [points.MESH.index(number) for number in (206, 426, 200)], :2].round().long()
    frame = speak(photo, subject, REST[None])[0]
    for x, y in pixels.tolist():
        assert (frame[y, x].int() - photo[y, x].int()).abs().max() <= 2
