"""Taking over videos that other programs made."""

from __future__ import annotations

from pathlib import Path

import av
import pytest

from app.media.adopt import adopt
from app.media.audio_in import audio_length
from app.media.boxes import top_level_boxes
from app.media.verify import verify_video
from app.render.contract import Cancelled
from app.retry.taxonomy import CodedError
from tests.media.makers import numbered_frame, tone, write_video, write_wav


def unheard(_done: int, _total: int) -> None:
    """Nobody listens."""


@pytest.fixture
def speech(tmp_path: Path) -> Path:
    return write_wav(tmp_path / "speech.wav", tone(2.0))


def check(out: Path, made, speech: Path) -> None:
    seconds = audio_length(speech) / 16_000
    verify_video(out, width=made.width, height=made.height, fps=made.rate, frames=made.frames, audio_seconds=seconds)


@pytest.mark.parametrize("rate", [10, 25, 30])
def test_pictures_that_fit_are_kept_as_they_are_coded(tmp_path, speech, rate):
    video = write_video(tmp_path / "in.mp4", frames=2 * rate, rate=rate, audio="aac")
    made = adopt(video, tmp_path / "out.mp4", speech, unheard)
    assert (made.kept, made.frames, made.rate) == (True, 2 * rate, rate)
    check(tmp_path / "out.mp4", made, speech)
    with av.open(str(video)) as before, av.open(str(tmp_path / "out.mp4")) as after:
        theirs, ours = ([bytes(p) for p in c.demux(c.streams.video[0]) if p.size] for c in (before, after))
    assert ours == theirs


def test_the_index_comes_first_and_foreign_metadata_goes(tmp_path, speech):
    video = tmp_path / "in.mp4"
    secret = "a prompt that is nobody's business"
    with av.open(str(video), "w", options={"movflags": "use_metadata_tags"}) as container:
        container.metadata["prompt"] = secret
        stream = container.add_stream("libx264", rate=25)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        for number in range(50):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(numbered_frame(number, 64, 48), format="rgb24")))
        container.mux(stream.encode(None))
    assert secret.encode() in video.read_bytes()
    made = adopt(video, tmp_path / "out.mp4", speech, unheard)
    assert made.kept
    assert secret.encode() not in (tmp_path / "out.mp4").read_bytes()
    kinds = [box.kind for box in top_level_boxes(tmp_path / "out.mp4")]
    assert kinds.index("moov") < kinds.index("mdat")


def test_a_coarse_clock_is_put_right(tmp_path, speech):
    """Matroska counts milliseconds: 30 frames a second are 33, 67, 100."""
    video = write_video(tmp_path / "in.mkv", frames=60, rate=30)
    made = adopt(video, tmp_path / "out.mp4", speech, unheard)
    assert (made.kept, made.rate) == (True, 30)
    check(tmp_path / "out.mp4", made, speech)


@pytest.mark.parametrize(
    ("name", "frames", "more"),
    [
        ("in.mp4", 75, {}),  # longer than the speech
        ("in.mp4", 44, {}),  # a little shorter
        ("in.webm", 50, {"codec": "libvpx-vp9"}),
        ("in.mp4", 50, {"codec": "mpeg4"}),
    ],
)
def test_what_does_not_fit_is_coded_anew_at_the_speechs_length(tmp_path, speech, name, frames, more):
    made = adopt(write_video(tmp_path / name, frames=frames, **more), tmp_path / "out.mp4", speech, unheard)
    assert (made.kept, made.frames) == (False, 50)
    check(tmp_path / "out.mp4", made, speech)


def test_uneven_frame_times_are_made_even(tmp_path, speech):
    times = [n * 40 + (25 if n % 3 == 0 else 0) for n in range(50)]
    video = write_video(tmp_path / "in.mkv", frames=50, times_ms=times)
    made = adopt(video, tmp_path / "out.mp4", speech, unheard)
    assert not made.kept
    check(tmp_path / "out.mp4", made, speech)


@pytest.mark.parametrize("content", [b"", b"not a video", b"<html>502 Bad Gateway</html>" * 50])
def test_what_is_no_video_is_broken_output_and_not_the_callers_fault(tmp_path, speech, content):
    (tmp_path / "in").write_bytes(content)
    with pytest.raises(CodedError) as caught:
        adopt(tmp_path / "in", tmp_path / "out.mp4", speech, unheard)
    assert (caught.value.code, caught.value.failure.detail["reason"]) == ("OUTPUT_INVALID", "unreadable")


def test_a_cut_off_file_is_broken_output(tmp_path, speech):
    video = write_video(tmp_path / "in.mp4", frames=50)
    video.write_bytes(video.read_bytes()[:-400])
    with pytest.raises(CodedError) as caught:
        adopt(video, tmp_path / "out.mp4", speech, unheard)
    assert caught.value.code == "OUTPUT_INVALID"


def test_a_video_far_shorter_than_the_speech_is_broken_output(tmp_path, speech):
    with pytest.raises(CodedError) as caught:
        adopt(write_video(tmp_path / "in.mp4", frames=30), tmp_path / "out.mp4", speech, unheard)
    assert (caught.value.code, caught.value.failure.detail["reason"]) == ("OUTPUT_INVALID", "too_short")


@pytest.mark.parametrize("frames", [50, 75])
def test_it_ends_when_its_listener_says_so(tmp_path, speech, frames):
    def cancelled(_done: int, _total: int) -> None:
        raise Cancelled

    with pytest.raises(Cancelled):
        adopt(write_video(tmp_path / "in.mp4", frames=frames), tmp_path / "out.mp4", speech, cancelled)
