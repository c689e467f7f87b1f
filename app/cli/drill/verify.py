"""What must be true of tasks that a drill has seen: pure functions from what was observed to what is wrong with it."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Mapping, Sequence
from datetime import datetime
from itertools import groupby, pairwise
from typing import Any

Resource = Mapping[str, Any]
TERMINAL = {"SUCCEEDED": "task.succeeded", "FAILED": "task.failed", "CANCELLED": "task.cancelled"}
"""Final statuses, and the event that tells each."""
INTERRUPTED = "interrupted"
"""How an attempt ends for which neither its task nor its worker is to blame."""


def moment(stamp: str) -> float:
    """A time of the interface as epoch seconds."""
    return datetime.fromisoformat(stamp).timestamp()


def now() -> float:
    """This moment in the same terms."""
    return time.time()


def story(task: Resource) -> list[str]:
    """How each attempt ended: a failure code, `SUCCEEDED`, `INTERRUPTED`, or `RUNNING`."""
    return [_ended(attempt) for attempt in task["attempts"]]


def _ended(attempt: Resource) -> str:
    if attempt["error"]:
        return str(attempt["error"]["code"])
    return str(attempt["outcome"] or "running").upper()


def told(task: Resource) -> str:
    """Its story and its status as text."""
    return telling(str(task["status"]), story(task))


def telling(status: str, attempts: Sequence[str]) -> str:
    """A story as text: equal ends counted, and the status where that is not the last attempt's."""
    parts = [(what, len(list(same))) for what, same in groupby(attempts)]
    words = [f"{count} times {what}" if count > 1 else what for what, count in parts]
    if not attempts or attempts[-1] != status:
        words.append(status)
    return ", then ".join(words)


def wrong_end(task: Resource, status: str, expected: Sequence[str], word: str = "") -> list[str]:
    """Whether it ended with `status` after attempts as `expected` (a story), failures explained; `word` is in each."""
    wrong = []
    if task["status"] != status:
        wrong.append(f"it is {task['status']}, not {status}")
    if (found := story(task)) != list(expected):
        wrong.append(f"its attempts are {_listed(found)}, not {_listed(expected)}")
    failed = [attempt for attempt in task["attempts"] if attempt["outcome"] == "failed"]
    for attempt in failed:
        wrong += _unexplained(f"attempt {attempt['n']}", attempt["error"])
        if word and word not in str((attempt["error"] or {}).get("message")):
            wrong.append(f"the message of attempt {attempt['n']} does not say {word!r}")
    if task["status"] == "FAILED":
        wrong += _unexplained("the task", task["error"])
        last = story(task)[-1:]
        if task["error"] and last and task["error"]["code"] != last[0]:
            wrong.append(f"it says {task['error']['code']}, its last attempt {last[0]}")
    return wrong


def _listed(items: Sequence[str]) -> str:
    return ", ".join(items) or "none"


def _unexplained(whose: str, error: Resource | None) -> list[str]:
    if error is None:
        return [f"the failure of {whose} has no error"]
    return [
        f"the error of {whose} has no {part}" for part in ("code", "message", "hint") if not str(error[part]).strip()
    ]


def wrong_record(task: Resource) -> list[str]:
    """Whether attempts are numbered, over, one after the other, and one success at most, which is the status's."""
    wrong = []
    attempts = task["attempts"]
    if [attempt["n"] for attempt in attempts] != list(range(1, len(attempts) + 1)):
        wrong.append("its attempts are not numbered 1, 2, ...")
    if any(attempt["ended_at"] is None for attempt in attempts):
        return [*wrong, "an attempt of the ended task has no end"]
    spans = sorted((moment(attempt["started_at"]), moment(attempt["ended_at"])) for attempt in attempts)
    if any(later[0] < earlier[1] for earlier, later in pairwise(spans)):
        wrong.append("two of its attempts ran at the same time")
    successes = sum(attempt["outcome"] == "succeeded" for attempt in attempts)
    if successes != (1 if task["status"] == "SUCCEEDED" else 0):
        wrong.append(f"{successes} of its attempts succeeded, and it is {task['status']}")
    if (task["output"] is not None) != (task["status"] == "SUCCEEDED"):
        wrong.append(f"it is {task['status']} and {'has a' if task['output'] else 'has no'} result")
    return wrong


def wrong_events(status: str, types: Sequence[str]) -> list[str]:
    """Whether its event log tells one end, the right one, and nothing after it."""
    ends = [kind for kind in types if kind in TERMINAL.values()]
    wrong = [] if ends == [TERMINAL[status]] else [f"its events tell the ends {_listed(ends)}"]
    if types and ends and types[-1] != ends[-1]:
        wrong.append(f"an event {types[-1]} follows its end")
    return wrong


def wrong_bytes(task: Resource, body: bytes) -> list[str]:
    """Whether the published file is the one that the task tells of, whole."""
    output = task["output"]
    if len(body) != output["bytes"]:
        return [f"its file has {len(body)} bytes, and it says {output['bytes']}"]
    if (found := hashlib.sha256(body).hexdigest()) != output["sha256"]:
        return [f"its file has SHA-256 {found[:12]}..., and it says {output['sha256'][:12]}..."]
    return []


def wrong_glimpses(glimpses: Sequence[Resource]) -> list[str]:
    """Whether it was ever shown as finished before it was: completion is the status, never the progress."""
    early = [seen for seen in glimpses if not seen["is_terminal"] and (seen["progress"]["fraction"] or 0.0) >= 1.0]
    return [f"it showed 100 % while it was {early[0]['status']}"] if early else []


def wrong_answers(answers: Sequence[float | None]) -> list[str]:
    """Whether the service answered each look at its health; `answers` are seconds, None where there was no answer."""
    if not answers:
        return ["nobody looked at its health"]
    missing = sum(seconds is None for seconds in answers)
    return [f"{missing} of {len(answers)} looks at its health got no answer"] if missing else []
