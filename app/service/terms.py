"""From the settings to the terms on which single parts work: each part knows its own numbers only."""

from __future__ import annotations

from typing import TYPE_CHECKING

from app.api.drop_in.terms import DropIn
from app.config import ENV_PREFIX, OTLP_VARIABLE, ConfigError, Settings
from app.health.clocks import Limits
from app.health.rules import Thresholds
from app.intake.fetch import FetchLimits
from app.intake.resolve import IntakeSettings
from app.media.info import MediaLimits
from app.render.contract import Phase
from app.telemetry.tracing import Untraced
from app.worker.settle import CacheTerms
from app.worker.sitting import SittingTerms

if TYPE_CHECKING:
    from app.telemetry.otlp import OtlpTracing


def cache_terms(settings: Settings) -> CacheTerms | None:
    """How results are kept for equal requests; None where they are not."""
    if not settings.cache:
        return None
    return CacheTerms(settings.cache_ttl_s, settings.cache_degraded_ttl_s, settings.cache_max_bytes)


def tracing(settings: Settings, *, instance: str) -> OtlpTracing | Untraced:
    """Where spans go. Raises `ConfigError` if they are to go somewhere and cannot."""
    if settings.otlp_endpoint is None:
        return Untraced()
    try:
        # Here and not above: a service without a collector pays nothing for it, and need not have it installed.
        from app.telemetry.otlp import OtlpTracing
    except ImportError as error:
        raise ConfigError(
            f"Spans are to go to {settings.otlp_endpoint} (otlp_endpoint), but {error.name or error} is not installed: "
            f"install greenroom[otlp], or unset {ENV_PREFIX}OTLP_ENDPOINT and {OTLP_VARIABLE}."
        ) from None
    try:
        return OtlpTracing(settings.otlp_endpoint, instance=instance)
    except ValueError as error:
        raise ConfigError(f"OpenTelemetry's variables cannot be used: {error}") from error


def phase_limits(settings: Settings) -> dict[str, float]:
    """Longest time without movement by phase, seconds."""
    return {phase.value: float(getattr(settings, f"phase_{phase.value}_s")) for phase in Phase}


def sitting_terms(settings: Settings) -> SittingTerms:
    """How long a judgement may take, and how it is watched over."""
    return SittingTerms(
        timeout_s=settings.judge_timeout_s,
        interval_s=settings.health_interval_s,
        limits=Limits(settings.health_strikes, phase_limits(settings)),
        cancel_grace_s=settings.cancel_grace_s,
    )


def thresholds(settings: Settings) -> Thresholds:
    """From where alarms fire."""
    return Thresholds(
        disk_low_bytes=settings.disk_low_bytes,
        queue_age_s=settings.alarm_queue_age_s,
        success_rate=settings.alarm_success_rate,
        restarts=settings.alarm_restarts,
        restart_window_s=settings.alarm_restart_window_s,
        trend_window_s=settings.alarm_trend_window_s,
        trend_horizon_s=settings.alarm_trend_horizon_s,
        worker_memory_limit_bytes=settings.worker_memory_limit_bytes,
    )


def intake_settings(settings: Settings) -> IntakeSettings:
    """What inputs may be, and how long fetching one may take."""
    return IntakeSettings(
        media_roots=(*settings.media_roots, *((duix_dir,) if (duix_dir := settings.drop_in_duix_dir) else ())),
        allow_private_addresses=settings.allow_private_addresses,
        ca_file=settings.ca_file,
        media=MediaLimits(
            max_bytes=settings.max_input_bytes,
            max_pixels=settings.max_input_pixels,
            max_side=settings.max_input_side,
            max_seconds=settings.max_input_s,
        ),
        fetch=FetchLimits(
            connect_s=settings.fetch_connect_timeout_s,
            read_s=settings.fetch_read_timeout_s,
            total_s=settings.fetch_total_timeout_s,
        ),
    )


def drop_in(settings: Settings) -> DropIn:
    """The addresses of other servers that are served too."""
    return DropIn(settings.drop_in_duix_dir, settings.drop_in_save_roots, settings.result_ttl_s)
