"""From speech to what the mouth does: a stream of audio in, a stream of articulation curves out."""

from collections.abc import Iterable, Iterator

import torch

from app.speech.channels import CHANNELS, FloatArray
from app.speech.framing import Framing, windows
from app.speech.network import WINDOW_ROWS, ArticulationNetwork, load_network
from app.speech.sampling import sample_at

__all__ = ["CHANNELS", "SpeechAnalyser", "sample_at", "windowed"]


class SpeechAnalyser:
    """Tells how jaw and lips move in speech of any language.

    One analyser may be used for many recordings, one at a time or interleaved: it keeps nothing of them.
    """

    def __init__(self, device: torch.device) -> None:
        """Load the network onto the device. Raises FileNotFoundError where the package lacks its weights."""
        self._device = device
        self._network = load_network(device)

    def analyse(self, blocks: Iterable[FloatArray]) -> Iterator[FloatArray]:
        """Articulation of a recording, in pieces, as its audio arrives.

        blocks: mono audio at 16 kHz, float32 [n] in -1..1, of any lengths; samples that are not finite count
        as silence, louder ones are clipped. Yields float32 [m, 6] pieces, columns `CHANNELS`, together
        ceil(samples / 160) rows; row k describes the instant k * 10 ms. How the blocks are cut makes no
        difference; memory does not grow with the recording. Raises ValueError for a block of another shape.
        """
        return windowed(self._network, self._device, blocks)


def windowed(network: ArticulationNetwork, device: torch.device, blocks: Iterable[FloatArray]) -> Iterator[FloatArray]:
    """What `SpeechAnalyser.analyse` yields, by any such network on that device."""
    framing = Framing(WINDOW_ROWS, network.before, network.after)
    for window, rows in windows(blocks, framing):
        with torch.inference_mode():
            curve = network(torch.from_numpy(window).to(device)[None])[0]
        yield curve[:rows].cpu().numpy()
