"""The report of a drill: for the person at the terminal, as a page, and for programs."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field


@dataclass(frozen=True, slots=True)
class Row:
    """One drill: what was done, what had to follow, what was seen. Passed if nothing was `wrong`."""

    name: str
    done: str
    expected: str
    seen: str
    recovered_s: float | None
    until: str
    """What `recovered_s` measures."""
    within_s: float | None
    seconds: float
    wrong: tuple[str, ...]

    @property
    def passed(self) -> bool:
        """Whether it went as it must."""
        return not self.wrong

    def as_json(self) -> dict[str, object]:
        """For programs."""
        return {"name": self.name, "passed": self.passed} | asdict(self)


@dataclass
class Report:
    """All rows, and what is true of all of them together."""

    where: str
    """The service: an address, or that it was the drill's own."""
    started_at: str
    changed: Mapping[str, str]
    """Settings that were other than the configuration's, to be quick."""
    rows: list[Row] = field(default_factory=list)
    left_out: dict[str, str] = field(default_factory=dict)
    """Drills that were not played, and why."""
    accepted: int = 0
    lost: list[str] | None = None
    """Accepted tasks that are gone or never ended; None where nobody looked."""
    doubled: list[str] | None = None
    """Tasks that the service has and nobody handed in."""
    left: list[str] = field(default_factory=list)
    """What was left over when all was over."""
    interrupted: bool = False
    seconds: float = 0.0

    @property
    def passed(self) -> bool:
        """Whether every drill passed and nothing was lost, doubled or left."""
        whole = bool(self.rows) and all(row.passed for row in self.rows)
        return whole and self.lost == [] and self.doubled == [] and not self.left and not self.interrupted

    def summary(self) -> list[str]:
        """The last lines of the report."""
        good = sum(row.passed for row in self.rows)
        lines = [f"{good} of {len(self.rows)} drills passed on {self.where}, in {self.seconds:.0f} s."]
        if self.lost is None or self.doubled is None:
            lines.append(f"{self.accepted} tasks accepted; whether each ended once was not looked at.")
        else:
            lines.append(f"{self.accepted} tasks accepted, {len(self.lost)} lost, {len(self.doubled)} doubled.")
        for what, found in (("lost", self.lost), ("doubled", self.doubled), ("left over", self.left)):
            lines += [f"{what}: {one}" for one in found or ()]
        if self.changed:
            lines.append(f"Quick, with {', '.join(f'{name}={value}' for name, value in self.changed.items())}.")
        if self.left_out:
            reasons: dict[str, list[str]] = {}
            for name, why in self.left_out.items():
                reasons.setdefault(why, []).append(name)
            lines += [f"Left out, {why}: {', '.join(names)}." for why, names in reasons.items()]
        if self.interrupted:
            lines.append("Interrupted: what is not above was not played.")
        return lines

    def as_json(self) -> str:
        """For programs."""
        told = {"passed": self.passed} | asdict(self) | {"rows": [row.as_json() for row in self.rows]}
        return json.dumps(told, indent=2)

    def as_page(self) -> str:
        """As Markdown."""
        head = ("drill", "done", "expected", "seen", "recovered", "verdict")
        table = [_line(head), _line(["---"] * len(head))]
        table += [_line((row.name, row.done, row.expected, row.seen, timing(row), _verdict(row))) for row in self.rows]
        return "\n".join([f"# Drill of {self.started_at}", "", *table, "", *(f"- {one}" for one in self.summary()), ""])


def timing(row: Row) -> str:
    """How long it took, and how long it might have taken."""
    if row.recovered_s is None:
        return "-"
    allowed = "" if row.within_s is None else f" (at most {row.within_s:.0f} s)"
    return f"{row.recovered_s:.1f} s {row.until}{allowed}"


def lines_of(row: Row) -> list[str]:
    """A row for the terminal, without its verdict and name."""
    told = [("done", row.done), ("expected", row.expected), ("seen", row.seen)]
    if row.recovered_s is not None:
        told.append(("recovered", timing(row)))
    told += [("WRONG", one) for one in row.wrong]
    return [f"        {label:<10}{text}" for label, text in told]


def _verdict(row: Row) -> str:
    return "passed" if row.passed else f"FAILED: {'; '.join(row.wrong)}"


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cell.replace('|', '/') for cell in cells)} |"
