"""Alarms that fire and resolve without flapping. Pure: findings and time come in, changes go out.

A rule looks at the service and says of each of its subjects (a slot, a device, or the whole) whether it is bad, good or
in between. An alarm fires once its subject was bad for the rule's `hold_s` without a break, and resolves once it was
good for `clear_s` without a break; in between it stays as it is. A subject that is not spoken of any more counts as
good.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Literal

RECENT = 100
"""Resolved alarms that are remembered."""


class Severity(StrEnum):
    """How soon somebody should look."""

    WARNING = "warning"
    """Work goes on; it will not for long, or not as well."""
    CRITICAL = "critical"
    """Work is not done or will be lost to callers now."""


class Verdict(StrEnum):
    """What a rule thinks of a subject."""

    BAD = "bad"
    BETWEEN = "between"
    """Not bad enough to fire, not good enough to resolve."""
    GOOD = "good"


@dataclass(frozen=True, slots=True)
class RuleInfo:
    """What is fixed about an alarm."""

    name: str
    severity: Severity
    hold_s: float
    clear_s: float
    hint: str
    """What to do about it."""


@dataclass(frozen=True, slots=True)
class Finding:
    """What one look found. `message` says what the value means; it is read only where the verdict is bad."""

    rule: RuleInfo
    verdict: Verdict
    message: str = ""
    subject: str = ""
    value: float | None = None
    threshold: float | None = None


@dataclass(frozen=True, slots=True)
class Alarm:
    """One alarm as it is shown. Times in epoch seconds."""

    name: str
    severity: Severity
    subject: str
    """The slot or device; empty where it is the whole service."""
    since: float
    """When it fired."""
    resolved_at: float | None
    value: float | None
    threshold: float | None
    message: str
    hint: str


@dataclass(frozen=True, slots=True)
class Change:
    """An alarm that has just fired or resolved."""

    what: Literal["fired", "resolved"]
    alarm: Alarm


@dataclass
class _Watched:
    """One subject of one rule, as long as it is not plainly good."""

    bad_since: float | None = None
    good_since: float | None = None
    alarm: Alarm | None = field(default=None)


class Alarms:
    """The alarms of one service. For one writing thread; `active`, `recent` and `fired` may be read from any."""

    def __init__(self) -> None:
        self._watched: dict[tuple[str, str], _Watched] = {}
        self._rules: dict[str, RuleInfo] = {}
        self._recent: deque[Alarm] = deque(maxlen=RECENT)
        self._fired: Counter[str] = Counter()

    def update(self, findings: Iterable[Finding], now: float) -> list[Change]:
        """Take one look's findings at `now` (epoch seconds); what changed by it."""
        changes: list[Change] = []
        seen: set[tuple[str, str]] = set()
        for finding in findings:
            key = finding.rule.name, finding.subject
            seen.add(key)
            self._rules[finding.rule.name] = finding.rule
            changes += self._take(key, finding, now)
        for key in [key for key in self._watched if key not in seen]:
            gone = Finding(self._rules[key[0]], Verdict.GOOD, subject=key[1])
            changes += self._take(key, gone, now)
        return changes

    def active(self) -> list[Alarm]:
        """What fires now: critical ones first, the newest first among equals."""
        firing = [watched.alarm for watched in list(self._watched.values()) if watched.alarm is not None]
        return sorted(firing, key=lambda alarm: (alarm.severity is not Severity.CRITICAL, -alarm.since))

    def recent(self) -> list[Alarm]:
        """The last `RECENT` that resolved, the newest first."""
        return list(self._recent)[::-1]

    def fired(self, name: str) -> int:
        """How often an alarm of this name has fired since the start."""
        return self._fired[name]

    def _take(self, key: tuple[str, str], finding: Finding, now: float) -> Sequence[Change]:
        watched = self._watched.setdefault(key, _Watched())
        if finding.verdict is not Verdict.BAD:
            watched.bad_since = None
        elif watched.bad_since is None:
            watched.bad_since = now
        if finding.verdict is not Verdict.GOOD:
            watched.good_since = None
        elif watched.good_since is None:
            watched.good_since = now
        rule, alarm = finding.rule, watched.alarm
        if alarm is None:
            if watched.bad_since is not None and now - watched.bad_since >= rule.hold_s:
                return [self._fire(watched, finding, now)]
            if watched.bad_since is None:
                del self._watched[key]
            return []
        if finding.verdict is Verdict.BAD:
            watched.alarm = replace(
                alarm, value=finding.value, threshold=finding.threshold, message=finding.message or alarm.message
            )
        elif watched.good_since is not None and now - watched.good_since >= rule.clear_s:
            resolved = replace(alarm, resolved_at=now)
            self._recent.append(resolved)
            del self._watched[key]
            return [Change("resolved", resolved)]
        return []

    def _fire(self, watched: _Watched, finding: Finding, now: float) -> Change:
        rule = finding.rule
        self._fired[rule.name] += 1
        watched.alarm = Alarm(
            rule.name, rule.severity, finding.subject, now, None, finding.value, finding.threshold, finding.message,
            rule.hint,
        )  # fmt: skip
        return Change("fired", watched.alarm)
