"""The checks of `greenroom doctor` that load torch and codecs: `python -m app.cli.isolated NAME DEVICE RENDERERS`.

RENDERERS is a JSON object: `tier_renderer`, and what renderers are told (`Settings.renderer_settings`).

Each runs in a process of its own, prints one JSON line per finding, and may crash or hang: the doctor sees it.
"""

from __future__ import annotations

import base64
import json
import sys
import tempfile
import time
import wave
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from app.cli.checks import Check, Verdict, as_json
from app.cli.plugin_check import plugin_findings

CLIP_FRAMES = 25
CLIP_SIDE = 256
"""Large enough for hardware encoders, which refuse less than about 150 pixels."""
SHADE_TOLERANCE = 8.0
"""Of 255: what lossy coding may change about the mean of a plain surface."""
SECONDS_TOLERANCE = 0.1
"""AAC rounds up to frames of 1024 samples."""

PICTURES = {
    "jpeg": (
        "/9j/4AAQSkZJRgABAQAAAQABAAD/2wBDABsSFBcUERsXFhceHBsgKEIrKCUlKFE6PTBCYFVlZF9VXVtqeJmBanGQc1tdhbWGkJ6jq62r"
        "Z4C8ybqmx5moq6T/2wBDARweHigjKE4rK06kbl1upKSkpKSkpKSkpKSkpKSkpKSkpKSkpKSkpKSkpKSkpKSkpKSkpKSkpKSkpKSkpKSk"
        "pKT/wAARCAAQABADASIAAhEBAxEB/8QAFQABAQAAAAAAAAAAAAAAAAAAAAT/xAAUEAEAAAAAAAAAAAAAAAAAAAAA/8QAFQEBAQAAAAAA"
        "AAAAAAAAAAAABAX/xAAUEQEAAAAAAAAAAAAAAAAAAAAA/9oADAMBAAIRAxEAPwCMAdXf/9k="
    ),
    "png": (
        "iVBORw0KGgoAAAANSUhEUgAAABAAAAAQCAIAAACQkWg2AAAAGklEQVR42mM8oaHBQApgYiARjGoY1TB0NAAAjC0BOJDndDkAAAAASUVO"
        "RK5CYII="
    ),
    "webp": "UklGRjQAAABXRUJQVlA4ICgAAABwAQCdASoQABAABABoJaACdAFAAAD+6Di64ubIij/4hz+tv+5TWIAA",
}
"""16x16 pixels of RGB (200, 40, 40) in each picture format, base64."""


def torch_findings(device: str, _renderers: Mapping[str, str]) -> Iterator[Check]:
    """torch multiplies two matrices on the CPU and on each CUDA device that it may use."""
    import torch

    from app.worker.devices import visible_cuda_devices

    square = torch.ones(64, 64)
    assert float((square @ square)[0, 0]) == 64.0
    yield Check("torch", "ok", f"{torch.__version__}, {torch.get_num_threads()} threads, works on the CPU")
    count = torch.cuda.device_count() if device != "cpu" and torch.cuda.is_available() else 0
    for index in range(count):
        yield _cuda_finding(index)
    if count:
        return
    build = f"a build for CUDA {torch.version.cuda}" if torch.version.cuda else "a CPU build"
    if device != "cpu" and visible_cuda_devices():
        hint = "The service would plan slots on them. Install a torch that fits the driver, or set device to cpu."
        yield Check("cuda", "fail", f"the driver shows CUDA devices, but torch ({build}) cannot use them", hint)
    elif device == "cuda":
        hint = "Check `nvidia-smi` and CUDA_VISIBLE_DEVICES, or set device to cpu."
        yield Check("cuda", "fail", f"asked for by the settings, but there is no CUDA device (torch is {build})", hint)
    else:
        yield Check("cuda", "ok", "not used; renders run on the CPU")


def _cuda_finding(index: int) -> Check:
    import torch

    name = f"cuda:{index}"
    try:
        square = torch.ones(256, 256, device=name)
        assert float((square @ square)[0, 0]) == 256.0
        free, total = torch.cuda.mem_get_info(index)
    except RuntimeError as error:
        return Check(name, "fail", f"cannot compute: {error}", "Check the driver's log (`dmesg | grep -i xid`).")
    label = torch.cuda.get_device_name(index)
    return Check(name, "ok", f"{label}, {free / 1024**3:.1f} of {total / 1024**3:.1f} GiB free, computes")


def renderer_findings(device: str, renderers: Mapping[str, str]) -> Iterator[Check]:
    """The configured renderer is created and loads its models onto the device."""
    yield _loads("renderer", renderers["tier_renderer"], device, renderers)


def wav2lip_findings(device: str, renderers: Mapping[str, str]) -> Iterator[Check]:
    """The checkpoint of `wav2lip` is read, where one is configured."""
    from app.render.registry import why_absent

    if why := why_absent("wav2lip", renderers):
        verdict: Verdict = "fail" if "checkpoint" in renderers else "ok"
        yield Check("wav2lip", verdict, f"not offered: {why}", "Correct the path, or leave the setting out.")
        return
    yield _loads("wav2lip", "wav2lip", device, renderers)


def _loads(check: str, renderer: str, device: str, settings: Mapping[str, str]) -> Check:
    from app.cli.render import chosen_device
    from app.config import Settings
    from app.render.registry import create

    started = time.monotonic()
    place = chosen_device(Settings.model_validate({"device": device}))
    create(renderer, settings).load(place)
    return Check(check, "ok", f"{renderer} loads on {place} in {time.monotonic() - started:.1f} s")


def codec_findings(device: str, _renderers: Mapping[str, str]) -> Iterator[Check]:
    """A clip with sound is encoded and decoded again, with each encoder that opens, and one picture of each format."""
    from app.media.encode import h264_encoder

    encoders = ["libx264"]
    if device != "cpu" and h264_encoder("cuda:0") not in encoders:
        encoders.append(h264_encoder("cuda:0"))
    with tempfile.TemporaryDirectory(prefix="greenroom-doctor-") as folder:
        for encoder in encoders:
            yield _clip_finding(Path(folder), encoder)
        for name, content in PICTURES.items():
            yield _picture_finding(Path(folder), name, content)


def _clip_finding(folder: Path, encoder: str) -> Check:
    import numpy as np

    from app.media.audio_in import audio_length
    from app.media.encode import VideoWriter
    from app.media.video_in import VideoSource

    sound, clip = folder / "sound.wav", folder / f"{encoder}.mp4"
    _write_silence(sound)
    shades = np.linspace(40, 200, CLIP_FRAMES).astype(np.uint8)
    frames = np.broadcast_to(shades[:, None, None, None], (CLIP_FRAMES, CLIP_SIDE, CLIP_SIDE, 3))
    with VideoWriter(clip, CLIP_SIDE, CLIP_SIDE, CLIP_FRAMES, sound, encoder=encoder) as writer:
        writer.write(frames)
    with VideoSource(clip) as video:
        back = np.concatenate(list(video.batches(CLIP_FRAMES, video.frame_count)))
    seconds = audio_length(clip) / 16_000
    off = float(np.abs(back.mean(axis=(1, 2, 3)) - shades).max()) if len(back) == CLIP_FRAMES else float("inf")
    if off > SHADE_TOLERANCE or abs(seconds - 1.0) > SECONDS_TOLERANCE:
        hint = "The FFmpeg inside the `av` package misbehaves on this machine: `make clean venv`."
        return Check(encoder, "fail", f"{len(back)} of {CLIP_FRAMES} frames, {seconds:.2f} of 1 s came back", hint)
    return Check(encoder, "ok", "H.264 + AAC written to mp4 and read back, frame by frame")


def _picture_finding(folder: Path, name: str, content: str) -> Check:
    from app.media.image import load_image

    path = folder / f"picture.{name}"
    path.write_bytes(base64.b64decode(content))
    pixels = load_image(path)
    red = float(pixels[..., 0].mean())
    if pixels.shape != (16, 16, 3) or abs(red - 200) > SHADE_TOLERANCE:
        return Check(name, "fail", "a picture comes out wrong", "Install the environment anew: `make clean venv`.")
    return Check(name, "ok", "a picture is decoded")


def _write_silence(path: Path) -> None:
    with wave.open(str(path), "wb") as sound:
        sound.setnchannels(1)
        sound.setsampwidth(2)
        sound.setframerate(16_000)
        sound.writeframes(bytes(2 * 16_000))


CHECKS: dict[str, Callable[[str, Mapping[str, str]], Iterator[Check]]] = {
    "torch": torch_findings,
    "codecs": codec_findings,
    "renderer": renderer_findings,
    "wav2lip": wav2lip_findings,
    "plugin": plugin_findings,
}


def main(name: str, device: str, renderers: str) -> None:
    """Print the findings of check `name`; an exception is one of them."""
    from app.retry.taxonomy import CodedError

    try:
        for check in CHECKS[name](device, json.loads(renderers)):
            print(as_json(check), flush=True)
    except CodedError as error:
        print(as_json(Check(name, "fail", f"{error.code}: {error.failure.message}", error.failure.hint)), flush=True)
    except Exception as error:  # noqa: BLE001 (any exception is a finding)
        hint = "Install the environment anew: `make clean venv`."
        print(as_json(Check(name, "fail", f"{type(error).__name__}: {error}", hint)), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:4])
