"""The presets against what the programs' own scripts say: their arguments, their bars, their last words.

GREENROOM_COMMAND_HOMES="musetalk=/opt/MuseTalk,..." reads the arguments from checked-out projects instead of from here.
"""

from __future__ import annotations

import ast
import os
import re
from pathlib import Path

import pytest

from app.render.command.judging import judge
from app.render.command.presets import PRESETS
from app.render.command.program import Watch
from app.render.command.settings import parse

SCRIPTS = {
    "ditto": "inference.py",
    "latentsync": "scripts/inference.py",
    "musetalk": "scripts/inference.py",
    "sadtalker": "inference.py",
    "wav2lip": "inference.py",
}
# Of the commits that docs/command.md names.
FLAGS = {
    "ditto": "data_root cfg_pkl audio_path source_path output_path",
    "latentsync": (
        "unet_config_path inference_ckpt_path video_path audio_path video_out_path inference_steps guidance_scale "
        "temp_dir seed enable_deepcache"
    ),
    "musetalk": (
        "ffmpeg_path gpu_id vae_type unet_config unet_model_path whisper_dir inference_config bbox_shift result_dir "
        "extra_margin fps audio_padding_length_left audio_padding_length_right batch_size output_vid_name "
        "use_saved_coord saved_coord use_float16 parsing_mode left_cheek_width right_cheek_width version"
    ),
    "sadtalker": (
        "driven_audio source_image ref_eyeblink ref_pose checkpoint_dir result_dir pose_style batch_size size "
        "expression_scale input_yaw input_pitch input_roll enhancer background_enhancer cpu face3dvis still "
        "preprocess verbose old_version net_recon init_path use_last_fc bfm_folder bfm_model focal center camera_d "
        "z_near z_far"
    ),
    "wav2lip": (
        "checkpoint_path face audio outfile static fps pads face_det_batch_size wav2lip_batch_size resize_factor "
        "crop box rotate nosmooth"
    ),
}
HOMES = dict(pair.split("=", 1) for pair in os.environ.get("GREENROOM_COMMAND_HOMES", "").split(",") if pair)


def flags_of(script: Path) -> set[str]:
    """The options that a script gives its `ArgumentParser`."""
    calls = [node for node in ast.walk(ast.parse(script.read_text())) if isinstance(node, ast.Call)]
    added = [
        call.args[0] for call in calls if isinstance(call.func, ast.Attribute) and call.func.attr == "add_argument"
    ]
    return {str(name.value) for name in added if isinstance(name, ast.Constant)}


@pytest.mark.parametrize("name", sorted(PRESETS))
def test_a_preset_uses_only_arguments_that_the_program_has(name):
    used = {argument for argument in PRESETS[name]["argv"] if argument.startswith("--")}
    assert used <= {f"--{flag}" for flag in FLAGS[name].split()}


@pytest.mark.skipif(not HOMES, reason="GREENROOM_COMMAND_HOMES names no projects")
@pytest.mark.parametrize("name", sorted(PRESETS))
def test_the_programs_arguments_are_those_of_the_checked_out_project(name):
    if name not in HOMES:
        pytest.skip(f"{name} is not checked out")
    assert flags_of(Path(HOMES[name]) / SCRIPTS[name]) == {f"--{flag}" for flag in FLAGS[name].split()}


@pytest.mark.parametrize(
    ("name", "lines", "moves", "reached"),
    [
        ("ditto", ["dit: 3it [00:01,  2.11it/s]"], 1, (0, 0)),
        ("ditto", ["dit: 3it [00:01,  2.11it/s]", "writer: 120it [00:05, 24.33it/s]"], 2, (120, 0)),
        ("latentsync", ["100%|##########| 25/25 [00:04<00:00,  5.9it/s]"], 1, (0, 0)),
        (
            "latentsync",
            [
                "Doing inference...:  50%|#####     | 1/2 [00:20<00:20, 20.1s/it]",
                "Sample frames: 16:  45%|####5     | 9/20 [00:03<00:04,  2.5it/s]",
            ],
            2,
            (1, 2),
        ),
        ("musetalk", [" 40%|####      | 4/10 [00:02<00:03,  1.9it/s]"], 1, (4, 10)),
        ("sadtalker", ["landmark Det:: 100%|##########| 1/1 [00:01<00:00,  1.1s/it]"], 1, (0, 0)),
        (
            "sadtalker",
            [
                "Face Renderer::  24%|##4       | 6/25 [00:12<00:38,  2.0s/it]",
                "seamlessClone::   8%|8         | 4/50 [00:01<00:14,  3.1it/s]",
            ],
            2,
            (6, 25),
        ),
        ("wav2lip", ["Using cpu for inference.", "0%|          | 0/1 [00:00<?, ?it/s]Model loaded"], 1, (0, 1)),
    ],
)
def test_the_bar_of_the_long_stage_tells_how_far_a_program_is_and_the_others_that_it_lives(name, lines, moves, reached):
    watch = Watch(re.compile(parse({"preset": name, "home": "/"}).progress or ""))
    for line in lines:
        watch.hear(line)
    assert (watch.moves, (watch.done, watch.total)) == (moves, reached)


@pytest.mark.parametrize(
    ("name", "exitcode", "words", "code"),
    [
        ("ditto", 1, "TypeError: cannot unpack non-iterable NoneType object", "UPSTREAM_REJECTED"),
        ("latentsync", 1, "RuntimeError: Face not detected", "UPSTREAM_REJECTED"),
        ("musetalk", 0, "Error occurred during processing: division by zero", "UPSTREAM_REJECTED"),
        ("musetalk", 0, "Error occurred during processing: CUDA out of memory. Tried to allocate 2 GiB", "GPU_OOM"),
        ("musetalk", 0, "Error occurred during processing: list index out of range", "OUTPUT_INVALID"),
        (
            "sadtalker",
            1,
            "    raise 'can not detect the landmark from source image'\n"
            "TypeError: exceptions must derive from BaseException",
            "UPSTREAM_REJECTED",
        ),
        ("sadtalker", 0, "Can't get the coeffs of the input", "UPSTREAM_REJECTED"),
        (
            "wav2lip",
            1,
            "ValueError: Face not detected! Ensure the video contains a face in all the frames.",
            "UPSTREAM_REJECTED",
        ),
        (
            "wav2lip",
            1,
            "RuntimeError: Image too big to run face detection on GPU. Please use the --resize_factor argument",
            "GPU_OOM",
        ),
    ],
)
def test_the_last_words_of_each_program_are_understood(name, exitcode, words, code):
    settings = parse({"preset": name, "home": "/"})
    error = judge(exitcode, words.splitlines(), settings, has_video=False, oom_kill=False)
    assert error is not None
    assert error.code == code
