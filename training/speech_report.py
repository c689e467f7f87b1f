"""Puts the figures of `eval_articulation.py` into words and tables: the section "Speech" of docs/quality.md."""

from typing import Any

Figures = dict[str, Any]

_LANGUAGES = {
    "ar": "Arabic", "cmn": "Mandarin", "de": "German", "en": "English", "es": "Spanish", "fr": "French", "hi": "Hindi",
    "it": "Italian", "ja": "Japanese", "pt": "Portuguese", "ru": "Russian", "sv": "Swedish",
}  # fmt: skip

_EXPLANATION = """A seal (lips shut for p, b or m) is *found* when the middle of a stretch with closure at 0.7 or more,
from where the renderer's lips touch, falls into it or within 40 ms of it; each stretch counts for one seal. *False* is
the share of the stretches that belong to none. *Strict* asks that the two middles are within 40 ms. *Visemes* is the
share of the 10 ms rows of speech in which the curves show the same one of nine visemes (sealed, lip at teeth, and seven
shapes of jaw, width and protrusion) as the curves made from the timed phones. *Lag* is the shift at which the jaw
agrees best."""


def section(figures: Figures) -> str:
    """The section in Markdown."""
    parts = [_targets(figures), _EXPLANATION, _kinds(figures), _voices(figures), _rest(figures)]
    if "hama" in figures:
        parts.append(_hama(figures))
    source = "Made by `training/eval_articulation.py`; all figures: `benchmarks/results/speech.json`."
    return "\n\n".join([*parts, source])


_FOUND, _FALSE = 0.95, 0.05
_ENGLISH, _MANDARIN = 0.75, 0.70
_LAG_MS = 40
_AT_REST = 0.99


def _targets(figures: Figures) -> str:
    """What the network is to reach, and what it does."""
    recorded, synthetic = figures["recorded"], figures["synthetic"]
    mandarin = synthetic["languages"]["cmn"]
    lags = [abs(voice["lag_ms"]) for kind in (recorded, synthetic) for voice in kind["voices"].values()]
    alone = {name: one["at_rest"] for name, one in figures["without_speech"].items()}
    music = min(share for name, share in alone.items() if name.startswith("music"))
    quiet = min(share for name, share in alone.items() if not name.startswith("music"))
    rows = [
        ["seals found, recorded English", *_at_least(recorded["all"]["found"], _FOUND)],
        ["of predicted seals false, recorded English", *_at_most(recorded["all"]["false"], _FALSE)],
        ["seals found, synthetic, twelve languages", *_at_least(synthetic["all"]["found"], _FOUND)],
        ["of predicted seals false, synthetic", *_at_most(synthetic["all"]["false"], _FALSE)],
        ["visemes, recorded English", *_at_least(recorded["all"]["viseme_accuracy"], _ENGLISH)],
        ["visemes, synthetic Mandarin", *_at_least(mandarin["viseme_accuracy"], _MANDARIN)],
        ["largest lag of a voice's jaw, ms", *_at_most(max(lags), _LAG_MS)],
        ["at rest, silence and noises alone", *_at_least(quiet, _AT_REST)],
        ["at rest, recorded music alone", *_at_least(music, _AT_REST)],
    ]
    return _table(["", "target", "measured", ""], rows)


def _at_least(measured: float, target: float) -> list[str]:
    return [f"at least {target}", str(measured), "reached" if measured >= target else "missed"]


def _at_most(measured: float, target: float) -> list[str]:
    return [f"at most {target}", str(measured), "reached" if measured <= target else "missed"]


def _kinds(figures: Figures) -> str:
    kinds = {
        "recorded English": figures["recorded"],
        "the same, noise 20 dB below": figures["recorded_with_noise"],
        "the same, music 10 dB below": figures["recorded_with_music"],
        "recorded English, chosen on": figures["chosen_on"],
        "synthetic, all": figures["synthetic"],
        "synthetic, noise 20 dB below": figures["synthetic_with_noise"],
    }
    rows = [[name, *_seals(kind["all"]), _visemes(kind["all"]), _lags(kind)] for name, kind in kinds.items()]
    rows += [
        [f"synthetic, {_LANGUAGES[code]}", *_seals(one), _visemes(one), ""]
        for code, one in figures["synthetic"]["languages"].items()
    ]
    minutes = {
        kind: sum(voice["seconds"] for voice in figures[kind]["voices"].values()) / 60
        for kind in ("recorded", "chosen_on", "synthetic")
    }
    table = _table(["speech", "seals", "found", "false", "strict: found", "false", "visemes", "lag, ms"], rows)
    sizes = (
        f"{minutes['recorded']:.0f} minutes of recordings, {minutes['synthetic']:.0f} of synthetic speech. Another "
        f"{minutes['chosen_on']:.0f} minutes, the other half of the same reader's prompts, are those on which the "
        "closures' threshold and their doubt before a lip at the teeth were chosen."
    )
    return f"{sizes}\n\n{table}"


def _voices(figures: Figures) -> str:
    rows = [
        [name, *_seals(voice), _visemes(voice), str(voice["lag_ms"])]
        + [f"{voice['correlation'][channel]:.2f}" for channel in ("jaw", "width", "protrusion", "labiodental")]
        for kind in ("recorded", "chosen_on", "synthetic")
        for name, voice in figures[kind]["voices"].items()
    ]
    titles = ["voice", "seals", "found", "false", "strict: found", "false", "visemes", "lag, ms"]
    return _table([*titles, "jaw", "width", "protrusion", "labiodental"], rows)


def _rest(figures: Figures) -> str:
    pauses = [[name, str(one["rows"]), f"{one['at_rest']:.4f}"] for name, one in figures["pauses"].items()]
    alone = [
        [name, f"{one['at_rest']:.4f}", *(f"{one[channel]:.2f}" for channel in ("jaw", "closure", "speech"))]
        for name, one in figures["without_speech"].items()
    ]
    return (
        "Pauses within the recorded speech, 200 ms and more from any sound, with something else 20 dB below the "
        "speech: share of rows in which every channel of the lips is within 0.1 of rest.\n\n"
        + _table(["beside the speech", "rows", "at rest"], pauses)
        + "\n\nHalf a minute of sounds without speech: the same share, and the greatest values.\n\n"
        + _table(["sound", "at rest", "jaw", "closure", "speech"], alone)
        + f"\n\nWeights {figures['weights_bytes'] / 1e6:.1f} MB. Processor time "
        f"{figures['real_time_factor']:.4f} of the speech's, on one thread."
    )


def _hama(figures: Figures) -> str:
    rows = [[name.removeprefix("held-out-"), *_seals(score)[:3]] for name, score in figures["hama"].items()]
    return (
        "hama 1.7.0, from whose weights the training begins, on the recorded seals at its best constant lag:\n\n"
        + _table(["voice", "seals", "found", "false"], rows)
    )


def _seals(score: Figures) -> list[str]:
    shares = ("found", "false", "found_by_middle", "false_by_middle")
    return [str(score["seals"]), *(f"{score[share]:.3f}" for share in shares)]


def _visemes(score: Figures) -> str:
    return f"{score['viseme_accuracy']:.3f}"


def _lags(kind: Figures) -> str:
    values = [voice["lag_ms"] for voice in kind["voices"].values()]
    return f"{min(values)} to {max(values)}"


def _table(titles: list[str], rows: list[list[str]]) -> str:
    lines = ["| " + " | ".join(cells) + " |" for cells in (titles, ["---"] * len(titles), *rows)]
    return "\n".join(lines)
