"""Makes the corpus, trains the articulation network and writes the weights into the package.

    python training/train_articulation.py

From the repository root, with training/requirements.txt installed. One CPU core is enough.
"""

import argparse
import copy
import logging
import sys
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from coarticulation import LETTERS
from corpus import Take, held_out_takes, recorded_takes, training_takes, tuning_takes
from examples import Examples
from judging import analysed, report, set_threshold
from music import recorded_music
from pretrained import begin_from_recogniser
from speaking import learn_speaking
from visemes import viseme_loss

from app.speech.channels import CLOSURE, LABIODENTAL
from app.speech.logmel import FREQUENCIES, MELS
from app.speech.network import FEATURES, SETTLED, STEP_ROWS, WEIGHTS, ArticulationNetwork, described

log = logging.getLogger("train")

_PEAK_RATE, _ENCODER_RATE = 2e-3, 4e-4
"""Learning rates of the new layers, and of those that the recogniser has taught already."""


@dataclass(frozen=True)
class Stage:
    """One rise and fall of the learning rates: its steps, the factor on their peaks, whether recorded music is heard,
    the weight of showing the right viseme, and the share of the weights before it that is mixed in after it
    (M. Wortsman et al., "Robust fine-tuning of zero-shot models", CVPR 2022)."""

    steps: int
    rate: float
    music: bool = False
    viseme_weight: float = 0.0
    kept: float = 0.0


_STAGES = (Stage(1200, 1.0), Stage(700, 0.5), Stage(400, 0.3, music=True, viseme_weight=0.4, kept=0.4))

_QUICK_STEPS, _QUICK_SHARE = 3, 0.1
"""What --quick takes of each stage's steps, and of the corpus."""

_WARM_SHARE = 0.05  # of the steps, in which the learning rates rise
_DECAY = 0.01
_AVERAGE = 0.995
"""Weights are averaged over the last few hundred steps: worth more than it costs."""

_REPORT_EVERY = 250  # steps
_CHANNEL_WEIGHTS = torch.ones(6).scatter(0, torch.tensor([CLOSURE, LABIODENTAL]), torch.tensor([4.0, 2.0]))
"""Closures above all: they are what the eye looks for."""

_NAMING_WEIGHT = 0.5

_TRACTS = torch.linspace(0.88, 1.14, 14)
"""Factors by which the vocal tract is made longer or shorter: many more heads than there are voices."""

_MASKED_SHARE, _MASKED_BANDS = 0.3, 8
"""Share of examples in which up to so many neighbouring bands are blotted out (SpecAugment, Park et al. 2019)."""


class Pupil(torch.nn.Module):
    """The network and, for the time of training, a second head that names the sound: to tell /m/ from /n/
    and /p/ from /t/ is what closures take, and every row of speech teaches it."""

    def __init__(self, network: ArticulationNetwork, seed: int) -> None:
        super().__init__()
        self.network = network
        self.namer = torch.nn.Linear(FEATURES, STEP_ROWS * len(LETTERS))
        self._tracts = torch.stack([_stretched(network.logmel.filters, float(stretch)) for stretch in _TRACTS])
        self._rng = torch.Generator().manual_seed(seed)

    def loss(self, samples: Tensor, target: Tensor, letters: Tensor, half: bool, viseme_weight: float) -> Tensor:
        """Cross-entropy with articulation in 0..1, with the sounds' names, and with the visemes."""
        tracts = self._tracts[torch.randint(len(_TRACTS), (len(samples),), generator=self._rng)]
        mel = self._masked(self.network.logmel(samples, tracts))
        with torch.autocast("cpu", torch.bfloat16, enabled=half):
            features = self.network.features(mel)
            curve, named = (described(head(features)) for head in (self.network.last, self.namer))
        settled = curve.float().unfold(1, 2 * SETTLED + 1, 1) @ self.network.settling
        curve, named = (rows[:, SETTLED:-SETTLED].float() for rows in (curve, named))
        entropy = torch.nn.functional.binary_cross_entropy_with_logits(curve, target, reduction="none")
        naming = torch.nn.functional.cross_entropy(named.flatten(0, 1), letters.flatten())
        loss = (entropy * _CHANNEL_WEIGHTS).mean() + _NAMING_WEIGHT * naming
        return loss + viseme_weight * viseme_loss(settled.sigmoid(), target) if viseme_weight else loss

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
    stage: Stage,
    music: Tensor | None,
    seed: int,
    half: bool,
) -> ArticulationNetwork:
    """Train the network for one stage and return its average over the last steps, mixed with what it was before.
    Progress on the held-out takes is told, not used."""
    steps, rate = stage.steps, stage.rate
    before = copy.deepcopy(network)
    average = copy.deepcopy(network).eval()
    pupil = Pupil(network, seed)
    examples = Examples(takes, average, seed, music)
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
        loss = pupil.loss(*examples.batch(), half=half, viseme_weight=stage.viseme_weight)
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
    for averaged, kept in zip(average.parameters(), before.parameters(), strict=True):
        averaged.data.lerp_(kept.data, stage.kept)
    return average


def _rate(done: float) -> float:
    """Share of the peak learning rate when that share of the steps is done: a rise, then half a cosine."""
    return min(1.0, done / _WARM_SHARE + 0.02) * (0.5 + 0.5 * np.cos(np.pi * done)) + 0.005


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--from-stage", type=int, default=1, help="go on from what the stage before this one has left")
    parser.add_argument("--corpus", type=Path, default=Path("/tmp/greenroom-corpus"), help="kept for the next run")
    parser.add_argument("--weights", type=Path, default=WEIGHTS)
    parser.add_argument("--quick", action="store_true", help="try all of it on a little; the package keeps its weights")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--half", action="store_true", help="bfloat16: quicker where the CPU has AMX or AVX512-BF16")
    parser.add_argument("--threads", type=int, default=1)
    chosen = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    torch.set_num_threads(chosen.threads)
    folder, weights, share, stages = chosen.corpus, chosen.weights, 1.0, _STAGES
    if chosen.quick:
        folder, share = chosen.corpus / "quick", _QUICK_SHARE
        weights, stages = (
            folder / "articulation.safetensors",
            tuple(replace(one, steps=_QUICK_STEPS) for one in _STAGES),
        )
    takes = training_takes(folder, chosen.seed, share)
    held_out = held_out_takes(folder, chosen.seed, share) + recorded_takes()
    music = torch.from_numpy(recorded_music(folder, share))
    log.info("%.0f minutes of speech", sum(len(take.audio) for take in takes) / 16_000 / 60)
    torch.manual_seed(chosen.seed)
    network = ArticulationNetwork()
    if chosen.from_stage > 1:
        network.load_state_dict(load_file(_left_by(folder, chosen.from_stage - 1)))
    else:
        begin_from_recogniser(network)
    for number, stage in list(enumerate(stages, start=1))[chosen.from_stage - 1 :]:
        heard = music if stage.music else None
        network = train(network, takes, held_out, stage, heard, chosen.seed + number - 1, chosen.half)
        save_file(network.state_dict(), _left_by(folder, number))
    more_music = torch.from_numpy(recorded_music(folder, share, more=True))
    learn_speaking(network, takes, more_music, chosen.seed + len(stages), share)
    threshold = set_threshold(network, tuning_takes(folder, chosen.seed, share))
    log.info("lips counted as sealed from %.2f on", threshold)
    save_file({name: tensor.half() for name, tensor in network.state_dict().items()}, weights)
    log.info("%s", report(held_out, lambda audio: analysed(network, audio)))


def _left_by(folder: Path, stage: int) -> Path:
    return folder / f"stage-{stage}.safetensors"


if __name__ == "__main__":
    main()
