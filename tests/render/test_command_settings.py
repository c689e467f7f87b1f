"""What an operator may say of a program, what is told of a mistake, and the presets."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from app.render import registry
from app.render.command.presets import PRESETS
from app.render.command.settings import parse
from app.render.command.template import fill, fill_json
from app.tiers.settings import TierSettings
from app.tiers.tiers import Tiers

BARE = {"argv": ["prog", "{source}", "{audio}", "{output}"]}


@pytest.mark.parametrize(
    ("more", "told"),
    [
        ({"argv": []}, "at least 1 item"),
        ({"argv": ["prog", "{source}", "{output}"]}, "neither argv nor files name the audio"),
        ({"argv": ["prog", "{source}", "{audio}"]}, "name the output"),
        ({"argv": [*BARE["argv"], "{options.steps}"]}, "nothing to put for {options.steps}"),
        ({"argv": [*BARE["argv"], "{home}"]}, "nothing to put for {home}"),
        ({"values": {"model": "{work}/x"}}, "values can hold {home} alone"),
        ({"progress": "("}, "no regular expression"),
        ({"progress": r"\d+"}, "needs a group"),
        ({"exit_codes": {"300": "INTERNAL"}}, "less than or equal to 255"),
        ({"exit_codes": {"3": "CANCELLED"}}, "for the service itself to say"),
        ({"exit_codes": {"3": "OUT_OF_LUCK"}}, "GPU_OOM"),
        ({"patterns": [{"match": "x", "code": "INTERRUPTED"}]}, "for the service itself to say"),
        ({"files": {"../out.yaml": ""}}, "below the attempt's folder"),
        ({"options": {"a b": 1}}, "pattern"),
        ({"options": {"steps": {"default": "x", "min": 1}}}, "min and max are for numbers"),
        ({"options": {"mode": {"default": "x", "choices": ["y"]}}}, "none of the choices"),
        ({"preset": "nobody"}, "latentsync"),
        ({"speling": 1}, "neither a tier nor the renderer command has such a setting"),
    ],
)
def test_a_mistake_is_told_with_its_setting(more, told):
    with pytest.raises(ValidationError) as error:
        TierSettings(name="bench", renderer="command", **(BARE | more))
    assert told in str(error.value)


def tiers(**settings):
    return Tiers([TierSettings(name="bench", renderer="command", **(BARE | settings))])


def test_each_tier_takes_the_options_that_it_names():
    made = tiers(options={"steps": {"default": 20, "min": 1, "max": 50}, "mood": "calm", "fast": False, "scale": 1.5})
    tier = made.all["bench"]
    assert tier.options_for({}) == {"steps": 20, "mood": "calm", "fast": False, "scale": 1.5}
    assert tier.options_for({"steps": 3, "scale": 2})["scale"] == 2.0
    for wrong in (
        {"steps": 51},
        {"steps": "3"},
        {"steps": 2.5},
        {"mood": "--evil"},
        {"mood": "a\nb"},
        {"mood": 3},
        {"fast": "yes"},
        {"scale": float("nan")},
        {"other": 1},
    ):
        with pytest.raises(ValidationError):
            tier.options_for(wrong)
    with pytest.raises(ValidationError):
        tiers().all["bench"].options_for({"steps": 3})


@pytest.mark.parametrize("name", sorted(PRESETS))
def test_every_preset_is_complete_with_a_home_alone(name, tmp_path):
    settings = parse({"preset": name, "home": str(tmp_path)})
    assert registry.options_model("command", {"preset": name, "home": str(tmp_path)})().model_dump().keys() == set(
        settings.options
    )
    assert settings.own_values["home"] == str(tmp_path)
    assert settings.silence_s


def test_what_a_tier_says_itself_goes_before_its_preset(tmp_path):
    settings = parse(
        {
            "preset": "latentsync",
            "home": str(tmp_path),
            "values": {"python": "/venv/bin/python"},
            "patterns": [{"match": "mine", "code": "GPU_LOST"}],
            "silence_s": 9,
        }
    )
    preset = parse({"preset": "latentsync", "home": str(tmp_path)})
    assert settings.values == {**preset.values, "python": "/venv/bin/python"}
    assert [pattern.match for pattern in settings.patterns] == ["mine", *(p.match for p in preset.patterns)]
    assert (settings.silence_s, settings.argv) == (9, preset.argv)


def test_without_settings_it_is_absent_and_says_why():
    assert "at least 1 item" in registry.why_absent("command", {"checkpoint": "x"})


def test_what_is_put_in_is_never_looked_at_again():
    values = {"source": 'a {audio} "b"\n', "audio": "secret", "options.fast": True}
    assert fill("{source}|{options.fast}|{{source}|{ }", values) == 'a {audio} "b"\n|true|{source}|{ }'
    assert fill_json("{source}: {options.fast}", values) == '"a {audio} \\"b\\"\\n": true'
