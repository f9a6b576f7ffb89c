"""This machine: what it has, and what others take of it just now."""

import os
import platform
import time
from dataclasses import dataclass
from pathlib import Path

from workers import devices

GPUS = Path("/proc/driver/nvidia/gpus")


@dataclass(frozen=True)
class Machine:
    """Cores that this process may use, bytes of memory, GPUs by name; `busy`: cores at work before we began, None where
    the system does not tell."""

    processor: str
    cores: int
    memory: int
    memory_free: int
    gpus: tuple[str, ...]
    busy: float | None


def look(*, seconds: float = 1.0) -> Machine:
    """Look at this machine, for `seconds` at what it is doing."""
    busy = _busy(seconds)
    return Machine(
        processor=_field(Path("/proc/cpuinfo"), "model name") or platform.processor() or platform.machine(),
        cores=len(os.sched_getaffinity(0)),
        memory=_kilobytes("MemTotal"),
        memory_free=_kilobytes("MemAvailable"),
        gpus=tuple(_gpus()),
        busy=busy,
    )


def _gpus() -> list[str]:
    found = [device for device in devices.devices() if device != "cpu"]
    names = [_field(folder / "information", "Model") for folder in sorted(GPUS.glob("*"))] if found else []
    return [name or "GPU" for name in names]


def _busy(seconds: float) -> float | None:
    """Cores of the whole machine that are at work."""
    busy, idle = _ticks()
    time.sleep(seconds)
    busy_then, idle_then = _ticks()
    passed = busy_then - busy + idle_then - idle
    return (busy_then - busy) / passed * (os.cpu_count() or 1) if passed > 0 else None


def _ticks() -> tuple[int, int]:
    """Processor time that was worked and waited, since the machine started (proc_stat(5))."""
    try:
        line = Path("/proc/stat").read_text().splitlines()[0]
    except (OSError, IndexError):
        return 0, 0
    user, nice, system, idle, iowait, irq, softirq, steal = (int(word) for word in line.split()[1:9])
    return user + nice + system + irq + softirq + steal, idle + iowait


def _kilobytes(name: str) -> int:
    words = _field(Path("/proc/meminfo"), name).split()
    return int(words[0]) * 1024 if words else 0


def _field(file: Path, name: str) -> str:
    """What a file of "name: value" lines says first; empty where it does not."""
    try:
        lines = file.read_text("utf-8", "replace").splitlines()
    except OSError:
        return ""
    return next((line.partition(":")[2].strip() for line in lines if line.partition(":")[0].strip() == name), "")
