"""What became of a batch, row by row."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Literal

State = Literal["waiting", "sending", "running", "succeeded", "failed"]


@dataclass
class Outcome:
    """What became of a row."""

    row: int
    name: str
    state: State = "waiting"
    task_id: str | None = None
    output: str | None = None
    sha256: str | None = None
    seconds: float | None = None
    error: dict[str, str] | None = None
    """`code`, `message`, `hint`."""
    fraction: float | None = None


@dataclass
class Report:
    """The whole batch."""

    outcomes: list[Outcome] = field(default_factory=list)

    def count(self, state: State) -> int:
        """How many rows are in a state."""
        return sum(outcome.state == state for outcome in self.outcomes)

    def write(self, path: Path) -> None:
        """As JSON; the file is there whole or as it was. Raises OSError."""
        counts = {state: self.count(state) for state in ("succeeded", "failed", "waiting", "running", "sending")}
        body = {"counts": counts, "rows": [asdict(outcome) for outcome in self.outcomes]}
        part = path.with_suffix(".tmp")
        part.write_text(json.dumps(body, indent=1), encoding="utf-8")
        part.replace(path)
