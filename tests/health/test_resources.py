"""What host, workers and GPUs use, with and without the limits of a container."""

from __future__ import annotations

import os
from pathlib import Path
from types import SimpleNamespace
from typing import ClassVar

import psutil
import pynvml
import pytest

from app.health.cgroup import Cgroup, CpuUse, MemoryUse
from app.health.gpu import GpuReader
from app.health.resources import ResourceReader

MIB = 1024**2


def written(root: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


def reader(cgroup: Cgroup) -> ResourceReader:
    return ResourceReader(disk_free=lambda: 123, gpus=GpuReader(), cgroup=cgroup)


class TestContainer:
    V2: ClassVar = {
        "memory.max": f"{512 * MIB}\n",
        "memory.current": f"{400 * MIB}\n",
        "memory.stat": f"anon 1\ninactive_file {100 * MIB}\n",
        "cpu.max": "150000 100000\n",
        "cpu.stat": "usage_usec 2500000\nuser_usec 1\n",
    }
    V1: ClassVar = {
        "memory/memory.limit_in_bytes": f"{512 * MIB}\n",
        "memory/memory.usage_in_bytes": f"{400 * MIB}\n",
        "memory/memory.stat": f"inactive_file 1\ntotal_inactive_file {100 * MIB}\n",
        "cpu/cpu.cfs_quota_us": "150000\n",
        "cpu/cpu.cfs_period_us": "100000\n",
        "cpuacct/cpuacct.usage": "2500000000\n",
    }
    V1_MEMBER = "4:memory:/docker/abc\n2:cpuacct:/docker/abc\n1:cpu:/docker/abc\n"

    @pytest.mark.parametrize(("files", "membership"), [(V2, "0::/\n"), (V1, V1_MEMBER)])
    def test_its_limits_are_read(self, files: dict[str, str], membership: str, tmp_path: Path) -> None:  # R0.12
        cgroup = Cgroup(written(tmp_path, files), membership)
        assert cgroup.memory() == MemoryUse(512 * MIB, 300 * MIB)
        assert cgroup.cpu() == CpuUse(1.5, 2.5)

    def test_the_limit_of_a_group_above_counts_where_it_is_tighter(self, tmp_path: Path) -> None:
        inner = {f"pod/box/{name}": text for name, text in self.V2.items()}
        outer = {"pod/memory.max": f"{450 * MIB}", "pod/memory.current": f"{440 * MIB}", "pod/memory.stat": ""}
        cgroup = Cgroup(written(tmp_path, inner | outer), "0::/pod/box\n")
        assert cgroup.memory() == MemoryUse(450 * MIB, 440 * MIB)

    @pytest.mark.parametrize(
        ("files", "membership"),
        [
            ({}, ""),
            ({"memory.max": "max\n", "memory.current": "5\n", "cpu.max": "max 100000\n"}, "0::/\n"),
            (
                {"memory/memory.limit_in_bytes": "9223372036854771712", "memory/memory.usage_in_bytes": "5",
                 "cpu/cpu.cfs_quota_us": "-1", "cpu/cpu.cfs_period_us": "100000", "cpuacct/cpuacct.usage": "1"},
                "4:memory:/\n2:cpuacct:/\n1:cpu:/\n",
            ),
        ],
    )  # fmt: skip
    def test_where_there_is_none_none_is_made_up(self, files: dict[str, str], membership: str, tmp_path: Path) -> None:
        cgroup = Cgroup(written(tmp_path, files), membership)
        assert (cgroup.memory(), cgroup.cpu()) == (None, None)

    def test_the_host_is_what_the_container_may_use(self, tmp_path: Path) -> None:  # R0.12
        host = reader(Cgroup(written(tmp_path, self.V2), "0::/\n")).read([]).host
        assert (host.memory_total, host.memory_available, host.limited) == (512 * MIB, 212 * MIB, True)
        assert host.memory_share == 1 - 212 / 512


def test_the_host_and_the_processes_of_slots_are_read(tmp_path: Path) -> None:  # R0.12
    reading = reader(Cgroup(tmp_path, ""))
    first = reading.read([("cpu-0", os.getpid()), ("cpu-1", 2**22 + 1)])
    [worker] = first.workers
    assert (worker.slot, worker.pid) == ("cpu-0", os.getpid())
    assert abs(worker.memory - psutil.Process().memory_info().rss) < 64 * MIB
    assert worker.cpu_s > 0
    assert worker.threads >= 1
    assert worker.descriptors >= 3
    host = first.host
    assert host.cpu_share is None
    assert 0 < host.memory_available <= host.memory_total == psutil.virtual_memory().total
    assert (host.disk_free, host.limited) == (123, False)
    share = reading.read([]).host.cpu_share
    assert share is not None
    assert 0 <= share <= 1


class TestGpus:
    def test_where_there_is_no_nvml_it_says_so(self, monkeypatch: pytest.MonkeyPatch) -> None:  # R0.12
        def missing() -> None:
            raise pynvml.NVMLError_LibraryNotFound

        monkeypatch.setattr(pynvml, "nvmlInit", missing)
        gpus, note = GpuReader().read()
        assert gpus == []
        assert note.startswith("NVML does not answer: ")

    def test_each_device_is_read_as_far_as_it_tells(self, monkeypatch: pytest.MonkeyPatch) -> None:  # R0.12
        def unsupported(*_: object) -> None:
            raise pynvml.NVMLError_NotSupported

        answers = {
            "nvmlInit": lambda: None,
            "nvmlShutdown": lambda: None,
            "nvmlDeviceGetCount": lambda: 1,
            "nvmlDeviceGetHandleByIndex": lambda index: index,
            "nvmlDeviceGetMemoryInfo": lambda handle: SimpleNamespace(total=80 * MIB, used=20 * MIB),
            "nvmlDeviceGetUtilizationRates": lambda handle: SimpleNamespace(gpu=35),
            "nvmlDeviceGetTemperature": unsupported,
            "nvmlDeviceGetUUID": lambda handle: "GPU-1",
            "nvmlDeviceGetName": lambda handle: "Test",
        }
        for name, answer in answers.items():
            monkeypatch.setattr(pynvml, name, answer)
        reading = GpuReader()
        [gpu], note = reading.read()
        assert (gpu.device, gpu.index, gpu.name, note) == ("GPU-1", 0, "Test", "")
        assert (gpu.memory_total, gpu.memory_used, gpu.busy_share) == (80 * MIB, 20 * MIB, 0.35)
        assert gpu.temperature_c is None

        def lost(_handle: object) -> None:
            raise pynvml.NVMLError_GpuIsLost

        monkeypatch.setattr(pynvml, "nvmlDeviceGetMemoryInfo", lost)
        gpus, note = reading.read()
        assert gpus == []
        assert note.startswith("device 0 does not answer: ")
        assert "lost" in note.lower()
