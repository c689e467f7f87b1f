"""The renderer that needs a checkpoint, in a whole service: with one, without one, and with a wrong one."""

from __future__ import annotations

import json

import torch

from tests.e2e.test_start import start
from tests.render.checkpoints import save_small


def test_with_a_checkpoint_a_task_can_name_it_and_its_process_serves_both(serve, portrait, speech, tmp_path):
    service = serve(GREENROOM_WAV2LIP_CHECKPOINT=str(save_small(tmp_path / "small.pth")))
    ours = service.post(portrait, speech(0.5))
    theirs = service.post(portrait, speech(0.5), renderer="wav2lip", options={"chin": 0.1})
    ended = service.until_ended(theirs["id"])
    assert ended["status"] == "SUCCEEDED", ended["error"]
    assert ended["served_by"] == "wav2lip"
    assert abs(ended["output"]["duration_s"] - 0.5) <= 0.04
    assert service.until_ended(ours["id"])["served_by"] == "warp"


def test_without_a_checkpoint_a_request_for_it_is_told_why(serve, portrait, speech):
    service = serve()
    files = {
        "source": ("a.png", portrait.read_bytes()),
        "audio": ("a.wav", speech(0.5).read_bytes()),
        "request": (None, json.dumps({"renderer": "wav2lip"}), "application/json"),
    }
    answer = service.http.post("/generate", files=files)
    assert answer.status_code == 422
    problem = answer.json()
    assert (problem["field"], problem["reason"]) == ("renderer", "unknown_renderer")
    assert "no checkpoint is configured (setting `wav2lip_checkpoint`" in problem["detail"]


def test_a_checkpoint_of_another_network_fails_the_task_and_names_the_weights(serve, portrait, speech, tmp_path):
    torch.save({"state_dict": {"binary_pred.0.weight": torch.zeros(1)}}, tmp_path / "disc.pth")
    service = serve(GREENROOM_WAV2LIP_CHECKPOINT=str(tmp_path / "disc.pth"), GREENROOM_BACKOFF_CAP_S="0.01")
    ended = service.until_ended(service.post(portrait, speech(0.5), renderer="wav2lip")["id"])
    assert ended["status"] == "FAILED"
    assert "disc.pth is the checkpoint of another network" in ended["error"]["message"]
    assert "binary_pred.0.weight" in ended["error"]["message"]
    assert "discriminator" in ended["error"]["hint"]
    again = service.until_ended(service.post(portrait, speech(0.5))["id"])
    assert again["status"] == "SUCCEEDED", "the process is as good as before"


def test_a_service_whose_own_renderer_lacks_its_checkpoint_does_not_start(tmp_path):
    ended = start(tmp_path, GREENROOM_TIER_RENDERER="wav2lip", GREENROOM_WAV2LIP_CHECKPOINT=str(tmp_path / "no.pth"))
    assert ended.returncode == 1
    assert "no.pth is not there" in ended.stderr
