"""Teaches the last layer anew when someone speaks, with the encoder and the mouth's own channels as they are.

Beside much recorded music and little else: what else the network knows of speech it learnt in the stages before.
"""

import torch
from augment import MOSTLY_MUSIC
from corpus import Take
from examples import Examples
from torch import Tensor

from app.speech.channels import CHANNELS, SPEECH
from app.speech.network import FEATURES, STEP_ROWS, ArticulationNetwork, described

_BATCHES = 80
_ROUNDS = 60
_DECAY = 1e-5
"""Weight of the squares of the new weights: there are hundreds of features, and only some hours to know them from."""


def learn_speaking(
    network: ArticulationNetwork, takes: list[Take], music: Tensor, seed: int, share: float = 1.0
) -> None:
    """Fit the speech channel of the network's last layer to examples half of which are without speech, most of those
    music: a logistic regression on the encoder's features. share: of the examples, for a quick try."""
    examples = Examples(takes, network, seed, music, MOSTLY_MUSIC)
    heard, spoken = [], []
    for _ in range(max(1, round(_BATCHES * share))):
        samples, target, _ = examples.batch()
        with torch.inference_mode():
            features = network.features(network.logmel(samples))
        rows = described(torch.cat([features] * STEP_ROWS, dim=-1), 0)
        heard.append(rows[:, -target.shape[1] :: STEP_ROWS].flatten(0, 1))
        spoken.append(target[..., SPEECH].unflatten(1, (-1, STEP_ROWS)).flatten(0, 1))
    weight, bias = _fitted(torch.cat(heard).clone(), torch.cat(spoken), network)
    with torch.no_grad():
        network.last.weight[SPEECH :: len(CHANNELS)] = weight
        network.last.bias[SPEECH :: len(CHANNELS)] = bias


def _fitted(heard: Tensor, spoken: Tensor, network: ArticulationNetwork) -> tuple[Tensor, Tensor]:
    """Weights [STEP_ROWS, FEATURES] and biases, from features [steps, FEATURES] and speech [steps, STEP_ROWS]."""
    layer = torch.nn.Linear(FEATURES, STEP_ROWS)
    with torch.no_grad():
        layer.weight.copy_(network.last.weight[SPEECH :: len(CHANNELS)])
        layer.bias.copy_(network.last.bias[SPEECH :: len(CHANNELS)])
    optimiser = torch.optim.LBFGS(layer.parameters(), max_iter=_ROUNDS, line_search_fn="strong_wolfe")

    def loss() -> Tensor:
        optimiser.zero_grad()
        entropy = torch.nn.functional.binary_cross_entropy_with_logits(layer(heard), spoken)
        wanted: Tensor = entropy + _DECAY * layer.weight.square().sum()
        wanted.backward()
        return wanted

    optimiser.step(loss)
    return layer.weight.detach(), layer.bias.detach()
