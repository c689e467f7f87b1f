"""The disk's watermark (section 8 of the design, R3.12)."""

from __future__ import annotations

from pathlib import Path

from app.cleanup.disk import FRESH_S, DiskWatch, free_bytes


class Disk:
    """A disk whose free space a test sets, and a clock."""

    def __init__(self) -> None:
        self.free: int | None = 1000
        self.measured = 0
        self.now = 0.0

    def measure(self, _folder: Path) -> int:
        self.measured += 1
        if self.free is None:
            raise OSError("no such device")
        return self.free

    def watch(self, low: int) -> DiskWatch:
        return DiskWatch(Path("/"), low, measure=self.measure, clock=lambda: self.now)


def test_it_is_low_below_the_watermark_and_well_again_above_it() -> None:  # R3.12
    disk = Disk()
    watch = disk.watch(1000)
    told = []
    for disk.free in (1000, 999, 0, 1000):
        told.append(watch.is_low())
        disk.now += FRESH_S
    assert told == [False, True, True, False]


def test_the_disk_is_measured_once_a_second_however_many_ask() -> None:
    disk = Disk()
    watch = disk.watch(1000)
    assert not any(watch.is_low() for _ in range(100))
    disk.free = 0
    disk.now += FRESH_S / 2
    assert not watch.is_low()
    disk.now += FRESH_S / 2
    assert watch.is_low()
    assert disk.measured == 2


def test_a_disk_that_does_not_tell_and_a_watermark_of_zero_refuse_nothing() -> None:
    disk = Disk()
    disk.free = None
    watch = disk.watch(1000)
    assert (watch.free(), watch.is_low()) == (None, False)
    disk.free, disk.now = 0, 10.0
    assert not disk.watch(0).is_low()


def test_a_real_disk_is_measured(tmp_path: Path) -> None:
    assert free_bytes(tmp_path) > 0
    watch = DiskWatch(tmp_path, 2**62)
    assert watch.is_low()
    assert (watch.free() or 0) > 0
