"""100,000 files in one folder: what the producer and the queue server keep in memory. Exits 1 beyond the limits.

The files are tiny and each its own content: the walk, the pages and the rings are what is measured, not reading. The
producer is `nightread submit` as its users run it; its peak is what the kernel says (VmHWM of /proc/PID/status, read
until it ends), the queue server's what that says (`used_memory_peak`). Nothing scores, so every chunk waits."""

import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import redis

FILES = int(os.environ.get("BENCH_FILES", "100000"))
PRODUCER_MB, QUEUE_MB = 300.0, 50.0


def write_files(folder: Path) -> None:
    """FILES files that begin as a PNG does, all in one folder."""
    folder.mkdir()
    for number in range(FILES):
        (folder / f"{number:06d}.png").write_bytes(b"\x89PNG\r\n\x1a\n" + number.to_bytes(4, "big"))


def peak_mb(process: "subprocess.Popen[str]") -> float:
    """The most resident memory of a process, in MB, once it ended."""
    most = 0.0
    while process.poll() is None:
        try:
            status = Path(f"/proc/{process.pid}/status").read_text()
        except OSError:
            break
        lines = [line for line in status.splitlines() if line.startswith("VmHWM:")]
        most = max([most, *(float(line.split()[1]) / 1000 for line in lines)])
        time.sleep(0.05)
    return most


def main() -> int:
    with tempfile.TemporaryDirectory(prefix="nrc-") as temporary:
        home, folder = Path(temporary) / "home", Path(temporary) / "files"
        home.mkdir(mode=0o700)
        os.environ["NIGHTREAD_HOME"] = str(home)
        write_files(folder)
        from db.settings import settings
        from db.store.connection import database
        from deploy import home as house
        from deploy import queue_server
        from workers import queue

        house.make_ready(database())
        with queue_server.serving(settings()):
            command = [sys.executable, "-m", "producer", "submit", str(folder), "--json"]
            started = time.monotonic()
            with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as producer:
                producer_mb = peak_mb(producer)
                said = json.loads(producer.stdout.read() if producer.stdout else "")
            seconds = time.monotonic() - started
            server = redis.Redis(unix_socket_path=str(settings().queue_socket), socket_timeout=10)
            queue_mb, rings = server.info("memory")["used_memory_peak"] / 1e6, queue.length()
    print(f"crowd: {said['found']:,} files in one folder registered in {seconds:.0f} s, {said['waiting']:,} wait")
    print(f"crowd: producer {producer_mb:.0f} MB at most (limit {PRODUCER_MB:.0f})")
    print(f"crowd: queue server {queue_mb:.1f} MB at most (limit {QUEUE_MB:.0f}), {rings} rings")
    is_whole = said["found"] == said["waiting"] == FILES and 0 < rings <= queue.MOST_RINGS
    return 0 if is_whole and 0 < producer_mb < PRODUCER_MB and queue_mb < QUEUE_MB else 1


if __name__ == "__main__":
    sys.exit(main())
