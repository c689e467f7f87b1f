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
import json
import math
import statistics
from collections.abc import Sequence
from itertools import count
from pathlib import Path
from typing import Any

from benchmarks.figures import percentile
from benchmarks.service import dump
from benchmarks.simulated import MIXES, Job, Mix, World, jobs

RESULTS = Path(__file__).parent / "results"
FIXED_S = 2.0
WARM_UP = 50
"""Tasks at the beginning that do not count: the service has just been installed and knows nothing."""
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


def figures(done: Sequence[Job]) -> dict[str, Any]:
    """Errors of the ends that were told, and what polling cost."""
    told: dict[str, Any] = {}
    for moment in ("submit", "pickup", "halfway"):
        pairs = [(job, *job.told[moment]) for job in done]
        errors = [abs(at + eta - job.ended) / (job.ended - at) for job, at, eta in pairs if eta is not None]
        seconds = [abs(at + eta - job.ended) for job, at, eta in pairs if eta is not None]
        told[moment] = {
            "median_relative_error": round(statistics.median(errors), 3),
            "p90_relative_error": round(percentile(errors, 90), 3),
            "median_error_s": round(statistics.median(seconds), 2),
            "untold": sum(eta is None for _, _, eta in pairs),
        }
    return {"tasks": len(done), "eta": told, "polling": _polling(done)}


def _polling(done: Sequence[Job]) -> dict[str, Any]:
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
        print(json.dumps({name: results[name]}, indent=2), flush=True)
    return results


def main() -> None:
    """Measure, print and save."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.parse_args()
    results = {"simulated": simulated()}
    dump(results, RESULTS / "forecasts.json")


if __name__ == "__main__":
    main()
