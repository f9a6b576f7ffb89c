"""Which devices there are, and one pinned worker process for each."""

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from types import FrameType

RESTART_SECONDS = 5.0
REFUSES = "refuses "  # and a trained model's label: how a worker's heartbeat says that it cannot run that


def devices() -> list[str]:
    """The devices of this machine: every NVIDIA GPU, or the CPU where there is none. Loads no engine."""
    gpus = sorted(Path("/proc/driver/nvidia/gpus").glob("*")) if Path("/proc/driver/nvidia/gpus").is_dir() else []
    return [f"gpu:{number}" for number in range(len(gpus))] or ["cpu"]


def pin(device: str) -> None:
    """Let every process that this one starts see only `device` ("cpu" or "gpu:N"). Raises ValueError."""
    os.environ.update(pinned(device))


def pinned(device: str) -> dict[str, str]:
    """The environment variables by which a process sees only `device` ("cpu" or "gpu:N"). Raises ValueError."""
    kind, _, number = device.partition(":")
    if device != "cpu" and not (kind == "gpu" and number.isdigit()):
        raise ValueError(f"no device {device!r}: say cpu, gpu:0, gpu:1 ...")
    # NumPy's threads spin after each product and take the cores from the engine (measured: 2 ms an image).
    threads = os.environ.get("OPENBLAS_NUM_THREADS", "1")
    return {"CUDA_VISIBLE_DEVICES": number if kind == "gpu" else "-1", "OPENBLAS_NUM_THREADS": threads}


def worker_name(device: str) -> str:
    """The name under which this machine's worker of a device writes its heartbeat."""
    return f"{socket.gethostname()}:{device}"


def worker_command(device: str) -> list[str]:
    """How to start the worker of one device from any folder."""
    return [sys.executable, "-m", "producer", "worker", "--device", device]


def run_all() -> int:
    """One worker for each device until SIGTERM or SIGINT; one that dies is started again."""
    running = {device: subprocess.Popen(worker_command(device)) for device in devices()}
    stopping = False

    def stop(number: int, frame: FrameType | None) -> None:
        nonlocal stopping
        stopping = True
        for process in running.values():
            process.terminate()

    signal.signal(signal.SIGTERM, stop)
    signal.signal(signal.SIGINT, stop)
    while not stopping:
        time.sleep(1.0)
        for device, process in running.items():
            if process.poll() is not None and not stopping:
                time.sleep(RESTART_SECONDS)
                running[device] = subprocess.Popen(worker_command(device))
    return max(process.wait() for process in running.values())
