"""The HTTP application of a service."""

from __future__ import annotations

from collections.abc import Sequence

from fastapi import FastAPI

from app.api.app import create_app
from app.api.caching import ResultCache
from app.api.ports import ApiDependencies, ApiSettings
from app.health.watch import HealthWatch
from app.intake.resolve import Intake
from app.notify.address import TargetGuard
from app.service.foresight import Foresight
from app.service.ground import Ground
from app.service.rendering import Rendering
from app.service.terms import drop_in
from app.service.views import LiveView, Readiness, TierDesk
from app.telemetry.statistics import Statistics
from app.vital import Vital


def make_app(
    ground: Ground,
    rendering: Rendering,
    *,
    intake: Intake,
    cache: ResultCache | None,
    foresight: Foresight,
    statistics: Statistics,
    watch: HealthWatch,
    vital: Sequence[Vital],
) -> FastAPI:
    """The application, with views of the running parts, at which the metrics that it gives out look too.

    `vital`: the parts that are not given otherwise and without which the service is not ready.
    """
    settings = ground.settings
    live = LiveView(rendering.dispatcher, rendering.pool, rendering.judges, ground.store, ground.disk, foresight)
    ground.metrics.watch(live)

    def render_metrics() -> tuple[bytes, str]:
        foresight.catch_up()
        return ground.metrics.render()

    app = create_app(
        ApiDependencies(
            store=ground.store,
            intake=intake,
            pool=live,
            tiers=TierDesk(rendering.board, rendering.tier_control),
            readiness=Readiness(
                ground.store, rendering.pool, rendering.judges, rendering.dispatcher, ground.disk, (watch, *vital)
            ),
            settings=ApiSettings(
                data_dir=ground.data_dir,
                max_upload_bytes=settings.max_input_bytes,
                max_waiting=settings.max_waiting,
                max_deferred=settings.max_deferred if settings.saturation == "accept" else 0,
                cached_when_full=settings.saturation == "cached",
                max_waiting_per_client=settings.max_waiting_per_client,
                upload_ttl_s=settings.upload_ttl_s,
                idempotency_ttl_s=settings.idempotency_ttl_s,
                default_deadline_s=settings.max_wait_time_s,
            ),
            render_metrics=render_metrics,
            observe_request=ground.metrics.observe_request,
            disk=ground.disk,
            check_target=TargetGuard(allow_private=settings.allow_private_addresses).check,
            statistics=statistics,
            health=watch,
            cache=cache,
            drop_in=drop_in(settings),
            tracing=ground.tracing,
            forecast=foresight,
        )
    )
    ground.metrics.watch_listeners(app.state.hub)
    return app
