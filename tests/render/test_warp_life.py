"""What a portrait does besides speaking: blinks, movements of the head and the brows. For gaze: test_warp_gaze."""

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

from app.face.analyser import FaceAnalyser
from app.media.encode import VideoWriter
from app.media.image import load_image
from app.render.contract import RenderJob
from app.render.film import points
from app.render.warp.animation import Animator
from app.render.warp.compositor import Compositor
from app.render.warp.eyewear import has_glasses
from app.render.warp.gestures import Gestures
from app.render.warp.life import BROWS, DOWN, NOD, RIGHT, TILT, TURN, Life, live
from app.render.warp.renderer import WarpRenderer
from app.render.warp.subject import Subject, teeth_plate
from app.speech.channels import REST as SILENT_ROW
from app.speech.channels import SPEECH
from tests.render.scenes import SAMPLES, RecordingWriter, Reports, read_video, write_silence, write_template
from tests.render.test_warp_picture import CPU, REST, look

MINUTES = 10
FACES = Path(__file__).parents[2] / "evaluation" / "faces"


def lived(seconds: float, *, speaking: bool, seed: int = 1, blinks: float = 17.0, motion: float = 1.0) -> Life:
    rows = round(seconds * 100)
    articulation = np.repeat(SILENT_ROW[None], rows, 0)
    loudness = np.zeros(rows, np.float32)
    if speaking:
        articulation[:, SPEECH] = 1.0
        time = np.arange(rows) / 100
        loudness = (0.1 * (1 + np.sin(2 * np.pi * 4 * time)) * (1 + 0.5 * np.sin(2 * np.pi * 0.7 * time))).astype("f4")
    return live(articulation, loudness, seed, blinks_per_minute=blinks, motion=motion, gaze=0.0)


def blinks_of(life: Life) -> list[npt.NDArray[np.float32]]:
    """The lids' curve of each blink."""
    moving = np.flatnonzero(np.diff(np.concatenate([[0], life.lids > 0, [0]])))
    return [life.lids[a:b] for a, b in zip(moving[::2], moving[1::2], strict=True)]


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_blinks_have_a_natural_rate_and_length(seed: int) -> None:
    blinks = blinks_of(lived(MINUTES * 60, speaking=True, seed=seed))
    assert 12 <= len(blinks) / MINUTES <= 20
    for blink in blinks:
        assert 0.10 <= len(blink) / 100 <= 0.40
        assert blink.max() > 0.98, "the eye shuts"
        assert int(blink.argmax()) < len(blink) / 2, "lids fall faster than they rise"


def test_every_blink_shows_shut_eyes_in_some_frame() -> None:
    life = lived(120, speaking=False)
    lids, _, _ = life.at(0, 120 * 25, Fraction(25))
    assert (np.diff((lids > 0.85).astype(int)) == 1).sum() == life.blinks


def test_the_interval_between_blinks_varies_as_it_does_in_people() -> None:
    life = lived(3600, speaking=True)
    starts = np.flatnonzero(np.diff((life.lids > 0).astype(int)) == 1) / 100
    intervals = np.log(np.diff(starts))
    assert 0.35 < intervals.std() < 0.75
    skew = float((((intervals - intervals.mean()) / intervals.std()) ** 3).mean())
    assert abs(skew) < 0.6, "their logarithms are about normal"


def test_the_same_seed_lives_the_same_life_and_another_one_another() -> None:
    one, same, other = (lived(20, speaking=True, seed=seed) for seed in (5, 5, 6))
    assert np.array_equal(one.lids, same.lids)
    assert np.array_equal(one.moves, same.moves)
    assert not np.array_equal(one.lids, other.lids)
    assert not np.array_equal(one.moves, other.moves)


def test_blinks_and_movements_are_switched_off_one_by_one() -> None:
    assert lived(60, speaking=True, blinks=0.0).blinks == 0
    assert not lived(60, speaking=True, motion=0.0).moves.any()
    both, no_moves, no_blinks = (
        lived(60, speaking=True),
        lived(60, speaking=True, motion=0),
        lived(60, speaking=True, blinks=0),
    )
    assert np.array_equal(both.lids, no_moves.lids)
    assert np.array_equal(both.moves, no_blinks.moves)


def test_movements_are_calm_in_silence() -> None:
    speaking, silent = (lived(300, speaking=said).moves.std(0) for said in (True, False))
    assert (silent < 0.6 * speaking).all()
    assert (silent[[TURN, TILT, RIGHT]] > 0).all(), "calm is not stiff"


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 2**62))
def test_movements_are_small_slow_and_begin_with_the_photo(seed: int) -> None:
    moves = lived(30, speaking=True, seed=seed).moves
    assert np.abs(moves[0]).max() < 1e-4
    degrees = np.degrees(np.abs(moves[:, [NOD, TURN, TILT]]))
    assert degrees.max() < 5
    assert np.abs(np.diff(degrees, axis=0)).max() * 100 / 25 < 1.0, "degrees from frame to frame"
    assert np.abs(moves[:, BROWS]).max() <= 1


@settings(max_examples=15, deadline=None)
@given(first=st.integers(0, 400), count=st.integers(1, 40), fps=st.sampled_from([10, 25, 30, 60]))
def test_life_does_not_depend_on_how_frames_are_batched(first: int, count: int, fps: int) -> None:
    life = lived(5, speaking=True)
    rate = Fraction(fps)
    lids, moves, _ = life.at(0, first + count, rate)
    part_lids, part_moves, _ = life.at(first, count, rate)
    assert np.allclose(part_lids, lids[first:], atol=1e-6)
    assert np.allclose(part_moves, moves[first:], atol=1e-6)


@pytest.fixture(scope="module")
def subject(picture: Tensor) -> Subject:
    return look(picture)


def act(picture: Tensor, subject: Subject, lids: list[float], moves: Tensor) -> Tensor:
    """Frames [B, H, W, 3] of a silent face."""
    count = len(lids)
    frames = picture.repeat(count, 1, 1, 1)
    compositor = Compositor(subject, teeth_plate(subject, picture, 0), CPU, picture)
    face = Animator(subject.rest, 1.0).pose(REST.expand(count, -1))
    gestures = Gestures(torch.tensor(lids), moves, torch.zeros(count, 2))
    compositor.render_into(frames, torch.arange(count), torch.zeros(count, dtype=torch.long), face, gestures)
    return frames


def eye_openings(frames: Tensor) -> npt.NDArray[np.float64]:
    """How far the mesh sees the lids apart, in distances of the outer eye corners: the mean of both eyes."""
    analyser = FaceAnalyser(CPU)
    meshes = [analyser.portrait(frame).landmarks[0] for frame in frames]
    pairs = ((159, 145), (386, 374))
    return np.array(
        [np.mean([np.linalg.norm(m[a] - m[b]) for a, b in pairs]) / np.linalg.norm(m[33] - m[263]) for m in meshes]
    )


def test_the_eyes_shut_in_a_blink_and_nothing_else_changes(picture: Tensor, subject: Subject) -> None:
    frames = act(picture, subject, [0.0, 0.5, 1.0], torch.zeros(3, 7))
    openings = eye_openings(frames)
    assert openings[2] < 0.5 * openings[0]
    assert openings[2] < openings[1] < openings[0]
    changed = (frames[2].int() - frames[0].int()).abs().amax(2) > 0
    rows, columns = changed.nonzero().T
    reach = float(subject.poses.scale[0]) * 0.22
    eyes = subject.pixels[0, [point for eye in points.LIDS for lid in eye for point in lid], :2]
    assert rows.min() > eyes[:, 1].min() - reach
    assert rows.max() < eyes[:, 1].max() + reach
    assert columns.min() > eyes[:, 0].min() - reach / 2
    assert columns.max() < eyes[:, 0].max() + reach / 2


def test_shut_lids_are_skin(picture: Tensor, subject: Subject) -> None:
    frame = act(picture, subject, [1.0], torch.zeros(1, 7))[0].float()
    for iris in points.IRISES:
        x, y = subject.pixels[0, iris[0], :2].round().long().tolist()
        lid, eye = (
            frame[y - 1 : y + 1, x - 1 : x + 2].mean((0, 1)),
            picture[y - 1 : y + 1, x - 1 : x + 2].float().mean((0, 1)),
        )
        cheek = frame[y + 22 : y + 26, x - 2 : x + 3].mean((0, 1))
        assert (lid - cheek).norm() < 0.7 * (eye - cheek).norm()


@pytest.mark.parametrize("name", ["london_140", "london_045"])
def test_lids_meet_in_a_dark_line_without_glints_of_the_eye(name: str) -> None:
    photo = torch.from_numpy(load_image(FACES / f"{name}.jpg"))
    subject = look(photo)
    frame = act(photo, subject, [1.0], torch.zeros(1, 7))[0].float().mean(2)
    points_at = subject.pixels[0, :, :2]
    for upper, lower in points.LIDS:
        lids = torch.lerp(points_at[list(upper)], points_at[list(lower)], 0.9)[2:-2]
        columns = [frame[int(y) - 1 : int(y) + 3, int(x)] for x, y in lids.round().tolist()]
        left, (right, bottom) = int(lids[:, 0].min()), lids.amax(0).int().tolist()
        skin = frame[bottom + 8 : bottom + 14, left:right].mean()
        assert max(column.min() for column in columns) < 0.6 * skin, "a line from corner to corner"
        assert max(column.max() for column in columns) < 1.1 * skin, "no glints"


BARE = ("london_034", "london_045", "london_061", "london_092", "london_120", "london_126", "london_136", "london_140")


@pytest.mark.parametrize("name", BARE)
def test_shut_lids_are_skin_down_to_the_lashes(name: str) -> None:
    """Neither the iris nor lashes that stood before the lid are left on it."""
    photo = torch.from_numpy(load_image(FACES / f"{name}.jpg"))
    subject = look(photo)
    frame = act(photo, subject, [1.0], torch.zeros(1, 7))[0].float().mean(2)
    for upper, lower in points.LIDS:
        edges, lid_edges = (subject.pixels[0, list(lid)][2:-2, :2] for lid in (upper, lower))
        lid = _above(frame, subject, torch.lerp(edges, lid_edges, 0.88), (0.045, 0.015))
        bare = _above(frame, subject, edges, (0.09, 0.06)).mean()
        assert lid.quantile(0.1) > 0.5 * bare
        assert lid.mean() > 0.65 * bare


def test_a_shut_lid_has_a_crease_of_its_own() -> None:
    photo = torch.from_numpy(load_image(FACES / "london_034.jpg"))
    subject = look(photo)
    frame = act(photo, subject, [1.0], torch.zeros(1, 7))[0].float().mean(2)
    for upper, _ in points.LIDS:
        edges = subject.pixels[0, list(upper)][3:-3, :2]
        above, crease, lid = (_above(frame, subject, edges, part).mean() for part in CREASE)
        assert crease < 0.98 * above
        assert crease < 0.97 * lid


CREASE = ((0.055, 0.040), (0.016, 0.004), (-0.025, -0.045))
"""Units above the open lid's edge: the skin, the fold, the lid over the eyeball."""


@pytest.mark.parametrize("name", ["london_034", "london_126", "london_136", "london_140"])
def test_lashes_hang_from_shut_lids(name: str) -> None:
    photo = torch.from_numpy(load_image(FACES / f"{name}.jpg"))
    subject = look(photo)
    open_eyes, shut = act(photo, subject, [0.0, 1.0], torch.zeros(2, 7)).float().mean(3)
    for _, lower in points.LIDS:
        edges = subject.pixels[0, list(lower)][1:-1, :2]
        before, after = (_above(frame, subject, edges, (-0.02, -0.04)).mean() for frame in (open_eyes, shut))
        assert after < 0.93 * before


def _above(frame: Tensor, subject: Subject, places: Tensor, reach: tuple[float, float]) -> Tensor:
    """Pixels of frame [H, W] in columns above `places` [N, 2], from and to so many units."""
    scale = float(subject.poses.scale[0])
    first, last = (units * scale for units in reach)
    return torch.cat([frame[round(y - first) : round(y - last), round(x)] for x, y in places.tolist()])


def test_eyes_that_are_shut_in_the_photo_stay_shut(picture: Tensor, subject: Subject) -> None:
    sleeping = act(picture, subject, [1.0], torch.zeros(1, 7))[0]
    seen = look(sleeping)
    assert not Compositor(seen, teeth_plate(seen, sleeping, 0), CPU, sleeping).can_blink


def test_sunglasses_do_not_blink(picture: Tensor, subject: Subject) -> None:
    dark = picture.clone()
    eyes = subject.pixels[0, [point for eye in points.LIDS for lid in eye for point in lid], :2]
    (left, top), (right, bottom) = eyes.amin(0).int().tolist(), eyes.amax(0).int().tolist()
    dark[top - 6 : bottom + 7, left - 6 : right + 7] = torch.tensor([18, 18, 22]).byte()
    assert Compositor(subject, teeth_plate(subject, picture, 0), CPU, picture).can_blink
    assert not Compositor(subject, teeth_plate(subject, picture, 0), CPU, dark).can_blink


def test_brows_behind_glasses_stay_lest_the_rims_bend() -> None:
    photo = torch.from_numpy(load_image(FACES / "hopper.jpg"))
    worn = look(photo)
    moves = torch.zeros(2, 7)
    moves[1, BROWS] = 1.0
    still, raised = act(photo, worn, [0.0, 0.0], moves)
    assert torch.equal(still, raised)


@pytest.mark.parametrize("name", ["london_034", "london_061", "london_092", "london_136"])
def test_bare_faces_are_not_said_to_wear_glasses(name: str) -> None:
    photo = torch.from_numpy(load_image(FACES / f"{name}.jpg"))
    seen = look(photo)
    assert not has_glasses(photo.permute(2, 0, 1).float(), seen.poses, seen.rest.seen)


def test_the_head_turns_and_the_pictures_border_stays(picture: Tensor, subject: Subject) -> None:
    moves = torch.zeros(4, 7)
    moves[1, TURN], moves[2, NOD], moves[3, TILT] = 0.06, 0.06, 0.06
    frames = act(picture, subject, [0.0] * 4, moves)
    edge = torch.cat([frames[:, 0], frames[:, -1], frames[:, :, 0], frames[:, :, -1]], 1)
    assert torch.equal(edge, edge[:1].expand_as(edge))
    analyser = FaceAnalyser(CPU)
    still, turned, nodded, tilted = (torch.from_numpy(analyser.portrait(frame).landmarks[0]) for frame in frames)
    scale = float(subject.poses.scale[0])
    nose, ears = 1, [234, 454]
    assert (turned - still)[nose, 0] > 0.04 * scale, "to the right"
    assert (turned - still)[nose, 0] > (turned - still)[ears, 0].mean() + 0.02 * scale, "in depth"
    assert (nodded - still)[nose, 1] > 0.03 * scale, "chin down"
    across = (tilted - still)[[33, 263], 1]
    assert across[1] - across[0] > 0.03 * scale, "clockwise"


@pytest.mark.parametrize("photo", [SAMPLES / "portrait.png", FACES / "hopper.jpg"], ids=["astronaut", "hopper"])
def test_collar_and_background_stay_when_the_head_moves(photo: Path) -> None:
    still = torch.from_numpy(load_image(photo))
    subject = look(still)
    moves = torch.zeros(4, 7)
    moves[1, TURN], moves[1, TILT] = 0.05, 0.03
    moves[2, NOD], moves[2, DOWN] = 0.05, 0.02
    moves[3, TURN], moves[3, RIGHT] = -0.05, -0.02
    frames = act(still, subject, [0.0] * 4, moves).float()
    rows, columns = torch.meshgrid(*(torch.arange(size) for size in still.shape[:2]), indexing="ij")
    u, v = ((torch.stack([columns, rows], 2) - subject.poses.origin[0, :2]) / subject.poses.scale[0]).unbind(2)
    chin = float(subject.rest.shape[points.CHIN_TIP, 1])
    for part in (v > chin + 0.55, (u.abs() > 1.2) & (v < chin)):
        error = (frames[1:, part] - frames[:1, part]).square().mean()
        assert 10 * torch.log10(255**2 / error) > 46, "dB"


def test_raised_brows_leave_the_eyes_alone(picture: Tensor, subject: Subject) -> None:
    moves = torch.zeros(2, 7)
    moves[1, BROWS] = 1.0
    still, raised = act(picture, subject, [0.0, 0.0], moves)
    change = (raised.float() - still.float()).abs()
    for iris in points.IRISES:
        x, y = subject.pixels[0, iris[0], :2].round().long().tolist()
        assert change[y - 1 : y + 4, x - 4 : x + 5].mean() < 2
    brows = subject.pixels[0, list(points.BROWS[0]), :2].round().long()
    x, y = brows[2].tolist()
    assert change[y - 4 : y + 2, x - 4 : x + 5].mean() > 4


def render(renderer: WarpRenderer, source: Path, audio: Path, out: Path, **options: object) -> dict[str, object]:
    out.mkdir()
    return dict(renderer.render(RenderJob(source, audio, out, options), Reports()).facts)


@pytest.fixture
def recorder(monkeypatch: pytest.MonkeyPatch) -> type[RecordingWriter]:
    RecordingWriter.taken.clear()
    monkeypatch.setattr("app.render.film.renderer.VideoWriter", RecordingWriter)
    return RecordingWriter


def test_the_default_seed_comes_from_the_inputs(
    renderer: WarpRenderer, portrait: Path, tmp_path: Path, recorder: type[RecordingWriter]
) -> None:
    audio = write_silence(tmp_path / "a.wav", 3.0)
    longer = write_silence(tmp_path / "b.wav", 3.04)
    videos = []
    for number, (sound, options) in enumerate(((audio, {}), (audio, {}), (longer, {}), (audio, {"seed": 9}))):
        render(renderer, portrait, sound, tmp_path / str(number), blinks=30, **options)
        videos.append(recorder.take()[:75])
    assert np.array_equal(videos[0], videos[1])
    assert not np.array_equal(videos[0], videos[2])
    assert not np.array_equal(videos[0], videos[3])


def test_with_blinks_and_movements_off_only_the_lower_face_changes(renderer: WarpRenderer, tmp_path: Path) -> None:
    """Beyond the codec: 45 dB or more against the same encode of the photo."""
    photo = SAMPLES / "portrait.png"
    calm = {"blinks": False, "head_motion": 0.0, "gaze": 0.0}
    facts = render(renderer, photo, SAMPLES / "speech.wav", tmp_path / "out", **calm)
    assert facts["blinks"] == 0
    frames = read_video(tmp_path / "out" / "output.mp4")
    still = torch.from_numpy(load_image(photo))
    with VideoWriter(tmp_path / "still.mp4", 512, 512, 25.0, None) as writer:
        for _ in range(len(frames)):
            writer.write(still[None].numpy())
    same = read_video(tmp_path / "still.mp4")
    outside = torch.ones(512, 512, dtype=torch.bool)
    outside[215:365, 145:360] = False  # the lower face and the neck
    error = (frames[:, outside].float() - same[:, outside].float()).square().mean()
    assert float(10 * torch.log10(255**2 / error)) >= 45.0


def test_a_template_keeps_its_own_life(
    renderer: WarpRenderer, picture: Tensor, tmp_path: Path, recorder: type[RecordingWriter]
) -> None:
    template = write_template(tmp_path / "t.mp4", picture, frames=10)
    audio = write_silence(tmp_path / "a.wav", 0.4)
    facts = render(renderer, template, audio, tmp_path / "1", blinks=40, head_motion=1.0)
    lively = recorder.take()
    render(renderer, template, audio, tmp_path / "2", blinks=False, head_motion=0.0)
    assert facts["blinks"] == 0
    assert np.array_equal(lively, recorder.take())
