"""Makes the corpus, trains the articulation network and writes the weights into the package.

    python training/train_articulation.py --minutes 20

From the repository root, with training/requirements.txt installed. One CPU core is enough.
"""

import argparse
import logging
import sys
import time
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file
from torch import Tensor

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from augment import Augmenter
from coarticulation import LETTERS
from corpus import Take, held_out_takes, recorded_takes, training_takes, tuning_takes
from voices import PAUSE

from app.speech.channels import CLOSURE, HOP, LABIODENTAL, REST
from app.speech.network import FEATURES, SETTLED, WEIGHTS, ArticulationNetwork
from evaluation import analysed, report, set_threshold

log = logging.getLogger("train")

_EXAMPLE_ROWS = 500
_BATCH = 8
_PEAK_RATE = 2e-3
_WARM_SHARE = 0.05  # of the time, in which the learning rate rises
_DECAY = 0.01
_AVERAGE = 0.998
"""Weights are averaged over the last few hundred steps: worth more than it costs."""

_REPORT_EVERY_S = 240.0
_CHANNEL_WEIGHTS = torch.ones(6).scatter(0, torch.tensor([CLOSURE, LABIODENTAL]), torch.tensor([4.0, 2.0]))
"""Closures above all: they are what the eye looks for."""

_NAMING_WEIGHT = 0.5

_NATURAL_SHARE = 0.6
"""Share of examples from voices built from recorded people (flite, Piper); the rest is espeak-ng's languages."""


class Examples:
    """Draws batches of speech with its articulation, each at its own tempo."""

    def __init__(self, takes: list[Take], network: ArticulationNetwork, seed: int) -> None:
        self._takes = takes
        self._rng = np.random.default_rng(seed)
        self._augment = Augmenter(seed)
        self._before, self._after = network.before, network.after
        natural = np.array([not take.name.startswith("espeak") for take in takes])
        minutes = np.array([len(take.audio) for take in takes], dtype=float)
        shares = np.where(natural, _NATURAL_SHARE, 1 - _NATURAL_SHARE)
        of_kind = np.where(natural, minutes[natural].sum(), minutes[~natural].sum())
        self._odds = shares * minutes / of_kind

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
        length = self._before + (_EXAMPLE_ROWS - 1) * HOP + self._after
        start = self._rng.integers(0, len(take.audio) - int(length * tempo) - 2)
        positions = start + np.arange(length) * tempo
        whole = positions.astype(np.int64)
        part = (positions - whole).astype(np.float32)
        samples = (take.audio[whole] * (1 - part) + take.audio[whole + 1] * part) / 32768
        rows = (start + (self._before + np.arange(_EXAMPLE_ROWS) * HOP) * tempo) / HOP
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

    def __init__(self) -> None:
        super().__init__()
        self.network = ArticulationNetwork()
        self.namer = torch.nn.Conv1d(FEATURES, len(LETTERS), 1)

    def loss(self, samples: Tensor, target: Tensor, letters: Tensor, half: bool) -> Tensor:
        """Cross-entropy with articulation in 0..1, and with the sounds' names."""
        mel = self.network.logmel(samples)
        with torch.autocast("cpu", torch.bfloat16, enabled=half):
            features = self.network.features(mel)[..., SETTLED:-SETTLED]
            curve, named = self.network.last(features), self.namer(features)
        entropy = torch.nn.functional.binary_cross_entropy_with_logits(
            curve.float().transpose(-1, -2), target, reduction="none"
        )
        naming = torch.nn.functional.cross_entropy(named.float(), letters)
        return (entropy * _CHANNEL_WEIGHTS).mean() + _NAMING_WEIGHT * naming


def train(
    takes: list[Take], held_out: list[Take], minutes: float, seed: int, half: bool, weights: Path
) -> ArticulationNetwork:
    """Train for so many minutes, saving the averaged network with every report, and return it."""
    torch.manual_seed(seed)
    pupil = Pupil()
    average = ArticulationNetwork().eval()
    average.load_state_dict(pupil.network.state_dict())
    examples = Examples(takes, average, seed)
    optimiser = torch.optim.AdamW(pupil.parameters(), lr=_PEAK_RATE, betas=(0.9, 0.98), weight_decay=_DECAY)
    began = reported = time.monotonic()
    step, losses = 0, []
    while (spent := (time.monotonic() - began) / (minutes * 60)) < 1.0:
        for group in optimiser.param_groups:
            cooling = 0.5 + 0.5 * np.cos(np.pi * spent)
            group["lr"] = _PEAK_RATE * min(1.0, spent / _WARM_SHARE + 0.02) * cooling + 1e-5
        loss = pupil.loss(*examples.batch(), half=half)
        optimiser.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(pupil.parameters(), 1.0)
        optimiser.step()
        step += 1
        losses.append(loss.item())
        keep = min(_AVERAGE, step / (step + 20))
        for averaged, fresh in zip(average.parameters(), pupil.network.parameters(), strict=True):
            averaged.data.lerp_(fresh.data, 1 - keep)
        if time.monotonic() - reported > _REPORT_EVERY_S:
            save_file(average.state_dict(), weights)
            log.info("step %d, %.0f%% of the time, loss %.4f", step, 100 * spent, np.mean(losses))
            log.info("%s", report(held_out, lambda audio: analysed(average, audio)))
            losses, reported = [], time.monotonic()
    return average


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=20.0, help="how long to train")
    parser.add_argument("--corpus", type=Path, default=Path("/tmp/greenroom-corpus"), help="kept for the next run")
    parser.add_argument("--weights", type=Path, default=WEIGHTS)
    parser.add_argument("--share", type=float, default=1.0, help="share of the corpus, for a quick try")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--half", action="store_true", help="bfloat16: half as long again, where the CPU has it")
    parser.add_argument("--threads", type=int, default=1)
    chosen = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    torch.set_num_threads(chosen.threads)
    chosen.weights.parent.mkdir(parents=True, exist_ok=True)
    takes = training_takes(chosen.corpus, chosen.seed, chosen.share)
    held_out = held_out_takes(chosen.corpus, chosen.seed) + recorded_takes()
    log.info("%.0f minutes of speech", sum(len(take.audio) for take in takes) / 16_000 / 60)
    network = train(takes, held_out, chosen.minutes, chosen.seed, chosen.half, chosen.weights)
    threshold = set_threshold(network, tuning_takes(chosen.corpus, chosen.seed))
    log.info("lips counted as sealed from %.2f on", threshold)
    save_file(network.state_dict(), chosen.weights)
    log.info("%s", report(held_out, lambda audio: analysed(network, audio)))


if __name__ == "__main__":
    main()
