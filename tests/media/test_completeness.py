"""Files whose end is missing are refused, whole ones never, whatever their writers made of the headers."""

from __future__ import annotations

import io
import struct
import wave
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from app.media.completeness import check_bytes, mp3_promise
from app.media.info import MediaLimits
from app.media.probe import probe
from app.retry.taxonomy import FailureCode
from tests.media.makers import numbered_frame, tone, write_audio, write_video, write_wav

LIMITS = MediaLimits()
SOUND = [
    ("a.wav", "pcm_s16le"),
    ("f.wav", "pcm_f32le"),
    ("i.wav", "adpcm_ima_wav"),
    ("a.w64", "pcm_s16le"),
    ("a.mp3", "libmp3lame"),
    ("a.ogg", "libopus"),
    ("a.opus", "libopus"),
    ("f.ogg", "flac"),
    ("a.flac", "flac"),
    ("a.webm", "libopus"),
    ("a.mka", "aac"),
    ("a.m4a", "aac"),
    ("a.aac", "aac"),
]


def write_vorbis(path: Path, seconds: float) -> Path:
    with av.open(str(path), "w") as out:
        stream = out.add_stream("vorbis", rate=48_000, layout="stereo", options={"strict": "experimental"})
        for start in range(0, round(seconds * 48_000), 1024):
            frame = av.AudioFrame.from_ndarray(np.zeros((2, 1024), np.float32), format="fltp", layout="stereo")
            frame.sample_rate, frame.pts, frame.time_base = 48_000, start, Fraction(1, 48_000)
            out.mux(stream.encode(frame))
        out.mux(stream.encode(None))
    return path


def frames_of_mp3(path: Path) -> bytes:
    """The mp3 without its ID3 tag and without its first frame, which promises the others."""
    with av.open(str(path)) as container:
        positions = [packet.pos for packet in container.demux() if packet.size]
    return path.read_bytes()[positions[0] :]


@pytest.mark.parametrize(("name", "codec"), SOUND)
@pytest.mark.parametrize("seconds", [0.2, 3.0])
def test_whole_sound_passes(tmp_path: Path, name: str, codec: str, seconds: float) -> None:
    rate = 44_100 if codec == "libmp3lame" else 48_000
    info = probe(write_audio(tmp_path / name, codec, seconds, rate=rate), LIMITS)
    assert info.audio_duration_s == pytest.approx(seconds, abs=0.08)


@pytest.mark.parametrize(("name", "codec"), [item for item in SOUND if item[0] != "a.aac"])
@pytest.mark.parametrize("share", [0.05, 0.5, 0.8])
def test_cut_off_sound_is_refused(tmp_path: Path, damaged, refused, name: str, codec: str, share: float) -> None:
    cut = damaged(write_audio(tmp_path / name, codec, 4.0), share)
    refused(lambda: probe(cut, LIMITS), FailureCode.INPUT_INVALID, "truncated")


def test_vorbis(tmp_path: Path, damaged, refused) -> None:
    whole = write_vorbis(tmp_path / "v.ogg", 3.0)
    assert probe(whole, LIMITS).audio_codec == "vorbis"
    refused(lambda: probe(damaged(whole, 0.6), LIMITS), FailureCode.INPUT_INVALID, "truncated")


@pytest.mark.parametrize("rate", [8_000, 16_000, 24_000, 32_000, 44_100, 48_000])
@pytest.mark.parametrize("layout", ["mono", "stereo"])
def test_the_promise_of_mp3_of_every_version(tmp_path: Path, damaged, refused, rate: int, layout: str) -> None:
    path = tmp_path / "a.mp3"
    with av.open(str(path), "w") as out:
        stream = out.add_stream("libmp3lame", rate=rate, layout=layout)
        for start in range(0, 3 * rate, 1152):
            frame = av.AudioFrame.from_ndarray(
                np.zeros((len(stream.layout.channels), 1152), np.int16), format="s16p", layout=layout
            )
            frame.sample_rate, frame.pts, frame.time_base = rate, start, Fraction(1, rate)
            out.mux(stream.encode(frame))
        out.mux(stream.encode(None))
    promise = mp3_promise(path)
    assert promise.seconds == pytest.approx(3.0, abs=0.4)
    assert promise.bytes == promise.bytes_there
    probe(path, LIMITS)
    refused(lambda: probe(damaged(path, 0.5), LIMITS), FailureCode.INPUT_INVALID, "truncated")


def test_mp3_that_promises_nothing_and_tags_behind(tmp_path: Path) -> None:
    whole = write_audio(tmp_path / "a.mp3", "libmp3lame", 3.0)
    bare = tmp_path / "bare.mp3"
    bare.write_bytes(frames_of_mp3(whole))
    assert mp3_promise(bare).seconds == mp3_promise(bare).bytes == 0
    assert probe(bare, LIMITS).audio_duration_s == pytest.approx(3.0, abs=0.1)
    bare.write_bytes(frames_of_mp3(whole)[:15_000])
    assert probe(bare, LIMITS).audio_duration_s < 2.5
    tagged = tmp_path / "tagged.mp3"
    tagged.write_bytes(whole.read_bytes() + b"TAG" + bytes(125))
    probe(tagged, LIMITS)


def test_mp3_that_promises_bytes_only_or_a_vbri_frame(tmp_path: Path, refused) -> None:
    whole = write_audio(tmp_path / "a.mp3", "libmp3lame", 3.0).read_bytes()
    place = whole.find(b"Info")
    only_bytes = whole[: place + 4] + struct.pack(">II", 2, len(whole) * 2) + whole[place + 12 :]
    # VBRI: version, delay, quality, bytes, frames; 36 bytes behind the start of the frame.
    start = place - 21
    vbri = b"VBRI" + struct.pack(">HHHII", 1, 0, 0, 0, 999)
    with_vbri = whole[: start + 4] + bytes(32) + vbri + whole[start + 36 + len(vbri) :]
    for raw in (only_bytes, with_vbri):
        (tmp_path / "b.mp3").write_bytes(raw)
        refused(lambda: probe(tmp_path / "b.mp3", LIMITS), FailureCode.INPUT_INVALID, "truncated")


@pytest.mark.parametrize("declared", [0, 0x7FFFF000, 0x7FFFFFFF, 0x80000000, 0xFFFFFFDB, 0xFFFFFFFF])
def test_a_streamed_wav_header_is_measured(tmp_path: Path, declared: int) -> None:
    path = write_wav(tmp_path / "lie.wav", tone(1.0), declared_bytes=declared)
    assert probe(path, LIMITS).audio_duration_s == pytest.approx(1.0)


def test_a_wav_header_that_promises_more_is_refused(tmp_path: Path, refused) -> None:
    for seconds, declared in ((1.0, 10**8), (4.0, 160_000), (0.0, 64_000)):
        path = write_wav(tmp_path / "lie.wav", tone(seconds), declared_bytes=declared)
        refused(lambda path=path: probe(path, LIMITS), FailureCode.INPUT_INVALID, "truncated")
    little = write_wav(tmp_path / "little.wav", tone(4.0), declared_bytes=128_000 + 15_000)
    probe(little, LIMITS)


def test_rf64_is_measured(tmp_path: Path) -> None:
    plain = write_wav(tmp_path / "a.wav", tone(2.0)).read_bytes()
    for samples in (64_000, 0, 2**64 - 1):
        ds64 = b"ds64" + struct.pack("<IQQQI", 28, len(plain) + 28, samples, samples // 2, 0)
        raw = b"RF64\xff\xff\xff\xffWAVE" + ds64 + plain[12:40] + b"\xff\xff\xff\xff" + plain[44:]
        (tmp_path / "r.wav").write_bytes(raw)
        check_bytes(tmp_path / "r.wav", raw[:64])
    assert raw[:4] == b"RF64"


def test_wav_of_the_wave_module_and_with_more_chunks(tmp_path: Path) -> None:
    content = io.BytesIO()
    with wave.open(content, "wb") as out:
        out.setnchannels(1)
        out.setsampwidth(1)
        out.setframerate(8000)
        out.writeframes(bytes([128]) * 8001)
    odd = content.getvalue()
    listing = b"LIST" + struct.pack("<I", 5) + b"INFOx" + b"\0"
    cases = {
        "plain": odd,
        "padded": odd + b"\0",
        "behind": odd + b"\0" + listing,
        "behind, unpadded": odd + listing,
        "before": odd[:36] + listing + odd[36:],
    }
    for name, raw in cases.items():
        (tmp_path / f"{name}.wav").write_bytes(raw)
        assert probe(tmp_path / f"{name}.wav", LIMITS).audio_duration_s == pytest.approx(1.0, abs=0.01), name


def test_ogg_ends_that_are_and_are_not_ends(tmp_path: Path, refused) -> None:
    whole = write_audio(tmp_path / "a.ogg", "libopus", 3.0).read_bytes()
    last = whole.rfind(b"OggS")
    path = tmp_path / "b.ogg"
    for raw in (whole + b"TAG" + bytes(125), whole + whole):
        path.write_bytes(raw)
        probe(path, LIMITS)
    for raw in (whole[:last], whole[: last + 20], whole[:-1], whole + whole[:5000]):
        path.write_bytes(raw)
        refused(lambda: probe(path, LIMITS), FailureCode.INPUT_INVALID, "truncated")


@pytest.mark.parametrize("suffix", ["mkv", "mp4", "mov", "webm"])
def test_video_that_does_not_start_at_0(tmp_path: Path, damaged, refused, suffix: str) -> None:
    codec = "libvpx" if suffix == "webm" else "libx264"
    late = write_video(tmp_path / f"late.{suffix}", 50, codec=codec, times_ms=range(5000, 7000, 40))
    assert probe(late, LIMITS).duration_s == pytest.approx(2.0, abs=0.1)
    refused(lambda: probe(damaged(late, 0.5), LIMITS), FailureCode.INPUT_INVALID, "truncated")


@pytest.mark.parametrize("suffix", ["mkv", "mp4"])
def test_a_longer_second_sound_track_is_no_truncation(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"two.{suffix}"
    with av.open(str(path), "w") as out:
        video = out.add_stream("libx264", rate=25)
        video.width, video.height, video.pix_fmt = 64, 48, "yuv420p"
        sounds = [out.add_stream("aac", rate=48_000, layout="mono") for _ in range(2)]
        for number in range(25):
            out.mux(video.encode(av.VideoFrame.from_ndarray(numbered_frame(number, 64, 48), format="rgb24")))
        out.mux(video.encode(None))
        for sound, seconds in zip(sounds, (1, 4), strict=True):
            for start in range(0, seconds * 48_000, 1024):
                frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
                frame.sample_rate, frame.pts, frame.time_base = 48_000, start, Fraction(1, 48_000)
                out.mux(sound.encode(frame))
            out.mux(sound.encode(None))
    assert probe(path, LIMITS).duration_s == pytest.approx(1.0, abs=0.05)


def test_a_template_cut_before_its_first_frame_is_truncated(tmp_path: Path, refused) -> None:
    whole = write_video(tmp_path / "v.mkv", 100, audio="aac").read_bytes()
    cluster = whole.find(b"\x1f\x43\xb6\x75")
    (tmp_path / "cut.mkv").write_bytes(whole[: cluster + 40])
    refused(lambda: probe(tmp_path / "cut.mkv", LIMITS), FailureCode.INPUT_INVALID, "truncated")


def test_sound_cut_in_its_tags_is_truncated(tmp_path: Path, refused) -> None:
    head = b"ID3\x04\0\0\0\0\x7f\x7f"
    (tmp_path / "a.mp3").write_bytes(head + bytes(500))
    (tmp_path / "a.flac").write_bytes(write_audio(tmp_path / "w.flac", "flac", 1.0).read_bytes()[:45])
    for name in ("a.mp3", "a.flac"):
        refused(lambda name=name: probe(tmp_path / name, LIMITS), FailureCode.INPUT_INVALID, "truncated")


@pytest.mark.parametrize("magic", [b"RIFF\0\0\0\0WAVE", b"riff", b"OggS", b"fLaC", b"ID3", b"\xff\xfb\x90\x00"])
def test_a_file_of_a_few_bytes(tmp_path: Path, refused, magic: bytes) -> None:
    path = tmp_path / "few"
    for count in range(40):
        path.write_bytes(magic + bytes(count))
        refused(lambda: probe(path, LIMITS), FailureCode.INPUT_INVALID)
        mp3_promise(path)
