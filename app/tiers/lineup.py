"""From the configuration to the tiers in force."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from app.render import registry
from app.tiers.settings import BreakerTable, TierSettings
from app.tiers.tiers import Tiers

REHEARSAL = "rehearsal"


_NEVER = BreakerTable(failures=10**9, window=10**6, rate=1.0)
"""What is there to fail is not left alone for it."""


class LineupError(ValueError):
    """The configured tiers cannot be used; the message says why."""


def _plain(renderer: str) -> TierSettings:
    """The tier of a renderer as it is."""
    breaker = _NEVER if renderer == REHEARSAL else BreakerTable()
    return TierSettings(name=renderer, renderer=renderer, breaker=breaker)


def lineup(
    configured: Sequence[TierSettings],
    *,
    default_renderer: str,
    rehearsals: bool,
    has_cuda: bool,
    common: Mapping[str, str] | None = None,
) -> Tiers:
    """The tiers of a service: those configured, or one of `default_renderer`.

    Where none is configured, other renderers that can be used as they are (`wav2lip` with a checkpoint) have one that
    serves by name, unless it would take a process of its own; so has the rehearsal with `rehearsals`. `common` is what
    renderers are told beside their tier's own settings. Raises `LineupError`.
    """
    known_to_renderers = dict(common or {})
    if not configured and default_renderer not in registry.names():
        known = ", ".join(registry.names())
        raise LineupError(f"tier_renderer is {default_renderer!r}; there are: {known}.")
    chosen = list(configured) or [_plain(default_renderer)]
    if not configured:
        if why := registry.why_absent(default_renderer, known_to_renderers):
            raise LineupError(f"tier_renderer is {default_renderer!r}, but {why}.")
        others = [name for name in registry.BUILT_IN if name not in (default_renderer, REHEARSAL)]
        chosen += [
            TierSettings(name=name, renderer=name, only_by_name=True)
            for name in others
            if not registry.capabilities(name).light and not registry.why_absent(name, known_to_renderers)
        ]
    rehearsed = any(tier.renderer == REHEARSAL for tier in chosen)
    if rehearsed and configured and not rehearsals:
        raise LineupError("A tier rehearses failures, which needs `rehearsals = true`; never on a public service.")
    if rehearsals and not rehearsed:
        chosen.append(TierSettings(name=REHEARSAL, renderer=REHEARSAL, only_by_name=True, breaker=_NEVER))
    try:
        return Tiers(chosen, has_cuda=has_cuda, common=known_to_renderers)
    except ValueError as error:
        raise LineupError(f"tiers: {error}.") from None
