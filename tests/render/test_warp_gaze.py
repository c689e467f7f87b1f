"""Where the eyes of a portrait look, and what that does to the picture."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional

from app.media.image import load_image
from app.render.film import points
from app.render.warp.animation import Animator
from app.render.warp.compositor import Compositor
from app.render.warp.gestures import Gestures
from app.render.warp.life import NOD, TURN, Life, live
from app.render.warp.renderer import WarpRenderer
from app.render.warp.subject import Subject, teeth_plate
from app.speech.channels import REST as SILENT_ROW
from app.speech.channels import SPEECH
from tests.render.scenes import SAMPLES, RecordingWriter, save_picture, write_silence
from tests.render.test_warp_life import FACES, render
from tests.render.test_warp_picture import CPU, REST, look
from tests.render.turning import TurningHead

ALL = ("astronaut", *sorted(path.stem for path in FACES.glob("*.jpg")))
AWAY = np.radians(2.5)


def photo(name: str) -> Tensor:
    return torch.from_numpy(load_image(SAMPLES / "portrait.png" if name == "astronaut" else FACES / f"{name}.jpg"))


def lived(
    seconds: float, *, speaking: bool = True, seed: int = 1, blinks: float = 0.0, motion: float = 0.0, gaze: float = 1.0
) -> Life:
    articulation = np.repeat(SILENT_ROW[None], round(seconds * 100), 0)
    articulation[:, SPEECH] = speaking
    loudness = np.full(len(articulation), 0.1 * speaking, np.float32)
    return live(articulation, loudness, seed, blinks_per_minute=blinks, motion=motion, gaze=gaze)


def jumps(life: Life) -> npt.NDArray[np.int64]:
    """The rows in which a jump begins."""
    moving = np.linalg.norm(np.diff(life.gaze, axis=0), axis=1) > 1e-6
    return np.flatnonzero(moving[1:] & ~moving[:-1]) + 1


def turned(picture: Tensor, subject: Subject, gaze: list[tuple[float, float]], lids: float = 0.0) -> Tensor:
    """Frames [B, H, W, 3] of a silent face whose eyes are turned by degrees to the right and down."""
    count = len(gaze)
    frames = picture.repeat(count, 1, 1, 1)
    compositor = Compositor(subject, teeth_plate(subject, picture, 0), CPU, picture)
    face = Animator(subject.rest, 1.0).pose(REST.expand(count, -1))
    acts = Gestures(torch.full((count,), lids), torch.zeros(count, 7), torch.deg2rad(torch.tensor(gaze)))
    compositor.render_into(frames, torch.arange(count), torch.zeros(count, dtype=torch.long), face, acts)
    return frames


def iris_patches(frames: Tensor, subject: Subject) -> list[Tensor]:
    """Grey pictures [B, h, w] of each iris, a tenth wider than high eyes show, eight times as large."""
    radius = 0.065 * float(subject.poses.scale[0])
    found = []
    for iris in points.IRISES:
        x, y = subject.pixels[0, iris[0], :2].round().long().tolist()
        rows, columns = (
            slice(y - int(0.5 * radius), y + int(0.6 * radius)),
            slice(x - int(2 * radius), x + int(2 * radius)),
        )
        grey = frames[:, rows, columns].float().mean(3)
        found.append(functional.interpolate(grey[:, None], scale_factor=8, mode="bicubic")[:, 0])
    return found


def went(before: Tensor, after: Tensor, axis: int) -> float:
    """How far along an axis the middle of `before` [h, w] went, in its pixels: where it fits `after` best."""
    reach = 24
    size = before.shape[axis]
    kept = before.narrow(axis, reach, size - 2 * reach)
    errors = [
        float((after.narrow(axis, reach + step, size - 2 * reach) - kept).square().mean())
        for step in range(-reach, reach + 1)
    ]
    return float(np.argmin(errors) - reach)


def test_people_look_at_the_viewer_and_away_as_in_conversation() -> None:
    """Lee, Badler & Badler 2002: 3.1 s at the other and 0.9 s away while speaking, in silence much longer at it."""
    shares = [(np.linalg.norm(lived(1200, speaking=said).gaze, axis=1) > AWAY).mean() for said in (True, False)]
    assert 0.17 < shares[0] < 0.30
    assert 0.03 < shares[1] < 0.14


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_eyes_jump_every_third_of_a_second_to_three_seconds_and_stay_between(seed: int) -> None:
    life = lived(600, seed=seed)
    starts = jumps(life)
    assert 0.7 < len(starts) / 600 < 1.6
    between = np.diff(starts) / 100
    assert between.min() >= 0.25
    assert between.max() <= 3.1
    degrees = np.degrees(life.gaze)
    sizes = np.linalg.norm(degrees[starts[1:]] - degrees[starts[:-1]], axis=1)
    assert 0.8 < np.median(sizes) < 3.0
    assert np.linalg.norm(degrees, axis=1).max() < 8.5
    still = np.linalg.norm(np.diff(life.gaze, axis=0), axis=1) < 1e-6
    assert still.mean() > 0.9


def test_a_lower_amount_looks_away_less_often() -> None:
    shares = [(np.linalg.norm(lived(1200, gaze=amount).gaze, axis=1) > AWAY).mean() for amount in (0.25, 0.5, 1.0)]
    assert shares[0] < 0.75 * shares[1] < 0.75 * 0.8 * shares[2]


def test_the_eyes_turn_back_when_the_head_turns() -> None:
    still, moving = lived(60), lived(60, motion=1.0)
    assert np.abs(moving.moves[:, TURN]).max() > 0.02
    assert np.allclose(still.gaze - moving.gaze, moving.moves[:, [TURN, NOD]], atol=1e-6)


def test_gaze_leaves_blinks_and_movements_as_they_are_and_is_switched_off() -> None:
    fixed, free = (lived(60, blinks=17.0, motion=1.0, gaze=amount) for amount in (0.0, 1.0))
    assert not fixed.gaze.any()
    assert free.gaze.any()
    assert np.array_equal(fixed.lids, free.lids)
    assert np.array_equal(fixed.moves, free.moves)


def test_the_same_seed_looks_the_same_way_and_begins_with_the_photo() -> None:
    one, same, other = (lived(20, seed=seed).gaze for seed in (5, 5, 6))
    assert np.array_equal(one, same)
    assert not np.array_equal(one, other)
    assert not one[:70].any()


@settings(max_examples=15, deadline=None)
@given(first=st.integers(0, 400), count=st.integers(1, 40), fps=st.sampled_from([10, 25, 30, 60]))
def test_gaze_does_not_depend_on_how_frames_are_batched(first: int, count: int, fps: int) -> None:
    life, rate = lived(5), Fraction(fps)
    assert np.allclose(life.at(first, count, rate)[2], life.at(0, first + count, rate)[2][first:], atol=1e-6)


@pytest.mark.parametrize("name", ALL)
def test_irises_go_where_the_eyes_turn_by_as_much_as_eyes_do(name: str) -> None:
    """The iris is 10 mm before the centre that the eye turns about, and 5.9 mm in radius: Gullstrand's eye."""
    picture = photo(name)
    subject = look(picture)
    frames = turned(picture, subject, [(0, 0), (6, 0), (-6, 0)])
    for patches in iris_patches(frames, subject):
        expected = 8 * np.radians(6) * 1.7 * 0.065 * float(subject.poses.scale[0])
        assert went(patches[0], patches[1], 1) == pytest.approx(expected, rel=0.35)
        assert went(patches[0], patches[2], 1) == pytest.approx(-expected, rel=0.35)


@pytest.mark.parametrize("name", ALL)
def test_nothing_changes_but_eyes_and_lids(name: str) -> None:
    picture = photo(name)
    subject = look(picture)
    still, *moved = turned(picture, subject, [(0, 0), (8, 0), (-8, 0), (0, 5), (5, -4)])
    changed = (torch.stack(moved).int() - still.int()).abs().amax((0, 3)) > 0
    rows, columns = changed.nonzero().T
    reach = 0.12 * float(subject.poses.scale[0])
    eyes = subject.pixels[0, [point for eye in points.LIDS for lid in eye for point in lid], :2]
    assert rows.min() > eyes[:, 1].min() - reach
    assert rows.max() < eyes[:, 1].max() + reach
    assert columns.min() > eyes[:, 0].min() - reach
    assert columns.max() < eyes[:, 0].max() + reach
    bridge = eyes[:, 0].mean().round().long()
    assert not changed[:, bridge - 3 : bridge + 4].any()


@pytest.mark.parametrize("name", ["london_034", "london_136", "london_140"])
def test_the_upper_lid_goes_along_when_the_eyes_look_down(name: str) -> None:
    picture = photo(name)
    subject = look(picture)
    straight, down = turned(picture, subject, [(0, 0), (0, 5)]).float().mean(3)
    scale = float(subject.poses.scale[0])
    for upper, _ in points.LIDS:
        lashes = subject.pixels[0, list(upper)][3:-3, :2] - torch.tensor([0.0, 0.015 * scale])
        reach = int(0.03 * scale)
        found = []
        for x, y in lashes.round().long().tolist():
            columns = torch.stack([frame[y - 3 * reach : y + 2 * reach, x] for frame in (straight, down)])
            fine = functional.interpolate(columns[None], scale_factor=8, mode="linear")[0, :, :, None]
            found.append(went(fine[0], fine[1], 0))
        assert 0.4 < np.median(found) / (8 * np.radians(5) * 1.7 * 0.065 * scale) < 1.2


def test_eyes_turned_as_in_the_photo_leave_every_pixel() -> None:
    picture = photo("london_140")
    subject = look(picture)
    frames = turned(picture, subject, [(0, 0), (3, 0)])
    x, y = subject.pixels[0, points.IRISES[0][0], :2].round().long().tolist()
    near = (slice(y - 10, y + 11), slice(x - 10, x + 11))
    assert torch.equal(frames[0][near], picture[near])
    assert not torch.equal(frames[1][near], picture[near])


def test_shut_lids_hide_where_the_eyes_look() -> None:
    picture = photo("london_140")
    subject = look(picture)
    straight, aside = turned(picture, subject, [(0, 0), (8, 0)], lids=1.0).float()
    for iris in points.IRISES:
        x, y = subject.pixels[0, iris[0], :2].round().long().tolist()
        assert (straight - aside)[y - 4 : y + 5, x - 4 : x + 5].abs().mean() < 2.0


def test_the_white_of_an_eye_stays_white_and_no_iris_is_seen_twice() -> None:
    picture = photo("london_136")
    subject = look(picture)
    frames = turned(picture, subject, [(0, 0), (-8, 0), (8, 0)])
    for patch in iris_patches(frames, subject):
        dark = (patch < (patch[0].amin() + patch[0].amax()) / 2).float().mean((1, 2))
        assert dark[1] == pytest.approx(float(dark[0]), rel=0.15)
        assert dark[2] == pytest.approx(float(dark[0]), rel=0.15)


@pytest.mark.parametrize("degrees", [-28, 28])
def test_eyes_of_a_turned_head_look_about_too(degrees: int) -> None:
    picture = torch.from_numpy(TurningHead(photo("london_140")).at(degrees))
    subject = look(picture)
    patches = iris_patches(turned(picture, subject, [(0, 0), (4, 0), (-4, 0)]), subject)
    for patch in patches:
        assert went(patch[0], patch[1], 1) > 2
        assert went(patch[0], patch[2], 1) < -2


def test_small_faces_and_shut_eyes_and_dark_lenses_do_not_look_about() -> None:
    picture = photo("london_140")
    subject = look(picture)

    def can(seen: Tensor, of: Subject) -> bool:
        return Compositor(of, teeth_plate(of, seen, 0), CPU, seen).can_look_about

    assert can(picture, subject)
    small = functional.interpolate(picture.permute(2, 0, 1)[None].float(), scale_factor=0.25, mode="area")
    tiny = small[0].permute(1, 2, 0).round().to(torch.uint8)
    assert not can(tiny, look(tiny))
    asleep = turned(picture, subject, [(0, 0)], lids=1.0)[0]
    assert not can(asleep, look(asleep))
    dark = picture.clone()
    eyes = subject.pixels[0, [point for eye in points.LIDS for lid in eye for point in lid], :2]
    (left, top), (right, bottom) = eyes.amin(0).int().tolist(), eyes.amax(0).int().tolist()
    dark[top - 6 : bottom + 7, left - 6 : right + 7] = torch.tensor([18, 18, 22]).byte()
    assert not can(dark, subject)


@pytest.fixture
def recorder(monkeypatch: pytest.MonkeyPatch) -> type[RecordingWriter]:
    RecordingWriter.taken.clear()
    monkeypatch.setattr("app.render.film.renderer.VideoWriter", RecordingWriter)
    return RecordingWriter


def test_the_eyes_of_a_video_move_by_default_and_are_the_photos_when_that_is_off(
    renderer: WarpRenderer, tmp_path: Path, recorder: type[RecordingWriter]
) -> None:
    picture = photo("london_140")
    save_picture(tmp_path / "photo.png", picture)
    audio = write_silence(tmp_path / "a.wav", 4.0)
    videos, moved = [], []
    for number, options in enumerate(({}, {}, {"gaze": 0.0})):
        out = tmp_path / str(number)
        facts = render(renderer, tmp_path / "photo.png", audio, out, blinks=False, head_motion=0.0, seed=2, **options)
        videos.append(recorder.take())
        moved.append(facts["moves"])
    assert moved == [["lower_face", "eyes"]] * 2 + [["lower_face"]]
    assert np.array_equal(videos[0], videos[1])
    eyes = look(picture).pixels[0, [iris[0] for iris in points.IRISES], :2].round().long().tolist()
    for x, y in eyes:
        near = (slice(None), slice(y - 8, y + 9), slice(x - 8, x + 9))
        assert np.array_equal(videos[2][near], np.repeat(picture.numpy()[None][near], 100, 0))
        assert len({frame.tobytes() for frame in videos[0][near]}) > 3
