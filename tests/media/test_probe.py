"""What a file is, and why it is refused: every format, every kind of damage, real files."""

from __future__ import annotations

import os
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image

from app.media.audio_in import audio_length
from app.media.info import MediaInfo, MediaLimits
from app.media.probe import probe, require_audio, require_source
from app.retry.taxonomy import FailureCode
from tests.media.makers import png_header_only, tone, write_audio, write_video, write_wav

LIMITS = MediaLimits()


def picture(width: int = 90, height: int = 60) -> Image.Image:
    noise = np.random.default_rng(0).integers(0, 255, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(noise)


@pytest.mark.parametrize(
    ("name", "codec", "fmt", "reported"),
    [
        ("a.wav", "pcm_s16le", "wav", "pcm_s16le"),
        ("f.wav", "pcm_f32le", "wav", "pcm_f32le"),
        ("a.mp3", "libmp3lame", "mp3", "mp3"),
        ("a.m4a", "aac", "m4a", "aac"),
        ("a.flac", "flac", "flac", "flac"),
        ("a.ogg", "libopus", "ogg", "opus"),
        ("a.opus", "libopus", "ogg", "opus"),
        ("a.webm", "libopus", "webm", "opus"),
    ],
)
def test_sound(tmp_path: Path, name: str, codec: str, fmt: str, reported: str) -> None:
    info = probe(write_audio(tmp_path / name, codec, 1.5), LIMITS)
    assert (info.kind, info.format, info.audio_codec) == ("audio", fmt, reported)
    assert (info.sample_rate, info.channels) == (48_000, 1)
    assert info.duration_s == info.audio_duration_s == pytest.approx(1.5, abs=0.06)
    assert info.bytes == (tmp_path / name).stat().st_size
    require_audio(info)


@pytest.mark.parametrize(
    ("name", "codec", "audio", "fmt", "reported"),
    [
        ("v.mp4", "libx264", "aac", "mp4", ("h264", "aac")),
        ("v.mov", "libx264", "aac", "mov", ("h264", "aac")),
        ("v.mkv", "libx264", "aac", "mkv", ("h264", "aac")),
        ("v.webm", "libvpx-vp9", "libopus", "webm", ("vp9", "opus")),
        ("w.webm", "libvpx", "libopus", "webm", ("vp8", "opus")),
        ("mute.mp4", "libx264", None, "mp4", ("h264", None)),
    ],
)
def test_video(tmp_path: Path, name: str, codec: str, audio, fmt: str, reported) -> None:
    info = probe(write_video(tmp_path / name, 40, codec=codec, audio=audio, rate=20), LIMITS)
    assert (info.kind, info.format, (info.video_codec, info.audio_codec)) == ("video", fmt, reported)
    assert (info.width, info.height) == (64, 48)
    assert info.duration_s == pytest.approx(2.0, abs=0.05)
    assert info.fps == pytest.approx(20, rel=0.03)
    require_source(info)


def test_rotated_video_is_measured_as_displayed(tmp_path: Path) -> None:
    info = probe(write_video(tmp_path / "r.mp4", 5, rotation=90), LIMITS)
    assert (info.width, info.height) == (48, 64)
    assert info.rotation == 270


@pytest.mark.parametrize("name", ["p.jpg", "p.png", "p.webp", "p.gif", 'Zoë\'s "best" 照片.png', "with space.jpg"])
def test_pictures(tmp_path: Path, name: str) -> None:
    picture().save(tmp_path / name)
    info = probe(tmp_path / name, LIMITS)
    assert (info.kind, info.width, info.height, info.duration_s) == ("image", 90, 60, 0.0)
    require_source(info)


@pytest.mark.parametrize("mode", ["P", "RGBA", "L", "LA", "1", "I;16"])
def test_picture_modes(tmp_path: Path, mode: str) -> None:
    image = Image.new("I;16", (90, 60), 40_000) if mode == "I;16" else picture().convert(mode)
    image.save(tmp_path / "m.png")
    assert probe(tmp_path / "m.png", LIMITS).kind == "image"


def test_cmyk_jpeg(tmp_path: Path) -> None:
    picture().convert("CMYK").save(tmp_path / "c.jpg")
    assert probe(tmp_path / "c.jpg", LIMITS).format == "jpeg"


def test_exif_orientation_swaps_the_sides(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    for name in ("o.jpg", "o.png", "o.webp"):
        picture().save(tmp_path / name, exif=exif)
        info = probe(tmp_path / name, LIMITS)
        assert (info.width, info.height, info.rotation) == (60, 90, 90)


def test_animations_are_pictures(tmp_path: Path) -> None:
    for name in ("a.gif", "a.webp", "a.png"):
        picture().save(tmp_path / name, save_all=True, append_images=[picture(90, 60).rotate(180)])
        assert probe(tmp_path / name, LIMITS).kind == "image"


def test_a_sound_file_with_a_cover_is_sound(tmp_path: Path) -> None:
    picture(64, 64).save(tmp_path / "cover.jpg")
    path = tmp_path / "song.mp3"
    with av.open(str(path), "w") as out, av.open(str(tmp_path / "cover.jpg")) as cover:
        stream = out.add_stream("libmp3lame", rate=48_000, layout="mono")
        art = out.add_stream_from_template(cover.streams.video[0])
        art.disposition = av.stream.Disposition.attached_pic
        packet = next(cover.demux(cover.streams.video[0]))
        packet.stream = art
        out.mux(packet)
        samples = np.zeros((1, 1152), np.int16)
        for number in range(40):
            frame = av.AudioFrame.from_ndarray(samples, format="s16", layout="mono")
            frame.sample_rate, frame.pts = 48_000, number * 1152
            out.mux(stream.encode(frame))
        out.mux(stream.encode(None))
    info = probe(path, LIMITS)
    assert (info.kind, info.audio_codec, info.width) == ("audio", "mp3", 0)


def test_what_is_no_media(tmp_path: Path, refused) -> None:
    cases = {
        "text.mp4": b"This is no video, whatever its name says.\n" * 50,
        "noise.mp4": np.random.default_rng(3).bytes(50_000),
        "zeros.wav": bytes(10_000),
        "playlist.mp4": b"#EXTM3U\n#EXT-X-TARGETDURATION:9\n#EXTINF:9,\nfile:///etc/hostname\n#EXT-X-ENDLIST\n",
        "script.mp4": b"ffconcat version 1.0\nfile /etc/hostname\n",
        "drawing.svg": b"<svg xmlns='http://www.w3.org/2000/svg' width='9' height='9'/>",
        "one.mp4": b"\0",
    }
    for name, content in cases.items():
        (tmp_path / name).write_bytes(content)
        error = refused(lambda name=name: probe(tmp_path / name, LIMITS), FailureCode.INPUT_INVALID, "unknown_format")
        assert "gif (of an animated png, webp or gif, the first frame)" in error.failure.hint
    (tmp_path / "empty.wav").touch()
    refused(lambda: probe(tmp_path / "empty.wav", LIMITS), FailureCode.INPUT_INVALID, "empty_file")
    refused(lambda: probe(tmp_path / "absent.wav", LIMITS), FailureCode.INPUT_NOT_FOUND, "not_found")
    refused(lambda: probe(tmp_path, LIMITS), FailureCode.INPUT_INVALID, "not_a_file")
    os.mkfifo(tmp_path / "pipe.wav")
    refused(lambda: probe(tmp_path / "pipe.wav", LIMITS), FailureCode.INPUT_INVALID, "not_a_file")
    (tmp_path / "photo.heic").write_bytes(b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(200))
    refused(lambda: probe(tmp_path / "photo.heic", LIMITS), FailureCode.INPUT_INVALID, "unsupported_picture")


@pytest.mark.parametrize("name", ["v.mp4", "v.mov", "fast.mp4", "v.mkv", "v.webm", "a.m4a", "a.flac"])
@pytest.mark.parametrize("share", [0.3, 0.7])
def test_cut_off_files_are_refused(tmp_path: Path, damaged, refused, name: str, share: float) -> None:
    path = tmp_path / name
    if name.startswith("a."):
        write_audio(path, "aac" if name == "a.m4a" else "flac", 3.0)
    elif name == "v.webm":
        write_video(path, 100, codec="libvpx-vp9", audio="libopus")
    else:
        write_video(path, 100, audio="aac", movflags="+faststart" if name == "fast.mp4" else "")
    refused(lambda: probe(damaged(path, share), LIMITS), FailureCode.INPUT_INVALID, "truncated")


@pytest.mark.parametrize("name", ["p.jpg", "p.png", "p.webp", "p.gif"])
@pytest.mark.parametrize("share", [0.02, 0.5, 0.9])
def test_cut_off_pictures_are_refused(tmp_path: Path, damaged, refused, name: str, share: float) -> None:
    picture(300, 200).save(tmp_path / name)
    refused(lambda: probe(damaged(tmp_path / name, share), LIMITS), FailureCode.INPUT_INVALID)


def test_streams_with_nothing_in_them(tmp_path: Path, refused) -> None:
    refused(lambda: probe(write_wav(tmp_path / "none.wav", tone(0)), LIMITS), FailureCode.INPUT_INVALID, "no_samples")
    frameless = write_video(tmp_path / "none.mkv", 0, audio="aac", audio_seconds=0.5)
    refused(lambda: probe(frameless, LIMITS), FailureCode.INPUT_INVALID, "no_video_frames")


def test_a_template_may_have_an_empty_sound_track(tmp_path: Path, refused) -> None:
    for name in ("quiet.mkv", "quiet.mp4"):
        info = probe(write_video(tmp_path / name, 10, audio="aac", audio_seconds=0), LIMITS)
        assert (info.kind, info.audio_duration_s) == ("video", 0.0)
        require_source(info)
        refused(lambda info=info: require_audio(info), FailureCode.INPUT_INVALID)


def test_nan_sound_is_no_reason_to_refuse(tmp_path: Path) -> None:
    path = write_wav(tmp_path / "nan.wav", np.full((16_000, 1), np.nan, np.float32))
    assert probe(path, LIMITS).audio_duration_s == pytest.approx(1.0)


def test_a_codec_that_is_not_admitted(tmp_path: Path, refused) -> None:
    path = write_video(tmp_path / "old.mkv", 5, codec="ffv1")
    error = refused(lambda: probe(path, LIMITS), FailureCode.INPUT_INVALID, "unsupported_codec")
    assert error.failure.detail["codec"] == "ffv1"


def test_channels_that_cannot_be_mixed_are_refused_at_once(tmp_path: Path, refused) -> None:
    for channels in (1, 2, 6, 16):
        path = write_wav(tmp_path / f"{channels}.wav", np.zeros((1600, channels), np.int16))
        assert probe(path, LIMITS).channels == channels
        assert audio_length(path) == 1600
    for channels in (9, 64):
        path = write_wav(tmp_path / f"{channels}.wav", np.zeros((1600, channels), np.int16))
        error = refused(lambda path=path: probe(path, LIMITS), FailureCode.INPUT_INVALID, "unsupported_channels")
        assert f"The {channels} channels of" in str(error)


def test_limits(tmp_path: Path, refused) -> None:
    video = write_video(tmp_path / "v.mp4", 50, audio="aac")
    sound = write_wav(tmp_path / "a.wav", tone(2))
    picture(200, 100).save(tmp_path / "p.png")
    wide = tmp_path / "p.png"
    for path, limits, reason in (
        (video, MediaLimits(max_seconds=1), "too_long"),
        (sound, MediaLimits(max_seconds=1), "too_long"),
        (sound, MediaLimits(max_bytes=1000), "too_many_bytes"),
        (video, MediaLimits(max_pixels=1000), "too_many_pixels"),
        (wide, MediaLimits(max_pixels=19_999), "too_many_pixels"),
        (wide, MediaLimits(max_side=199), "side_too_long"),
        (video, MediaLimits(max_side=63), "side_too_long"),
    ):
        error = refused(lambda path=path, limits=limits: probe(path, limits), FailureCode.INPUT_TOO_LARGE, reason)
        assert error.failure.detail["measured"] > error.failure.detail["limit"]
    refused(lambda: probe(wide, MediaLimits(min_side=101)), FailureCode.INPUT_INVALID, "too_small")
    refused(lambda: probe(video, MediaLimits(min_side=49)), FailureCode.INPUT_INVALID, "too_small")


@pytest.mark.parametrize("side", [60_000, 9000])
def test_a_bomb_is_refused_by_its_header(tmp_path: Path, refused, side: int) -> None:
    bomb = png_header_only(tmp_path / "bomb.png", side, side)
    error = refused(lambda: probe(bomb, LIMITS), FailureCode.INPUT_TOO_LARGE, "too_many_pixels")
    assert error.failure.detail["limit"] == LIMITS.max_pixels
    assert error.failure.detail["measured"] == side**2
    for words in (str(LIMITS.max_pixels), f"{side}x{side}"):
        assert words in error.failure.message


def test_the_configured_limit_is_the_only_one(tmp_path: Path, refused) -> None:
    """Pillow's own would refuse this by its header; ours lets it through, and then its pixels are missing."""
    bomb = png_header_only(tmp_path / "bomb.png", 14_000, 14_000)
    patient = MediaLimits(max_pixels=200_000_000)
    refused(lambda: probe(bomb, patient), FailureCode.INPUT_INVALID, "truncated")


def test_roles(refused) -> None:
    image = MediaInfo("image", "png", 1, width=64, height=64)
    mute = MediaInfo("video", "mp4", 1, duration_s=1, width=64, height=64, video_codec="h264")
    sound = MediaInfo("audio", "wav", 1, duration_s=1, audio_codec="pcm_s16le", audio_duration_s=1)
    hollow = MediaInfo("audio", "wav", 1, audio_codec="pcm_s16le")
    for fine in (image, mute):
        require_source(fine)
    require_audio(sound)
    refused(lambda: require_source(sound), FailureCode.INPUT_INVALID, "audio_as_source")
    refused(lambda: require_audio(image), FailureCode.INPUT_INVALID, "image_as_audio")
    refused(lambda: require_audio(mute), FailureCode.INPUT_INVALID, "no_audio_stream")
    refused(lambda: require_audio(hollow), FailureCode.INPUT_INVALID, "no_samples")
