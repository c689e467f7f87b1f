"""Makes the synthetic voices of this folder.

Run `pip install espeakng-loader==0.2.4`, then `python evaluation/speech/make.py`.
The recordings are committed, so that an evaluation needs no synthesiser and means the same on every machine.
"""

from __future__ import annotations

import ctypes
import wave
from pathlib import Path

import cv2
import espeakng_loader
import numpy as np

HERE = Path(__file__).parent
RATE = 16_000
SAID = {
    "german": ("de", "Guten Morgen. Fünf Wölfe wollen vor dem Bahnhof auf den Abendzug warten, aber wo bleibt er nur?"),
    "mandarin": ("cmn", "大家好。妈妈买了八本书，爸爸喝了一杯热茶，我们明天早上一起去北京。"),
    "hindi": ("hi", "नमस्ते। मेरी माँ बाज़ार से फल और सब्ज़ी लाई, फिर हम सब ने मिलकर खाना बनाया।"),
}
_SYNCHRONOUS = 2
_UTF8 = 1


def main() -> None:
    """Write one wav file for each voice."""
    library = ctypes.CDLL(espeakng_loader.get_library_path())
    native = library.espeak_Initialize(_SYNCHRONOUS, 0, espeakng_loader.get_data_path().encode(), 0)
    for name, (voice, text) in SAID.items():
        if library.espeak_SetVoiceByName(voice.encode()) != 0:
            raise SystemExit(f"espeak-ng has no voice {voice}")
        heard: list[np.ndarray] = []

        @ctypes.CFUNCTYPE(ctypes.c_int, ctypes.POINTER(ctypes.c_short), ctypes.c_int, ctypes.c_void_p)
        def take(samples, count, _events, heard=heard):
            if samples and count > 0:
                heard.append(np.ctypeslib.as_array(samples, (count,)).copy())
            return 0

        library.espeak_SetSynthCallback(take)
        said = text.encode()
        library.espeak_Synth(said, len(said) + 1, 0, 0, 0, _UTF8, None, None)
        write(HERE / f"{name}.wav", np.concatenate(heard), native)


def write(path: Path, samples: np.ndarray, rate: int) -> None:
    """Mono, 16 bits, 16 kHz; half a second of silence at the end."""
    count = round(len(samples) * RATE / rate)
    smooth = cv2.GaussianBlur(samples.astype(np.float32)[None], (0, 0), 0.45 * rate / RATE)[0]
    resampled = np.interp(np.arange(count) * rate / RATE, np.arange(len(samples)), smooth)
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(RATE)
        file.writeframes(np.concatenate([resampled, np.zeros(RATE // 2)]).astype("<i2").tobytes())


if __name__ == "__main__":
    main()
