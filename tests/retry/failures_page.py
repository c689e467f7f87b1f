"""Makes docs/failures.md of the failure table: `python -m tests.retry.failures_page` writes it, a test compares it."""

# ruff: noqa: E501 - the page is prose

from __future__ import annotations

from pathlib import Path

from app.health.suspicion import BLAMED, FIRST_S, LONGEST_S, TASKS_TO_SUSPECT
from app.retry.budget import MIN_TRAFFIC, SHARE, WINDOW
from app.retry.taxonomy import FAILURE_TABLE, FailureCode, FailurePolicy

PAGE = Path(__file__).parents[2] / "docs" / "failures.md"

_C = FailureCode
ADVICE: dict[FailureCode, str] = {
    _C.INPUT_NOT_FOUND: "Look at the path or upload id in the task. Many at once: is a media share unmounted, or is "
    "`upload_ttl_s` shorter than the queue?",
    _C.INPUT_FORBIDDEN: "Add the folder to `media_roots`, or give the service's user the right to read it.",
    _C.INPUT_INVALID: "The caller's file is broken or of another kind; `error.detail` says what was found.",
    _C.INPUT_NO_FACE: "The caller needs another source.",
    _C.INPUT_TOO_LARGE: "Raise `max_input_bytes`, `max_input_pixels`, `max_input_side` or `max_input_s`, if you mean to.",
    _C.UPSTREAM_TIMEOUT: "Look at the load of the service that was called, and at the network between.",
    _C.UPSTREAM_CONNECTION: "Is that service running, is its address right, does a firewall stand between?",
    _C.UPSTREAM_5XX: "Read that service's own log at the time of the attempt.",
    _C.UPSTREAM_BUSY: "Send it less at once, or give it more machines.",
    _C.UPSTREAM_REJECTED: "Compare the task's options with what that service accepts.",
    _C.UPSTREAM_AUTH: "Renew the credentials in the configuration.",
    _C.QUEUE_TIMEOUT: "Read the worker's last lines in the log: the stage before the queue died or hangs.",
    _C.WORKER_CRASHED: "Read the attempt's `postmortem` (signal, phase, frame) and `last_words`. SIGSEGV: driver or "
    "codec. The same frame in every attempt: the input.",
    _C.WORKER_UNRESPONSIVE: "Read the stacks in the attempt's `postmortem`. A process in the kernel (state D) means a "
    "wedged driver or disk.",
    _C.WORKER_STALLED: "Read the stacks in the attempt's `postmortem`. Slow and not stuck? Raise the `phase_*_s` of "
    "that phase.",
    _C.WORKER_START_FAILED: "Run `greenroom doctor`; `/health/ready` and the log say why.",
    _C.RENDER_TIMEOUT: "Compare `time_limit_s` of the tier with what its renders take (`/tiers`).",
    _C.GPU_UNAVAILABLE: "Run `greenroom doctor`; check driver, `CUDA_VISIBLE_DEVICES` and the torch build.",
    _C.GPU_OOM: "Each retry begins with half the batch of the last. Who else is on that GPU? Run fewer slots on it.",
    _C.GPU_LOST: "Look for Xid errors (`dmesg`); reset or replace the device if they return.",
    _C.HOST_OOM: "Fewer `slots`, no `spares`, or more memory; the cgroup's `memory.events` counts the kills.",
    _C.DISK_FULL: "Free space below `data_dir`.",
    _C.DISK_ERROR: "Look for errors of the disk below `data_dir` (`dmesg`); is it mounted read-only?",
    _C.MEDIA_HELPER_FAILED: "The process that opens media files hangs or dies. Is the host out of memory or processor "
    "time, or the disk stuck? The service replaces the process by itself.",
    _C.JUDGE_FAILED: "Read `judge_failed` and `worker_start_failed` in the log and `judges` in `/queue`. Is the host out of "
    "memory or processor time? Each judge that fails is replaced, and its video given to the next one, before this is told.",
    _C.OUTPUT_INVALID: "`error.detail` names the check. Every task: the renderer or its codec is broken.",
    _C.LOW_CONFIDENCE: "Look at the video; a clearer source or recording helps.",
    _C.PREDECESSOR_FAILED: "Look at the task that its message names, the one with which it began. Retry that one, then those "
    "that waited for it, in their order.",
    _C.DEADLINE_EXCEEDED: "Was the time lost in the queue (add slots) or in attempts (read their errors)?",
    _C.CANCELLED: "Nothing: somebody asked for it.",
    _C.TASK_LOST: "Was the database restored from a backup, or a row deleted? Then only the log knows the task (`task_lost`). Does something else delete tasks of the remote renderer, or was it restarted?",
    _C.INTERRUPTED: "Nothing. Many without a deploy: is something killing the service?",
    _C.INTERNAL: "Please report it with `error.detail`: it holds type, message and traceback.",
}
"""What an operator should do; the callers' hints stand in the failure table."""


def seconds(value: float) -> str:
    """A number of seconds as one writes it."""
    return f"{value:g} s"


def retries(row: FailurePolicy) -> str:
    """What the row says of retries, in words."""
    if row.retries is None:
        return "runs again at once, free of charge"
    if row.retries == 0:
        return "no retry"
    times = "once" if row.retries == 1 else f"up to {row.retries} times"
    if row.first_delay_s == 0:
        return f"retried {times}, at once"
    if row.retries == 1:
        return f"retried {times}, after up to {seconds(row.first_delay_s)}"
    return f"retried {times}, first after up to {seconds(row.first_delay_s)}"


def process(code: FailureCode, row: FailurePolicy) -> str:
    """What becomes of the worker's process."""
    if code in (_C.CANCELLED, _C.DEADLINE_EXCEEDED):
        return "killed if it does not yield within `cancel_grace_s`"
    return "replaced" if row.kills_process else "kept"


def quarantine(code: FailureCode, row: FailurePolicy) -> str:
    """When the device is taken out of service."""
    if row.device_suspect:
        return "at once"
    return f"after {TASKS_TO_SUSPECT} tasks" if code in BLAMED else "no"


def next_tier(row: FailurePolicy) -> str:
    """When the task goes on to another tier."""
    after = row.next_tier_after
    return "no" if after is None else "at once" if after == 1 else f"after {after} on one tier"


def line(code: FailureCode) -> str:
    """One row of the page's table."""
    row = FAILURE_TABLE[code]
    cells = (
        f"`{code}`",
        row.message,
        retries(row),
        process(code, row),
        quarantine(code, row),
        next_tier(row),
        "yes" if row.counts_on_breaker else "no",
        ADVICE[code],
    )
    return f"| {' | '.join(cells)} |"


def page() -> str:
    """The whole page."""
    rows = "\n".join(line(code) for code in FailureCode)
    return f"""# Failures

<!-- Made by `python -m tests.retry.failures_page` from the failure table in app/retry/taxonomy.py; a test compares. -->

Every failure has one code. It stands in `error.code` of the task that failed, in `error.code` of each failed attempt, and
in the log. The code alone decides what Greenroom does. `error.message` says what happened in this case, `error.hint` what
the caller can do; this page is for the operator.

## The table

- **Retries**: how often this cause is retried, and the longest first pause. Pauses double up to `backoff_cap_s`, each
  times a random factor from 0.5 to 1, unless `backoff` names another strategy. Over all causes a task has at most `max_retries` retries, and none is begun past its deadline.
- **Process**: *kept* means that the worker's process takes the next task; *replaced* means that it is ended with its whole
  process group and a fresh one (or the warm spare) takes its place.
- **Quarantine**: when its device gets no more tasks for a while.
- **Next tier**, **breaker**: whether the failure sends the task to the next tier, and whether it counts against the tier
  it came from. They take effect where more than one tier is configured.

| code | what it means | retries | process | quarantine | next tier | breaker | what you should do |
|---|---|---|---|---|---|---|---|
{rows}

## How a hang is told from slow work

A worker's process has two clocks. Its heartbeat is looked at every `health_interval_s`; `health_strikes` looks in a row
without one are `WORKER_UNRESPONSIVE`. Its progress may stand still for as long as the phase allows (`phase_load_s`,
`phase_fetch_s`, `phase_analyse_s`, `phase_render_s`, `phase_encode_s`); longer is `WORKER_STALLED`. A slow render that moves
is neither. Before a hung process is killed, the Python stacks of all its threads are kept in the attempt's `postmortem`,
beside phase and frame.

## Quarantine

A device that reports itself lost, or on which the processes of {TASKS_TO_SUSPECT} different tasks broke with no success
between, is quarantined for {seconds(FIRST_S)}, then twice as long each time up to {seconds(LONGEST_S)}. It comes back when
a fresh process has rendered a small real video on it. `/queue` shows the slot as `quarantined`.

## Retry storms

A fault that hits everything must not turn into a storm of retries. Once {MIN_TRAFFIC} attempts have ended, retries may be
at most {SHARE:.0%} of the last {WINDOW}; over that, a retry is not refused but waits `backoff_cap_s`.

## What a crash of the service does

Nothing accepted is lost. A restarted service takes its own running tasks back at once; those of a dead one are rescued when
their lease runs out (`lease_s`). Such attempts end as `interrupted`, and no retry is charged. An attempt that lost its lease
and wakes up again can neither write nor publish: the log says `late_result_refused` or `late_failure_refused`.
"""


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
