"""Times the sounds of recorded telephone prompts and writes `data/prompts_LANGUAGE.txt`. Run once by a developer.

    python training/align_prompts.py en core-sounds-en.txt

The list of what each prompt says comes with the upstream release of the recordings (downloads.asterisk.org), one
"name: text" a line. Only the times are kept. English is timed by pocketsphinx with its own dictionary; of another
language every sound is timed as the English one that is nearest, its spelling turned into sounds by espeak-ng.
"""

import argparse
import re
import sys
from pathlib import Path

import numpy as np
import numpy.typing as npt

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from phones import ARPABET, letters
from recordings import DATA, FRAME_S, PROMPTS, NotAlignedError, aligned, aligned_sounds, read_g722
from voices import Spoken, spelt_sounds

_DIGITS = dict(enumerate("zero one two three four five six seven eight nine".split()))  # noqa: SIM905
_UNREADABLE = re.compile(r"[\[<*#]|\d[\d.]")


def _pairs(text: str) -> dict[str, str]:
    return dict(pair.split(":") for pair in text.split())


_NEAREST = {letters(ipa)[0]: name for name, ipa in reversed(ARPABET.items()) if len(letters(ipa)) == 1} | _pairs(
    "a:aa ɐ:aa o:ao ɵ:ao e:eh y:ih ɨ:ih ə:ah x:hh r:r ɭ:l ɫ:l ɕ:sh ʂ:sh ʐ:zh ʑ:zh ʉ:uw ɣ:g ɲ:n ɳ:n c:k ɟ:g ʎ:l"
)
"""The English sound, in ARPAbet, that stands for a sound of another language while it is timed."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("language", choices=sorted(PROMPTS))
    parser.add_argument("texts", type=Path)
    chosen = parser.parse_args()
    lines = []
    for line in chosen.texts.read_text().splitlines():
        found = re.fullmatch(r"([^;:\s]+):\s*(.+)", line.strip())
        if found is None or _UNREADABLE.search(found[2]):
            continue
        path = PROMPTS[chosen.language] / f"{found[1]}.g722"
        if not path.exists():
            continue
        try:
            spoken = _timed(chosen.language, read_g722(path), found[2])
        except NotAlignedError:
            print("left out:", found[1])
            continue
        times = (f"{phone.symbol or '_'}:{round(phone.end / FRAME_S)}" for phone in spoken.phones)
        lines.append(f"{found[1]}\t{' '.join(times)}\n")
    DATA.mkdir(exist_ok=True)
    (DATA / f"prompts_{chosen.language}.txt").write_text("".join(lines))


def _timed(language: str, audio: npt.NDArray[np.int16], text: str) -> Spoken:
    if language == "en":
        said = re.sub(r"\d", lambda digit: f" {_DIGITS[int(digit[0])]} ", text).replace("-", " ")
        return aligned(audio, said.replace("’", "'"))
    words = [letters(word) for word in spelt_sounds(text, language).split()]
    try:
        return aligned_sounds(audio, [[(sound, _NEAREST[sound]) for sound in word] for word in words if word])
    except KeyError as unknown:
        raise NotAlignedError(text) from unknown


if __name__ == "__main__":
    main()
