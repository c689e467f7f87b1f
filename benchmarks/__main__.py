"""`make bench`: what the spine promises, measured in one run, printed and saved.

Absolute figures depend on the machine; each stands beside a peer or a limit of the same run.
"""

from __future__ import annotations

import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import psutil

from benchmarks import forecasts, material
from benchmarks.figures import free_port, moment, percentile
from benchmarks.listening import listening
from benchmarks.service import Running, dump, service

RESULTS = Path(__file__).parent / "results"
ROUNDS = 3
JOBS = 4
POSTS = 300
MIB = 1024 * 1024


def encode_only(width: int, height: int, frames: int, folder: Path) -> float:
    """Frames/s of encoding alone, with sound, of a picture that moves as a template does."""
    from app.media.encode import VideoWriter
    from app.media.image import load_image

    picture = load_image(material.portrait(), None)
    tiled = np.tile(picture, (height // picture.shape[0] + 2, width // picture.shape[1] + 2, 1))
    batches = [
        np.stack([tiled[n % 16 : n % 16 + height, n % 16 : n % 16 + width] for n in range(at, at + 16)])
        for at in range(0, 64, 16)
    ]
    began = time.monotonic()
    written = 0
    with VideoWriter(folder / "encode.mp4", width, height, material.FPS, material.speech()) as writer:
        while written < frames:
            writer.write(batches[written // 16 % len(batches)])
            written += 16
        writer.close()
    return written / (time.monotonic() - began)


def bare(source: Path, jobs: int, threads: int, audio: Path | None = None) -> list[dict[str, Any]]:
    """The renderer alone, in a process of its own."""
    inputs = [str(source), str(audio or material.speech())]
    command = [sys.executable, "-m", "benchmarks.bare", *inputs, str(jobs), str(threads)]
    out = subprocess.run(command, check=True, capture_output=True, text=True, timeout=900)
    return [json.loads(line) for line in out.stdout.splitlines() if line.startswith("{")]


def renderer_speed(folder: Path, threads: int) -> dict[str, Any]:
    """`warp` at both sizes beside encoding alone."""
    template = material.template(folder / "template.mp4")
    results: dict[str, Any] = {}
    for name, source, width, height in (
        ("portrait_512", material.portrait(), 512, 512),
        ("template_720p", template, 1280, 720),
    ):
        jobs = bare(source, ROUNDS + 1, threads)
        alone = [encode_only(width, height, jobs[0]["frames"], folder) for _ in range(ROUNDS)]
        rates = [job["frames"] / job["seconds"] for job in jobs[1:]]
        results[name] = {
            "frames": jobs[0]["frames"],
            "fps_first": round(jobs[0]["frames"] / jobs[0]["seconds"], 1),
            "fps": round(statistics.median(rates), 1),
            "encode_only_fps": round(statistics.median(alone), 1),
            "share_of_encode_only": round(statistics.median(rates) / statistics.median(alone), 3),
            "stages_s": {key: round(value, 3) for key, value in jobs[-1]["stages"].items()},
        }
    return results


def through_service(running: Running, source: str, audio: str, jobs: int) -> tuple[float, list[float]]:
    """Frames/s over `jobs` queued tasks, from the first start to the last end, and the idle gaps between them (s)."""
    tasks = [running.generate(source=source, audio=audio, cache=False) for _ in range(jobs)]
    ended = [running.wait(task["id"]) for task in tasks]
    assert all(task["status"] == "SUCCEEDED" for task in ended), [task["error"] for task in ended]
    spans = sorted((moment(task["started_at"]), moment(task["finished_at"])) for task in ended)
    frames = sum(round(task["output"]["duration_s"] * task["output"]["fps"]) for task in ended)
    gaps = [later[0] - earlier[1] for earlier, later in pairwise(spans)]
    return frames / (spans[-1][1] - spans[0][0]), gaps


def efficiency(running: Running, threads: int, speech: Path) -> dict[str, Any]:
    """The whole service against the bare renderer, in turns."""
    source, audio = running.upload(material.portrait()), running.upload(speech)
    through_service(running, source, audio, 1)
    ratios, served, alone, gaps = [], [], [], []
    for _ in range(ROUNDS):
        rows = bare(material.portrait(), JOBS + 1, threads, speech)[1:]
        alone.append(sum(row["frames"] for row in rows) / sum(row["seconds"] for row in rows))
        rate, idle = through_service(running, source, audio, JOBS)
        served.append(rate)
        gaps += idle
        ratios.append(rate / alone[-1])
    return {
        "service_fps": round(statistics.median(served), 1),
        "bare_fps": round(statistics.median(alone), 1),
        "efficiency": round(statistics.median(ratios), 3),
        "efficiency_rounds": [round(ratio, 3) for ratio in ratios],
        "gap_between_jobs_ms": round(statistics.median(gaps) * 1000, 1),
        "gap_between_jobs_max_ms": round(max(gaps) * 1000, 1),
    }


def post_latency(running: Running, source: str, audio: str) -> list[float]:
    """Milliseconds of each POST /generate, one after the other; the tasks are cancelled again."""
    times = []
    for _ in range(POSTS):
        began = time.perf_counter()
        task = running.generate(source=source, audio=audio, not_before="2100-01-01T00:00:00Z")
        times.append((time.perf_counter() - began) * 1000)
        running.client.post(f"/tasks/{task['id']}/cancel")
    return times


def http(folder: Path) -> dict[str, Any]:
    """POST latency idle and under two running renders, with two slots; memory; start-up."""
    with service(folder / "http", "--slots", "2", port=free_port()) as running:
        source, audio = running.upload(material.portrait()), running.upload(material.speech())
        running.wait(running.generate(source=source, audio=audio, cache=False)["id"])
        idle = post_latency(running, source, audio)
        stop = threading.Event()

        def keep_busy() -> None:
            while not stop.is_set():
                running.wait(running.generate(source=source, audio=audio, cache=False)["id"])

        renders = [threading.Thread(target=keep_busy) for _ in range(2)]
        for thread in renders:
            thread.start()
        while sum(slot["state"] == "busy" for slot in running.client.get("/queue").json()["slots"]) < 2:
            time.sleep(0.05)
        busy = post_latency(running, source, audio)
        memory = psutil.Process(running.process.pid).memory_info().rss / MIB
        workers = [worker.memory_info().rss / MIB for worker in running.workers()]
        stop.set()
        for thread in renders:
            thread.join()
        return {
            "post_idle_p50_ms": round(percentile(idle, 50), 2),
            "post_idle_p99_ms": round(percentile(idle, 99), 2),
            "post_rendering_p50_ms": round(percentile(busy, 50), 2),
            "post_rendering_p99_ms": round(percentile(busy, 99), 2),
            "api_process_mib": round(memory, 1),
            "worker_mib": [round(value, 1) for value in workers],
            "live_s": round(running.live_s, 2),
            "ready_s": round(running.ready_s, 2),
        }


def main() -> None:
    """Measure everything."""
    threads = len(os.sched_getaffinity(0))
    results: dict[str, Any] = {
        "machine": {"cores": threads, "python": platform.python_version(), "machine": platform.machine()},
    }
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        results["renderer"] = renderer_speed(folder, threads)
        print(json.dumps(results["renderer"], indent=2), flush=True)
        with service(folder / "one", "--slots", "1", port=free_port()) as running:
            long = material.long_speech(folder / "long.wav")
            results["service"] = {
                "clips_of_6_s": efficiency(running, threads, material.speech()),
                "clips_of_30_s": efficiency(running, threads, long),
            }
        print(json.dumps(results["service"], indent=2), flush=True)
        results["http"] = http(folder)
        print(json.dumps(results["http"], indent=2), flush=True)
        results["listening"] = listening(folder)
    print(json.dumps(results["listening"], indent=2), flush=True)
    path = RESULTS / "spine.json"
    dump(results, path)
    forecasts.measure(list(forecasts.PARTS))
    print(f"saved {path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path}")


if __name__ == "__main__":
    main()
