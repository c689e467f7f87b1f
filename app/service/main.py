"""A service from its settings to its exit code."""

from __future__ import annotations

import sys
from collections.abc import Callable

import structlog
import uvloop

from app.config import ConfigError, Settings
from app.retry.taxonomy import CodedError
from app.service.service import Service
from app.store.errors import SchemaTooNew, StoreUnavailable
from app.telemetry.logs import configure_logging
from app.worker.devices import NoCudaDevice

log = structlog.get_logger(__name__)

_SWITCH_S = 0.001
"""How long a thread that computes may keep the others waiting. The writer gives way at every statement, and with the
interpreter's own 5 ms it got its turn too late to keep up with a loaded event loop."""


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


def _cannot_start(error: Exception) -> int:
    log.critical("cannot_start", reason=str(error))
    print(f"greenroom cannot start: {error}", file=sys.stderr)
    return 1
