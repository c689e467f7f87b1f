"""Template videos: constant rate, upright, ping-pong, flat memory."""

from __future__ import annotations

import random
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import psutil
import pytest

from app.media.boxes import top_level_boxes
from app.media.hdr import HLG, PQ, to_srgb
from app.media.video_in import VideoSource
from app.retry.taxonomy import CodedError, FailureCode
from tests.media.makers import read_number, write_audio, write_video


def numbers(source: VideoSource, count: int, batch_size: int = 7) -> list[int]:
    return [read_number(image) for batch in source.batches(batch_size, count) for image in batch]


@pytest.mark.parametrize(
    ("name", "codec"),
    [("v.mp4", "libx264"), ("v.mov", "libx264"), ("v.mkv", "libx264"), ("v.webm", "libvpx-vp9"), ("w.webm", "libvpx")],
)
def test_every_container_is_played_frame_by_frame(tmp_path: Path, name: str, codec: str) -> None:
    path = write_video(tmp_path / name, 30, codec=codec, audio="libopus" if "webm" in name else "aac")
    with VideoSource(path) as source:
        assert (source.fps, source.frame_count, source.width, source.height) == (25.0, 30, 64, 48)
        assert numbers(source, 30) == list(range(30))


@pytest.mark.parametrize("gop", [1, 12, 250])
@pytest.mark.parametrize("cache_frames", [0, 10, 1000])
def test_pingpong_over_keyframes_and_chunks(tmp_path: Path, gop: int, cache_frames: int) -> None:
    path = write_video(tmp_path / "v.mp4", 50, gop=gop)
    with VideoSource(path, cache_bytes=cache_frames * 64 * 48 * 3) as source:
        assert numbers(source, 230, 16) == source.indices(230).tolist()


def test_batches_have_the_asked_shape_and_count(tmp_path: Path) -> None:
    with VideoSource(write_video(tmp_path / "v.mp4", 10)) as source:
        shapes = [batch.shape for batch in source.batches(4, 11)]
        assert shapes == [(4, 48, 64, 3), (4, 48, 64, 3), (3, 48, 64, 3)]
        assert list(source.batches(4, 0)) == []
        assert next(source.batches(4, 4)).dtype == np.uint8
        assert read_number(source.frame(7)) == 7


def test_a_single_frame_is_repeated(tmp_path: Path) -> None:
    with VideoSource(write_video(tmp_path / "one.mp4", 1)) as source:
        assert source.frame_count == 1
        assert numbers(source, 5) == [0] * 5


def test_variable_rate_follows_presentation_time(tmp_path: Path) -> None:
    # 10 frames at 25/s, a pause of one second, then 20 frames at 50/s.
    times = [40 * n for n in range(10)] + [1360 + 20 * n for n in range(20)]
    path = write_video(tmp_path / "vfr.mkv", 30, times_ms=times)
    with VideoSource(path, fps=25) as source:
        shown = numbers(source, source.frame_count)
    assert shown[:10] == list(range(10))
    assert shown[10:33] == [9] * 23
    assert shown[34:44] == list(range(10, 30, 2))
    assert len(shown) == pytest.approx(1.76 * 25, abs=1)


def test_other_rates_keep_the_duration(tmp_path: Path) -> None:
    path = write_video(tmp_path / "v.mp4", 50)
    for fps, count in ((12.5, 25), (25, 50), (50, 100), (Fraction(30000, 1001), 60)):
        with VideoSource(path, fps) as source:
            assert source.frame_count == count


def test_ntsc_rate_is_recognised(tmp_path: Path) -> None:
    for name in ("n.mp4", "n.mkv"):
        path = write_video(tmp_path / name, 40, rate=Fraction(30000, 1001))
        with VideoSource(path) as source:
            assert source.rate == Fraction(30000, 1001)
            assert source.frame_count == 40


# The white mark of a frame is in its upper left; (rotation, hflip) -> corner where it must appear.
@pytest.mark.parametrize(
    ("rotation", "hflip", "size", "corner"),
    [
        (0, False, (64, 48), "upper left"),
        (90, False, (48, 64), "lower left"),
        (180, False, (64, 48), "lower right"),
        (270, False, (48, 64), "upper right"),
        (0, True, (64, 48), "upper right"),
    ],
)
def test_display_rotation_is_honoured(tmp_path: Path, rotation: int, hflip: bool, size, corner: str) -> None:
    path = write_video(tmp_path / "r.mp4", 3, rotation=rotation, hflip=hflip)
    with VideoSource(path) as source:
        assert (source.width, source.height) == size
        image = source.frame(0)
    corners = {
        "upper left": image[:4, :4],
        "upper right": image[:4, -4:],
        "lower left": image[-4:, :4],
        "lower right": image[-4:, -4:],
    }
    assert max(corners, key=lambda name: corners[name].mean()) == corner


def test_wide_pixels_are_stretched_and_absurd_ones_ignored(tmp_path: Path) -> None:
    with VideoSource(write_video(tmp_path / "w.mp4", 2, aspect=Fraction(4, 3))) as source:
        assert (source.width, source.height) == (84, 48)
    with VideoSource(write_video(tmp_path / "x.mp4", 2, aspect=Fraction(100))) as source:
        assert (source.width, source.height) == (64, 48)


def test_odd_sizes_are_cropped_to_even(tmp_path: Path) -> None:
    with VideoSource(write_video(tmp_path / "odd.webm", 3, 65, 49, codec="libvpx-vp9")) as source:
        assert next(source.batches(3, 3)).shape == (3, 48, 64, 3)


def test_memory_stays_flat_over_a_long_pingpong(tmp_path: Path) -> None:
    path = write_video(tmp_path / "v.mp4", 120, 320, 240, gop=60)
    process = psutil.Process()
    cache = 20 * 320 * 240 * 3
    with VideoSource(path, cache_bytes=cache) as source:
        resident = [process.memory_info().rss for _ in source.batches(8, 1600)]
    warm = max(resident[:40])
    assert max(resident) - warm < 8 * 1024**2


def test_a_decoder_error_names_its_frame(tmp_path: Path) -> None:
    path = write_video(tmp_path / "v.mp4", 100, 320, 240, gop=250)
    raw = bytearray(path.read_bytes())
    media = next(box for box in top_level_boxes(path) if box.kind == "mdat")
    noise = random.Random(1)
    for place in range(media.offset + media.size // 2, media.offset + media.size // 2 + 2000):
        raw[place] = noise.randrange(256)
    path.write_bytes(raw)
    with VideoSource(path) as source, pytest.raises(CodedError) as caught:
        numbers(source, 100)
    assert caught.value.code is FailureCode.INPUT_INVALID
    assert 20 <= caught.value.failure.detail["frame"] <= 90


def test_what_is_no_video_is_refused(tmp_path: Path, refused) -> None:
    sound = write_audio(tmp_path / "a.m4a", "aac", 0.2)
    refused(lambda: VideoSource(sound), FailureCode.INPUT_INVALID, "no_video_stream")
    refused(lambda: VideoSource(tmp_path / "absent.mp4"), FailureCode.INPUT_NOT_FOUND)
    nothing = write_video(tmp_path / "none.mkv", 0, audio="aac", audio_seconds=0.5)
    refused(lambda: VideoSource(nothing), FailureCode.INPUT_INVALID, "no_video_frames")


BT2020 = 9


@pytest.mark.parametrize(
    ("transfer", "code"),
    [(PQ, (0.5039, 0.4663, 0.4363)), (HLG, (0.6322, 0.5476, 0.4720))],
    ids=["PQ", "HLG"],
)
def test_skin_of_an_hdr_video_has_its_colour(tmp_path: Path, transfer: int, code: tuple[float, ...]) -> None:
    """`code` is how a phone records the sRGB colour below, with white at 203 nits (ITU-R BT.2408)."""
    path = tmp_path / "hdr.mkv"
    flat = np.empty((64, 64, 3), np.uint16)
    flat[:] = (np.array(code) * 65_535).astype(np.uint16)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx265", rate=25, options={"x265-params": "log-level=none"})
        stream.width, stream.height, stream.pix_fmt = 64, 64, "yuv420p10le"
        context = stream.codec_context
        context.color_primaries, context.color_trc, context.colorspace = BT2020, transfer, BT2020
        for number in range(5):
            frame = av.VideoFrame.from_ndarray(flat, format="rgb48le")
            frame = frame.reformat(format="yuv420p10le", dst_colorspace=BT2020)
            frame.color_primaries, frame.color_trc, frame.colorspace = BT2020, transfer, BT2020
            frame.pts = number
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    with VideoSource(path) as source:
        shown = source.frame(0).reshape(-1, 3).mean(0)
    assert shown == pytest.approx([200, 150, 130], abs=4)


@pytest.mark.parametrize("transfer", [PQ, HLG], ids=["PQ", "HLG"])
def test_hdr_goes_from_black_to_the_white_of_paper_and_is_cut_above(transfer: int) -> None:
    grey = np.repeat(np.linspace(0, 65_535, 256).astype(np.uint16), 3).reshape(256, 1, 3)
    shown = to_srgb(grey, transfer)
    assert (shown[0] == 0).all()
    assert (shown[-1] == 255).all()
    assert (np.diff(shown[:, 0, 0].astype(int)) >= 0).all()
    assert (np.ptp(shown, axis=2) <= 1).all(), "grey stays grey"
    white = {PQ: 0.5807, HLG: 0.7500}[transfer]  # 203 cd/m2, as ITU-R BT.2408 has it
    at = round(white * 255)
    assert shown[at - 4, 0, 0] < 255
    assert (shown[at + 2 :] >= 254).all()
