"""Renderer `wav2lip` as a whole, with random weights: where it changes the picture, and how long its videos are."""

from __future__ import annotations

import wave
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from app.face import topology
from app.face.analyser import FaceAnalyser
from app.media.audio_in import audio_length
from app.media.encode import VideoWriter
from app.media.verify import verify_video
from app.render.contract import Cancelled, Phase, RenderJob, RenderResult
from app.render.film import points
from app.render.wav2lip.checkpoint import CheckpointError
from app.render.wav2lip.dubbing import generator_input
from app.render.wav2lip.network import Generator
from app.render.wav2lip.placing import Placement, answer_mask, face_boxes
from app.render.wav2lip.profile import WAV2LIP
from app.render.wav2lip.renderer import Wav2LipRenderer
from app.retry.taxonomy import CodedError, FailureCode
from tests.render.checkpoints import save_small
from tests.render.scenes import (
    SAMPLES,
    RecordingWriter,
    Reports,
    read_video,
    save_picture,
    write_silence,
    write_template,
)
from tests.render.test_warp_covered import COVERED, FRAMES, microphone, passed_in_front

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def renderer(tmp_path_factory: pytest.TempPathFactory) -> Wav2LipRenderer:
    made = Wav2LipRenderer({"checkpoint": str(save_small(tmp_path_factory.mktemp("weights") / "small.pth"))})
    made.load("cpu")
    return made


@pytest.fixture
def recorder(monkeypatch: pytest.MonkeyPatch) -> type[RecordingWriter]:
    RecordingWriter.taken.clear()
    monkeypatch.setattr("app.render.film.renderer.VideoWriter", RecordingWriter)
    return RecordingWriter


@pytest.fixture
def speech(tmp_path: Path) -> Path:
    """A second and a half of the sample: 37.5 frames."""
    with wave.open(str(SAMPLES / "speech.wav")) as whole, wave.open(str(tmp_path / "speech.wav"), "wb") as cut:
        cut.setparams(whole.getparams())
        cut.writeframes(whole.readframes(whole.getframerate() * 3 // 2))
    return tmp_path / "speech.wav"


def render(
    renderer: Wav2LipRenderer, source: Path, audio: Path, out: Path, progress: Reports | None = None, **options: Any
) -> RenderResult:
    out.mkdir(exist_ok=True)
    return renderer.render(RenderJob(source, audio, out, options), progress or Reports())


def mesh_of(picture: Tensor) -> Tensor:
    """[478, 2] of the face in [H, W, 3]."""
    return torch.from_numpy(FaceAnalyser(CPU).portrait(picture).landmarks[0, :, :2])


def test_the_video_is_as_long_as_the_speech(renderer: Wav2LipRenderer, portrait: Path, tmp_path: Path) -> None:
    audio = SAMPLES / "speech.wav"
    result = render(renderer, portrait, audio, tmp_path / "out")
    seconds = audio_length(audio) / 16_000
    assert (result.frames, result.fps, result.width, result.height) == (151, 25.0, 240, 240)
    assert abs(result.duration_s - seconds) <= 1 / result.fps
    verify_video(result.path, width=240, height=240, fps=25, frames=151, audio_seconds=seconds)
    assert set(result.stages) == {"decode", "analyse_face", "analyse_speech", "render", "encode_wait", "encode"}


@pytest.mark.parametrize("samples", [1, 700])
def test_speech_shorter_than_a_mel_window_makes_a_video(
    renderer: Wav2LipRenderer, portrait: Path, tmp_path: Path, samples: int
) -> None:
    audio = write_silence(tmp_path / "short.wav", samples / 16_000)
    assert render(renderer, portrait, audio, tmp_path / "out").frames == max(1, round(samples / 640))


def test_only_the_lower_face_changes_and_it_follows_the_speech(
    renderer: Wav2LipRenderer,
    recorder: type[RecordingWriter],
    portrait: Path,
    picture: Tensor,
    speech: Path,
    tmp_path: Path,
) -> None:
    render(renderer, portrait, speech, tmp_path / "out")
    frames = torch.from_numpy(recorder.take()).int()
    assert len(frames) == 38
    changed = (frames - picture.int()).abs().amax((0, 3)) > 0
    mesh = mesh_of(picture)
    rows, columns = changed.nonzero().unbind(1)
    oval = mesh[list(topology.FACE_OVAL)]
    height = float(oval[:, 1].max() - oval[:, 1].min())
    assert rows.min() > mesh[list(topology.RIGHT_EYE_LOWER), 1].max(), "the eyes stay"
    assert rows.max() <= mesh[topology.CHIN_TIP, 1] + 0.1 * height
    assert columns.min() >= oval[:, 0].min() - 6
    assert columns.max() <= oval[:, 0].max() + 6
    mouth = mesh[list(topology.INNER_LIP_UPPER)].mean(0).round().int().tolist()
    there = frames[:, mouth[1] - 4 : mouth[1] + 4, mouth[0] - 8 : mouth[0] + 8].float()
    assert there.std(0).mean() > 1.0, "the mouth changes with the speech"


def test_the_same_job_gives_the_same_frames(
    renderer: Wav2LipRenderer, recorder: type[RecordingWriter], portrait: Path, speech: Path, tmp_path: Path
) -> None:
    made = []
    for name in ("one", "two"):
        recorder.taken.clear()
        render(renderer, portrait, speech, tmp_path / name)
        made.append(torch.from_numpy(recorder.take()).int())
    # The order of a sum may depend on how many threads a busy machine gave, which rounds a level up or down.
    assert (made[0] - made[1]).abs().max() <= 1


def test_a_template_is_dubbed_where_its_face_is(
    renderer: Wav2LipRenderer, recorder: type[RecordingWriter], picture: Tensor, speech: Path, tmp_path: Path
) -> None:
    source = write_template(tmp_path / "template.mp4", picture, frames=20)
    recorder.taken.clear()
    result = render(renderer, source, speech, tmp_path / "out")
    made = torch.from_numpy(recorder.take()).int()
    given = read_video(source).int()
    order = [*range(20), *range(18, 0, -1)][: result.frames]
    assert result.frames == 38
    for frame, number in zip(made[::6], order[::6], strict=True):
        changed = (frame - given[number]).abs().amax(2) > 0
        mesh = mesh_of(given[number].to(torch.uint8))
        across = changed.nonzero()[:, 1].float()
        oval = mesh[list(topology.FACE_OVAL), 0]
        assert across.min() >= oval.min() - 6, "the change moves along with the face"
        assert across.max() <= oval.max() + 6
        assert changed.nonzero()[:, 0].min() > mesh[list(topology.RIGHT_EYE_LOWER), 1].max()


def test_frames_without_a_face_go_through_untouched_and_are_counted(
    renderer: Wav2LipRenderer, recorder: type[RecordingWriter], picture: Tensor, tmp_path: Path
) -> None:
    source = tmp_path / "gap.mp4"
    with VideoWriter(source, 240, 240, 25, None, crf=12) as writer:
        writer.write(picture.expand(8, -1, -1, -1).numpy())
        writer.write(np.full((6, 240, 240, 3), 90, np.uint8))
    recorder.taken.clear()
    result = render(renderer, source, write_silence(tmp_path / "a.wav", 14 / 25), tmp_path / "out")
    made, given = recorder.take(), read_video(source).numpy()
    assert result.facts["frames_without_face"] == 6
    assert np.array_equal(made[8:], given[8:])
    assert not np.array_equal(made[:8], given[:8])


def test_a_microphone_in_front_of_the_mouth_is_not_painted_over(
    renderer: Wav2LipRenderer, recorder: type[RecordingWriter], picture: Tensor, tmp_path: Path
) -> None:
    source = passed_in_front(tmp_path / "covered.mp4", picture, microphone)
    recorder.taken.clear()
    result = render(renderer, source, write_silence(tmp_path / "a.wav", FRAMES / 25), tmp_path / "out")
    made, given = recorder.take(), read_video(source).numpy()
    changed = [not np.array_equal(one, other) for one, other in zip(made, given, strict=True)]
    assert result.facts["frames_covered"] == len(COVERED)
    assert changed == [number not in COVERED for number in range(FRAMES)]


def test_a_source_without_a_face_fails_with_its_code(renderer: Wav2LipRenderer, tmp_path: Path, speech: Path) -> None:
    save_picture(tmp_path / "wall.png", torch.full((240, 240, 3), 120, dtype=torch.uint8))
    with pytest.raises(CodedError) as caught:
        render(renderer, tmp_path / "wall.png", speech, tmp_path / "out")
    assert caught.value.code is FailureCode.INPUT_NO_FACE


def test_a_cancel_ends_it_and_leaves_no_file(
    renderer: Wav2LipRenderer, portrait: Path, speech: Path, tmp_path: Path
) -> None:
    with pytest.raises(Cancelled):
        render(renderer, portrait, speech, tmp_path / "out", Reports(cancel_at=2))
    assert list((tmp_path / "out").iterdir()) == []


def test_progress_is_told_in_order(renderer: Wav2LipRenderer, portrait: Path, speech: Path, tmp_path: Path) -> None:
    reports = Reports()
    render(renderer, portrait, speech, tmp_path / "out", reports)
    assert list(dict.fromkeys(phase for phase, _, _ in reports.seen)) == [Phase.ANALYSE, Phase.RENDER, Phase.ENCODE]
    done = [done for phase, done, _ in reports.seen if phase is Phase.RENDER]
    assert done == sorted(done)
    assert done[-1] == 38


def test_memory_that_runs_out_makes_the_batches_smaller_and_the_same_video(
    renderer: Wav2LipRenderer,
    portrait: Path,
    picture: Tensor,
    speech: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    template = write_template(tmp_path / "template.mp4", picture, frames=20)
    whole = [render(renderer, source, speech, tmp_path / source.stem) for source in (portrait, template)]
    speak = Generator.speak

    def cramped(self: Generator, mel: Tensor, features: list[Tensor]) -> Tensor:
        if len(mel) > 3:
            raise torch.OutOfMemoryError("CUDA out of memory.")
        return speak(self, mel, features)

    monkeypatch.setattr(Generator, "speak", cramped)
    halved = [render(renderer, source, speech, tmp_path / f"{source.stem}-halved") for source in (portrait, template)]
    assert halved[0].facts["batch"] == 2
    for one, other in zip(whole, halved, strict=True):
        apart = (read_video(one.path).int() - read_video(other.path).int()).abs()
        assert apart.float().mean() < 1.0, "batches of another size round another way, and no more"


def test_boxes_follow_the_head_and_not_the_mouth(picture: Tensor) -> None:
    landmarks = torch.from_numpy(FaceAnalyser(CPU).portrait(picture).landmarks)
    still = points.select(landmarks).expand(6, -1, -1).clone()
    speaking = still.clone()
    speaking[1::2, list(points.INNER_LOWER), 1] += 12
    speaking[1::2, points.CHIN_TIP, 1] += 10
    present = torch.ones(6, dtype=torch.bool)
    boxes = face_boxes(speaking, present, 0.06)
    for value in (boxes.left, boxes.top, boxes.width, boxes.height):
        assert value.max() - value.min() < 0.3
    moved = still + torch.arange(6.0)[:, None, None] * torch.tensor([1.5, 0.5, 0.0])
    panned = face_boxes(moved, present, 0.06)
    assert torch.allclose(panned.left.diff(), torch.tensor(1.5), atol=1e-3)
    assert torch.allclose(panned.top.diff(), torch.tensor(0.5), atol=1e-3)
    oval = landmarks[0, list(topology.FACE_OVAL)]
    assert abs(float(boxes.left[0]) - float(oval[:, 0].min())) < 8
    assert float(boxes.top[0] + boxes.height[0]) > float(oval[:, 1].max())


def test_an_answer_that_repeats_the_face_leaves_it_where_it_is(picture: Tensor) -> None:
    """Crop and paste are each other's inverse to a fraction of a pixel, at fractional places too."""
    present = torch.ones(3, dtype=torch.bool)
    pixels = points.select(torch.from_numpy(FaceAnalyser(CPU).portrait(picture).landmarks)).expand(3, -1, -1)
    boxes = face_boxes(pixels + torch.tensor([[[0.0, 0.0, 0.0]], [[0.4, 0.3, 0]], [[0.7, 0.9, 0]]]), present, 0.06)
    placement = Placement(boxes, 240, 240, WAV2LIP, CPU)
    rows = torch.arange(3)
    y, x = torch.meshgrid(torch.arange(240.0), torch.arange(240.0), indexing="ij")
    smooth = torch.stack([x, y, 120 + 100 * torch.sin(x / 12) * torch.cos(y / 15)], 2).round().to(torch.uint8)
    frames = smooth.expand(3, -1, -1, -1)
    crops = placement.crops(placement.whole.cut(frames, rows))
    patches = placement.lower.cut(frames, rows)
    back = placement.blend(patches, crops, answer_mask(WAV2LIP), slice(0, 3))
    assert (back.int() - patches.int()).abs().max() <= 2


def test_the_generator_sees_the_upper_half_then_the_whole_face_in_bgr() -> None:
    crops = torch.zeros(1, 3, 96, 96)
    crops[:, 0] = 255.0
    seen = generator_input(crops, WAV2LIP)
    assert seen.shape == (1, 6, 96, 96)
    assert seen[0, :, 0, 0].tolist() == [0, 0, 1, 0, 0, 1]
    assert seen[0, :, 47, 0].tolist() == [0, 0, 1, 0, 0, 1]
    assert seen[0, :, 48, 0].tolist() == [0, 0, 0, 0, 0, 1]


@pytest.mark.parametrize(
    ("settings", "words"), [({}, "no checkpoint is configured"), ({"checkpoint": "/nowhere/w.pth"}, "is not there")]
)
def test_without_a_checkpoint_it_says_why_it_cannot_be_loaded(settings: dict[str, str], words: str) -> None:
    with pytest.raises(CheckpointError, match=words):
        Wav2LipRenderer(settings).load("cpu")
