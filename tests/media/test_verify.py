"""Finished files are checked; every way to be broken has a name."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image

from app.media.boxes import top_level_boxes
from app.media.encode import VideoWriter
from app.media.verify import contact_sheet, verify_video
from app.retry.taxonomy import CodedError, FailureCode
from tests.media.makers import tone, write_video, write_wav
from tests.media.test_encode import batch

EXPECTED = {"width": 64, "height": 48, "fps": 25, "frames": 50, "audio_seconds": 2.0}


@pytest.fixture
def good(tmp_path: Path) -> Path:
    with VideoWriter(tmp_path / "good.mp4", 64, 48, 25, write_wav(tmp_path / "a.wav", tone(2))) as writer:
        writer.write(batch(50))
    return tmp_path / "good.mp4"


def failed_check(path: Path, **changed: object) -> str:
    with pytest.raises(CodedError) as caught:
        verify_video(path, **{**EXPECTED, **changed})
    assert caught.value.code is FailureCode.OUTPUT_INVALID
    return caught.value.failure.detail["check"]


def test_a_good_file_passes_with_its_values(good: Path) -> None:
    found = verify_video(good, **EXPECTED)
    assert found["frames"] == 50
    assert found["video_seconds"] == pytest.approx(2.0, abs=0.04)
    assert found["audio_seconds"] == pytest.approx(2.0, abs=0.07)
    assert found["bytes"] == good.stat().st_size


@pytest.mark.parametrize(
    ("changed", "check"),
    [
        ({"width": 66}, "size"),
        ({"frames": 51}, "frame_count"),
        ({"fps": 30}, "video_duration"),
        ({"audio_seconds": 3.0}, "audio_duration"),
        ({"audio_seconds": None}, "streams"),
    ],
)
def test_other_than_asked_for(good: Path, changed: dict[str, object], check: str) -> None:
    assert failed_check(good, **changed) == check


def test_absent_empty_cut_and_garbage(good: Path, tmp_path: Path) -> None:
    raw = good.read_bytes()
    assert failed_check(tmp_path / "absent.mp4") == "exists"
    for content, check in (
        (b"", "exists"),
        (raw[:-100], "boxes"),
        (raw[: len(raw) // 3], "boxes"),
        (b"x" * 999, "boxes"),
    ):
        (tmp_path / "bad.mp4").write_bytes(content)
        assert failed_check(tmp_path / "bad.mp4") == check


def test_names_of_boxes_that_are_garbage(good: Path, tmp_path: Path) -> None:
    bad = tmp_path / "bad.mp4"
    raw = good.read_bytes()
    for content, found in (
        (b"\0\0\0\x08\0\0\0\0" * 3, "no known box"),
        (b"x" * 99, "no known box"),
        (raw + b"\0\0\0\x99\0\n\xe4 ", r"ftyp, moov, free, mdat, '\x00\n\xe4 '"),
    ):
        bad.write_bytes(content)
        with pytest.raises(CodedError) as caught:
            verify_video(bad, **EXPECTED)
        assert caught.value.failure.detail["found"].replace(" free,", "") == found.replace(" free,", "")
        assert caught.value.failure.message.isprintable()


def test_index_at_the_end_and_mute_and_late(tmp_path: Path) -> None:
    late = write_video(tmp_path / "late.mp4", 50, audio="aac")
    assert failed_check(late) == "faststart"
    mute = write_video(tmp_path / "mute.mp4", 50, movflags="+faststart")
    assert failed_check(mute) == "streams"
    short = write_video(tmp_path / "short.mp4", 50, audio="aac", audio_seconds=1.0, movflags="+faststart")
    assert failed_check(short) == "audio_duration"
    assert failed_check(short, audio_seconds=1.0) == "audio_duration"


def test_media_that_does_not_decode(good: Path) -> None:
    media = next(box for box in top_level_boxes(good) if box.kind == "mdat")
    raw = bytearray(good.read_bytes())
    half = media.offset + media.size // 2
    raw[half : media.offset + media.size] = bytes(media.offset + media.size - half)
    good.write_bytes(raw)
    assert failed_check(good) == "decodes"


def test_contact_sheet(good: Path, tmp_path: Path) -> None:
    contact_sheet(good, tmp_path / "sheet.png", columns=3, rows=2, thumb_width=32)
    assert Image.open(tmp_path / "sheet.png").size == (96, 48)
