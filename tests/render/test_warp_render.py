"""The renderer as a whole: files in, a file out."""

from __future__ import annotations

import json
import resource
from pathlib import Path

import numpy as np
import pytest
import torch
from pydantic import ValidationError

from app.media.audio_in import audio_length
from app.render.contract import Cancelled, Phase, RenderJob, RenderResult
from app.render.registry import validate_options
from app.render.warp.options import WarpOptions
from app.render.warp.renderer import WarpRenderer
from app.retry.taxonomy import CodedError, FailureCode
from tests.render.scenes import (
    BITE,
    OPEN,
    SAMPLES,
    SHUT,
    SILENT,
    RecordingWriter,
    Reports,
    ScriptedSpeech,
    lip_gaps,
    read_video,
    save_picture,
    write_silence,
    write_template,
)


def render(
    renderer: WarpRenderer, source: Path, audio: Path, out: Path, progress: Reports | None = None, **options: object
) -> RenderResult:
    out.mkdir(exist_ok=True)
    return renderer.render(RenderJob(source, audio, out, options), progress or Reports())


@pytest.fixture
def scripted(renderer: WarpRenderer, monkeypatch: pytest.MonkeyPatch) -> ScriptedSpeech:
    speech = ScriptedSpeech([])
    monkeypatch.setattr(renderer, "speech", speech)
    return speech


@pytest.fixture
def recorder(monkeypatch: pytest.MonkeyPatch) -> type[RecordingWriter]:
    RecordingWriter.taken.clear()
    monkeypatch.setattr("app.render.film.renderer.VideoWriter", RecordingWriter)
    return RecordingWriter


def test_the_video_is_as_long_as_the_audio(renderer: WarpRenderer, portrait: Path, tmp_path: Path) -> None:
    audio = SAMPLES / "speech.wav"
    result = render(renderer, portrait, audio, tmp_path / "out")
    assert abs(result.duration_s - audio_length(audio) / 16_000) <= 1 / result.fps
    assert (result.frames, result.fps, result.width, result.height) == (151, 25.0, 240, 240)
    assert len(read_video(result.path)) == result.frames
    assert set(result.stages) == {"decode", "analyse_face", "analyse_speech", "render", "encode_wait", "encode"}
    assert result.facts["frames_without_face"] == 0


def test_lips_seal_at_closures_and_part_at_open_vowels(
    renderer: WarpRenderer, scripted: ScriptedSpeech, portrait: Path, tmp_path: Path
) -> None:
    scripted.script = [(0.2, SILENT), (0.2, OPEN), (0.12, SHUT), (0.2, OPEN), (0.2, BITE), (0.28, SILENT)]
    audio = write_silence(tmp_path / "a.wav", 1.2)
    result = render(renderer, portrait, audio, tmp_path / "out", crf=14)
    gaps = lip_gaps(read_video(result.path))
    assert gaps[:4].max() < 0.04, "rest"
    assert gaps[7:9].min() > 0.10, "open"
    assert gaps[11] < 0.04, "closure"
    assert gaps[15:17].min() > 0.10, "open again"
    assert 0.0 < gaps[20] < 0.09, "lip at the teeth"
    assert gaps[-3:].max() < 0.04, "rest again"


def test_strength_scales_the_opening(
    renderer: WarpRenderer, scripted: ScriptedSpeech, portrait: Path, tmp_path: Path
) -> None:
    scripted.script = [(0.2, OPEN)]
    audio = write_silence(tmp_path / "a.wav", 0.2)
    gaps = [
        float(lip_gaps(read_video(render(renderer, portrait, audio, tmp_path / str(s), strength=s).path)[2:3])[0])
        for s in (0.0, 0.5, 1.0)
    ]
    assert gaps[0] < 0.04 < gaps[1] < gaps[2]


def test_in_silence_the_face_rests(
    renderer: WarpRenderer, portrait: Path, tmp_path: Path, recorder: type[RecordingWriter]
) -> None:
    calm = {"blinks": False, "head_motion": 0.0, "gaze": 0.0}
    render(renderer, portrait, write_silence(tmp_path / "a.wav", 1.0), tmp_path / "out", **calm)
    frames = torch.from_numpy(recorder.take())
    assert torch.equal(frames, frames[:1].expand_as(frames))
    assert lip_gaps(frames[:1]).max() < 0.04


def test_a_picture_without_a_face_is_refused(renderer: WarpRenderer, tmp_path: Path) -> None:
    y, x = torch.meshgrid(torch.arange(128), torch.arange(128), indexing="ij")
    save_picture(tmp_path / "hills.png", torch.stack([x, y, x ^ y], 2).to(torch.uint8))
    with pytest.raises(CodedError) as caught:
        render(renderer, tmp_path / "hills.png", write_silence(tmp_path / "a.wav", 0.5), tmp_path / "out")
    assert caught.value.code is FailureCode.INPUT_NO_FACE
    assert caught.value.failure.detail["share_searched"] == 1.0
    assert not list((tmp_path / "out").iterdir())


def test_cancelling_stops_and_leaves_nothing(renderer: WarpRenderer, portrait: Path, tmp_path: Path) -> None:
    progress = Reports(cancel_at=2)
    with pytest.raises(Cancelled):
        render(renderer, portrait, SAMPLES / "speech.wav", tmp_path / "out", progress)
    assert not list((tmp_path / "out").iterdir())
    assert progress.seen[-1][:2] == (Phase.RENDER, 32)


def test_a_short_template_plays_forward_and_backward(
    renderer: WarpRenderer, portrait: Path, picture: torch.Tensor, tmp_path: Path
) -> None:
    template = write_template(tmp_path / "t.mp4", picture, frames=10, step=2)
    result = render(renderer, template, write_silence(tmp_path / "a.wav", 1.0), tmp_path / "out", crf=14)
    assert result.frames == 25
    frames = read_video(result.path)[:, :40].float()  # above the face: only the pan shows
    distance = (frames[:, None] - frames[None]).abs().mean((2, 3, 4))
    for number, same in ((10, 8), (14, 4), (18, 0), (20, 2), (24, 6)):
        assert int(distance[number, :10].argmin()) == same


def test_the_analysis_of_a_template_is_cached(
    picture: torch.Tensor, tmp_path: Path, recorder: type[RecordingWriter]
) -> None:
    cached = WarpRenderer({"cache_dir": str(tmp_path / "cache"), "cache_bytes": "10000000"})
    cached.load("cpu")
    template = write_template(tmp_path / "t.mp4", picture, frames=6)
    audio = write_silence(tmp_path / "a.wav", 0.4)
    first = render(cached, template, audio, tmp_path / "1")
    written = recorder.take()
    looked = Reports()
    again = render(cached, template, audio, tmp_path / "2", looked)
    assert not first.facts["analysis_cached"]
    assert again.facts["analysis_cached"]
    assert np.array_equal(recorder.take(), written)
    assert all(total == 0 for phase, _, total in looked.seen if phase is Phase.ANALYSE), "only the speech was analysed"
    longer = render(cached, template, write_silence(tmp_path / "b.wav", 0.1), tmp_path / "3")
    assert longer.facts["analysis_cached"], "a longer analysis serves a shorter job"


def test_odd_sizes_become_even(renderer: WarpRenderer, picture: torch.Tensor, tmp_path: Path) -> None:
    save_picture(tmp_path / "odd.png", picture[:233, :221])
    result = render(renderer, tmp_path / "odd.png", write_silence(tmp_path / "a.wav", 0.2), tmp_path / "out", fps=30.0)
    assert (result.width, result.height, result.fps, result.frames) == (220, 232, 30.0, 6)


def test_the_same_job_gives_the_same_frames(
    renderer: WarpRenderer, portrait: Path, tmp_path: Path, recorder: type[RecordingWriter]
) -> None:
    render(renderer, portrait, SAMPLES / "speech.wav", tmp_path / "one")
    one = recorder.take()
    render(renderer, portrait, SAMPLES / "speech.wav", tmp_path / "two")
    assert np.array_equal(recorder.take(), one)


def test_memory_does_not_grow_with_the_audio(renderer: WarpRenderer, portrait: Path, tmp_path: Path) -> None:
    def peak(seconds: float) -> int:
        render(renderer, portrait, write_silence(tmp_path / "a.wav", seconds), tmp_path / "out")
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss  # kB

    short = peak(4.0)
    assert peak(40.0) - short < 30_000


def test_frames_without_a_face_pass_through(renderer: WarpRenderer, picture: torch.Tensor, tmp_path: Path) -> None:
    from app.media.encode import VideoWriter

    blank = torch.full_like(picture, 90)
    with VideoWriter(tmp_path / "t.mp4", 240, 240, 25.0, None, crf=12) as writer:
        for frame in [picture] * 8 + [blank] * 6:
            writer.write(frame[None].numpy())
    result = render(renderer, tmp_path / "t.mp4", write_silence(tmp_path / "a.wav", 14 / 25), tmp_path / "out", crf=12)
    assert result.facts["frames_without_face"] >= 5
    assert np.abs(read_video(result.path)[-1].numpy().astype(int) - 90).max() <= 3


def test_the_face_is_cut_out_and_scaled_where_that_is_asked(
    renderer: WarpRenderer, tmp_path: Path, scripted: ScriptedSpeech
) -> None:
    scripted.script = [(0.2, OPEN)]
    audio = write_silence(tmp_path / "a.wav", 0.2)
    photo = SAMPLES / "portrait.png"
    face = render(renderer, photo, audio, tmp_path / "face", crop="face", max_side=300)
    assert face.width == face.height == 300
    assert lip_gaps(read_video(face.path)[2:3])[0] > 0.1, "it speaks"
    box = render(renderer, photo, audio, tmp_path / "box", crop=[0.1, 0.0, 0.9, 0.85])
    assert (box.width, box.height) == (410, 434)
    assert lip_gaps(read_video(box.path)[2:3])[0] > 0.1
    small = render(renderer, photo, audio, tmp_path / "small", max_side=255)
    assert (small.width, small.height) == (254, 254), "even"
    large = render(renderer, photo, audio, tmp_path / "large", max_side=2000)
    assert (large.width, large.height) == (512, 512), "never scaled up"


def test_a_template_is_cut_and_scaled_like_a_portrait(
    renderer: WarpRenderer, scripted: ScriptedSpeech, picture: torch.Tensor, tmp_path: Path
) -> None:
    scripted.script = [(0.4, OPEN)]
    audio = write_silence(tmp_path / "a.wav", 0.4)
    template = write_template(tmp_path / "t.mp4", picture, frames=10, step=2)
    result = render(renderer, template, audio, tmp_path / "out", crop=[0.0, 0.0, 1.0, 0.8], max_side=160)
    frames = read_video(result.path)
    assert tuple(frames.shape[1:3]) == (result.height, result.width) == (128, 160)
    assert lip_gaps(frames[4:5])[0] > 0.1


def test_a_crop_without_the_face_is_the_callers_mistake(renderer: WarpRenderer, portrait: Path, tmp_path: Path) -> None:
    with pytest.raises(CodedError) as raised:
        render(renderer, portrait, write_silence(tmp_path / "a.wav", 0.2), tmp_path / "out", crop=[0.0, 0.8, 0.3, 1.0])
    assert raised.value.code is FailureCode.INPUT_INVALID
    assert "crop" in str(raised.value)


def test_quality_names_trade_size_for_faithfulness(renderer: WarpRenderer, portrait: Path, tmp_path: Path) -> None:
    audio = write_silence(tmp_path / "a.wav", 1.0)
    sizes = [
        render(renderer, portrait, audio, tmp_path / name, quality=name).path.stat().st_size
        for name in ("draft", "standard", "high")
    ]
    assert sizes[0] < sizes[1] < sizes[2]


@pytest.mark.parametrize(
    "wrong",
    [
        {"blinks": -1},
        {"blinks": "often"},
        {"head_motion": 1.5},
        {"gaze": 1.5},
        {"seed": -3},
        {"crop": "mouth"},
        {"crop": [0, 0, 1]},
        {"crop": [0.5, 0.0, 0.5, 1.0]},
        {"crop": [0.0, 0.0, 1.2, 1.0]},
        {"max_side": 32},
        {"quality": "best"},
        {"crf": 5},
    ],
)
def test_options_out_of_range_are_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(ValidationError) as raised:
        WarpOptions.model_validate(wrong)
    assert raised.value.errors()[0]["loc"][0] == next(iter(wrong))


def test_options_survive_the_way_through_json() -> None:
    asked = {"crop": [0, 0, 1, 0.5], "blinks": 12, "head_motion": 1, "seed": 7}
    dumped = validate_options("warp", asked)
    assert validate_options("warp", json.loads(json.dumps(dumped))) == dumped
