"""Every number the service runs on, in one place.

Where values come from, `app.config_sources` says; the defaults stand below.
"""

from __future__ import annotations

import os
import re
import ssl
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, SecretStr, ValidationInfo, field_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from app.notify.schedule import SCHEDULE_S
from app.notify.signing import key_of
from app.tiers.settings import TierSettings

ENV_PREFIX = "GREENROOM_"
CONFIG_VARIABLE = "GREENROOM_CONFIG"
FAILPOINTS_VARIABLE = "GREENROOM_FAILPOINTS"
"""Read by `app.failpoints`, where rehearsals are on."""
URL_VARIABLE = "GREENROOM_URL"
"""Where the commands of a client find the service."""
OTLP_VARIABLE = "OTEL_EXPORTER_OTLP_ENDPOINT"

Positive = Annotated[float, Field(gt=0)]
PositiveInt = Annotated[int, Field(gt=0)]


class ConfigError(Exception):
    """The configuration cannot be used; the message names the setting, where it was set, and what is wrong."""


class Settings(BaseSettings):
    """All settings. Times in seconds, sizes in bytes, unless the name says otherwise."""

    model_config = SettingsConfigDict(env_prefix=ENV_PREFIX, extra="forbid", frozen=True)

    # -- where it listens and where it keeps things
    host: str = "127.0.0.1"
    port: Annotated[int, Field(ge=0, le=65535)] = 8000
    data_dir: Path = Path("greenroom-data")
    database_url: SecretStr | None = Field(
        None, description="A PostgreSQL database that several machines share; by default SQLite in `data_dir`."
    )
    machine: str | None = Field(
        None, description="This machine's name among those that share a database; by default its host name."
    )
    disk_low_bytes: Annotated[int, Field(ge=0)] = Field(
        1024**3, description="With less free below `data_dir` nothing new is taken in. 0: never."
    )
    log_format: Literal["auto", "json", "console"] = "auto"
    log_level: Literal["debug", "info", "warning", "error"] = "info"

    # -- slots
    device: Literal["auto", "cuda", "cpu"] = "auto"
    slots: PositiveInt | None = Field(
        None, description="Slot processes: by default one per CUDA device, or one per two cores on the CPU."
    )
    threads_per_slot: PositiveInt | None = Field(
        None, description="torch threads of one slot; by default the cores shared evenly."
    )
    spares: Annotated[int, Field(ge=0)] | None = Field(
        None,
        description="Loaded processes that stand by for a killed one: by default one on the CPU, if memory allows.",
    )
    tier_renderer: str = Field("warp", description="The renderer of the one tier there is where `tiers` names none.")
    tiers: tuple[TierSettings, ...] = Field((), description="`[[tiers]]`: see docs/tiers.md.")
    wav2lip_checkpoint: Path | None = Field(
        None, description="Weights for the renderer `wav2lip`; without them it is not offered."
    )
    rehearsals: bool = Field(False, description="Offer the renderer that fails on cue. Never on a public service.")
    template_cache_bytes: PositiveInt = 512 * 1024**2
    worker_start_timeout_s: Positive = 180.0
    judges: Annotated[int, Field(ge=1, le=8)] = Field(
        1, description="Processes that judge the videos of renderers that wait for others; none where no tier does."
    )
    judge_timeout_s: Positive = Field(
        60.0, description="How long judging a video may take, beside four seconds for each second of it."
    )

    # -- inputs
    media_roots: Annotated[tuple[Path, ...], NoDecode] = ()
    allow_private_addresses: bool = False
    ca_file: Path | None = Field(
        None, description="Certificates of authorities (PEM) that are trusted beside the public ones."
    )
    max_input_bytes: PositiveInt = 2 * 1024**3
    max_input_pixels: PositiveInt = 50_000_000
    max_input_side: PositiveInt = 16_384
    max_input_s: Positive = 3600.0
    upload_ttl_s: Positive = 7 * 86_400.0
    fetch_connect_timeout_s: Positive = 2.0
    fetch_read_timeout_s: Positive = 10.0
    fetch_total_timeout_s: Positive = 120.0
    probe_timeout_s: Positive = 20.0
    probe_memory_bytes: PositiveInt = 1024**3
    probe_concurrency: PositiveInt = 2

    # -- the queue
    max_waiting: PositiveInt = 100_000
    saturation: Literal["refuse", "accept", "cached"] = Field(
        "refuse",
        description="At `max_waiting`: refuse, accept `max_deferred` more for later, or serve cached results alone.",
    )
    max_deferred: PositiveInt = 900_000
    max_waiting_per_client: PositiveInt | None = None
    idempotency_ttl_s: Positive = 86_400.0
    result_ttl_s: Positive = Field(7 * 86_400.0, description="How long a finished video is kept.")
    task_ttl_s: Positive = Field(
        30 * 86_400.0, description="How long a task that has ended is kept, with its attempts and events."
    )
    failed_input_ttl_s: Annotated[float, Field(ge=0)] = Field(
        86_400.0, description="How long the inputs of a failed task are kept, so that it can be tried again."
    )
    max_wait_time_s: Positive = Field(6 * 3600.0, description="Deadline of a task that names none of its own.")

    # -- results that are served again
    cache: bool = Field(True, description="Serve a request that equals an earlier one with that one's result.")
    cache_ttl_s: Positive = Field(3600.0, description="How long after its end a result is served again.")
    cache_degraded_ttl_s: Positive = Field(60.0, description="The same of a degraded result.")
    cache_max_bytes: PositiveInt = Field(
        10 * 1024**3, description="Results that are served again, at most; beyond it the longest unused one goes."
    )

    # -- what the service watches of itself
    resource_interval_s: Positive = Field(5.0, description="Time between two looks at resources and alarms.")
    worker_memory_limit_bytes: PositiveInt | None = Field(
        None, description="A worker process that holds more is replaced after its current job."
    )
    alarm_queue_age_s: Positive = 600.0
    alarm_success_rate: Annotated[float, Field(gt=0, lt=1)] = 0.5
    alarm_restarts: PositiveInt = 3
    alarm_restart_window_s: Positive = 600.0
    alarm_trend_window_s: Positive = 900.0
    alarm_trend_horizon_s: Positive = 1800.0

    # -- tracing
    otlp_endpoint: str | None = Field(
        None, description="Where spans are posted to, as OTLP over HTTP, e.g. `http://localhost:4318/v1/traces`."
    )

    # -- webhooks
    webhook_secrets: Annotated[tuple[SecretStr, ...], NoDecode] = Field(
        (), description="Secrets that sign for callers who gave none, the newest first, separated by commas."
    )
    webhook_schedule_s: Annotated[tuple[Annotated[float, Field(ge=0)], ...], NoDecode] = Field(
        SCHEDULE_S, min_length=1, description="Delays between the tries to deliver a notice, separated by commas."
    )
    webhook_connect_timeout_s: Positive = 3.0
    webhook_read_timeout_s: Positive = 10.0
    webhook_total_timeout_s: Annotated[float, Field(gt=0, le=45)] = 15.0
    webhook_concurrency: PositiveInt = 32
    webhook_concurrency_per_endpoint: PositiveInt = 4
    webhook_progress_s: Positive = Field(10.0, description="The least time between two notices of progress of a task.")

    # -- addresses of other servers
    drop_in_duix_dir: Path | None = Field(
        None, description="Serve `/easy/submit` and `/easy/query` over this folder, which their callers share."
    )
    drop_in_save_roots: Annotated[tuple[Path, ...], NoDecode] = Field(
        (), description="Serve `/human/generate`, for paths below these folders."
    )

    # -- leases, health, retries (numbers from the origin)
    lease_s: Positive = 30.0
    health_interval_s: Positive = 5.0
    health_strikes: PositiveInt = 3
    phase_load_s: Positive = 180.0
    phase_fetch_s: Positive = 120.0
    phase_analyse_s: Positive = 60.0
    phase_render_s: Positive = 60.0
    phase_encode_s: Positive = 60.0
    task_lost_s: Positive = Field(
        60.0, description="How long the record of a running task may be gone from the database."
    )
    confidence_threshold: Annotated[float, Field(ge=0, le=1)] = Field(
        0.6, description="Videos of less confidence are made again or put up for review. 0: none."
    )
    max_retries: Annotated[int, Field(ge=0)] = 3
    backoff: Literal["seed", "fixed", "exponential", "full_jitter"] = Field(
        "seed", description="How pauses before retries grow."
    )
    backoff_cap_s: Positive = 60.0
    cancel_grace_s: Positive = Field(2.0, description="How long a render may take to yield before it is killed.")
    shutdown_grace_s: Annotated[float, Field(ge=0)] = 20.0

    @field_validator("cache")
    @classmethod
    def _saturation_needs_it(cls, value: bool, info: ValidationInfo) -> bool:
        if not value and info.data.get("saturation") == "cached":
            raise ValueError("`saturation = cached` serves from the cache: leave it on, or use refuse or accept")
        return value

    @field_validator(
        "database_url",
        "machine",
        "slots",
        "threads_per_slot",
        "spares",
        "wav2lip_checkpoint",
        "worker_memory_limit_bytes",
        "drop_in_duix_dir",
        "otlp_endpoint",
        "ca_file",
        mode="before",
    )
    @classmethod
    def _empty_means_unset(cls, value: object) -> object:
        return None if value == "" else value

    @field_validator("database_url")
    @classmethod
    def _postgresql(cls, value: SecretStr | None) -> SecretStr | None:
        if value is not None and not re.match(r"postgres(ql)?://", value.get_secret_value()):
            raise ValueError("a URL such as postgresql://user:password@host:5432/greenroom is wanted")
        return value

    @field_validator("machine")
    @classmethod
    def _file_name(cls, value: str | None) -> str | None:
        if value is not None and not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}", value):
            raise ValueError("a name of letters, digits, `.`, `_` and `-` is wanted")
        return value

    @field_validator("ca_file")
    @classmethod
    def _certificates(cls, value: Path | None) -> Path | None:
        if value is not None:
            try:
                ssl.create_default_context(cafile=value)
            except OSError as error:  # SSLError is one
                raise ValueError(f"{value} holds no certificates in PEM that can be read: {error}") from error
        return value

    @field_validator("otlp_endpoint")
    @classmethod
    def _http_address(cls, value: str | None) -> str | None:
        if value is not None and not re.match(r"https?://[^/?#\s]+(/\S*)?$", value):
            raise ValueError("an address such as http://localhost:4318/v1/traces is wanted")
        return value

    @field_validator("webhook_secrets", "webhook_schedule_s", mode="before")
    @classmethod
    def _split_list(cls, value: object) -> object:
        return tuple(part.strip() for part in value.split(",") if part.strip()) if isinstance(value, str) else value

    @field_validator("webhook_secrets")
    @classmethod
    def _usable_secrets(cls, value: tuple[SecretStr, ...]) -> tuple[SecretStr, ...]:
        for secret in value:
            key_of(secret.get_secret_value())
        return value

    @field_validator("media_roots", "drop_in_save_roots", mode="before")
    @classmethod
    def _split_roots(cls, value: object) -> object:
        return tuple(Path(part) for part in value.split(os.pathsep) if part) if isinstance(value, str) else value

    @field_validator("drop_in_duix_dir", "drop_in_save_roots")
    @classmethod
    def _apart_from_data(cls, value: Any, info: ValidationInfo) -> Any:
        data = info.data.get("data_dir", Path()).resolve()
        for folder in (value,) if isinstance(value, Path) else value or ():
            real = folder.resolve()
            if data.is_relative_to(real) or real.is_relative_to(data):
                raise ValueError(f"callers write to {folder}: it must neither hold `data_dir` nor lie in it")
        return value

    def renderer_settings(self) -> dict[str, str]:
        """What renderers are told of these settings; each takes what is its own."""
        path = self.wav2lip_checkpoint
        return {} if path is None else {"checkpoint": str(path.absolute())}
