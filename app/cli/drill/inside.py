"""Drills whose failure stays inside their own rehearsals: the renderer that fails on cue does it to its own process."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from app.cli.drill import verify
from app.cli.drill.caller import URGENT
from app.cli.drill.lookout import Lookout
from app.cli.drill.scene import PLAIN, Drill, Scene, Seen
from app.cli.drill.stage import until
from app.cli.drill.terms import Terms
from app.retry.taxonomy import FailureCode

C = FailureCode
_MIDDLE = 5
"""The rehearsals have ten frames."""
_COUNTED_S = 10.0
"""Counters follow the commits that they count."""


@dataclass(frozen=True, slots=True)
class Fault:
    """A rehearsed failure: the options that bring it about and the code that it must get."""

    name: str
    done: str
    options: Mapping[str, Any]
    code: FailureCode
    word: str = ""
    """What the message must say."""
    always: bool = False
    """It comes in every attempt, not in the first alone."""
    fields: Mapping[str, Any] | None = None
    """More fields of the request."""

    def failures(self, terms: Terms) -> int:
        """How many attempts fail."""
        return terms.attempts(self.code) if self.always else 1

    def story(self, terms: Terms) -> tuple[str, list[str]]:
        """The status in which the task must end, and how each of its attempts must."""
        failed = [self.code.value] * self.failures(terms)
        if len(failed) < terms.attempts(self.code):
            return "SUCCEEDED", [*failed, "SUCCEEDED"]
        return "FAILED", failed


FAULTS = (
    Fault("worker-killed", "the worker is killed (SIGKILL) in the middle of a render", {"fault": "kill"},
          C.WORKER_CRASHED, "SIGKILL"),
    Fault("worker-exits", "the worker leaves with exit code 0 and without a result", {"fault": "exit", "exit_code": 0},
          C.WORKER_CRASHED, "without a result"),
    Fault("worker-frozen", "the worker is frozen (SIGSTOP) in the middle of a render", {"fault": "stop"},
          C.WORKER_UNRESPONSIVE),
    Fault("hang-in-c", "the render hangs in C code that holds Python's lock", {"fault": "block_gil"},
          C.WORKER_UNRESPONSIVE),
    Fault("hang-in-python", "the render hangs in Python, and heartbeats go on", {"fault": "block"}, C.WORKER_STALLED),
    Fault("gpu-memory", "the GPU's memory is full: not even a batch of one frame fits (torch's OutOfMemoryError)",
          {"fault": "out_of_memory", "fits": 0}, C.GPU_OOM),
    Fault("host-memory", "the worker takes memory until it gets no more", {"fault": "leak"}, C.HOST_OOM),
    Fault("disk-full", "the disk is full in the middle of a render (ENOSPC)", {"fault": "fill_disk", "megabytes": 4},
          C.DISK_FULL),
    Fault("broken-output", "the renderer says that it is finished, with a file that is no video",
          {"fault": "unplayable"}, C.OUTPUT_INVALID),
    Fault("false-finish", "the renderer reports 100 % and then fails", {"fault": "false_done"}, C.INTERNAL),
    Fault("garbled-message", "the worker sends the service a message of garbage", {"fault": "garbage_frame"},
          C.WORKER_CRASHED, "broken message"),
    Fault("debris", "the worker dies and leaves files and a child process behind", {"fault": "leave_behind"},
          C.WORKER_CRASHED),
    Fault("no-face", "the renderer finds no face: the caller's own mistake",
          {"fault": "raise", "code": "INPUT_NO_FACE"}, C.INPUT_NO_FACE),
    Fault("gives-up", "the worker is killed in every attempt", {"fault": "kill"}, C.WORKER_CRASHED, always=True),
    Fault("deadline", "the render hangs, in a task with a deadline of 5 s", {"fault": "block"}, C.DEADLINE_EXCEEDED,
          fields={"deadline_s": 5.0}),
)  # fmt: skip


def rehearse(scene: Scene, fault: Fault) -> Seen:
    """Play one fault, with rehearsals beside it that must not feel it."""
    caller, terms = scene.caller, scene.terms
    status, story = fault.story(terms)
    failures = fault.failures(terms)
    before = caller.counters()
    options = PLAIN | {"frame": _MIDDLE, "times": None if fault.always else 1, **fault.options}
    struck = caller.hand_in(options, priority=URGENT, **(fault.fields or {}))
    with Lookout(caller.url, struck) as lookout:
        others = scene.hand_in_beside()
        task = caller.until_ended(struck, terms.patience_s(fault.code, failures))
        beside = [caller.until_ended(other, terms.patience_s()) for other in others]
    seen = Seen(_told(task, beside, lookout))
    seen.wrong += verify.wrong_end(task, status, story, fault.word) + caller.wrong_about(task)
    seen.wrong += scene.wrong_files(task) + verify.wrong_glimpses(lookout.glimpses)
    seen.wrong += verify.wrong_answers(lookout.answers)
    for other in beside:
        found = verify.wrong_end(other, "SUCCEEDED", ["SUCCEEDED"]) + caller.wrong_about(other)
        seen.wrong += [f"a task beside it: {what}" for what in found + scene.wrong_files(other)]
    wanted = Counter({("ended", status): 1, ("retried", fault.code.value): len(story) - 1})
    wanted["ended", "SUCCEEDED"] += len(beside)
    seen.wrong += _miscounted(scene, before, wanted)
    _time(seen, terms, fault, task)
    return seen


def _time(seen: Seen, terms: Terms, fault: Fault, task: dict[str, Any]) -> None:
    """Until the next attempt began; until the end where there is none."""
    attempts = [attempt for attempt in task["attempts"] if attempt["ended_at"]]
    if not attempts:
        return
    began = verify.moment(attempts[0]["started_at"])
    failed = [attempt for attempt in attempts if attempt["outcome"] == "failed"]
    paused = sum((attempt["backoff_ms"] or 0) / 1000 for attempt in failed)
    allowed = sum(terms.recovered_s(fault.code, 0.0) for _ in failed) + paused
    if fault.fields and "deadline_s" in fault.fields:
        allowed += float(fault.fields["deadline_s"])
    last = attempts[-1]
    if last["outcome"] == "failed":
        over, until_when = last["ended_at"], "until it was given up"
    else:
        over, until_when = last["started_at"], "until it was rendered again"
    seen.recovered(verify.moment(over) - began, allowed, until_when)
    cap_s = terms.settings.backoff_cap_s
    too_long = [attempt for attempt in failed if (attempt["backoff_ms"] or 0) > 1000 * cap_s]
    seen.wrong += [f"the pause after attempt {attempt['n']} is longer than {cap_s:g} s" for attempt in too_long]


def _told(task: dict[str, Any], beside: list[dict[str, Any]], lookout: Lookout) -> str:
    good = sum(other["status"] == "SUCCEEDED" for other in beside)
    others = f"; {good} of {len(beside)} beside it SUCCEEDED" if beside else ""
    return f"{verify.told(task)}{others}; answers within {lookout.slowest_s * 1000:.0f} ms"


def _miscounted(scene: Scene, before: Counter[tuple[str, str]], wanted: Counter[tuple[str, str]]) -> list[str]:
    """Whether the metrics have counted what happened: exactly, on a service that nobody else uses."""

    def off() -> dict[tuple[str, str], int]:
        now = scene.caller.counters()
        found = {key: now[key] - before[key] for key in set(wanted) | set(now)}
        if scene.own is None:
            return {key: count for key, count in found.items() if count < wanted[key]}
        return {key: count for key, count in found.items() if count != wanted[key]}

    until(lambda: not off(), _COUNTED_S)
    return [
        f"the metrics counted {count} {kind} ({label}), not {wanted[kind, label]}"
        for (kind, label), count in off().items()
    ]


def cancel_a_deaf_one(scene: Scene) -> Seen:
    """Cancel a render that swallows the cancel: it is killed, and its slot takes the next task."""
    caller, terms = scene.caller, scene.terms
    struck = caller.hand_in({"fault": "ignore_cancel", "frame_s": 2.0}, priority=URGENT)
    if caller.until_rendering(struck, terms.patience_s()) is None:
        return Seen("it did not render", wrong=[f"it came to no frame: {verify.told(caller.task(struck))}"])
    with Lookout(caller.url, struck) as lookout:
        asked = verify.now()
        caller.client.cancel(struck)
        task = caller.until_ended(struck, terms.patience_s(C.CANCELLED))
        beside = [caller.until_ended(other, terms.patience_s()) for other in scene.hand_in_beside()]
    seen = Seen(_told(task, beside, lookout))
    seen.wrong += verify.wrong_end(task, "CANCELLED", ["CANCELLED"]) + caller.wrong_about(task)
    seen.wrong += scene.wrong_files(task) + verify.wrong_answers(lookout.answers)
    for other in beside:
        seen.wrong += [f"the next task: {what}" for what in verify.wrong_end(other, "SUCCEEDED", ["SUCCEEDED"])]
    if task["finished_at"]:
        seen.recovered(
            verify.moment(task["finished_at"]) - asked, terms.recovered_s(C.CANCELLED, 0.0), "until it was over"
        )
    return seen


def _drill(fault: Fault) -> Drill:
    def expected(terms: Terms) -> str:
        return verify.telling(*fault.story(terms))

    def about_s(terms: Terms) -> float:
        return terms.about_s(fault.code, fault.failures(terms)) + float((fault.fields or {}).get("deadline_s", 0.0))

    return Drill(
        fault.name,
        fault.done,
        expected,
        lambda scene: rehearse(scene, fault),
        about_s=about_s,
    )


INSIDE = (
    *map(_drill, FAULTS),
    Drill(
        "deaf-to-cancel",
        "a render is cancelled that swallows the cancel",
        lambda _terms: "CANCELLED, and the slot takes the next task",
        cancel_a_deaf_one,
        about_s=lambda terms: terms.settings.cancel_grace_s + 3.0,
    ),
)
