"""The tiers of this service, and which of them may serve a task. Pure, and without a framework: read by the API too."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

from pydantic import BaseModel, ValidationError

from app.render import registry
from app.render.contract import Capabilities
from app.tiers.cache_key import Contents, cache_key
from app.tiers.settings import TierSettings

DEVICES = "Devices"
"""The group of slots that torch renderers share: one process per device serves all of them. No tier can be named so."""


class UnknownTier(LookupError):
    """A request names a tier or renderer that is not here."""


class NoTier(Exception):
    """No tier may serve a task; `reasons` tells why, per tier."""

    def __init__(self, reasons: Mapping[str, str]) -> None:
        self.reasons = dict(reasons)
        super().__init__("; ".join(f"{name}: {reason}" for name, reason in reasons.items()) or "There is no tier.")


@dataclass(frozen=True, slots=True)
class Work:
    """What a task asks for, as far as tiers care. `source` and `audio` are `app.media.info.MediaInfo` as dicts."""

    renderer: str | None
    """The tier or renderer that was named."""
    fallback: str
    options: Mapping[str, Any]
    source: Mapping[str, Any]
    audio: Mapping[str, Any]


@dataclass(frozen=True)
class Tier:
    """One configured tier."""

    settings: TierSettings
    ignores: frozenset[str] = frozenset()
    """Options that mean nothing to it and are no mistake either."""

    @property
    def name(self) -> str:
        """Its name."""
        return self.settings.name

    @cached_property
    def capabilities(self) -> Capabilities:
        """What its renderer can do."""
        return registry.capabilities(self.settings.renderer)

    @property
    def degraded(self) -> bool:
        """Whether its results are marked, and it serves only where no other tier can: told so, or without lip sync."""
        return self.settings.degraded or not self.capabilities.lip_sync

    @property
    def cache_class(self) -> str:
        """Tiers of one class may serve each other's cached results."""
        return self.settings.cache_class or self.settings.renderer

    @property
    def cacheable(self) -> bool:
        """Whether its results may be served again."""
        return self.capabilities.cacheable or self.settings.cache_class is not None

    @property
    def group(self) -> str:
        """Its slots: a renderer that waits for another server has its own, all others share those of the devices."""
        return self.name if self.capabilities.light else DEVICES

    def options_for(self, options: Mapping[str, Any]) -> dict[str, Any]:
        """A request's options as this tier takes them, complete. Raises `pydantic.ValidationError`."""
        own = self.settings
        adapted = dict(own.default_options)
        for name, value in options.items():
            if name in own.drop_options or name in self.ignores:
                continue
            mapped = own.map_options.get(name, {}).get(_as_text(value), value)
            adapted[own.rename_options.get(name, name)] = mapped
        return self.options_model.model_validate(adapted).model_dump(mode="json")

    def refusal_of(self, name: str, value: Any) -> ValidationError | None:
        """What is wrong with the value of one option, for this tier; None if nothing is, whatever the others are."""
        try:
            self.options_for({name: value})
        except ValidationError as error:
            own = self.settings.rename_options.get(name, name)
            return error if any(item["loc"][:1] == (own,) for item in error.errors()) else None
        return None

    @cached_property
    def options_model(self) -> type[BaseModel]:
        """What its renderer takes."""
        return registry.options_model(self.settings.renderer, self.settings.own)

    @cached_property
    def option_names(self) -> frozenset[str]:
        """The options that a request can give it."""
        own = self.settings
        return frozenset({*self.options_model.model_fields, *own.rename_options, *own.drop_options})

    def refusal(self, work: Work) -> str:
        """Why this tier cannot serve `work`; empty if it can. Options are checked apart."""
        own, kind = self.settings, work.source.get("kind")
        if kind is not None and kind not in (own.sources or self.capabilities.sources):
            return f"it takes no {kind} as source"
        seconds = work.audio.get("duration_s")
        if own.max_audio_s is not None and seconds is not None and seconds > own.max_audio_s:
            return f"the speech is longer than {own.max_audio_s:g} s"
        pixels = (work.source.get("width") or 0) * (work.source.get("height") or 0)
        if own.max_pixels is not None and pixels > own.max_pixels:
            return f"the source has more than {own.max_pixels} pixels"
        return ""


class Tiers:
    """All tiers, in the order of the configuration. Immutable: a reload makes another."""

    def __init__(
        self, settings: Sequence[TierSettings], *, has_cuda: bool = False, common: Mapping[str, Any] | None = None
    ) -> None:
        """`has_cuda`: whether the slots have CUDA devices; `common`: what renderers are told beside their tier's own.

        Raises ValueError for two tiers of one name, or for none.
        """
        self._has_cuda = has_cuda
        self._common = dict(common or {})
        names = [tier.name for tier in settings]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise ValueError(f"two tiers have the name {twice[0]!r}")
        if not any(tier.enabled for tier in settings):
            raise ValueError("no tier is enabled")
        made = [Tier(tier) for tier in settings]
        known = frozenset(name for tier in made if tier.capabilities.lip_sync for name in tier.option_names)
        self.all = {
            tier.name: tier if tier.capabilities.lip_sync else replace(tier, ignores=known - tier.option_names)
            for tier in made
        }

    def absence(self, tier: Tier) -> str:
        """Why a tier is not there on this machine; empty if it is."""
        if tier.settings.needs_cuda and not self._has_cuda:
            return "it needs CUDA, and the slots of this service have none"
        return registry.why_absent(tier.settings.renderer, self._common | tier.settings.own)

    def why_absent(self, name: str) -> str:
        """Why a renderer that exists has no tier here; empty for any other name."""
        return registry.why_absent(name, self._common) if name in registry.names() else ""

    @property
    def enabled(self) -> list[Tier]:
        """The tiers that take tasks, in order."""
        return [tier for tier in self.all.values() if tier.settings.enabled]

    @cached_property
    def fingerprint(self) -> str:
        """Changes whenever the route of a waiting task could."""
        text = json.dumps([tier.settings.model_dump(mode="json") for tier in self.all.values()], sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()

    @cached_property
    def versions(self) -> Mapping[str, str]:
        """What the renderer of each tier is, by tier. Read once, when it is first asked for: slots keep what they have
        loaded, whatever becomes of the files."""
        return {
            tier.name: registry.version(tier.settings.renderer, self._common | tier.settings.own)
            for tier in self.all.values()
        }

    def result_key(self, tier: Tier, options: Mapping[str, Any], contents: Contents) -> str | None:
        """The cache key of what a tier makes with these options, which are complete; None if it is not cached."""
        if not tier.cacheable:
            return None
        own = tier.settings
        return cache_key(
            contents,
            renderer=own.renderer,
            version=self.versions[tier.name],
            cache_class=own.cache_class,
            settings=own.own,
            degraded=tier.degraded,
            options=options,
        )

    def cache_keys(self, route: Sequence[str], options: Mapping[str, Any], contents: Contents) -> tuple[str, ...]:
        """The keys of all results that may answer a request, best first: of the tiers of its route, degraded ones last.

        Raises `pydantic.ValidationError` for options that one of them does not take.
        """
        tiers = sorted((self.all[name] for name in route), key=lambda tier: tier.degraded)
        keys = (self.result_key(tier, tier.options_for(options), contents) for tier in tiers)
        return tuple(dict.fromkeys(key for key in keys if key is not None))

    def names(self) -> list[str]:
        """What a request may name: tiers, and renderers of tiers."""
        names = [tier.name for tier in self.enabled]
        return names + sorted({tier.settings.renderer for tier in self.enabled} - set(names))

    def candidates(self, renderer: str | None, fallback: str) -> list[Tier]:
        """The tiers that a request admits, best first. Raises `UnknownTier`."""
        free = [tier for tier in self.enabled if not tier.settings.only_by_name]
        if renderer is None:
            chosen = free
        else:
            named = [t for t in self.enabled if t.name == renderer] or [
                t for t in self.enabled if t.settings.renderer == renderer
            ]
            if not named:
                raise UnknownTier(renderer)
            chosen = named + [tier for tier in free if tier not in named]
            if fallback == "none":
                return named
        if fallback == "equal":
            return [tier for tier in chosen if not tier.degraded]
        return chosen

    def sources(self, renderer: str | None, fallback: str) -> frozenset[str]:
        """The kinds of source that one of the admitted tiers takes. Raises `UnknownTier`."""
        return frozenset(
            kind
            for tier in self.candidates(renderer, fallback)
            for kind in tier.settings.sources or tier.capabilities.sources
        )

    def check_options(self, renderer: str | None, fallback: str, options: Mapping[str, Any]) -> None:
        """Raise `pydantic.ValidationError`, in the words of the first admitted tier, if none takes these options."""
        first: ValidationError | None = None
        for tier in self.candidates(renderer, fallback):
            try:
                self._require_options(tier, options)
            except ValidationError as error:
                first = first or error
            else:
                return
        if first is not None:
            raise first

    def _require_options(self, tier: Tier, options: Mapping[str, Any]) -> None:
        """Raise `pydantic.ValidationError` unless `tier` takes these options.

        What it ignores must mean something to another tier, value and all: else a wrong value of an option would be
        served as a misspelt one is not, by a motionless picture.
        """
        tier.options_for(options)
        for name in tier.ignores & options.keys():
            knowing = [
                other for other in self.all.values() if other.capabilities.lip_sync and name in other.option_names
            ]
            refusals = [other.refusal_of(name, options[name]) for other in knowing]
            wrong = [refusal for refusal in refusals if refusal is not None]
            if refusals and len(wrong) == len(refusals):
                raise wrong[0]

    def route(self, work: Work) -> tuple[str, ...]:
        """The tiers that may serve `work`, best first. Raises `UnknownTier`, `NoTier`.

        With `fallback` none that is the first one alone, of those that can.
        """
        fit, reasons = [], {}
        for tier in self.candidates(work.renderer, work.fallback):
            reason = self.absence(tier) or tier.refusal(work)
            if not reason:
                try:
                    self._require_options(tier, work.options)
                except ValidationError as error:
                    reason = "it does not take these options: " + ", ".join(
                        f"{'.'.join(map(str, item['loc']))} ({item['msg']})" for item in error.errors()
                    )
            if reason:
                reasons[tier.name] = reason
            else:
                fit.append(tier.name)
        if not fit:
            raise NoTier(reasons)
        return tuple(fit[:1] if work.fallback == "none" else fit)


def _as_text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)
