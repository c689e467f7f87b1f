"""The result file: structure, lengths, colours, errors of the encoder thread."""

from __future__ import annotations

import math
import resource
import signal
import subprocess
import sys
import threading
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import psutil
import pytest

from app.media.audio_in import audio_blocks
from app.media.boxes import top_level_boxes
from app.media.encode import VideoWriter, h264_encoder
from app.media.verify import verify_video
from app.media.video_in import VideoSource
from app.retry.taxonomy import CodedError, FailureCode
from tests.media.makers import numbered_frame, read_number, tone, write_video, write_wav

ROOT = Path(__file__).parents[2]


def batch(frames: int, width: int = 64, height: int = 48, first: int = 0) -> np.ndarray:
    return np.stack([numbered_frame(first + n, width, height) for n in range(frames)])


@pytest.mark.parametrize("fps", [25, 29.97, Fraction(30000, 1001), 60, 12.5])
@pytest.mark.parametrize(("rate", "channels"), [(8000, 1), (16_000, 1), (44_100, 2), (48_000, 6), (96_000, 1)])
def test_sound_and_picture_are_equally_long(tmp_path: Path, fps: float, rate: int, channels: int) -> None:
    sound = write_wav(tmp_path / "s p 'a' ü.wav", tone(1.237, rate, channels), rate)
    frames = math.ceil(1.237 * fps)
    out = tmp_path / "out put.mp4"
    with VideoWriter(out, 64, 48, fps, sound) as writer:
        writer.write(batch(frames))
    found = verify_video(out, width=64, height=48, fps=fps, frames=frames, audio_seconds=1.237)
    assert found["channels"] == min(channels, 2)
    assert found["sample_rate"] == (rate if rate in (16_000, 44_100, 48_000) else 48_000)
    assert writer.frames == frames
    assert writer.encode_seconds > 0


def test_frames_come_out_in_order(tmp_path: Path) -> None:
    with VideoWriter(tmp_path / "o.mp4", 64, 48, 25, None, crf=10) as writer:
        for first in range(0, 60, 13):
            writer.write(batch(min(13, 60 - first), first=first))
    with VideoSource(tmp_path / "o.mp4") as source:
        shown = [read_number(image) for part in source.batches(8, 60) for image in part]
    assert shown == list(range(60))


def test_colours_survive_the_round_trip(tmp_path: Path) -> None:
    rows, columns = np.mgrid[0:240, 0:320]
    ramps = np.stack([columns * 255 // 320, rows * 255 // 240, (rows + columns) * 255 // 560], -1).astype(np.uint8)
    with VideoWriter(tmp_path / "c.mp4", 320, 240, 25, None, crf=12) as writer:
        writer.write(np.repeat(ramps[None], 5, 0))
    with VideoSource(tmp_path / "c.mp4") as source:
        error = source.frame(3).astype(int) - ramps
    assert np.abs(error).mean() < 1.0
    assert np.abs(error.mean((0, 1))).max() < 0.7  # swscale's default rounding alone is off by 1.2
    with av.open(str(tmp_path / "c.mp4")) as container:
        context = container.streams.video[0].codec_context
        assert (context.color_primaries, context.color_trc, context.colorspace, context.color_range) == (1, 1, 1, 1)


def test_index_first_and_no_chatter_in_the_metadata(tmp_path: Path) -> None:
    with VideoWriter(tmp_path / "o.mp4", 64, 48, 25, write_wav(tmp_path / "a.wav", tone(1))) as writer:
        writer.write(batch(25))
    kinds = [box.kind for box in top_level_boxes(tmp_path / "o.mp4")]
    assert kinds.index("moov") < kinds.index("mdat")
    with av.open(str(tmp_path / "o.mp4")) as container:
        assert set(container.metadata) <= {"major_brand", "minor_version", "compatible_brands"}


def test_a_click_stays_where_it_was(tmp_path: Path) -> None:
    click = np.zeros((48_000 * 2, 1), np.int16)
    click[48_000] = 30_000
    with VideoWriter(tmp_path / "o.mp4", 64, 48, 25, write_wav(tmp_path / "a.wav", click, 48_000)) as writer:
        writer.write(batch(50))
    heard = np.concatenate(list(audio_blocks(tmp_path / "o.mp4", 48_000)))
    assert abs(int(np.abs(heard).argmax()) - 48_000) <= 5


def test_sound_is_cut_and_padded_to_the_picture(tmp_path: Path) -> None:
    for seconds in (0.3, 5.0):
        with VideoWriter(tmp_path / "o.mp4", 64, 48, 25, write_wav(tmp_path / "a.wav", tone(seconds))) as writer:
            writer.write(batch(50))
        verify_video(tmp_path / "o.mp4", width=64, height=48, fps=25, frames=50, audio_seconds=2.0)


def test_nan_sound_is_encoded_as_silence(tmp_path: Path) -> None:
    wave = np.full((16_000, 1), np.nan, np.float32)
    wave[8000] = 1e30
    with VideoWriter(tmp_path / "o.mp4", 64, 48, 25, write_wav(tmp_path / "nan.wav", wave)) as writer:
        writer.write(batch(25))
    heard = np.concatenate(list(audio_blocks(tmp_path / "o.mp4")))
    assert np.abs(heard[:6000]).max() < 0.01


def test_the_callers_array_may_be_reused_at_once(tmp_path: Path) -> None:
    frames = batch(8)
    with VideoWriter(tmp_path / "o.mp4", 64, 48, 25, None, crf=10) as writer:
        writer.write(frames)
        frames[:] = 255
    with VideoSource(tmp_path / "o.mp4") as source:
        assert read_number(source.frame(5)) == 5


def test_memory_stays_flat(tmp_path: Path) -> None:
    process = psutil.Process()
    frames = batch(16, 320, 240)
    sound = write_wav(tmp_path / "a.wav", tone(20))
    resident = []
    with VideoWriter(tmp_path / "o.mp4", 320, 240, 25, sound, preset="ultrafast") as writer:
        for _ in range(32):
            writer.write(frames)
            resident.append(process.memory_info().rss)
    assert max(resident) - max(resident[:10]) < 16 * 1024**2


@pytest.mark.parametrize(("width", "height"), [(65, 48), (64, 47), (0, 48), (64, -2)])
def test_odd_sizes_are_the_callers_mistake(tmp_path: Path, width: int, height: int) -> None:
    with pytest.raises(ValueError, match="even sizes"):
        VideoWriter(tmp_path / "o.mp4", width, height, 25, None)
    assert not (tmp_path / "o.mp4").exists()


def test_wrong_frames_are_the_callers_mistake(tmp_path: Path) -> None:
    writer = VideoWriter(tmp_path / "o.mp4", 64, 48, 25, None)
    for wrong in (batch(1)[0], batch(1).astype(np.float32), batch(1, 48, 64)):
        with pytest.raises(ValueError, match="expected uint8"):
            writer.write(wrong)
    with pytest.raises(ValueError, match="no frame"):
        writer.close()
    assert not (tmp_path / "o.mp4").exists()


def test_abort_leaves_no_file_and_no_thread(tmp_path: Path) -> None:
    writer = VideoWriter(tmp_path / "o.mp4", 64, 48, 25, write_wav(tmp_path / "a.wav", tone(1)))
    for _ in range(5):
        writer.write(batch(8))
    writer.abort()
    writer.abort()
    assert not (tmp_path / "o.mp4").exists()
    assert not [thread for thread in threading.enumerate() if thread.name == "encode"]
    with pytest.raises(ValueError, match="closed"):
        writer.write(batch(1))


def test_an_exception_in_the_block_aborts(tmp_path: Path) -> None:
    def render() -> None:
        with VideoWriter(tmp_path / "o.mp4", 64, 48, 25, None) as writer:
            writer.write(batch(8))
            raise KeyError

    with pytest.raises(KeyError):
        render()
    assert not (tmp_path / "o.mp4").exists()


def test_bad_sound_is_an_input_error(tmp_path: Path, refused) -> None:
    mute = write_video(tmp_path / "mute.mp4", 3)
    refused(lambda: VideoWriter(tmp_path / "o.mp4", 64, 48, 25, mute), FailureCode.INPUT_INVALID, "no_audio_stream")
    writer = VideoWriter(tmp_path / "o.mp4", 64, 48, 25, write_wav(tmp_path / "none.wav", tone(0)))

    def write_on() -> None:
        for _ in range(50):
            writer.write(batch(4))

    refused(write_on, FailureCode.INPUT_INVALID, "no_samples")
    assert not (tmp_path / "o.mp4").exists()


def test_a_missing_directory_is_an_error_at_once(tmp_path: Path) -> None:
    with pytest.raises(CodedError):
        VideoWriter(tmp_path / "absent" / "o.mp4", 64, 48, 25, None)


def fill_the_disk(target: str) -> None:
    """Run in a process of its own: a file size limit stands for a full disk, by the same path through FFmpeg."""
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
    noise = np.random.default_rng(0).integers(0, 255, (8, 256, 256, 3), dtype=np.uint8)
    for batches in (1, 30):  # seen when the file is finished, seen while it is written
        writer = VideoWriter(Path(target), 256, 256, 25, None)
        try:
            for _ in range(batches):
                writer.write(noise)
            writer.close()
        except CodedError as error:
            print(error.code, Path(target).exists())


def test_a_full_disk_is_disk_full_and_leaves_nothing(tmp_path: Path) -> None:
    script = f"from tests.media.test_encode import fill_the_disk; fill_the_disk({str(tmp_path / 'o.mp4')!r})"
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert done.stdout.splitlines() == ["DISK_FULL False", "DISK_FULL False"], done.stderr


def test_encoder_choice_is_tried_not_listed() -> None:
    assert h264_encoder("cpu") == "libx264"
    assert h264_encoder("cuda:0") in ("libx264", "h264_nvenc")
