"""Where the kernel's count of memory kills is found."""

from __future__ import annotations

from app.health.oom import OomCounter, rose


def test_a_version_2_cgroup(tmp_path):
    folder = tmp_path / "app.slice"
    folder.mkdir()
    (folder / "memory.events").write_text("low 0\nhigh 3\noom 2\noom_kill 2\n")
    assert OomCounter(tmp_path, "0::/app.slice\n").read() == 2


def test_a_version_1_cgroup(tmp_path):
    folder = tmp_path / "memory" / "box"
    folder.mkdir(parents=True)
    (folder / "memory.oom_control").write_text("oom_kill_disable 0\nunder_oom 0\noom_kill 5\n")
    counter = OomCounter(tmp_path, "4:memory:/box\n0::/\n")
    assert counter.read() == 5
    (folder / "memory.oom_control").write_text("oom_kill 6\n")
    assert rose(5, counter.read())


def test_this_machine_has_a_counter():
    assert OomCounter().read() is not None


def test_an_unknown_count_never_rose():
    assert not rose(None, 3)
    assert not rose(3, None)
    assert not rose(3, 3)
