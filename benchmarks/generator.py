"""The renderer `wav2lip` beside its bare network, by processor time: `python -m benchmarks.generator`.

A checkpoint of the published size with random weights; a 512x512 portrait and a 1280x720 template (its analysis cached)
say the sample. In each round the network answers alone on one thread, then the source is rendered, so that a busy
machine slows both alike; the least of the rounds counts. What a render can reach follows: the thread that draws is no
quicker than the network, nor all threads together than the cores.
"""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch

from app.render import registry
from app.render.contract import Renderer, RenderJob
from app.render.wav2lip import load_generator
from app.render.wav2lip.network import Generator
from app.render.wav2lip.profile import WAV2LIP
from benchmarks import material
from benchmarks.bare import Silent

ROUNDS = 4
_BATCH = 16
_CALLS = 4
"""Batches of the bare network in a round."""


@dataclass(frozen=True)
class Spent:
    """Milliseconds of processor time a frame: the bare network's, the drawing thread's, and that of all threads."""

    network: float
    drawing: float
    all_threads: float

    def told(self, cores: int) -> str:
        """What a frame costs, and what follows on so many cores that do nothing else."""
        most, reached = 1000 / self.network, 1000 / max(self.drawing, self.all_threads / cores)
        return (
            f"network {self.network:.1f} ms a frame ({most:.0f} frames/s on one core), "
            f"drawing thread {self.drawing:.1f} ms ({self.network / self.drawing:.0%} network), "
            f"all threads with the encoder {self.all_threads:.1f} ms; "
            f"on {cores} idle cores at most {reached:.0f} frames/s, {reached / most:.0%} of the bare network"
        )


def main() -> None:
    """Measure and print."""
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        weights = random_checkpoint(place / "random.pth")
        renderer = registry.create("wav2lip", {"checkpoint": str(weights), "cache_dir": f"{folder}/cache"})
        renderer.load("cpu")
        generator = load_generator(weights, "cpu")
        sources = {"portrait 512x512": material.portrait(), "template 1280x720": material.template(place / "t.mp4")}
        print(f"load average {os.getloadavg()[0]:.1f}, precision {generator.dtype}")
        for name, source in sources.items():
            spent = measure(renderer, bare_network(generator, still=name.startswith("portrait")), source, place)
            print(f"{name}: {spent.told(len(os.sched_getaffinity(0)))}", flush=True)


def random_checkpoint(path: Path) -> Path:
    """A file with weights of the published shapes."""
    torch.manual_seed(0)
    torch.save({"state_dict": Generator(WAV2LIP).state_dict()}, path)
    return path


def bare_network(generator: Generator, *, still: bool) -> Callable[[], object]:
    """One batch through the network; a `still` face is encoded once, as a portrait's is."""
    mel, face = torch.rand(_BATCH, 1, 80, 16), torch.rand(_BATCH, 6, 96, 96)
    with torch.inference_mode():
        features = generator.encode_face(face[:1])
    return (lambda: generator.speak(mel, features)) if still else (lambda: generator(mel, face))


def measure(renderer: Renderer, network: Callable[[], object], source: Path, place: Path) -> Spent:
    """The least of the rounds; one more before them warms up and fills the cache."""
    options = registry.validate_options("wav2lip", {})
    best = [float("inf")] * 3
    for number in range(ROUNDS + 1):
        with torch.inference_mode():
            began = time.thread_time()
            for _ in range(_CALLS):
                network()
            alone = (time.thread_time() - began) / (_CALLS * _BATCH)
        out = place / f"{source.stem}-{number}"
        out.mkdir()
        began, everywhere = time.thread_time(), time.process_time()
        result = renderer.render(RenderJob(source, material.speech(), out, options), Silent())
        spent = (time.thread_time() - began, time.process_time() - everywhere)
        if number:
            best = [min(pair) for pair in zip(best, (alone, *(part / result.frames for part in spent)), strict=True)]
    return Spent(*(1000 * seconds for seconds in best))


if __name__ == "__main__":
    main()
