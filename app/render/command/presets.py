"""What is known of the command lines of well-known programs; `preset` fills in what a tier does not say itself.

Sources: the inference scripts of each project as they stood in autumn 2025 (docs/command.md names the commits). Their
weights and code are the operator's to bring, under their own licences.
"""

from __future__ import annotations

from typing import Any, Literal

PresetName = Literal["ditto", "latentsync", "musetalk", "sadtalker", "wav2lip"]

_TQDM = r"(?P<done>\d+)/(?P<total>\d+) \["
"""The bar of tqdm: `45%|####      | 9/20 [00:03<00:04, 2.5it/s]`."""


def _bar(name: str) -> str:
    """The bar of that name tells how far it is; any other bar is a move and no more: programs have one per stage."""
    return rf"{name}.*?{_TQDM}|\d+/\d+ \["


_SILENCE_S = 300.0
"""Loading models takes minutes from a cold disk, and says nothing."""


def _no_face(match: str) -> list[dict[str, str]]:
    """A program that finds no face is no proof that there is none: the next tier may find it."""
    return [{"match": match, "code": "UPSTREAM_REJECTED"}]


PRESETS: dict[str, dict[str, Any]] = {
    # bytedance/LatentSync, scripts/inference.py. Takes videos only, at 25 frames/s, and plays a short one to and fro;
    # writes below `temp` of its working directory whatever `--temp_dir` says.
    "latentsync": {
        "argv": [
            "{values.python}", "-m", "scripts.inference",
            "--unet_config_path", "{values.unet_config}",
            "--inference_ckpt_path", "{values.checkpoint}",
            "--inference_steps", "{options.steps}",
            "--guidance_scale", "{options.guidance}",
            "--seed", "{options.seed}",
            "--temp_dir", "{work}/temp",
            "--video_path", "{source}",
            "--audio_path", "{audio}",
            "--video_out_path", "{output}",
        ],
        "values": {
            "python": "python3",
            "unet_config": "configs/unet/stage2_512.yaml",
            "checkpoint": "checkpoints/latentsync_unet.pt",
        },
        "options": {
            "steps": {"default": 20, "min": 1, "max": 100},
            "guidance": {"default": 1.5, "min": 1.0, "max": 5.0},
            "seed": {"default": 1247, "min": 0, "max": 2**31 - 1},
        },
        "source_as": "video",
        "progress": _bar(r"Doing inference\.\.\."),
        "silence_s": _SILENCE_S,
        "patterns": _no_face(r"RuntimeError: Face not detected"),
        "hold_s": 0.2,
    },
    # TMElyralab/MuseTalk, scripts/inference.py. Its inputs stand in a YAML file; it writes below `v15` of the result
    # folder; it catches every error, prints it, and leaves with exit code 0: where no frame has a face it divides by
    # their number; its frame rates are whole numbers.
    "musetalk": {
        "argv": [
            "{values.python}", "-m", "scripts.inference",
            "--inference_config", "{work}/task.yaml",
            "--result_dir", "{output_dir}",
            "--unet_model_path", "{values.unet}",
            "--unet_config", "{values.unet_config}",
            "--version", "v15",
            "--batch_size", "{options.batch_size}",
        ],
        "files": {
            "task.yaml": "task:\n  video_path: {source}\n  audio_path: {audio}\n  result_name: output.mp4\n",
        },
        "values": {
            "python": "python3",
            "unet": "models/musetalkV15/unet.pth",
            "unet_config": "models/musetalkV15/musetalk.json",
        },
        "options": {"batch_size": {"default": 8, "min": 1, "max": 64}},
        "source_as": "video",
        "progress": _TQDM,
        "silence_s": _SILENCE_S,
        "patterns": _no_face(r"Error occurred during processing: .*(?:division|modulo) by zero"),
        "hold_s": 0.2,
    },
    # OpenTalker/SadTalker, inference.py. Names its result by the time of day, in `--result_dir`; takes the first frame
    # of a video; where it finds no face it raises a text, which Python refuses and shows, or leaves with exit code 0.
    "sadtalker": {
        "argv": [
            "{values.python}", "inference.py",
            "--driven_audio", "{audio}",
            "--source_image", "{source}",
            "--checkpoint_dir", "{values.checkpoints}",
            "--result_dir", "{output_dir}",
            "--still",
            "--preprocess", "{options.preprocess}",
            "--size", "{options.size}",
            "--pose_style", "{options.pose_style}",
            "--expression_scale", "{options.expression_scale}",
        ],
        "values": {"python": "python3", "checkpoints": "./checkpoints"},
        "options": {
            "preprocess": {"default": "full", "choices": ["crop", "extcrop", "resize", "full", "extfull"]},
            "size": {"default": 256, "choices": [256, 512]},
            "pose_style": {"default": 0, "min": 0, "max": 45},
            "expression_scale": {"default": 1.0, "min": 0.0, "max": 3.0},
        },
        "progress": _bar("Face Renderer:"),
        "silence_s": _SILENCE_S,
        "patterns": _no_face(r"Can't get the coeffs of the input|can not detect the landmark"),
        "hold_s": 0.2,
    },
    # antgroup/ditto-talkinghead, inference.py. Six threads with queues between them; its bars have no total: `dit` is
    # the whole speech's motion, before the first frame is written. Unpacks nothing where it finds no face.
    "ditto": {
        "argv": [
            "{values.python}", "inference.py",
            "--data_root", "{values.data_root}",
            "--cfg_pkl", "{values.cfg}",
            "--audio_path", "{audio}",
            "--source_path", "{source}",
            "--output_path", "{output}",
        ],
        "values": {
            "python": "python3",
            "data_root": "./checkpoints/ditto_trt_Ampere_Plus",
            "cfg": "./checkpoints/ditto_cfg/v0.4_hubert_cfg_trt.pkl",
        },
        "progress": r"writer: (?P<done>\d+)it|dit: \d+it",
        "silence_s": _SILENCE_S,
        "patterns": _no_face(r"TypeError: cannot unpack non-iterable NoneType object"),
        "hold_s": 0.2,
    },
    # Rudrabha/Wav2Lip, inference.py. Writes `temp/result.avi` below its working directory, which is why it gets one of
    # its own; tells pictures by what follows the first dot of the path, which is why it gets short ones; ends up to
    # four frames before the speech.
    "wav2lip": {
        "argv": [
            "{values.python}", "{home}/inference.py",
            "--checkpoint_path", "{values.checkpoint}",
            "--face", "{source_name}",
            "--audio", "{audio_name}",
            "--outfile", "{output_name}",
            "--resize_factor", "{options.resize_factor}",
            "--pads", "{options.pad_top}", "{options.pad_bottom}", "{options.pad_left}", "{options.pad_right}",
            "--box", "{options.box_top}", "{options.box_bottom}", "{options.box_left}", "{options.box_right}",
        ],
        "cwd": "{work}",
        "files": {"temp/about.txt": "Intermediate files of Wav2Lip.\n"},
        "values": {"python": "python3", "checkpoint": "{home}/checkpoints/wav2lip_gan.pth"},
        "options": {
            "resize_factor": {"default": 1, "min": 1, "max": 8},
            "pad_top": {"default": 0, "min": -200, "max": 200},
            "pad_bottom": {"default": 10, "min": -200, "max": 200},
            "pad_left": {"default": 0, "min": -200, "max": 200},
            "pad_right": {"default": 0, "min": -200, "max": 200},
            # -1: found by its detector.
            "box_top": {"default": -1, "min": -1, "max": 16384},
            "box_bottom": {"default": -1, "min": -1, "max": 16384},
            "box_left": {"default": -1, "min": -1, "max": 16384},
            "box_right": {"default": -1, "min": -1, "max": 16384},
        },
        "progress": _TQDM,
        "silence_s": _SILENCE_S,
        "patterns": [
            *_no_face(r"Face not detected!"),
            {"match": r"Image too big to run face detection on GPU", "code": "GPU_OOM"},
        ],
        "hold_s": 0.3,
    },
}  # fmt: skip
"""By name: settings of `app.render.command.settings.CommandSettings`."""
