"""Draws the examples that the network is trained with from the corpus."""

import numpy as np
import torch
from augment import SOME, Alone, Augmenter
from coarticulation import LETTERS
from corpus import Take
from torch import Tensor
from voices import PAUSE

from app.speech.channels import HOP, REST
from app.speech.network import WINDOW_ROWS, ArticulationNetwork

_BATCH = 8

_SHARES = {
    "espeak": 0.24,
    "kokoro": 0.14,
    "piper": 0.14,
    "flite": 0.12,
    "nasals": 0.12,
    "festival": 0.08,
    "recorded": 0.16,
}
"""Share of examples by kind of voice: natural ones are few, so each is heard more often."""


class Examples:
    """Draws batches of speech with its articulation, each at its own tempo."""

    def __init__(
        self,
        takes: list[Take],
        network: ArticulationNetwork,
        seed: int,
        music: Tensor | None = None,
        alone: Alone = SOME,
    ) -> None:
        self._takes = takes
        self._rng = np.random.default_rng(seed)
        self._augment = Augmenter(seed, music, alone)
        self._before, self._after = network.before, network.after
        kinds = [take.name.split("-")[0] for take in takes]
        minutes = np.array([len(take.audio) for take in takes], dtype=float)
        of_kind = {kind: minutes[[other == kind for other in kinds]].sum() for kind in kinds}
        odds = np.array([_SHARES[kind] * one / of_kind[kind] for kind, one in zip(kinds, minutes, strict=True)])
        self._odds = odds / odds.sum()

    def batch(self) -> tuple[Tensor, Tensor, Tensor]:
        """([batch, samples], [batch, rows, 6], [batch, rows] of LETTERS)."""
        speech, target, letters = map(torch.stack, zip(*(self._draw() for _ in range(_BATCH)), strict=True))
        empty = self._augment.empties(_BATCH)
        target[empty] = torch.from_numpy(REST.copy())
        letters[empty] = LETTERS.index(PAUSE)
        return self._augment(speech, empty), target, letters

    def _draw(self) -> tuple[Tensor, Tensor, Tensor]:
        take = self._takes[self._rng.choice(len(self._takes), p=self._odds)]
        tempo = self._augment.tempo()
        length = self._before + (WINDOW_ROWS - 1) * HOP + self._after
        start = self._rng.integers(0, len(take.audio) - int(length * tempo) - 2)
        positions = start + np.arange(length) * tempo
        whole = positions.astype(np.int64)
        part = (positions - whole).astype(np.float32)
        samples = (take.audio[whole] * (1 - part) + take.audio[whole + 1] * part) / 32768
        rows = (start + (self._before + np.arange(WINDOW_ROWS) * HOP) * tempo) / HOP
        lower = rows.astype(np.int64)
        rest = (rows - lower)[:, None].astype(np.float32)
        last = len(take.curve) - 1
        curve = take.curve[np.minimum(lower, last)] * (1 - rest) + take.curve[np.minimum(lower + 1, last)] * rest
        letters = take.letters[np.minimum(np.round(rows).astype(np.int64), last)]
        return (
            torch.from_numpy(samples.astype(np.float32)),
            torch.from_numpy(curve),
            torch.from_numpy(letters.astype(np.int64)),
        )
