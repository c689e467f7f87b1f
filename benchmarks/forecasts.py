"""How good the forecasts are: the ends that are told at submission, pickup and halfway, and the polls that they save.

The service's own forecasts are asked by simulated callers, in simulated time, while a simulated service works through
mixes of tasks: thousands of tasks in a minute, so that the figures do not depend on luck. `live` does the same with a
real service and real clocks, on renders of known lengths.

Polls are those of a caller who asks as `Retry-After` says, from the submission to the answer that tells of the end;
`delay` is the time from the end to that answer. They stand beside polling every 2 s, and beside polling in equal steps
of such a length that the mean delay is the same.
"""

from __future__ import annotations

import argparse
import heapq
import math
import random
import statistics
import threading
import time
import wave
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any

import httpx

from benchmarks import material
from benchmarks.figures import free_port, moment, percentile
from benchmarks.parts import measure_parts
from benchmarks.recovery import REHEARSING
from benchmarks.service import Running, service
from benchmarks.simulated import MIXES, Job, Mix, World, jobs

RESULTS = Path(__file__).parent / "results"
FIXED_S = 2.0
WARM_UP = 50
"""Tasks at the beginning that do not count: the service has just been installed and knows nothing."""
LIVE_TASKS, LIVE_WARM_UP = 40, 5
_SEEDS = (1, 2, 3)


def replay(mix: Mix, seed: int) -> list[Job]:
    """Work through a mix; what was told and how often was asked stands in the jobs."""
    world = World(mix)
    order = count()
    coming: list[tuple[float, int, str, Job]] = []

    def at(moment: float, what: str, job: Job) -> None:
        heapq.heappush(coming, (moment, next(order), what, job))

    every = jobs(mix, seed)
    for job in every:
        at(job.record.created_at, "submit", job)
    while coming:
        world.now, _, what, job = heapq.heappop(coming)
        if what == "submit":
            world.queue.append(job)
            # The answer to the submission leaves before a slot is given to the task.
            eta, again = world.expect(job)
            job.told["submit"] = world.now, eta
            at(world.now + again, "poll", job)
        elif what == "end":
            world.end(job)
        elif what == "poll":
            job.polls += 1
            if job.ended <= world.now:
                job.known = world.now
            else:
                at(world.now + world.expect(job)[1], "poll", job)
            continue
        else:
            job.told[what] = world.now, world.expect(job)[0]
            continue
        for started in world.start_what_can():
            at(world.now, "pickup", started)
            at(world.now + started.took / 2, "halfway", started)
            at(started.ended, "end", started)
    return every


def figures(done: Sequence[Job | Sent]) -> dict[str, Any]:
    """Errors of the ends that were told, and what polling cost."""
    told: dict[str, Any] = {}
    for when in ("submit", "pickup", "halfway"):
        pairs = [(job, *job.told[when]) for job in done]
        errors = [abs(at + eta - job.ended) / (job.ended - at) for job, at, eta in pairs if eta is not None]
        seconds = [abs(at + eta - job.ended) for job, at, eta in pairs if eta is not None]
        told[when] = {
            "median_relative_error": round(statistics.median(errors), 3),
            "p90_relative_error": round(percentile(errors, 90), 3),
            "median_error_s": round(statistics.median(seconds), 2),
            "untold": sum(eta is None for _, _, eta in pairs),
        }
    return {"tasks": len(done), "eta": told, "polling": _polling(done)}


def _polling(done: Sequence[Job | Sent]) -> dict[str, Any]:
    lasted = [job.ended - job.told["submit"][0] for job in done]
    delays = [job.known - job.ended for job in done]
    mean = statistics.mean(delays)
    polls = sum(job.polls for job in done)
    every_2_s = sum(math.ceil(seconds / FIXED_S) for seconds in lasted)
    equal = sum(math.ceil(seconds / (2 * mean)) for seconds in lasted)
    return {
        "median_task_s": round(statistics.median(lasted), 1),
        "polls_per_task": round(polls / len(done), 2),
        "delay_mean_s": round(mean, 2),
        "delay_p90_s": round(percentile(delays, 90), 2),
        "every_2_s": {
            "polls_per_task": round(every_2_s / len(done), 2),
            "delay_mean_s": round(
                statistics.mean(math.ceil(seconds / FIXED_S) * FIXED_S - seconds for seconds in lasted), 2
            ),
            "saved": round(1 - polls / every_2_s, 3),
        },
        "equal_steps_of_the_same_delay": {
            "step_s": round(2 * mean, 2),
            "polls_per_task": round(equal / len(done), 2),
            "saved": round(1 - polls / equal, 3),
        },
    }


def simulated() -> dict[str, Any]:
    """Every mix, with three seeds each."""
    results = {}
    for name, mix in MIXES.items():
        results[name] = figures([job for seed in _SEEDS for job in replay(mix, seed)[WARM_UP:]])
    return results


@dataclass(eq=False)
class Sent:
    """One task of the real service, as its caller sees it. Epoch seconds."""

    id: str
    told: dict[str, tuple[float, float | None]]
    polls: int = 0
    known: float = 0.0
    ended: float = 0.0


def live(folder: Path) -> dict[str, Any]:
    """A real service with one slot, real clocks, and renders of a known length per frame."""
    chance = random.Random(1)
    with service(folder / "live", "--slots", "1", port=free_port(), **REHEARSING) as running:
        source = running.upload(material.portrait())
        speeches = {seconds: running.upload(_cut(folder, seconds)) for seconds in (1, 2, 3, 4, 5, 6)}
        samples: list[tuple[float, list[dict[str, Any]]]] = []
        over = threading.Event()

        def look() -> None:
            with httpx.Client(base_url=running.client.base_url, timeout=60) as client:
                while not over.wait(0.2):
                    listed = client.get("/tasks", params={"limit": 200}).json()["tasks"]
                    samples.append((time.time(), listed))

        looking = threading.Thread(target=look)
        looking.start()
        callers, sent = [], []
        for _ in range(LIVE_TASKS):
            audio = speeches[chance.choice(tuple(speeches))]
            options = {"frame_s": 0.05, "size": 16}
            answer = running.client.post(
                "/generate", json={"source": source, "audio": audio, "renderer": "rehearsal", "options": options}
            )
            task = answer.json()
            one = Sent(task["id"], {"submit": (time.time(), task["progress"]["eta_s"])})
            sent.append(one)
            callers.append(
                threading.Thread(target=_poll, args=(running, one, int(answer.headers["retry-after"])), daemon=True)
            )
            callers[-1].start()
            time.sleep(chance.expovariate(1 / 6.0))
        for caller in callers:
            caller.join()
        over.set()
        looking.join()
        for one in sent:
            _look_back(one, running.client.get(f"/tasks/{one.id}").json(), samples)
        return figures(sent[LIVE_WARM_UP:])


def _poll(running: Running, one: Sent, again: int) -> None:
    """Ask as `Retry-After` says until the end is told."""
    with httpx.Client(base_url=running.client.base_url, timeout=60) as client:
        while not one.known:
            time.sleep(again)
            answer = client.get(f"/tasks/{one.id}")
            one.polls += 1
            if answer.json()["is_terminal"]:
                one.known = time.time()
            else:
                again = int(answer.headers["retry-after"])


def _look_back(one: Sent, task: dict[str, Any], samples: Sequence[tuple[float, list[dict[str, Any]]]]) -> None:
    """What was told at its pickup and halfway: in the first look that saw it run, and the one nearest to its middle."""
    assert task["status"] == "SUCCEEDED", task["error"]
    started, one.ended = moment(task["started_at"]), moment(task["finished_at"])
    seen = [
        (at, shown["progress"]["eta_s"])
        for at, listed in samples
        for shown in listed
        if shown["id"] == one.id and shown["status"] == "RUNNING"
    ]
    one.told["pickup"] = seen[0]
    one.told["halfway"] = min(seen, key=lambda told: abs(told[0] - (started + one.ended) / 2))


def _cut(folder: Path, seconds: int) -> Path:
    """The first seconds of the sample speech."""
    path = folder / f"speech-{seconds}.wav"
    with wave.open(str(material.speech())) as whole, wave.open(str(path), "wb") as out:
        out.setparams(whole.getparams())
        out.writeframes(whole.readframes(whole.getframerate() * seconds))
    return path


PARTS = {"simulated": lambda _folder: simulated(), "live": live}


def main() -> None:
    """Measure all parts, or those that are named; what was saved of the others stays."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"{', '.join(PARTS)} (default: all)")
    measure(parser.parse_args().parts or list(PARTS))


def measure(parts: Sequence[str]) -> None:
    """Measure some parts, print and save them; what was saved of the others stays."""
    measure_parts(PARTS, parts, RESULTS / "forecasts.json")


if __name__ == "__main__":
    main()
