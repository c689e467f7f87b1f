"""Which tiers this service has and what slots they get: read from the settings, at its start and at each reload."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import structlog

from app.config import ConfigError, Settings
from app.render import registry
from app.tiers.lineup import LineupError, lineup
from app.tiers.tiers import DEVICES, Tiers
from app.worker.devices import plan_light, plan_slots
from app.worker.launch import Served
from app.worker.slots import SlotPlan

log = structlog.get_logger(__name__)


class Planning:
    """The settings' word on tiers and slots. Devices are looked at once: those of a host do not change."""

    def __init__(self, settings: Settings, reread: Callable[[], Settings], data_dir: Path) -> None:
        """`reread` reads the configuration anew, for its tiers. Raises `ConfigError`, `NoCudaDevice`."""
        self._settings = settings
        self._reread = reread
        self._data_dir = data_dir
        self.devices = plan_slots(settings.device, settings.slots, settings.threads_per_slot)
        for name, reason in registry.broken_plugins().items():
            log.warning("plugin_broken", renderer=name, reason=reason)
        self.tiers = self._lineup(settings)
        """Those of the start."""

    def _lineup(self, settings: Settings) -> Tiers:
        has_cuda = any(plan.device.startswith("cuda") for plan in self.devices)
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

    def reread(self) -> Tiers:
        """The tiers as they are configured now. Raises `ConfigError`."""
        return self._lineup(self._reread())

    def slots(self, tiers: Tiers) -> tuple[list[SlotPlan], dict[str, list[Served]]]:
        """The slots for these tiers, and what each group of them serves. Tiers that are absent get none."""
        there = [tier for tier in tiers.enabled if not tiers.absence(tier)]
        common = self._settings.renderer_settings() | {
            "cache_dir": str(self._data_dir / "cache"),
            "cache_bytes": str(self._settings.template_cache_bytes),
        }
        serves: dict[str, list[Served]] = {}
        for tier in there:
            serves.setdefault(tier.group, []).append(
                Served(tier.name, tier.settings.renderer, common | tier.settings.own)
            )
        plans = [*(self.devices if DEVICES in serves else []), *plan_light(there)]
        return plans, serves
