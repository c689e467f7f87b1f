"""Makes the corpus, trains the articulation network and writes the weights into the package.

    python training/train_articulation.py

From the repository root, with training/requirements.txt installed. One CPU core is enough.
"""

import argparse
import copy
import logging
import sys
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from augment import Augmenter
from coarticulation import LETTERS
from corpus import Take, held_out_takes, recorded_takes, training_takes, tuning_takes
from judging import analysed, report, set_threshold
from pretrained import begin_from_recogniser
from voices import PAUSE

from app.speech.channels import CLOSURE, HOP, LABIODENTAL, REST
from app.speech.logmel import FREQUENCIES, MELS
from app.speech.network import FEATURES, SETTLED, STEP_ROWS, WEIGHTS, WINDOW_ROWS, ArticulationNetwork, described

log = logging.getLogger("train")

_BATCH = 8
_PEAK_RATE, _ENCODER_RATE = 2e-3, 4e-4
"""Learning rates of the new layers, and of those that the recogniser has taught already."""

_STAGES = ((1200, 1.0), (700, 0.5))
"""Steps of each rise and fall of the learning rates, and the factor on their peaks."""

_WARM_SHARE = 0.05  # of the steps, in which the learning rates rise
_DECAY = 0.01
_AVERAGE = 0.995
"""Weights are averaged over the last few hundred steps: worth more than it costs."""

_REPORT_EVERY = 250  # steps
_CHANNEL_WEIGHTS = torch.ones(6).scatter(0, torch.tensor([CLOSURE, LABIODENTAL]), torch.tensor([4.0, 2.0]))
"""Closures above all: they are what the eye looks for."""

_NAMING_WEIGHT = 0.5

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

_TRACTS = torch.linspace(0.88, 1.14, 14)
"""Factors by which the vocal tract is made longer or shorter: many more heads than there are voices."""

_MASKED_SHARE, _MASKED_BANDS = 0.3, 8
"""Share of examples in which up to so many neighbouring bands are blotted out (SpecAugment, Park et al. 2019)."""


class Examples:
    """Draws batches of speech with its articulation, each at its own tempo."""

    def __init__(self, takes: list[Take], network: ArticulationNetwork, seed: int) -> None:
        self._takes = takes
        self._rng = np.random.default_rng(seed)
        self._augment = Augmenter(seed)
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


class Pupil(torch.nn.Module):
    """The network and, for the time of training, a second head that names the sound: to tell /m/ from /n/
    and /p/ from /t/ is what closures take, and every row of speech teaches it."""

    def __init__(self, network: ArticulationNetwork, seed: int) -> None:
        super().__init__()
        self.network = network
        self.namer = torch.nn.Linear(FEATURES, STEP_ROWS * len(LETTERS))
        self._tracts = torch.stack([_stretched(network.logmel.filters, float(stretch)) for stretch in _TRACTS])
        self._rng = torch.Generator().manual_seed(seed)

    def loss(self, samples: Tensor, target: Tensor, letters: Tensor, half: bool) -> Tensor:
        """Cross-entropy with articulation in 0..1, and with the sounds' names."""
        tracts = self._tracts[torch.randint(len(_TRACTS), (len(samples),), generator=self._rng)]
        mel = self._masked(self.network.logmel(samples, tracts))
        with torch.autocast("cpu", torch.bfloat16, enabled=half):
            features = self.network.features(mel)
            curve, named = (described(head(features)) for head in (self.network.last, self.namer))
        curve, named = (rows[:, SETTLED:-SETTLED].float() for rows in (curve, named))
        entropy = torch.nn.functional.binary_cross_entropy_with_logits(curve, target, reduction="none")
        naming = torch.nn.functional.cross_entropy(named.flatten(0, 1), letters.flatten())
        return (entropy * _CHANNEL_WEIGHTS).mean() + _NAMING_WEIGHT * naming

    def _masked(self, mel: Tensor) -> Tensor:
        first, last = torch.randint(MELS, (2, len(mel), 1), generator=self._rng)
        last = torch.minimum(last, first + _MASKED_BANDS)
        bands = torch.arange(MELS)
        chosen = torch.rand(len(mel), 1, generator=self._rng) < _MASKED_SHARE
        blotted = (chosen & (bands >= first) & (bands < last))[:, None]
        return torch.where(blotted, mel.mean(dim=(1, 2), keepdim=True), mel)


def _stretched(filters: Tensor, stretch: float) -> Tensor:
    """The filters [FREQUENCIES, MELS], each moved up by the factor in frequency."""
    at = torch.arange(FREQUENCIES) / stretch
    below = at.long().clamp(max=FREQUENCIES - 2)
    share = (at - below).clamp(max=1.0)[:, None]
    return (1 - share) * filters[below] + share * filters[below + 1]


def train(
    network: ArticulationNetwork,
    takes: list[Take],
    held_out: list[Take],
    steps: int,
    rate: float,
    seed: int,
    half: bool,
) -> ArticulationNetwork:
    """Train the network for so many steps, the learning rate rising and falling once, and return its average over the
    last of them. Progress on the held-out takes is told, not used."""
    average = copy.deepcopy(network).eval()
    pupil = Pupil(network, seed)
    examples = Examples(takes, average, seed)
    optimiser = torch.optim.AdamW(
        [
            {"params": [*network.stem.parameters(), *network.blocks.parameters()], "lr": rate * _ENCODER_RATE},
            {"params": [*network.last.parameters(), *pupil.namer.parameters()], "lr": rate * _PEAK_RATE},
        ],
        betas=(0.9, 0.98),
        weight_decay=_DECAY,
    )
    schedule = torch.optim.lr_scheduler.LambdaLR(optimiser, lambda step: _rate(step / steps))
    losses = []
    for step in range(1, steps + 1):
        loss = pupil.loss(*examples.batch(), half=half)
        optimiser.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(pupil.parameters(), 1.0)
        optimiser.step()
        schedule.step()
        losses.append(loss.item())
        keep = min(_AVERAGE, step / (step + 20))
        for averaged, fresh in zip(average.parameters(), pupil.network.parameters(), strict=True):
            averaged.data.lerp_(fresh.data, 1 - keep)
        if step % 100 == 0:
            log.info("step %d of %d, loss %.4f", step, steps, np.mean(losses[-100:]))
        if step % _REPORT_EVERY == 0:
            log.info("%s", report(held_out, lambda audio: analysed(average, audio)))
    return average


def _rate(done: float) -> float:
    """Share of the peak learning rate when that share of the steps is done: a rise, then half a cosine."""
    return min(1.0, done / _WARM_SHARE + 0.02) * (0.5 + 0.5 * np.cos(np.pi * done)) + 0.005


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--done", type=Path, help="weights after the first stage, to go on from")
    parser.add_argument("--corpus", type=Path, default=Path("/tmp/greenroom-corpus"), help="kept for the next run")
    parser.add_argument("--weights", type=Path, default=WEIGHTS)
    parser.add_argument("--share", type=float, default=1.0, help="share of the corpus, for a quick try")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--half", action="store_true", help="bfloat16: quicker where the CPU has AMX or AVX512-BF16")
    parser.add_argument("--threads", type=int, default=1)
    chosen = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    torch.set_num_threads(chosen.threads)
    takes = training_takes(chosen.corpus, chosen.seed, chosen.share)
    held_out = held_out_takes(chosen.corpus, chosen.seed) + recorded_takes()
    log.info("%.0f minutes of speech", sum(len(take.audio) for take in takes) / 16_000 / 60)
    torch.manual_seed(chosen.seed)
    network = ArticulationNetwork()
    if chosen.done:
        network.load_state_dict({name: tensor.float() for name, tensor in load_file(chosen.done).items()})
    else:
        begin_from_recogniser(network)
    for stage, (steps, rate) in list(enumerate(_STAGES))[1 if chosen.done else 0 :]:
        network = train(network, takes, held_out, steps, rate, chosen.seed + stage, chosen.half)
        save_file(network.state_dict(), chosen.corpus / f"stage-{stage + 1}.safetensors")
    threshold = set_threshold(network, tuning_takes(chosen.corpus, chosen.seed))
    log.info("lips counted as sealed from %.2f on", threshold)
    save_file({name: tensor.half() for name, tensor in network.state_dict().items()}, chosen.weights)
    log.info("%s", report(held_out, lambda audio: analysed(network, audio)))


if __name__ == "__main__":
    main()
