"""Metrics that are read when Prometheus scrapes: resources, alarms, and success rates."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from app.health.alarms import Alarms
from app.health.resources import Host, Resources
from app.health.rules import RULES
from app.telemetry.statistics import Statistics, Window


class HealthSource(Protocol):
    """Where resources and alarms come from: `app.health.watch.HealthWatch`."""

    @property
    def alarms(self) -> Alarms:
        """All alarms."""

    @property
    def resources(self) -> Resources | None:
        """The last reading, None before the first."""

    def scale_out(self) -> list[str]:
        """The alarms against which another service would help."""


class ListenerSource(Protocol):
    """Where the numbers of the event streams come from: `app.api.stream.EventHub`."""

    @property
    def listening(self) -> int:
        """Streams that are open."""

    @property
    def dropped(self) -> int:
        """Those that were ended because nobody read them."""


class ListenerCollector(Collector):
    """The event streams."""

    def __init__(self, source: ListenerSource) -> None:
        self._source = source

    def collect(self) -> Iterable[Metric]:
        """The metrics now."""
        yield GaugeMetricFamily("greenroom_event_listeners", "Open event streams.", value=self._source.listening)
        text = "Event streams that were ended because their readers were too slow."
        yield CounterMetricFamily("greenroom_event_listeners_dropped", text, value=self._source.dropped)


def _gauge(name: str, text: str, *labels: str) -> GaugeMetricFamily:
    return GaugeMetricFamily(name, text, labels=labels)


class HealthCollector(Collector):
    """Resources and alarms as last read; a scrape reads nothing itself."""

    def __init__(self, source: HealthSource) -> None:
        self._source = source

    def collect(self) -> Iterable[Metric]:
        """The metrics now."""
        yield from self._alarms()
        resources = self._source.resources
        if resources is not None:
            yield from _host(resources.host)
            yield from _workers(resources)
            yield from _gpus(resources)

    def _alarms(self) -> Iterable[Metric]:
        alarms = self._source.alarms
        firing = {alarm.name for alarm in alarms.active()}
        active = _gauge("greenroom_alarms", "1 while an alarm of this name is active.", "alarm", "severity")
        fired = CounterMetricFamily("greenroom_alarms_fired", "How often an alarm has fired.", labels=["alarm"])
        for rule in RULES:
            active.add_metric([rule.name, rule.severity.value], float(rule.name in firing))
            fired.add_metric([rule.name], alarms.fired(rule.name))
        yield active
        yield fired
        wanted = float(bool(self._source.scale_out()))
        yield GaugeMetricFamily("greenroom_scale_out", "1 while another service would help.", value=wanted)


def _host(host: Host) -> Iterable[Metric]:
    if host.cpu_share is not None:
        text = "CPU in use, as a share of what the machine or the container may use."
        yield GaugeMetricFamily("greenroom_host_cpu_ratio", text, value=host.cpu_share)
    yield GaugeMetricFamily("greenroom_host_load1", "The machine's load average of one minute.", value=host.load_1m)
    memory = _gauge("greenroom_host_memory_bytes", "Memory of the machine or the container.", "kind")
    memory.add_metric(["total"], host.memory_total)
    memory.add_metric(["available"], host.memory_available)
    yield memory
    swap = _gauge("greenroom_host_swap_bytes", "Swap of the machine.", "kind")
    swap.add_metric(["total"], host.swap_total)
    swap.add_metric(["used"], host.swap_used)
    yield swap


def _workers(resources: Resources) -> Iterable[Metric]:
    memory = _gauge("greenroom_worker_memory_bytes", "Resident memory of a slot's process.", "slot")
    spent = CounterMetricFamily("greenroom_worker_cpu_seconds", "CPU time of a slot's process.", labels=["slot"])
    threads = _gauge("greenroom_worker_threads", "Threads of a slot's process.", "slot")
    descriptors = _gauge("greenroom_worker_open_fds", "Open descriptors of a slot's process.", "slot")
    for worker in resources.workers:
        memory.add_metric([worker.slot], worker.memory)
        spent.add_metric([worker.slot], worker.cpu_s)
        threads.add_metric([worker.slot], worker.threads)
        descriptors.add_metric([worker.slot], worker.descriptors)
    yield from (memory, spent, threads, descriptors)


def _gpus(resources: Resources) -> Iterable[Metric]:
    memory = _gauge("greenroom_gpu_memory_bytes", "Memory of a device.", "device", "kind")
    busy = _gauge("greenroom_gpu_busy_ratio", "Share of time in which a kernel ran on a device.", "device")
    heat = _gauge("greenroom_gpu_temperature_celsius", "Temperature of a device.", "device")
    for gpu in resources.gpus:
        memory.add_metric([gpu.device, "total"], gpu.memory_total)
        memory.add_metric([gpu.device, "used"], gpu.memory_used)
        if gpu.busy_share is not None:
            busy.add_metric([gpu.device], gpu.busy_share)
        if gpu.temperature_c is not None:
            heat.add_metric([gpu.device], gpu.temperature_c)
    yield from (memory, busy, heat)


class StatisticsCollector(Collector):
    """Success rates over the windows of `GET /stats`, where there was anything to judge."""

    def __init__(self, source: Statistics) -> None:
        self._source = source

    def collect(self) -> Iterable[Metric]:
        """The metrics now."""
        rate = _gauge(
            "greenroom_success_ratio", "Succeeded among succeeded and failed attempts, as in /stats.", "tier", "window"
        )
        for window in Window:
            for tier in self._source.tiers():
                found = self._source.of(tier, window).success_rate
                if found is not None:
                    rate.add_metric([tier, window.value], found)
        yield rate
