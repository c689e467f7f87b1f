"""The composition root: builds all parts and owns the order in which they start and stop.

Start: node identity, store, HTTP socket, probe sandbox, slots. Stop (SIGTERM, SIGINT): claim nothing more, give running
attempts a grace period while HTTP still answers, put the rest back into the queue, end all processes, close the store.
"""

from __future__ import annotations

import asyncio
import gc
import os
import signal
from collections.abc import Awaitable, Callable
from functools import partial

import structlog

from app.api.caching import ResultCache
from app.chains.releaser import Releaser, ReleaseTerms
from app.cleanup.janitor import Janitor, Retention
from app.config import ConfigError, Settings
from app.health.gpu import GpuReader
from app.health.resources import ResourceReader
from app.health.watch import HealthWatch
from app.intake.resolve import Intake
from app.media.sandbox import Sandbox
from app.retry.backoff import make_backoff
from app.retry.taxonomy import CodedError
from app.service.foresight import Foresight
from app.service.front import make_app
from app.service.ground import Ground
from app.service.listening import Server, listen, server_of, service_file, url_of
from app.service.notices import make_deliverer
from app.service.planning import Planning
from app.service.rendering import Rendering
from app.service.terms import intake_settings, thresholds
from app.service.views import Surroundings
from app.store.errors import StoreUnavailable
from app.telemetry.statistics import Statistics
from app.telemetry.task_spans import TaskSpans
from app.worker.strays import end_marked

log = structlog.get_logger(__name__)

SERVICE_FILE = "service.json"
_JANITOR_S = 600.0
_KEEP_ALIVE_S = 15
_HTTP_GRACE_S = 5
"""Open requests (long polls, downloads) get this long once the attempts are settled."""


class Service:
    """One service process: everything built, nothing started."""

    def __init__(self, settings: Settings, reread: Callable[[], Settings]) -> None:
        """`reread` reads the configuration anew, for its tiers.

        Raises `ConfigError`, OSError, `StoreUnavailable`, `NoCudaDevice` when the service cannot run like this."""
        self.settings = settings
        data_dir = settings.data_dir.resolve()
        data_dir.mkdir(parents=True, exist_ok=True)
        planning = Planning(settings, reread, data_dir)
        self.ground = ground = Ground(settings, data_dir)
        self.rendering = rendering = Rendering(ground, planning)
        self.janitor = Janitor(
            ground.store,
            attempts_dir=ground.attempts_dir,
            results_dir=ground.results_dir,
            sweep_blobs=ground.sweep_blobs,
            end_strays=partial(end_marked, f"{ground.node.id}/"),
            retention=Retention(result_s=settings.result_ttl_s, task_s=settings.task_ttl_s),
            interval_s=_JANITOR_S,
        )
        statistics = Statistics()
        statistics.rebuild(ground.store, ground.node.id)
        ground.store.subscribe(statistics.count_events)
        ground.store.subscribe(ground.metrics.tasks.count_events)
        self.watch = HealthWatch(
            Surroundings(
                rendering.dispatcher,
                rendering.pool,
                rendering.judges,
                ground.store,
                statistics=statistics,
                budget=rendering.budget,
                janitor=self.janitor,
            ),
            ResourceReader(disk_free=ground.disk.free, gpus=GpuReader()),
            thresholds(settings),
            interval_s=settings.resource_interval_s,
        )
        ground.metrics.watch_health(self.watch)
        ground.metrics.watch_statistics(statistics)
        self.deliverer = make_deliverer(ground)
        self.task_spans = TaskSpans(ground.store, ground.tracing) if ground.tracing.on else None
        foresight = Foresight(
            ground.store,
            rendering.pool,
            rendering.board,
            rendering.dispatcher,
            owner=ground.node.id,
            observer=ground.metrics.tasks,
        )
        foresight.rebuild()
        self.sandbox = Sandbox(
            concurrency=settings.probe_concurrency,
            seconds=settings.probe_timeout_s,
            memory_bytes=settings.probe_memory_bytes,
        )
        self.intake = Intake(ground.blobs, ground.store, self.sandbox, intake_settings(settings))
        cache = ResultCache(ground.store, data_dir, max_bytes=settings.cache_max_bytes) if settings.cache else None
        self.releaser = Releaser(
            ground.store,
            self.intake,
            ReleaseTerms(data_dir, settings.max_wait_time_s),
            tiers=lambda: rendering.board.tiers,
            backoff=make_backoff(settings.backoff, settings.backoff_cap_s),
            cache=cache,
        )
        self.app = make_app(
            ground,
            rendering,
            intake=self.intake,
            cache=cache,
            foresight=foresight,
            statistics=statistics,
            watch=self.watch,
            vital=(self.janitor, self.deliverer, self.releaser),
        )

    async def serve(self) -> None:
        """Serve until SIGTERM or SIGINT, then stop in order."""
        listener = listen(self.settings.host, self.settings.port)
        url = url_of(listener)
        server = server_of(self.app, keep_alive_s=_KEEP_ALIVE_S, grace_s=_HTTP_GRACE_S)
        stop = asyncio.Event()
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, stop.set)
        http = asyncio.create_task(server.serve(sockets=[listener]))
        http.add_done_callback(lambda _task: stop.set())
        try:
            await self._start()
            with service_file(self.ground.data_dir / SERVICE_FILE, url):
                node, data_dir = self.ground.node.id, str(self.ground.data_dir)
                log.info("serving", url=url, node=node, data_dir=data_dir, pid=os.getpid())
                await stop.wait()
        finally:
            await self._stop(server, http)

    async def _start(self) -> None:
        try:
            await self.sandbox.start()
        except CodedError as error:
            log.warning("media_helper_started_again", reason=str(error))
            await self.sandbox.start()
        if self.task_spans is not None:
            self.task_spans.start()
        self.janitor.sweep_start()
        await self.rendering.tier_control.start()
        asyncio.get_running_loop().add_signal_handler(signal.SIGHUP, self._reload_on_signal)
        self.rendering.judges.start()
        await asyncio.to_thread(self.rendering.dispatcher.start)
        await self.deliverer.start()
        await self.releaser.start()
        self.janitor.start()
        self.watch.start()
        # What is there now stays: the collector need not walk over it again, request after request.
        gc.collect()
        gc.freeze()

    async def _stop(self, server: Server, http: asyncio.Task[None]) -> None:
        grace_s = self.settings.shutdown_grace_s
        log.info("stopping", running=self.rendering.dispatcher.running_count(), grace_s=grace_s)
        rendering = self.rendering
        await _step(rendering.tier_control.stop())
        await _step(self.releaser.stop())
        await _step(asyncio.to_thread(self.watch.stop))
        await _step(asyncio.to_thread(rendering.dispatcher.stop, grace_s))
        await _step(asyncio.to_thread(rendering.judges.stop))
        await _step(self.deliverer.stop())
        self.app.state.waiters.close()
        self.app.state.hub.close()
        server.end()
        await asyncio.wait([http])
        await _step(self.intake.close())
        await _step(self.sandbox.close())
        await _step(asyncio.to_thread(self.janitor.stop))
        if self.task_spans is not None:
            await _step(asyncio.to_thread(self.task_spans.stop))
        http.result()  # a server that broke down is why all this stops

    def _reload_on_signal(self) -> None:
        self._reloading = asyncio.create_task(self._reload())

    async def _reload(self) -> None:
        try:
            await self.rendering.tier_control.reload()
        except (ConfigError, StoreUnavailable) as error:
            log.warning("tiers_not_reloaded", reason=str(error))
        except Exception:
            log.exception("tiers_not_reloaded")

    def close(self) -> None:
        """Close what `__init__` opened."""
        self.ground.close()


async def _step(work: Awaitable[None]) -> None:
    """One step of the end, which stops none of those after it."""
    try:
        await work
    except Exception:
        log.exception("stop_step_failed")
