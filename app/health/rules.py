"""The alarms of the service: what is bad, from when, and what to do about it.

Each rule is a function of one look, and the trends also of the looks before it. Time comes with the look. A further
alarm is one more `RuleInfo` in `RULES` and one more function that yields findings.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass

from app.health.alarms import Finding, RuleInfo, Severity, Verdict
from app.health.resources import Resources
from app.health.trends import Series

_WARN, _CRIT = Severity.WARNING, Severity.CRITICAL
_GIB = 1024**3

SLOT_DOWN = RuleInfo(
    "slot_down", _WARN, 10, 10,
    "Look at the slot's last failure in /health/ready and in the log (worker_start_failed, device_quarantined); "
    "`greenroom doctor` tries the renderer on its device.",
)  # fmt: skip
NO_SLOT_READY = RuleInfo(
    "no_slot_ready", _CRIT, 10, 10,
    "No task is started until a slot is back. See slot_down; `greenroom doctor` says what the machine lacks.",
)  # fmt: skip
WORKERS_RESTARTING = RuleInfo(
    "workers_restarting", _WARN, 0, 10,
    "Look at the postmortems of recent attempts (signal, stacks, peak memory) and at the log of the slot.",
)  # fmt: skip
GPU_MEMORY_NOT_RETURNED = RuleInfo(
    "gpu_memory_not_returned", _CRIT, 10, 0,
    "The driver still lists the dead process: end it if it is there after all, else reset the device or the host.",
)  # fmt: skip
STORE_UNAVAILABLE = RuleInfo(
    "store_unavailable", _CRIT, 5, 5,
    "Nothing is accepted or written. Check the disk and the permissions below data_dir, and who holds a lock.",
)  # fmt: skip
DISK_LOW = RuleInfo(
    "disk_low", _CRIT, 0, 30,
    "New work is refused with 507. Free space below data_dir, lower result_ttl_s or task_ttl_s, or enlarge the disk.",
)  # fmt: skip
DISK_FILLING = RuleInfo(
    "disk_filling", _WARN, 60, 120,
    "A sweep was started. Lower result_ttl_s, upload_ttl_s or task_ttl_s, or enlarge the disk, before disk_low fires.",
)  # fmt: skip
HOST_MEMORY_HIGH = RuleInfo(
    "host_memory_high", _WARN, 60, 60, "Lower slots, move other programs away, or add memory or another service."
)
HOST_MEMORY_FILLING = RuleInfo(
    "host_memory_filling", _WARN, 60, 120,
    "See which process grows in /resources; the kernel will kill one when memory is out.",
)  # fmt: skip
WORKER_MEMORY_HIGH = RuleInfo(
    "worker_memory_high", _WARN, 10, 10,
    "The process is replaced after its current job. If that repeats, raise worker_memory_limit_bytes or lower the size "
    "of inputs.",
)  # fmt: skip
WORKER_MEMORY_GROWING = RuleInfo(
    "worker_memory_growing", _WARN, 60, 120,
    "The process will be replaced when it reaches the limit; a renderer that leaks should be mended.",
)  # fmt: skip
GPU_MEMORY_FILLING = RuleInfo(
    "gpu_memory_filling", _WARN, 60, 120,
    "See who uses the device (nvidia-smi); lower slots per device or restart the slot's process.",
)  # fmt: skip
QUEUE_OLD = RuleInfo(
    "queue_old", _WARN, 30, 60, "Add slots or another service, or resume the queue if it is paused; see /queue."
)
SUCCESS_RATE_LOW = RuleInfo(
    "success_rate_low", _CRIT, 30, 60,
    "`failures` in /stats says which failures they are; docs/failures.md says what to do about each.",
)  # fmt: skip
RETRY_BUDGET_SPENT = RuleInfo(
    "retry_budget_spent", _WARN, 30, 60,
    "Something hits everything: retries wait the longest backoff until it ends. See `failures` in /stats.",
)  # fmt: skip
NOTICES_DEAD = RuleInfo(
    "notices_dead", _WARN, 0, 30,
    "`GET /deliveries?state=dead` says which, and why each try failed. Once the endpoint is well, "
    "`POST /tasks/{id}/deliveries/replay` sends them again.",
)  # fmt: skip
HOST_CPU_HIGH = RuleInfo(
    "host_cpu_high", _WARN, 60, 60, "Lower slots or threads_per_slot, or add another service: see scale_out in /alarms."
)

RULES = (
    SLOT_DOWN, NO_SLOT_READY, WORKERS_RESTARTING, GPU_MEMORY_NOT_RETURNED, STORE_UNAVAILABLE, DISK_LOW, DISK_FILLING,
    HOST_CPU_HIGH, HOST_MEMORY_HIGH, HOST_MEMORY_FILLING, WORKER_MEMORY_HIGH, WORKER_MEMORY_GROWING, GPU_MEMORY_FILLING,
    QUEUE_OLD, SUCCESS_RATE_LOW, RETRY_BUDGET_SPENT, NOTICES_DEAD,
)  # fmt: skip
"""All of them."""
SCALE_OUT = frozenset({HOST_CPU_HIGH.name, HOST_MEMORY_HIGH.name, QUEUE_OLD.name})
"""Alarms that another service would help against."""

CPU_BAD, CPU_GOOD = 0.9, 0.8
MEMORY_BAD, MEMORY_GOOD = 0.85, 0.8
_MEMORY_LEFT = 0.05
"""Share of the host's memory at which it counts as full: there the kernel begins to kill."""
_GPU_FULL = 0.95
_JUDGED = 10
"""A success rate of fewer attempts says nothing."""
_DEAD_WINDOW_S = 900.0
"""A notice that died is news for so long: those of one dead endpoint come minutes apart."""
_WORKERS_SHARE = 0.8
"""Part of the host's memory that the workers may have together where no limit is set."""


@dataclass(frozen=True, slots=True)
class Thresholds:
    """What an operator sets. Seconds, bytes, shares."""

    disk_low_bytes: int
    queue_age_s: float
    success_rate: float
    restarts: int
    restart_window_s: float
    trend_window_s: float
    trend_horizon_s: float
    worker_memory_limit_bytes: int | None

    def worker_limit(self, memory_total: int, slots: int) -> int:
        """Bytes that one worker may have."""
        return self.worker_memory_limit_bytes or int(_WORKERS_SHARE * memory_total / max(slots, 1))


@dataclass(frozen=True, slots=True)
class SlotLook:
    """One slot as the alarms see it."""

    name: str
    ready: bool
    """It takes work, or does some."""
    failing: bool
    """Down, in quarantine, or starting again after a failed start."""
    device_held: bool
    """A dead process still holds memory of its GPU."""
    restarts: int
    """Processes that ended without having been asked to, since the service started."""
    failure: str
    """Why it is not ready, as far as it is known."""


@dataclass(frozen=True, slots=True)
class Look:
    """The service at one moment (`resources.at`)."""

    resources: Resources
    slots: tuple[SlotLook, ...]
    store_error: str
    """Why the database cannot be used; empty while it can."""
    oldest_age_s: float | None
    """How long the oldest runnable task has waited; None where none waits or the database does not tell."""
    success_rate: float | None
    """Of the last five minutes, without failures that the input is to blame for."""
    judged: int
    """Attempts that `success_rate` is a share of."""
    budget_spent: bool
    """Whether one more retry would be over the retry budget."""
    dead_notices: int | None
    """Notices that were given up; None where the database does not tell."""
    judges: tuple[SlotLook, ...] = ()
    """The places of judges: they take no tasks, but may fail as slots do."""

    @property
    def processes(self) -> tuple[SlotLook, ...]:
        """Slots and judges."""
        return self.slots + self.judges


class Rules:
    """Judges looks, one after the other."""

    def __init__(self, thresholds: Thresholds) -> None:
        self._set = thresholds
        self._series: dict[tuple[str, str, str], Series] = {}
        self._used: set[tuple[str, str, str]] = set()
        self._restarts: dict[str, tuple[int, deque[float]]] = {}
        self._dead: deque[tuple[float, int]] = deque()

    def judge(self, look: Look) -> list[Finding]:
        """What all rules say of `look`."""
        self._used = set()
        findings = [
            *self._slots(look),
            *self._service(look),
            *self._notices(look),
            *self._host(look),
            *self._workers(look),
            *self._gpus(look),
        ]
        self._series = {key: series for key, series in self._series.items() if key in self._used}
        return findings

    def _slots(self, look: Look) -> Iterator[Finding]:
        for slot in look.processes:
            verdict = Verdict.BAD if slot.failing else Verdict.GOOD if slot.ready else Verdict.BETWEEN
            why = slot.failure or "its process ended and no new one is ready"
            yield Finding(SLOT_DOWN, verdict, f"Slot {slot.name} takes no work: {why}", slot.name)
            held = Verdict.BAD if slot.device_held else Verdict.GOOD
            text = f"The device of slot {slot.name} still holds memory of a dead process; the slot waits for it."
            yield Finding(GPU_MEMORY_NOT_RETURNED, held, text, slot.name)
            yield self._restarting(slot, look.resources.at)
        ready, failing = (sum(getattr(slot, name) for slot in look.slots) for name in ("ready", "failing"))
        verdict = Verdict.GOOD if ready else Verdict.BAD if failing else Verdict.BETWEEN
        text = f"None of {len(look.slots)} slots can take work: tasks wait."
        yield Finding(NO_SLOT_READY, verdict, text, value=ready, threshold=1)

    def _restarting(self, slot: SlotLook, now: float) -> Finding:
        before, times = self._restarts.get(slot.name, (0, deque()))
        most, window_s = self._set.restarts, self._set.restart_window_s
        # More than twice the threshold need not be remembered.
        times = deque([*times, *[now] * min(slot.restarts - before, 2 * most)], maxlen=2 * most)
        while times and times[0] <= now - window_s:
            times.popleft()
        self._restarts[slot.name] = slot.restarts, times
        count = len(times)
        verdict = Verdict.BAD if count >= most else Verdict.GOOD if count <= most // 2 else Verdict.BETWEEN
        text = f"The process of slot {slot.name} had to be replaced {count} times within {window_s:g} s."
        return Finding(WORKERS_RESTARTING, verdict, text, slot.name, count, most)

    def _service(self, look: Look) -> Iterator[Finding]:
        down = Verdict.BAD if look.store_error else Verdict.GOOD
        yield Finding(STORE_UNAVAILABLE, down, f"The database cannot be used: {look.store_error}")
        age, most = look.oldest_age_s or 0.0, self._set.queue_age_s
        if not look.store_error:
            text = f"The oldest task that could run has waited {age:.0f} s."
            yield above(QUEUE_OLD, age, most, 0.8 * most, text)
        rate, least = look.success_rate, self._set.success_rate
        if rate is not None and look.judged >= _JUDGED:
            text = f"Of the last {look.judged} attempts (5 minutes) {rate:.0%} succeeded, inputs at fault left out."
            yield below(SUCCESS_RATE_LOW, rate, least, least + (1 - least) / 4, text)
        spent = Verdict.BAD if look.budget_spent else Verdict.GOOD
        yield Finding(RETRY_BUDGET_SPENT, spent, "More attempts are followed by a retry than the retry budget allows.")

    def _notices(self, look: Look) -> Iterator[Finding]:
        """Growth alone is bad: dead notices are kept for as long as their tasks."""
        now, dead = look.resources.at, look.dead_notices
        if dead is None:
            return
        while self._dead and self._dead[0][0] <= now - _DEAD_WINDOW_S:
            self._dead.popleft()
        self._dead.append((now, dead))
        more = dead - min(count for _at, count in self._dead)
        text = f"Notices given up within {_DEAD_WINDOW_S / 60:.0f} minutes: {more}. Dead in all: {dead}."
        yield above(NOTICES_DEAD, more, 0, 1, text)

    def _host(self, look: Look) -> Iterator[Finding]:
        host, low = look.resources.host, self._set.disk_low_bytes
        if host.disk_free is not None and low:
            text = f"{host.disk_free / _GIB:.1f} GiB are free below the data directory."
            yield below(DISK_LOW, host.disk_free, low, 1.1 * low, text)
            yield self._heading(
                DISK_FILLING, look, "", host.disk_free, low, "the disk below the data directory passes disk_low_bytes"
            )
        if host.cpu_share is not None:
            text = f"{host.cpu_share:.0%} of {host.cores:g} cores are in use."
            yield above(HOST_CPU_HIGH, host.cpu_share, CPU_BAD, CPU_GOOD, text)
        text = f"{host.memory_share:.0%} of {host.memory_total / _GIB:.1f} GiB memory are in use."
        yield above(HOST_MEMORY_HIGH, host.memory_share, MEMORY_BAD, MEMORY_GOOD, text)
        left = _MEMORY_LEFT * host.memory_total
        yield self._heading(HOST_MEMORY_FILLING, look, "", host.memory_available, left, "the host's memory is used up")

    def _workers(self, look: Look) -> Iterator[Finding]:
        limit = self._set.worker_limit(look.resources.host.memory_total, len(look.processes))
        for worker in look.resources.workers:
            text = f"The process of slot {worker.slot} holds {worker.memory / _GIB:.2f} GiB."
            yield above(WORKER_MEMORY_HIGH, worker.memory, limit, 0.9 * limit, text, worker.slot)
            what = f"the process of slot {worker.slot} reaches its memory limit"
            yield self._heading(WORKER_MEMORY_GROWING, look, worker.slot, worker.memory, limit, what, str(worker.pid))

    def _gpus(self, look: Look) -> Iterator[Finding]:
        for gpu in look.resources.gpus:
            full = _GPU_FULL * gpu.memory_total
            what = f"the memory of {gpu.name} {gpu.index} is used up"
            yield self._heading(GPU_MEMORY_FILLING, look, gpu.device, gpu.memory_used, full, what)

    def _heading(
        self, rule: RuleInfo, look: Look, subject: str, value: float, level: float, what: str, life: str = ""
    ) -> Finding:
        """Whether a value is on its way to `level` and there within the horizon; another `life` begins a new series."""
        key = rule.name, subject, life
        self._used.add(key)
        series = self._series.setdefault(key, Series(self._set.trend_window_s))
        series.add(look.resources.at, value)
        line = series.line()
        left = None if line is None else line.seconds_until(level)
        horizon = self._set.trend_horizon_s
        if left is None or left > 2 * horizon:
            return Finding(rule, Verdict.GOOD, subject=subject)
        text = f"At the pace of the last {self._set.trend_window_s / 60:.0f} minutes {what} in {left / 60:.0f} minutes."
        return Finding(rule, Verdict.BAD if left <= horizon else Verdict.BETWEEN, text, subject, left, horizon)


def above(rule: RuleInfo, value: float, bad: float, good: float, message: str, subject: str = "") -> Finding:
    """Bad above `bad`, good below `good`."""
    verdict = Verdict.BAD if value > bad else Verdict.GOOD if value < good else Verdict.BETWEEN
    return Finding(rule, verdict, message, subject, value, bad)


def below(rule: RuleInfo, value: float, bad: float, good: float, message: str) -> Finding:
    """Bad below `bad`, good above `good`."""
    verdict = Verdict.BAD if value < bad else Verdict.GOOD if value > good else Verdict.BETWEEN
    return Finding(rule, verdict, message, value=value, threshold=bad)
