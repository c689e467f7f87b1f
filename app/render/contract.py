"""The renderer contract: a renderer turns local files into one local video file.

A renderer knows nothing of tasks, of the store or of our HTTP layer. It is told about local paths, it reports how far
it is, and it raises `CodedError` where something fails. This module imports no torch, so that the service can read
names and capabilities without loading a framework.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any, ClassVar, Literal, Protocol

from pydantic import BaseModel, ConfigDict


class Phase(StrEnum):
    """What an attempt is doing. The progress clock allows each phase its own time without movement."""

    LOAD = "load"
    FETCH = "fetch"
    ANALYSE = "analyse"
    RENDER = "render"
    ENCODE = "encode"


class Cancelled(Exception):
    """Raised by `Progress.report` inside the renderer when the task was asked to stop. Let it pass through."""


class Progress(Protocol):
    """How a renderer tells that it moves, and learns that it should stop."""

    def report(self, phase: Phase, done: int, total: int) -> None:
        """Say that `done` of `total` units (frames, samples, bytes; 0 total = unknown) of `phase` are finished.

        Call it at least once per batch of frames; it costs about a microsecond. Raises `Cancelled`.
        """

    def check(self) -> None:
        """Look at the cancel flag without moving the progress clock, e.g. while waiting. Raises `Cancelled`."""

    def called(self, call: str, seconds: float) -> None:
        """Say that another server was called: the kind of call, of a small fixed set, and how long it took."""


@dataclass(frozen=True, slots=True)
class RenderJob:
    """What to render. All paths are local and readable; `output_dir` is empty and belongs to this attempt alone."""

    source: Path
    audio: Path
    output_dir: Path
    options: Mapping[str, Any] = field(default_factory=dict)
    source_sha256: str = ""
    """Content hash of `source` (lower-case hex) where it is known: the key of the analysis cache."""
    attempt: int = 1
    """How many times this work has been begun, this time included."""
    batch_scale: float = 1.0
    """Share (0..1] of its usual batch that a renderer begins with: half for each earlier attempt that ran out of GPU
    memory. See `app.render.batching.Batch`, with which it halves its batch within a render, too."""
    traceparent: str = ""
    """W3C trace context of the attempt, handed on to other servers and programs; empty where there is none."""


@dataclass(frozen=True, slots=True)
class RenderResult:
    """A finished file inside the job's `output_dir`, and how it came about."""

    path: Path
    frames: int
    fps: float
    duration_s: float
    width: int
    height: int
    seconds: float
    """Wall time of the render itself, without imports and model loading."""
    stages: Mapping[str, float] = field(default_factory=dict)
    """Seconds spent per stage; stages overlap in time, so that they may add up to more than `seconds`."""
    facts: Mapping[str, Any] = field(default_factory=dict)
    """JSON-ready observations, e.g. `{"frames_without_face": 3, "analysis_cached": true}`. The gate heeds some."""
    articulation: Any = None
    """The speech as the renderer heard it: float32 [m, 6] at 100 Hz (`app.speech.channels`). None: it did not tell."""


class NoSettings(BaseModel):
    """Of a renderer that has no settings of its own."""

    model_config = ConfigDict(extra="forbid")


@dataclass(frozen=True, slots=True)
class Capabilities:
    """What a renderer can take. Read in the service process, before any slot is involved.

    The modules of both models must not import torch.
    """

    sources: frozenset[Literal["image", "video"]]
    options: type[BaseModel]
    """Pydantic model of a task's options (extra fields forbidden)."""
    options_for: Callable[[Mapping[str, Any]], type[BaseModel]] | None = None
    """Makes that model from a tier's own settings, where these decide which options there are."""
    settings: type[BaseModel] = NoSettings
    """Pydantic model of the renderer's own settings in its tier (extra fields forbidden)."""
    light: bool = False
    """It only waits for another program or server: its slots need no device and import no torch."""
    canary: bool = True
    """A process shows with a small real render that it can work, before it takes a task. Not where that would be a call
    to another server, which its breaker watches."""
    lip_sync: bool = True
    """Its lips follow the speech. Without that its results are always marked as degraded, it serves only where no other
    tier can, and it ignores options of the other tiers that mean nothing to it."""
    cacheable: bool = True
    """The same inputs and options give a result as good as the last one: it may be served again. Without that its
    results are cached only where its tier names a `cache_class`."""

    @property
    def judged_apart(self) -> bool:
        """Its videos are watched by a judge's process: watching lips takes torch, which its own process is spared."""
        return self.light and self.lip_sync


class Renderer(ABC):
    """Base class of all renderers. One object lives in one slot process and renders one job at a time."""

    name: ClassVar[str]

    def __init__(self, settings: Mapping[str, Any]) -> None:
        """`settings` are the own ones of its tier, and what the service gives all (`cache_dir`, `cache_bytes`)."""
        self.settings = dict(settings)

    @abstractmethod
    def load(self, device: str) -> None:
        """Load models onto `device` (`"cpu"`, `"cuda:0"`). Called once per process, before the first render."""

    @abstractmethod
    def render(self, job: RenderJob, progress: Progress) -> RenderResult:
        """Render `job` into `job.output_dir`. Raises `CodedError` for a known failure, `Cancelled` when told to stop.

        It may be called again after any exception but one that its failure row says kills the process.
        """
