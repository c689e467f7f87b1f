"""The node's identity: it survives a restart and is never shared."""

from __future__ import annotations

import subprocess
import sys

from app.worker.node import Node


def test_a_restarted_node_is_the_same_node(tmp_path):
    first = Node(tmp_path)
    first.release()
    assert Node(tmp_path).id == first.id


def test_a_second_service_on_the_same_data_is_another_node(tmp_path):
    first, second = Node(tmp_path), Node(tmp_path)
    assert first.id != second.id
    first.release()
    assert Node(tmp_path).id == first.id


def test_a_node_knows_which_others_are_gone(tmp_path):
    mine, other, gone = Node(tmp_path), Node(tmp_path), Node(tmp_path)
    gone.release()
    assert list(mine.dead()) == [gone.id]
    assert Node(tmp_path).id == gone.id, "its lock was given back"
    assert other.id not in list(mine.dead())


def test_a_killed_process_frees_its_identity(tmp_path):
    script = (
        "import os, signal, sys; from pathlib import Path; from app.worker.node import Node;"
        "print(Node(Path(sys.argv[1])).id, flush=True); os.kill(os.getpid(), signal.SIGKILL)"
    )
    died = subprocess.run([sys.executable, "-c", script, str(tmp_path)], capture_output=True, text=True, timeout=60)
    assert died.returncode == -9
    assert Node(tmp_path).id == died.stdout.strip()


def test_machines_that_share_a_folder_never_take_each_others_identity_or_remains(tmp_path):
    """Also where the network file system tells one machine nothing of another's locks."""
    mine, gone_here = Node(tmp_path, "one"), Node(tmp_path, "one")
    elsewhere = Node(tmp_path, "two")
    gone_here.release()
    elsewhere.release()
    assert list(mine.dead()) == [gone_here.id]
    assert Node(tmp_path, "one").id == gone_here.id
    assert Node(tmp_path, "two").id == elsewhere.id
    assert Node(tmp_path, "three").id not in (mine.id, gone_here.id, elsewhere.id)
