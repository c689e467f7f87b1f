"""A batch that does not fit is halved within the render, and nothing that was done is lost."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from app.face.analyser import FaceAnalyser
from app.face.tracker import FaceTracker
from app.render.batching import Batch
from app.render.contract import RenderJob, RenderResult
from app.render.warp.compositor import Compositor
from app.render.warp.renderer import WarpRenderer
from tests.render.scenes import SAMPLES, Reports, write_template


def render(renderer: WarpRenderer, source: Path, out: Path, **terms: float) -> RenderResult:
    out.mkdir()
    return renderer.render(RenderJob(source, SAMPLES / "speech.wav", out, **terms), Reports())


def feed(tracker: FaceTracker, frames: torch.Tensor, part: slice) -> None:
    tracker.feed(frames[part])


class SmallDevice:
    """An analyser that finds a face in one frame and has no memory for more than eight at once."""

    def __init__(self, analyser: FaceAnalyser) -> None:
        self._analyser = analyser
        self.detect, self.locate = analyser.detect, analyser.locate

    def landmarks(self, frames: torch.Tensor, rois: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        if len(frames) > 8:
            raise out_of_memory()
        return self._analyser.landmarks(frames, rois)


def out_of_memory() -> RuntimeError:
    return torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")


@given(st.integers(1, 64), st.integers(1, 64), st.integers(0, 200))
def test_every_frame_is_worked_on_once_and_in_order(fits: int, size: int, count: int) -> None:
    done: list[int] = []

    def work(part: slice) -> None:
        if part.stop - part.start > fits:
            raise out_of_memory()
        done.extend(range(part.start, part.stop))

    batch = Batch(size)
    batch.over(count, work)
    assert done == list(range(count))
    assert batch.size == size or batch.size <= fits < size


def test_a_smaller_batch_stays_smaller_for_the_rest_of_the_render() -> None:
    batch, asked = Batch(16), []

    def work(part: slice) -> None:
        asked.append(part.stop - part.start)
        if asked[-1] > 5:
            raise out_of_memory()

    batch.over(16, work)
    batch.over(8, work)
    assert asked == [16, 8, 4, 4, 4, 4, 4, 4]


@pytest.mark.parametrize(
    "error", [out_of_memory(), RuntimeError("DefaultCPUAllocator: can't allocate memory"), ValueError("surprise")]
)
def test_what_smaller_pieces_cannot_help_is_raised_as_it_is(error: Exception) -> None:
    tries = []

    def work(part: slice) -> None:
        tries.append(part.stop - part.start)
        raise error

    with pytest.raises(type(error)) as raised:
        Batch(4).over(4, work)
    assert raised.value is error
    assert tries == ([4] if isinstance(error, ValueError) else [4, 2, 1])


@pytest.mark.parametrize(("scale", "size"), [(1.0, 16), (0.5, 8), (0.25, 4), (0.01, 1)])
def test_a_retry_begins_with_its_share_of_the_usual_batch(scale: float, size: int) -> None:
    assert Batch(16, scale).size == size


def test_the_tensors_of_the_part_that_failed_are_free_before_it_begins_again() -> None:
    """The error's traceback would hold them: on a full device the second try could not succeed either."""
    import weakref

    held: list[weakref.ref[torch.Tensor]] = []

    def work(part: slice) -> None:
        assert all(tensor() is None for tensor in held)
        large = torch.zeros(8)
        held.append(weakref.ref(large))
        if part.stop - part.start > 2:
            raise out_of_memory()

    Batch(8).over(8, work)
    assert len(held) == 6


def test_a_video_drawn_in_halved_batches_shows_the_same_as_one_drawn_in_whole_ones(
    renderer: WarpRenderer, picture: torch.Tensor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = write_template(tmp_path / "template.mp4", picture, 24)
    render_into, compose = Compositor.render_into, Compositor.compose
    calls: list[int] = []
    drawn: dict[int, torch.Tensor] = {}

    def keep(self, frames, which, numbers, face, gestures=None):
        render_into(self, frames, which, numbers, face, gestures)
        drawn.update((number, frames[row].int()) for row, number in zip(which, numbers.tolist(), strict=True))

    def small_device(self, ground, pixels, pose, face, gestures=None):
        calls.append(len(face.jaw))
        if len(face.jaw) > 1:
            raise out_of_memory()
        return compose(self, ground, pixels, pose, face, gestures)

    monkeypatch.setattr(Compositor, "render_into", keep)
    whole = render(renderer, source, tmp_path / "whole")
    in_batches = dict(drawn)
    drawn.clear()
    monkeypatch.setattr(Compositor, "compose", small_device)
    halved = render(renderer, source, tmp_path / "halved")
    assert (whole.facts["batch"], halved.facts["batch"]) == (16, 1)
    assert calls[:5] == [16, 8, 4, 2, 1]
    assert halved.frames == whole.frames
    assert drawn.keys() == in_batches.keys()
    # Before the codec, which makes much of little. Patches of other sizes lie on other grids: edges differ by a little.
    for number, frame in drawn.items():
        difference = (frame - in_batches[number]).abs().float()
        assert float(difference.mean()) < 0.05
        assert int(difference.max()) < 32


def test_a_tracker_that_ran_out_of_memory_goes_on_as_if_it_had_not_been_asked(
    renderer: WarpRenderer, picture: torch.Tensor
) -> None:
    frames = torch.stack([picture[:200, shift : shift + 200] for shift in range(24)])
    analyser = renderer.finder._analyser
    plain = FaceTracker(analyser)
    for first in range(0, 24, 8):
        plain.feed(frames[first : first + 8])
    refused = FaceTracker(SmallDevice(analyser))
    batch = Batch(16)
    for first in (0, 16):
        part = frames[first : first + 16]
        batch.over(len(part), partial(feed, refused, part))
    assert batch.size == 8
    assert np.array_equal(plain.finish().landmarks, refused.finish().landmarks)


def test_a_retry_after_want_of_memory_renders_with_half_the_batch(
    renderer: WarpRenderer, portrait: Path, tmp_path: Path
) -> None:
    assert render(renderer, portrait, tmp_path / "out", batch_scale=0.5).facts["batch"] == 8
