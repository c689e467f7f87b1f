"""The messages between the service and a slot's process: one tagged union per direction, JSON on a pipe.

Paths travel over the pipe, never tensors. JSON, not pickle: a frame that a dying child left half written is an error
that is seen, never an object that is believed.
"""

from __future__ import annotations

from typing import Any

import msgspec


class Run(msgspec.Struct, tag="run", frozen=True):
    """Service -> child: render this attempt."""

    task_id: str
    attempt: int
    tier: str
    source: str
    source_sha256: str
    audio: str
    output_dir: str
    options: dict[str, Any]
    batch_scale: float = 1.0
    traceparent: str = ""
    trace_id: str = ""
    """What the log of this attempt names."""


class Cancel(msgspec.Struct, tag="cancel", frozen=True):
    """Service -> child: stop this attempt at the next progress report; ignored if another one runs by now."""

    task_id: str
    attempt: int


class Stop(msgspec.Struct, tag="stop", frozen=True):
    """Service -> child: leave, with exit code 0, once no attempt runs."""


class Ready(msgspec.Struct, tag="ready", frozen=True):
    """Child -> service: models are loaded on `device`; `load_s` seconds from process start."""

    device: str
    load_s: float
    versions: dict[str, str]


class StartFailed(msgspec.Struct, tag="start_failed", frozen=True):
    """Child -> service: the process cannot serve; it exits after this."""

    code: str
    message: str
    hint: str
    detail: dict[str, Any]


class Started(msgspec.Struct, tag="started", frozen=True):
    """Child -> service: the renderer has been entered."""

    task_id: str
    attempt: int


class _Video(msgspec.Struct, frozen=True):
    """A file that is written and checked. `checks` are the measured values."""

    task_id: str
    attempt: int
    path: str
    frames: int
    fps: float
    duration_s: float
    width: int
    height: int
    seconds: float
    stages: dict[str, float]
    facts: dict[str, Any]
    checks: dict[str, Any]


class Rendered(_Video, tag="rendered", frozen=True):
    """Child -> service: the video of a renderer that waited for others; a judge is still to watch it."""

    calls: list[tuple[str, float]] = []
    """Calls to other servers: kind and seconds."""


class Finished(_Video, tag="finished", frozen=True):
    """Child -> service: the video is written, checked and judged (not yet published).

    `scores` are what the gate made of the values, 0..1, and `confidence` is the lowest score.
    """

    scores: dict[str, float]
    confidence: float
    calls: list[tuple[str, float]] = []
    """Calls to other servers: kind and seconds."""


class Judge(msgspec.Struct, tag="judge", frozen=True):
    """Service -> judge: watch this video and compare it with what it was made from."""

    task_id: str
    attempt: int
    source: str
    audio: str
    output_dir: str
    video: Rendered


class Judged(msgspec.Struct, tag="judged", frozen=True):
    """Judge -> service: its `values`, `scores` and `confidence`, found in `seconds`."""

    task_id: str
    attempt: int
    values: dict[str, Any]
    scores: dict[str, float]
    confidence: float
    seconds: float


class Failed(msgspec.Struct, tag="failed", frozen=True):
    """Child -> service: the attempt failed with a code; `detail` may hold type and traceback of an unknown error."""

    task_id: str
    attempt: int
    code: str
    message: str
    hint: str
    detail: dict[str, Any]
    calls: list[tuple[str, float]] = []
    """Calls to other servers: kind and seconds."""


Command = Run | Judge | Cancel | Stop
Event = Ready | StartFailed | Started | Rendered | Finished | Judged | Failed

_command_decoder: msgspec.json.Decoder[Command] = msgspec.json.Decoder(Command)
_event_decoder: msgspec.json.Decoder[Event] = msgspec.json.Decoder(Event)
encode = msgspec.json.Encoder().encode


def finish(video: Rendered, judged: Judged, *, waited_s: float | None = None) -> Finished:
    """A video together with its judgement; `waited_s`: how long it stood in line for a judge."""
    told = {name: getattr(video, name) for name in _Video.__struct_fields__}
    waited = {} if waited_s is None else {"judge_wait": waited_s}
    told["stages"] = video.stages | waited | {"judge": judged.seconds}
    told["checks"] = video.checks | judged.values
    return Finished(**told, scores=judged.scores, confidence=judged.confidence, calls=video.calls)


def decode_command(frame: bytes) -> Command:
    """The command in `frame`. Raises `msgspec.DecodeError` (or its `ValidationError`) for anything else."""
    return _command_decoder.decode(frame)


def decode_event(frame: bytes) -> Event:
    """The event in `frame`. Raises `msgspec.DecodeError` (or its `ValidationError`) for anything else."""
    return _event_decoder.decode(frame)
