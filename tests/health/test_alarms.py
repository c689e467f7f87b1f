"""Alarms over made-up series: they fire, they resolve, they do not flap, and noise leaves them alone."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.health.alarms import RECENT, Alarms, Change, Finding, RuleInfo, Severity, Verdict
from app.health.gpu import Gpu
from app.health.resources import Host, Resources, Worker
from app.health.rules import RULES, SCALE_OUT, Look, Rules, SlotLook, Thresholds
from app.health.trends import POINTS, Series
from app.health.watch import RETIRE_REASON, HealthWatch
from app.telemetry.metrics import Metrics

GIB = 1024**3
STEP_S = 5.0
RULE = RuleInfo("test", Severity.WARNING, 20, 30, "Do something.")
THRESHOLDS = Thresholds(
    disk_low_bytes=GIB,
    queue_age_s=600,
    success_rate=0.5,
    restarts=3,
    restart_window_s=600,
    trend_window_s=900,
    trend_horizon_s=1800,
    worker_memory_limit_bytes=2 * GIB,
)
HOST = Host(
    cpu_share=0.3, cores=8, load_1m=1, memory_total=16 * GIB, memory_available=10 * GIB, swap_total=0, swap_used=0,
    disk_free=100 * GIB, limited=False,
)  # fmt: skip
SLOT = SlotLook("cpu-0", ready=True, failing=False, device_held=False, restarts=0, failure="")
WELL = Look(
    resources=Resources(0, HOST, (Worker("cpu-0", 7, GIB, 1, 8, 20),), (), "no NVML"),
    slots=(SLOT,), store_error="", oldest_age_s=None, success_rate=1.0, judged=50, budget_spent=False, dead_notices=3,
)  # fmt: skip


def slot(**changes: Any) -> Look:
    return replace(WELL, slots=(replace(SLOT, **changes),))


def host(**changes: Any) -> Look:
    return replace(WELL, resources=replace(WELL.resources, host=replace(HOST, **changes)))


def gpu(used: float) -> Look:
    device = Gpu("GPU-1", 0, "Test", 80 * GIB, int(used), 0.5, 40.0)
    return replace(WELL, resources=replace(WELL.resources, gpus=(device,)))


def worker(memory: float, pid: int = 7) -> Look:
    return replace(WELL, resources=replace(WELL.resources, workers=(Worker("cpu-0", pid, int(memory), 1, 8, 20),)))


class Timeline:
    """Rules and alarms over looks that are `STEP_S` apart."""

    def __init__(self) -> None:
        self.rules, self.alarms, self.now = Rules(THRESHOLDS), Alarms(), 1_000_000.0
        self.changes: list[tuple[str, str]] = []

    def see(self, looks: Iterable[Look]) -> Timeline:
        for look in looks:
            self.now += STEP_S
            at = replace(look, resources=replace(look.resources, at=self.now))
            for change in self.alarms.update(self.rules.judge(at), self.now):
                self.changes.append((change.what, change.alarm.name))
                assert change.alarm.message
                assert change.alarm.hint
        return self

    def during(self, seconds: float, look: Look | Callable[[float], Look]) -> Timeline:
        """The same look, or a function of the seconds since the beginning of this stretch, for a while."""
        times = [index * STEP_S for index in range(int(seconds / STEP_S))]
        return self.see(look(at) if callable(look) else look for at in times)

    def active(self) -> list[str]:
        return [alarm.name for alarm in self.alarms.active()]


BAD: dict[str, Look] = {
    "slot_down": slot(ready=False, failing=True, failure="It did not start."),
    "no_slot_ready": slot(ready=False, failing=True),
    "workers_restarting": slot(restarts=3),
    "gpu_memory_not_returned": slot(device_held=True),
    "store_unavailable": replace(WELL, store_error="disk I/O error"),
    "disk_low": host(disk_free=GIB // 2),
    "host_cpu_high": host(cpu_share=0.95),
    "host_memory_high": host(memory_available=2 * GIB),
    "worker_memory_high": worker(3 * GIB),
    "queue_old": replace(WELL, oldest_age_s=700.0),
    "success_rate_low": replace(WELL, success_rate=0.2),
    "retry_budget_spent": replace(WELL, budget_spent=True),
    "notices_dead": replace(WELL, dead_notices=5),
}
TRENDS: dict[str, Callable[[float], Look]] = {
    # Each crosses its level 1500 to 2400 s after the beginning.
    "disk_filling": lambda at: host(disk_free=int(21 * GIB - at * 20 * GIB / 2000)),
    "host_memory_filling": lambda at: host(memory_available=int(10 * GIB - at * 9.2 * GIB / 2000)),
    "worker_memory_growing": lambda at: worker(GIB + at * GIB / 2000),
    "gpu_memory_filling": lambda at: gpu(10 * GIB + at * 66 * GIB / 2000),
}


def test_every_alarm_has_its_case_here() -> None:
    assert {*BAD, *TRENDS} == {rule.name for rule in RULES}
    assert {rule.name for rule in RULES} > SCALE_OUT


class TestEveryAlarm:
    @pytest.mark.parametrize("name", BAD)
    def test_it_fires_when_its_condition_holds_and_resolves_when_it_ends(self, name: str) -> None:  # R0.12
        rule = next(rule for rule in RULES if rule.name == name)
        line = Timeline().during(300, WELL)
        assert line.changes == []
        line.during(rule.hold_s + 2 * STEP_S, BAD[name])
        assert name in line.active()
        line.during(1200, slot(restarts=3) if name == "workers_restarting" else WELL)
        assert line.active() == []
        assert [what for what, changed in line.changes if changed == name] == ["fired", "resolved"]

    @pytest.mark.parametrize("name", [rule.name for rule in RULES if rule.hold_s and rule.name in BAD])
    def test_it_does_not_fire_before_it_has_held(self, name: str) -> None:
        rule = next(rule for rule in RULES if rule.name == name)
        line = Timeline()
        for _ in range(10):
            line.during(rule.hold_s, BAD[name]).during(STEP_S, WELL)
        assert name not in [changed for _, changed in line.changes]

    @pytest.mark.parametrize("name", [rule.name for rule in RULES if rule.clear_s and rule.name in BAD])
    def test_a_condition_that_comes_and_goes_is_one_alarm(self, name: str) -> None:  # R0.12
        rule = next(rule for rule in RULES if rule.name == name)
        line = Timeline().during(rule.hold_s + STEP_S, BAD[name])
        for _ in range(20):
            line.during(min(rule.clear_s, 4 * STEP_S), WELL).during(STEP_S, BAD[name])
        assert line.changes.count(("fired", name)) == 1
        assert ("resolved", name) not in line.changes


def test_dead_notices_are_bad_while_they_become_more_and_not_for_ever() -> None:
    line = Timeline().during(1000, replace(WELL, dead_notices=40))
    assert line.changes == []
    line.during(600, lambda at: replace(WELL, dead_notices=40 + int(at // 100)))
    assert line.active() == ["notices_dead"]
    assert line.alarms.active()[0].message == "Notices given up within 15 minutes: 5. Dead in all: 45."
    line.during(600, replace(WELL, dead_notices=None))
    assert line.active() == []
    line.during(1000, replace(WELL, dead_notices=45))
    assert line.active() == []
    assert line.changes[:2] == [("fired", "notices_dead"), ("resolved", "notices_dead")]


class TestTrends:
    @pytest.mark.parametrize("name", TRENDS)
    def test_it_fires_before_the_end_and_resolves_when_the_trend_does(self, name: str) -> None:  # R3.12
        line = Timeline().during(1000, TRENDS[name])
        assert line.active() == [name]
        [alarm] = line.alarms.active()
        assert alarm.value is not None
        assert 300 < alarm.value <= 1800, "seconds that are left"
        end = TRENDS[name](1000)
        line.during(3000, end)
        assert line.active() == []
        assert line.changes == [("fired", name), ("resolved", name)]

    @pytest.mark.parametrize("seed", range(5))
    def test_noise_is_no_trend(self, seed: int) -> None:
        noise = random.Random(seed)
        looks = (
            host(disk_free=int(5 * GIB + noise.gauss(0, GIB / 2)), memory_available=int(9 * GIB + noise.gauss(0, GIB)))
            for _ in range(1500)
        )
        assert Timeline().see(looks).changes == []

    def test_the_saw_teeth_of_jobs_and_one_step_up_are_no_leak(self) -> None:
        line = Timeline().during(3600, lambda at: worker(GIB + (at % 120) / 120 * 0.8 * GIB))
        line.during(3600, lambda at: worker(0.5 * GIB if at < 600 else 1.7 * GIB))
        assert line.changes == []

    def test_a_slow_leak_is_seen_under_saw_teeth(self) -> None:
        grown = Timeline().during(3600, lambda at: worker(GIB + at * GIB / 4000 + (at % 60) / 60 * 0.1 * GIB))
        assert ("fired", "worker_memory_growing") in grown.changes

    def test_a_new_process_begins_a_new_trend(self) -> None:
        line = Timeline().during(1000, TRENDS["worker_memory_growing"])
        line.during(300, worker(0.5 * GIB, pid=8))
        assert line.active() == []

    def test_a_disk_that_empties_is_no_alarm(self) -> None:
        assert Timeline().during(2000, lambda at: host(disk_free=int(2 * GIB + at * GIB / 100))).changes == []

    @given(st.lists(st.floats(-1e12, 1e12), max_size=200), st.floats(-1e12, 1e12))
    def test_a_line_is_found_or_not_but_never_nonsense(self, values: list[float], level: float) -> None:
        series = Series(900)
        for index, value in enumerate(values):
            series.add(index * 5.0, value)
        line = series.line()
        if line is not None:
            left = line.seconds_until(level)
            assert math.isfinite(line.slope)
            assert left is None or left >= 0

    def test_a_series_keeps_its_window_in_few_points(self) -> None:
        series = Series(900)
        for index in range(10_000):
            series.add(index * 1.0, 3.0 * index + 1)
        line = series.line()
        assert line is not None
        assert line.slope == pytest.approx(3)
        assert line.fit == pytest.approx(1)
        assert line.seconds_until(line.now + 30) == pytest.approx(10)
        assert line.seconds_until(line.now - 30) is None
        assert len(series._samples) <= POINTS + 1


class TestEngine:
    def finding(self, verdict: Verdict, subject: str = "") -> Finding:
        return Finding(RULE, verdict, "It is bad.", subject, 5, 4)

    def test_in_between_neither_fires_nor_resolves(self) -> None:
        alarms = Alarms()
        for now in range(0, 200, 5):
            assert alarms.update([self.finding(Verdict.BETWEEN)], now) == []
        for now in range(200, 230, 5):
            alarms.update([self.finding(Verdict.BAD)], now)
        assert len(alarms.active()) == 1
        for now in range(230, 500, 5):
            assert alarms.update([self.finding(Verdict.BETWEEN)], now) == []
        assert len(alarms.active()) == 1

    def test_a_subject_that_is_gone_resolves(self) -> None:
        alarms = Alarms()
        changes: list[Change] = []
        for now in range(0, 200, 5):
            changes += alarms.update([self.finding(Verdict.BAD, "a")] if now < 50 else [], now)
        assert [change.what for change in changes] == ["fired", "resolved"]
        [resolved] = alarms.recent()
        assert (resolved.subject, resolved.since, resolved.resolved_at) == ("a", 20, 80)

    def test_the_list_of_resolved_ones_is_bounded(self) -> None:
        alarms, now = Alarms(), 0.0
        for _ in range(RECENT + 20):
            for verdict in (Verdict.BAD, Verdict.BAD, Verdict.GOOD, Verdict.GOOD):
                now += 40
                alarms.update([self.finding(verdict)], now)
        assert len(alarms.recent()) == RECENT
        assert alarms.fired("test") == RECENT + 20


class Service:
    """The service around a health watch: what it is, and what it was asked for."""

    def __init__(self) -> None:
        self.now, self.current = 0.0, WELL
        self.retired: list[tuple[int, str]] = []
        self.sweeps = 0

    def read(self, slots: Any) -> Resources:
        self.now += STEP_S
        return replace(self.current.resources, at=self.now)

    def processes(self) -> list[tuple[str, int]]:
        return [("cpu-0", 7)]

    def look(self, resources: Resources) -> Look | None:
        return replace(self.current, resources=resources)

    def retire(self, pid: int, reason: str) -> bool:
        self.retired.append((pid, reason))
        return True

    def sweep_soon(self) -> None:
        self.sweeps += 1


class TestHealing:
    def watch(self, service: Service) -> HealthWatch:
        return HealthWatch(service, service, THRESHOLDS, interval_s=5)  # type: ignore[arg-type]

    def test_a_worker_that_holds_too_much_is_retired_and_its_successor_is_not(self) -> None:  # R3.12
        service = Service()
        watch = self.watch(service)
        service.current = worker(3 * GIB)
        for _ in range(4):
            watch.look()
        assert set(service.retired) == {(7, RETIRE_REASON)}
        service.retired.clear()
        service.current = worker(GIB, pid=8)
        for _ in range(10):
            watch.look()
        assert service.retired == []
        assert watch.alarms.active() == []

    def test_a_filling_disk_is_swept_at_once_and_not_over_and_over(self) -> None:  # R3.12
        service = Service()
        watch = self.watch(service)
        for step in range(200):
            service.current = TRENDS["disk_filling"](step * STEP_S)
            watch.look()
        assert service.sweeps == 1

    @pytest.mark.parametrize(
        ("reason", "within", "over"),
        [
            ("host_cpu_high", host(cpu_share=0.90), host(cpu_share=0.91)),
            ("host_memory_high", host(memory_available=int(2.41 * GIB)), host(memory_available=int(2.39 * GIB))),
            ("queue_old", replace(WELL, oldest_age_s=600.0), replace(WELL, oldest_age_s=601.0)),
        ],
    )
    def test_another_service_is_called_for_over_ninety_per_cent_of_cpu_or_eighty_five_of_memory_or_an_old_queue(
        self, reason: str, within: Look, over: Look
    ) -> None:  # R3.11
        service = Service()
        watch = self.watch(service)
        metrics = Metrics()
        metrics.watch_health(watch)
        told = []
        for look in (within, over):
            service.current = look
            for _ in range(15):
                watch.look()
            told.append((watch.scale_out(), metrics.registry.get_sample_value("greenroom_scale_out")))
        assert told == [([], 0.0), ([reason], 1.0)]

    def test_what_calls_for_another_service_is_named(self) -> None:  # R3.11
        service = Service()
        watch = self.watch(service)
        service.current = replace(host(cpu_share=0.95, memory_available=GIB), oldest_age_s=1000.0)
        for _ in range(15):
            watch.look()
        assert watch.scale_out() == ["host_cpu_high", "host_memory_high", "queue_old"]
        service.current = WELL
        for _ in range(15):
            watch.look()
        assert watch.scale_out() == []
