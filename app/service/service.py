"""The composition root: builds all parts and owns the order in which they start and stop.

Start: node identity, store, HTTP socket, probe sandbox, slots. Stop (SIGTERM, SIGINT): claim nothing more, give running
attempts a grace period while HTTP still answers, put the rest back into the queue, end all processes, close the store.
"""

from __future__ import annotations

import asyncio
import gc
import os
import shutil
import signal
import socket
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import structlog
import uvloop

from app.api.app import create_app
from app.api.caching import ResultCache
from app.api.notice import notice_body
from app.api.ports import ApiDependencies, ApiSettings
from app.chains.releaser import Releaser, ReleaseTerms
from app.cleanup.disk import DiskWatch
from app.cleanup.janitor import ORPHAN_AGE_S, Janitor, Retention
from app.config import ConfigError, Settings
from app.database import open_database
from app.health.clocks import Limits
from app.health.gpu import GpuReader
from app.health.oom import OomCounter
from app.health.resources import ResourceReader
from app.health.watch import HealthWatch
from app.intake.blobs import BlobStore
from app.intake.resolve import Intake
from app.media.sandbox import Sandbox
from app.notify.address import TargetGuard
from app.notify.deliverer import Deliverer, DeliveryObserver, DeliverySettings
from app.notify.sender import Sender, Timeouts
from app.notify.signing import key_of, own_secret
from app.render import registry
from app.retry.backoff import make_backoff
from app.retry.budget import RetryBudget
from app.retry.taxonomy import CodedError
from app.service.foresight import Foresight
from app.service.listening import listen, server_of, service_file, url_of
from app.service.reload import TierControl
from app.service.terms import cache_terms, drop_in, intake_settings, phase_limits, sitting_terms, thresholds, tracing
from app.service.views import LiveView, Readiness, Surroundings, TierDesk
from app.store.errors import SchemaTooNew, StoreUnavailable
from app.store.records import Claim, InputRef
from app.store.sql import SqlStore
from app.telemetry.logs import configure_logging, relay_worker_line
from app.telemetry.metrics import Metrics
from app.telemetry.statistics import Statistics
from app.telemetry.task_spans import TaskSpans
from app.telemetry.tracing import Tracing
from app.tiers.lineup import LineupError, lineup
from app.tiers.tiers import DEVICES, Tiers
from app.worker.attempt import Attempt, AttemptSettings
from app.worker.board import TierBoard
from app.worker.devices import NoCudaDevice, plan_light, plan_slots, plan_spares
from app.worker.dispatcher import ClaimTerms, Dispatcher
from app.worker.judges import Judges, plan_judges
from app.worker.launch import JUDGE, Served
from app.worker.node import Node
from app.worker.pool import LocalPool
from app.worker.publish import RESULTS, discard
from app.worker.settle import Settler
from app.worker.slots import Slot, SlotPlan
from app.worker.strays import end_marked

log = structlog.get_logger(__name__)

ATTEMPTS = "attempts"
RUN = "run"
SERVICE_FILE = "service.json"
_SWITCH_S = 0.001
"""How long a thread that computes may keep the others waiting. The writer gives way at every statement, and with the
interpreter's own 5 ms it got its turn too late to keep up with a loaded event loop."""
WEBHOOK_SECRET_FILE = "webhook-secret"  # noqa: S105 - the file's name
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
        self._reread = reread
        self.data_dir = settings.data_dir.resolve()
        self.data_dir.mkdir(parents=True, exist_ok=True)
        self._device_plans = plan_slots(settings.device, settings.slots, settings.threads_per_slot)
        for name, reason in registry.broken_plugins().items():
            log.warning("plugin_broken", renderer=name, reason=reason)
        tiers = self._lineup(settings)
        machine = settings.machine or socket.gethostname() if settings.database_url is not None else ""
        self.node = Node(self.data_dir, machine)
        self.metrics = Metrics()
        self.tracing = tracing(settings, instance=self.node.id)
        self.store = open_database(settings, self.data_dir)
        self.disk = DiskWatch(self.data_dir, settings.disk_low_bytes)
        self.blobs = BlobStore(self.data_dir / "blobs")
        self._attempts_dir = self.data_dir / ATTEMPTS / self.node.id
        self._attempts_dir.mkdir(parents=True, exist_ok=True)
        plans, serves = self._plan(tiers)
        self.pool = LocalPool(
            plans,
            serves=serves,
            run_dir=self.data_dir / RUN / self.node.id,
            owner=self.node.id,
            start_timeout_s=settings.worker_start_timeout_s,
            sink=lambda slot, line: relay_worker_line(slot, line, self.dispatcher.about_slot(slot)),
            observer=self.metrics.workers,
            spares=plan_spares(self._device_plans, settings.spares),
            log_level=settings.log_level,
        )
        self.judges = self._judges()
        self._see_to_judges(tiers)
        self.board = TierBoard(
            tiers,
            self.pool,
            self.store,
            node=self.node.id,
            observer=self.metrics.tiers,
            no_judge=self.judges.why_none,
        )
        self._attempt_settings = AttemptSettings(
            lease_s=settings.lease_s,
            health_interval_s=settings.health_interval_s,
            limits=Limits(settings.health_strikes, phase_limits(settings)),
            cancel_grace_s=settings.cancel_grace_s,
            task_lost_s=settings.task_lost_s,
            attempts_dir=self._attempts_dir,
            progress_notice_s=settings.webhook_progress_s,
        )
        budget = RetryBudget()
        self._settler = Settler(
            self.store,
            data_dir=self.data_dir,
            board=self.board,
            max_retries=settings.max_retries,
            backoff=make_backoff(settings.backoff, settings.backoff_cap_s),
            backoff_cap_s=settings.backoff_cap_s,
            patience_s=settings.lease_s,
            budget=budget,
            locate=self._locate,
            attempts_dir=self._attempts_dir,
            cache=cache_terms(settings),
            confidence_threshold=settings.confidence_threshold,
        )
        self._oom = OomCounter()
        self.dispatcher = Dispatcher(
            self.store,
            self.pool,
            self.board,
            ClaimTerms(self.node.id, settings.lease_s),
            self._make_attempt,
            self._discard,
        )
        self.janitor = Janitor(
            self.store,
            attempts_dir=self._attempts_dir,
            results_dir=self.data_dir / RESULTS,
            sweep_blobs=self._sweep_blobs,
            end_strays=partial(end_marked, f"{self.node.id}/"),
            retention=Retention(result_s=settings.result_ttl_s, task_s=settings.task_ttl_s),
            interval_s=_JANITOR_S,
        )
        self.statistics = Statistics()
        self.statistics.rebuild(self.store, self.node.id)
        self.store.subscribe(self.statistics.count_events)
        self.store.subscribe(self.metrics.tasks.count_events)
        self.watch = HealthWatch(
            Surroundings(
                self.dispatcher,
                self.pool,
                self.judges,
                self.store,
                statistics=self.statistics,
                budget=budget,
                janitor=self.janitor,
            ),
            ResourceReader(disk_free=self.disk.free, gpus=GpuReader()),
            thresholds(settings),
            interval_s=settings.resource_interval_s,
        )
        self.metrics.watch_health(self.watch)
        self.metrics.watch_statistics(self.statistics)
        self.deliverer = _deliverer(
            self.store,
            settings,
            owner=self.node.id,
            data_dir=self.data_dir,
            observer=self.metrics.notices,
            tracing=self.tracing,
        )
        self.task_spans = TaskSpans(self.store, self.tracing) if self.tracing.on else None
        self.tier_control = TierControl(
            read=self._read_tiers,
            board=self.board,
            pool=self.pool,
            plan=self._plan,
            store=self.store,
            prepare=self._see_to_judges,
        )
        self.foresight = Foresight(
            self.store, self.pool, self.board, self.dispatcher, owner=self.node.id, observer=self.metrics.tasks
        )
        self.foresight.rebuild()
        live = LiveView(self.dispatcher, self.pool, self.judges, self.store, self.disk, self.foresight)
        self.metrics.watch(live)
        self.metrics.tiers.expect_tiers({view.name: view.breaker.value for view in self.board.views()})
        self.metrics.workers.expect_slots([plan.name for plan in (*plans, *plan_judges(settings.judges))])
        self.sandbox = Sandbox(
            concurrency=settings.probe_concurrency,
            seconds=settings.probe_timeout_s,
            memory_bytes=settings.probe_memory_bytes,
        )
        self.intake = Intake(self.blobs, self.store, self.sandbox, intake_settings(settings))
        cache = _result_cache(self.store, settings, self.data_dir)
        self.releaser = Releaser(
            self.store,
            self.intake,
            ReleaseTerms(self.data_dir, settings.max_wait_time_s),
            tiers=lambda: self.board.tiers,
            backoff=make_backoff(settings.backoff, settings.backoff_cap_s),
            cache=cache,
        )
        self.app = create_app(
            ApiDependencies(
                store=self.store,
                intake=self.intake,
                pool=live,
                tiers=TierDesk(self.board, self.tier_control),
                readiness=Readiness(self.store, self.pool, self.judges, self.dispatcher, self.disk),
                settings=ApiSettings(
                    data_dir=self.data_dir,
                    max_upload_bytes=settings.max_input_bytes,
                    max_waiting=settings.max_waiting,
                    max_deferred=settings.max_deferred if settings.saturation == "accept" else 0,
                    cached_when_full=settings.saturation == "cached",
                    max_waiting_per_client=settings.max_waiting_per_client,
                    upload_ttl_s=settings.upload_ttl_s,
                    idempotency_ttl_s=settings.idempotency_ttl_s,
                    default_deadline_s=settings.max_wait_time_s,
                ),
                render_metrics=self._render_metrics,
                observe_request=self.metrics.observe_request,
                disk=self.disk,
                check_target=TargetGuard(allow_private=settings.allow_private_addresses).check,
                statistics=self.statistics,
                health=self.watch,
                cache=cache,
                drop_in=drop_in(settings),
                tracing=self.tracing,
                forecast=self.foresight,
            )
        )
        self.metrics.watch_listeners(self.app.state.hub)

    def _render_metrics(self) -> tuple[bytes, str]:
        self.foresight.catch_up()
        return self.metrics.render()

    def _make_attempt(self, claim: Claim, slot: Slot, on_done: Any) -> Attempt:
        return Attempt(
            claim,
            slot,
            pool=self.pool,
            judges=self.judges,
            store=self.store,
            board=self.board,
            settler=self._settler,
            observer=self.metrics.workers,
            locate=self._locate,
            settings=self._attempt_settings,
            count_oom_kills=self._oom.read,
            on_done=on_done,
            tracing=self.tracing,
        )

    def _judges(self) -> Judges:
        settings = self.settings
        pool = LocalPool(
            [],
            serves={},
            run_dir=self.data_dir / RUN / self.node.id,
            owner=self.node.id,
            start_timeout_s=settings.worker_start_timeout_s,
            sink=lambda slot, line: relay_worker_line(slot, line, {}),
            observer=self.metrics.workers,
            log_level=settings.log_level,
            module=JUDGE,
        )
        return Judges(pool, count=settings.judges, terms=sitting_terms(settings), observer=self.metrics.workers)

    def _see_to_judges(self, tiers: Tiers) -> None:
        if any(tier.capabilities.judged_apart for tier in tiers.enabled if not tiers.absence(tier)):
            self.judges.want()

    def _lineup(self, settings: Settings) -> Tiers:
        has_cuda = any(plan.device.startswith("cuda") for plan in self._device_plans)
        try:
            tiers = lineup(
                settings.tiers,
                default_renderer=settings.tier_renderer,
                rehearsals=settings.rehearsals,
                has_cuda=has_cuda,
                common=settings.renderer_settings(),
            )
        except LineupError as error:
            raise ConfigError(str(error)) from None
        if settings.cache:
            _ = tiers.versions  # Read here, so that no request waits for it.
        return tiers

    def _read_tiers(self) -> Tiers:
        return self._lineup(self._reread())

    def _plan(self, tiers: Tiers) -> tuple[list[SlotPlan], dict[str, list[Served]]]:
        """The slots for these tiers, and what each group of them serves. Tiers that are absent get none."""
        there = [tier for tier in tiers.enabled if not tiers.absence(tier)]
        common = self.settings.renderer_settings() | {
            "cache_dir": str(self.data_dir / "cache"),
            "cache_bytes": str(self.settings.template_cache_bytes),
        }
        serves: dict[str, list[Served]] = {}
        for tier in there:
            serves.setdefault(tier.group, []).append(
                Served(tier.name, tier.settings.renderer, common | tier.settings.own)
            )
        plans = [*(self._device_plans if DEVICES in serves else []), *plan_light(there)]
        return plans, serves

    def _locate(self, reference: InputRef) -> Path:
        return self.blobs.path(reference.sha256)

    def _sweep_blobs(self) -> int:
        failed_since = time.time() - self.settings.failed_input_ttl_s
        in_use = partial(self.store.blobs_in_use, failed_since=failed_since)
        return len(self.blobs.sweep(in_use, grace_s=ORPHAN_AGE_S))

    def _discard(self, task_id: str, attempt: int) -> None:
        """Remove what an attempt that lost its lease left, and all that is left of nodes that are gone."""
        discard(task_id, attempt, self.data_dir)
        attempts = self.data_dir / ATTEMPTS
        dead: list[Path] = []
        for node in self.node.dead():
            end_marked(f"{node}/")
            dead += (attempts / node).glob("*")
        for folder in (*attempts.glob(f"*/{task_id}-{attempt}"), *dead):
            shutil.rmtree(folder, ignore_errors=True)

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
            try:
                await self.sandbox.start()
            except CodedError as error:
                log.warning("media_helper_started_again", reason=str(error))
                await self.sandbox.start()
            if self.task_spans is not None:
                self.task_spans.start()
            self.janitor.sweep_start()
            await self.tier_control.start()
            loop.add_signal_handler(signal.SIGHUP, self._reload_on_signal)
            self.judges.start()
            await asyncio.to_thread(self.dispatcher.start)
            await self.deliverer.start()
            await self.releaser.start()
            self.janitor.start()
            self.watch.start()
            # What is there now stays: the collector need not walk over it again, request after request.
            gc.collect()
            gc.freeze()
            with service_file(self.data_dir / SERVICE_FILE, url):
                log.info("serving", url=url, node=self.node.id, data_dir=str(self.data_dir), pid=os.getpid())
                await stop.wait()
        finally:
            log.info("stopping", running=self.dispatcher.running_count(), grace_s=self.settings.shutdown_grace_s)
            await self.tier_control.stop()
            await self.releaser.stop()
            await asyncio.to_thread(self.watch.stop)
            await asyncio.to_thread(self.dispatcher.stop, self.settings.shutdown_grace_s)
            await asyncio.to_thread(self.judges.stop)
            await self.deliverer.stop()
            self.app.state.waiters.close()
            self.app.state.hub.close()
            server.should_exit = True
            await http
            await self.intake.close()
            await self.sandbox.close()
            await asyncio.to_thread(self.janitor.stop)
            if self.task_spans is not None:
                await asyncio.to_thread(self.task_spans.stop)

    def _reload_on_signal(self) -> None:
        self._reloading = asyncio.create_task(self._reload())

    async def _reload(self) -> None:
        try:
            await self.tier_control.reload()
        except (ConfigError, StoreUnavailable) as error:
            log.warning("tiers_not_reloaded", reason=str(error))

    def close(self) -> None:
        """Close what `__init__` opened."""
        self.store.close()
        self.tracing.close()
        self.node.release()


def _deliverer(
    store: SqlStore, settings: Settings, *, owner: str, data_dir: Path, observer: DeliveryObserver, tracing: Tracing
) -> Deliverer:
    given = [secret.get_secret_value() for secret in settings.webhook_secrets]
    return Deliverer(
        store.outbox,
        Sender(
            allow_private=settings.allow_private_addresses,
            ca_file=settings.ca_file,
            timeouts=Timeouts(
                settings.webhook_connect_timeout_s, settings.webhook_read_timeout_s, settings.webhook_total_timeout_s
            ),
            connections=settings.webhook_concurrency,
        ),
        owner=owner,
        keys=[key_of(secret) for secret in given or [own_secret(data_dir / WEBHOOK_SECRET_FILE)]],
        render=notice_body,
        settings=DeliverySettings(
            settings.webhook_concurrency, settings.webhook_concurrency_per_endpoint, settings.webhook_schedule_s
        ),
        observer=observer,
        tracing=tracing,
    )


def _result_cache(store: SqlStore, settings: Settings, data_dir: Path) -> ResultCache | None:
    return ResultCache(store, data_dir, max_bytes=settings.cache_max_bytes) if settings.cache else None


def _cannot_start(error: Exception) -> int:
    log.critical("cannot_start", reason=str(error))
    print(f"greenroom cannot start: {error}", file=sys.stderr)
    return 1


def run(settings: Settings, reread: Callable[[], Settings]) -> int:
    """Serve until told to stop. Returns the process's exit code: 0 after an orderly stop, 1 if it cannot start."""
    configure_logging(settings.log_format, settings.log_level)
    try:
        service = Service(settings, reread)
    except (ConfigError, NoCudaDevice, OSError, SchemaTooNew, StoreUnavailable) as error:
        return _cannot_start(error)
    sys.setswitchinterval(_SWITCH_S)
    try:
        uvloop.run(service.serve())
    except (CodedError, OSError) as error:
        return _cannot_start(error)
    finally:
        service.close()
    log.info("stopped")
    return 0
