"""What an operator says of one tier: `[[tiers]]` in `greenroom.toml`."""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from app.render import registry
from app.retry.breaker import BreakerSettings

NAME = r"^[a-z0-9][a-z0-9_-]{0,31}$"
"""Lower case, so that it can be a metric's label and part of a slot's name; no comma, see `app.tasks.route`."""

_MASK = "**********"

Positive = Annotated[float, Field(gt=0)]
PositiveInt = Annotated[int, Field(gt=0)]


class BreakerTable(BaseModel):
    """`breaker = {...}`: when a failing tier is left alone, and for how long."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    failures: PositiveInt = 3
    """Failures in a row that open it."""
    open_s: Positive = 5.0
    """How long it stays open the first time; each time in a row twice as long."""
    open_max_s: Positive = 300.0
    window: PositiveInt = 20
    """Outcomes that the rate is counted over."""
    rate: Annotated[float, Field(gt=0, le=1)] = 0.5
    """Share of failures in a full window that opens it."""

    def settings(self, time_limit_s: float | None) -> BreakerSettings:
        """As the breaker takes them; a probe holds its place for as long as one attempt may take."""
        lease = {} if time_limit_s is None else {"probe_lease_s": time_limit_s}
        return BreakerSettings(self.failures, self.open_s, self.open_max_s, self.window, self.rate, **lease)


class TierSettings(BaseModel):
    """One tier. Fields that are not named here are the renderer's own settings, checked by its own model."""

    model_config = ConfigDict(extra="allow", frozen=True)

    name: Annotated[str, Field(pattern=NAME)]
    renderer: str
    enabled: bool = True
    degraded: bool = False
    """Its results are marked, and it serves only where no other tier can."""
    only_by_name: bool = False
    """It serves only tasks that name it."""
    concurrency: PositiveInt | None = None
    """Tasks at once. Of a renderer that waits for another server: its slots (1). Of others: at most so many slots."""
    time_limit_s: Positive | None = None
    """Longest time of one attempt."""
    patience_s: Annotated[float, Field(ge=0)] = 10.0
    """How much longer than on the quickest tier a task may take here, wait included, before it goes there instead."""
    sources: tuple[Literal["image", "video"], ...] | None = None
    max_audio_s: Positive | None = None
    max_pixels: PositiveInt | None = None
    """Largest picture or frame of the source, width times height."""
    needs_cuda: bool = False
    drop_options: tuple[str, ...] = ()
    rename_options: dict[str, str] = {}
    map_options: dict[str, dict[str, Any]] = {}
    """Per option (as the caller names it): value, as text, -> the value that this tier takes."""
    default_options: dict[str, Any] = {}
    """For options that the request leaves out, as the renderer names them."""
    cache_class: str | None = None
    """Tiers of one class may serve each other's cached results. By default the name of the renderer."""
    breaker: BreakerTable = BreakerTable()

    @model_validator(mode="after")
    def _known(self) -> TierSettings:
        try:
            capabilities = registry.capabilities(self.renderer)
        except registry.UnknownRenderer as error:
            raise ValueError(f"renderer: {error}") from None
        try:
            capabilities.settings.model_validate(self.own)
        except ValidationError as error:
            raise ValueError("; ".join(_words(self.renderer, item) for item in error.errors())) from None
        return self

    @property
    def own(self) -> dict[str, Any]:
        """The renderer's own settings as they were written."""
        return dict(self.model_extra or {})

    @property
    def shown(self) -> dict[str, Any]:
        """What was written, for people: of fields that their model leaves out of its `repr`, only that they are set."""
        fields = registry.capabilities(self.renderer).settings.model_fields
        written = self.model_dump(mode="json", exclude_unset=True)
        return {
            name: _masked(value) if name in fields and not fields[name].repr else value
            for name, value in written.items()
        }


def _masked(value: Any) -> Any:
    """Asterisks for it; for the values of a table, so that its names can be read."""
    return dict.fromkeys(value, _MASK) if isinstance(value, dict) else _MASK


def _words(renderer: str, item: Any) -> str:
    place = ".".join(map(str, item["loc"]))
    if item["type"] == "extra_forbidden":
        return f"{place}: neither a tier nor the renderer {renderer} has such a setting"
    return f"{place}: {item['msg']} (a setting of the renderer {renderer})"


_TABLE = re.compile(r"^\s*\[\[?\s*(?P<name>[\w.\"'-]+)")


def line_of(text: str, index: int, key: str | None) -> int | None:
    """The line (1-based) of `[[tiers]]` number `index` in a TOML text, or of `key` within it where it stands there."""
    seen, start = -1, None
    for number, line in enumerate(text.splitlines(), 1):
        table = _TABLE.match(line)
        if table is not None:
            name = table["name"].strip("\"'")
            if name == "tiers":
                seen += 1
            if seen == index and start is None:
                start = number
            elif start is not None and not name.startswith("tiers."):
                return start
            if seen > index:
                return start
            if start is not None and key is not None and name == f"tiers.{key}":
                return number
        elif start is not None and key is not None and re.match(rf"\s*[\"']?{re.escape(key)}[\"']?\s*[.=]", line):
            return number
    return start
