"""Which shape of the mouth a sound asks for: a table over IPA, from height, rounding and place of articulation."""

import unicodedata
from dataclasses import dataclass

_ARPABET_IN_IPA = (
    "aa:ɑ ae:æ ah:ʌ ao:ɔ aw:aʊ ax:ə axr:ɚ ay:aɪ b:b ch:tʃ d:d dh:ð dx:ɾ eh:ɛ el:əl em:əm en:ən er:ɝ ey:eɪ f:f "
    "g:ɡ hh:h ih:ɪ iy:i jh:dʒ k:k l:l m:m n:n ng:ŋ nx:n ow:oʊ oy:ɔɪ p:p r:ɹ s:s sh:ʃ t:t th:θ uh:ʊ uw:u v:v w:w "
    "y:j z:z zh:ʒ"
)
ARPABET = dict(pair.split(":") for pair in _ARPABET_IN_IPA.split())
"""The letters that flite, Festival and pocketsphinx use, in IPA."""


def _letters(same: str, others: str) -> dict[str, str]:
    """A voice's letters in IPA: those that are the same, and pairs of those that are not."""
    return dict(zip(same.split(), same.split(), strict=True)) | dict(pair.split(":") for pair in others.split())


ITALIAN = _letters("a b d e f i j k l m n o p r s t ts u v w z dz", "O:ɔ E:ɛ J:ɲ S:ʃ L:ʎ tS:tʃ dZ:dʒ g:ɡ ng:ŋ nf:ɱ N:ŋ")
CZECH = _letters(
    "a b d f h i j k l m n o p r s t u v z x",
    "e:ɛ c:ts c~:tʃ d~:ɟ n~:ɲ t~:c s~:ʃ z~:ʒ r~:r r~*:r ch:x g:ɡ y:i n*:ŋ dz:dz dz~:dʒ",
)
FINNISH = _letters("a b d e f h i j k l m n o p r s t u v y", "@:æ 7:ø g:ɡ N:ŋ")
RUSSIAN = _letters(
    "b d f i j k l m n p r s t u v z",
    "a:ə aa:a ay:ə ae:ɪ e:ɪ ee:e i:ɪ ii:i y:ɨ yy:ɨ o:ə oo:o uu:u ur:ʊ ui:ʊ bb:b dd:d ff:f g:ɡ gg:ɡ h:x hh:x kk:k "
    "ll:l mm:m nn:n pp:p rr:r ss:s tt:t vv:v zz:z c:ts ch:tɕ sch:ɕ sh:ʃ zh:ʒ",
)
"""The letters of Festival's voices for these languages, likewise."""


@dataclass(frozen=True)
class Shape:
    """What a sound asks of jaw, width and protrusion (each 0..1), and how strongly it insists on each."""

    jaw: float
    width: float
    protrusion: float
    jaw_dominance: float = 1.0
    lip_dominance: float = 1.0


def _vowels(rows: str) -> dict[str, Shape]:
    """Rows of "letters jaw width protrusion"; vowels hold jaw and lips alike."""
    shapes = {}
    for row in rows.strip().splitlines():
        letters, *values = row.split()
        jaw, width, protrusion = map(float, values)
        shapes.update(dict.fromkeys(letters, Shape(jaw, width, protrusion)))
    return shapes


def _consonants(rows: str) -> dict[str, Shape]:
    """Rows of "letters jaw width protrusion jaw_dominance lip_dominance"."""
    shapes = {}
    for row in rows.strip().splitlines():
        letters, *values = row.split()
        jaw, width, protrusion, jaw_dominance, lip_dominance = map(float, values)
        shapes.update(dict.fromkeys(letters, Shape(jaw, width, protrusion, jaw_dominance, lip_dominance)))
    return shapes


SHAPES = _vowels("""
iɪ̈ 0.20 0.95 0.0
ɪ 0.28 0.80 0.0
eᵻ 0.42 0.80 0.0
ɛ 0.58 0.72 0.0
æ 0.82 0.70 0.0
aä 0.92 0.58 0.0
ɐ 0.75 0.55 0.0
ɑ 0.98 0.45 0.0
ɒ 0.85 0.30 0.40
ʌ 0.62 0.52 0.0
ɔ 0.68 0.28 0.60
o 0.45 0.18 0.80
ɤ 0.45 0.55 0.0
ʊ 0.28 0.22 0.75
u 0.20 0.08 1.0
ɯɨ 0.22 0.65 0.05
y 0.20 0.12 0.95
ʉʏ 0.22 0.18 0.85
ø 0.40 0.22 0.80
œɞ 0.55 0.30 0.65
əɘ 0.38 0.50 0.05
ɵ 0.40 0.30 0.50
ɜ 0.45 0.45 0.15
ɝɚ 0.34 0.35 0.45
""") | _consonants("""
pbmɓ 0.06 0.50 0.05 1.4 0.5
fvɱ 0.12 0.55 0.00 1.3 0.8
ʋ 0.16 0.50 0.10 1.0 0.7
ɸβ 0.12 0.45 0.20 1.0 0.6
wʍ 0.16 0.08 1.00 1.0 1.4
ɥ 0.16 0.12 0.95 1.0 1.4
szʦʣ 0.05 0.62 0.00 1.3 0.5
ʃʒ 0.09 0.32 0.70 1.2 1.1
ɕʑ 0.08 0.58 0.30 1.2 0.8
ʂʐ 0.10 0.40 0.45 1.1 0.8
tdnɗ 0.16 0.55 0.00 0.8 0.3
ʈɖɳɭɽ 0.20 0.50 0.10 0.8 0.3
θð 0.20 0.55 0.00 0.9 0.4
lɬɮ 0.28 0.55 0.00 0.7 0.3
ɫ 0.30 0.48 0.05 0.7 0.3
rɾ 0.24 0.52 0.00 0.7 0.3
ɹɻ 0.22 0.35 0.45 0.8 0.8
ʎɲcɟçʝ 0.20 0.70 0.00 0.8 0.6
j 0.18 0.80 0.00 0.9 0.8
kɡgŋxɣ 0.28 0.50 0.00 0.5 0.2
qɢχʁɴʀ 0.35 0.50 0.00 0.5 0.2
ħʕʜ 0.45 0.50 0.00 0.4 0.2
hɦʔ 0.35 0.50 0.00 0.2 0.15
""")
"""Authored from phonetic description: openness from vowel height, protrusion and narrowness from rounding. The
sibilants hold the teeth together, the velars and /h/ leave the mouth to their neighbours."""

PAUSE_SHAPE = Shape(0.0, 0.5, 0.0)

SEALED = frozenset("pbmɓ")
"""Sounds that cannot be made without pressing the lips together."""

LIP_TO_TEETH = frozenset("fvɱ")
_HALF_LIP_TO_TEETH = frozenset("ʋ")

VOICELESS_STOPS = frozenset("ptkqcʈ")
VOICED_STOPS = frozenset("bdɡgɟɖɢɓɗ")

_VOWEL_LETTERS = frozenset("iɪeᵻɛæaɐɑɒʌɔoɤʊuɯɨyʉʏøœɞəɘɵɜɝɚ")


def letters(symbol: str) -> list[str]:
    """The sounds within a synthesiser's phone, such as "tʃ", "ˈiou" or "pʰ", without stress, length, tone and
    aspiration. Empty for a pause and for marks alone."""
    found: list[str] = []
    for letter in unicodedata.normalize("NFD", symbol):
        if letter == "." and found and found[-1] in "sz":
            found[-1] = {"s": "ʂ", "z": "ʐ"}[found[-1]]
        elif (letter == "h" and found and found[-1] not in _VOWEL_LETTERS) or letter not in SHAPES:
            continue  # aspiration; a mark
        else:
            found.append(letter)
    return found


def lip_to_teeth(letter: str) -> float:
    """How far the lower lip meets the upper teeth, 0..1."""
    return 1.0 if letter in LIP_TO_TEETH else 0.6 if letter in _HALF_LIP_TO_TEETH else 0.0
