"""The warp field: where in the source frame each pixel of the lower face comes from.

Two fields are made, one that takes the upper lip along and one that takes the lower lip along. Each is smooth; the
mouth's opening lies where they differ, and every pixel takes the one of its side. So lips part without stretching
the seam between them, and shut over parted teeth without a trace of these.

Each field is a thin-plate spline (Bookstein, PAMI 1989) through the mesh points of the frame, solved for all frames of
a batch at once and evaluated on a coarse lattice; the lattice is brought to pixels by cubic interpolation.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from app.render.film import points

LATTICE_STEP = 0.06
"""Spacing of the lattice in units: finer shows no difference, since the points themselves lie further apart."""

_STIFFNESS = 1e-4  # gives way a little where neighbouring points disagree
_MARGIN = 0.016  # how far inside a parted lip its texture starts, in units: keeps teeth out of its edge

_MARGIN_PIXELS = 1.4  # at least: as far as the sampling kernel reaches

_UPPER = tuple(dict.fromkeys((*points.INNER_UPPER, *points.OUTER_UPPER, *points.SKIN)))
_LOWER = tuple(dict.fromkeys((*points.INNER_LOWER, *points.OUTER_LOWER, *points.SKIN)))


def inside_lips(source: Tensor, opening: Tensor, pixel: Tensor) -> Tensor:
    """Move the inner contours of `source` [B, COUNT, 2] (units) into the lips where these are or will be parted.

    opening: [B] how far the result's lips part; pixel: [B] the size of a pixel in units. Lips shut before and after
    keep the line where they meet.
    """
    moved = source.clone()
    margin = (_MARGIN_PIXELS * pixel).clamp_min(_MARGIN)[:, None, None]
    upper, lower = source[:, list(points.INNER_UPPER)], source[:, list(points.INNER_LOWER)]
    gap = torch.maximum((lower - upper).norm(dim=2), opening[:, None] * 0.8)[..., None]
    parted = ((gap - 0.01) / 0.03).clamp(0, 1)
    for inner, outer in ((points.INNER_UPPER, points.OUTER_UPPER), (points.INNER_LOWER, points.OUTER_LOWER)):
        a, b = source[:, list(inner)], source[:, list(outer)]
        thick = (b - a).norm(dim=2, keepdim=True).clamp_min(1e-4)
        moved[:, list(inner)] = a + (b - a) * parted * (margin / thick).clamp_max(0.42)
    return moved


class SplitField:
    """Solves and evaluates the two fields on a lattice of `rows` x `columns` points, `step` apart (units)."""

    def __init__(self, device: torch.device) -> None:
        self._upper = torch.tensor(_UPPER, device=device)
        self._lower = torch.tensor(_LOWER, device=device)

    def displacements(self, target: Tensor, source: Tensor, lattice: Tensor) -> Tensor:
        """Displacements from output to source, [B, 2 layers, M, 2], at lattice points [B, M, 2].

        `target` and `source` [B, COUNT, 2] say where the points are to be and where they are. All in one unit frame.
        """
        batch = len(target)
        goal = torch.stack([target[:, self._upper], target[:, self._lower]], 1).flatten(0, 1)
        origin = torch.stack([source[:, self._upper], source[:, self._lower]], 1).flatten(0, 1)
        weights = _solve(goal, origin - goal)
        places = lattice.repeat_interleave(2, 0)
        value = _evaluate(weights, goal, places)
        return value.view(batch, 2, -1, 2)


def _kernel(a: Tensor, b: Tensor) -> Tensor:
    """r² log r² between points a [B, M, 2] and b [B, N, 2]: [B, M, N]."""
    ones_a, ones_b = torch.ones_like(a[..., :1]), torch.ones_like(b[..., :1])
    left = torch.cat([a * -2, a.square().sum(2, keepdim=True), ones_a], 2)
    squared = (left @ torch.cat([b, ones_b, b.square().sum(2, keepdim=True)], 2).mT).clamp_min_(1e-9)
    kernel: Tensor = squared.log().mul_(squared)
    return kernel


def _solve(centres: Tensor, values: Tensor) -> Tensor:
    """Spline weights [B, N + 3, 2] for values [B, N, 2] at centres [B, N, 2]."""
    batch, count, _ = centres.shape
    affine = torch.cat([torch.ones_like(centres[..., :1]), centres], 2)
    system = centres.new_zeros(batch, count + 3, count + 3)
    system[:, :count, :count] = _kernel(centres, centres)
    system[:, range(count), range(count)] += _STIFFNESS
    system[:, :count, count:] = affine
    system[:, count:, :count] = affine.mT
    right = torch.cat([values, values.new_zeros(batch, 3, 2)], 1)
    solved: Tensor = torch.linalg.solve(system.double(), right.double())
    return solved.to(centres.dtype)


def _evaluate(weights: Tensor, centres: Tensor, places: Tensor) -> Tensor:
    count = centres.shape[1]
    affine = torch.cat([torch.ones_like(places[..., :1]), places], 2)
    return _kernel(places, centres) @ weights[:, :count] + affine @ weights[:, count:]


def cubic_rows(places: Tensor, knots: int) -> Tensor:
    """Matrix [N, knots] that interpolates values at knots 0, 1, 2 .. to `places` [N] between them.

    Catmull-Rom (1974); beyond the border knots values continue straight, so that linear ones come out as they are.
    """
    at = places.double()
    base = at.floor().clamp(0, knots - 2)
    t = at - base
    basis = torch.stack(
        [
            -0.5 * t + t**2 - 0.5 * t**3,
            1 - 2.5 * t**2 + 1.5 * t**3,
            0.5 * t + 2 * t**2 - 1.5 * t**3,
            -0.5 * t**2 + 0.5 * t**3,
        ],
        1,
    )
    padded = basis.new_zeros(len(at), knots + 2)
    padded.scatter_(1, base.long()[:, None] + torch.arange(4, device=at.device), basis)
    matrix = padded[:, 1:-1].clone()
    for border, first, second in ((0, 0, 1), (-1, -1, -2)):
        matrix[:, first] += 2 * padded[:, border]
        matrix[:, second] -= padded[:, border]
    return matrix.float()


def lattice_size(pixels: int, scale: float) -> int:
    """How many lattice points span `pixels` at `scale` pixels per unit."""
    return max(4, math.ceil(pixels / max(scale * LATTICE_STEP, 1.0)) + 1)
