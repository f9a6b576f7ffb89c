"""`make bench`: every bench in turn, each into its own rows of RESULTS.md; 1 where one failed.

BENCH_SIZE (1) scales how much a round does, BENCH_ROUNDS (5) says how many there are: at 0.1 and 3 all of it takes some
forty minutes on 2 cores, as it stands some four hours. Words select: `everything.py night.py growth.py` runs those.
Peers run in .bench-venv, made here where it is missing (uv, PyPI).
"""

import os
import subprocess
import sys
import time
from pathlib import Path

import rivals
from ratio import say

HERE = Path(__file__).parent
PRECISIONS = "int8,two_stage,bfloat16,float32"
BENCHES = (
    f"night.py --set PNJD --precision {PRECISIONS}",
    "night.py --set K --precision int8",
    "versus.py --set P --precision float32,bfloat16,int8 --peers keras,one",
    "versus.py --set P --precision int8 --peers celery",
    "versus.py --set PJ --precision int8 --peers ray",
    "versus.py --set PJ --precision int8 --peers ray-staged",
    "versus.py --set K --precision int8 --peers pydicom --decode exact",
    "enqueue.py",
    "growth.py --precision int8 --rounds 3",
    "pairs.py two-stage",
    "pairs.py workers",
    "pairs.py cache --set P",
    "pairs.py cache --set K",
    f"breakdown.py --set PJND --precision {PRECISIONS} --pairs two-stage,cache,workers --write",
    "plan.py --set P",
    "intake.py",
    "web.py",
    "worklist.py",
    "crowd.py",
)


def make_peers() -> None:
    """The peers' environment, from the lock alone."""
    lock = HERE / "peers.lock"
    stamp = rivals.PYTHON.parents[1] / ".installed"
    if stamp.exists() and stamp.stat().st_mtime >= lock.stat().st_mtime:
        return
    folder = rivals.PYTHON.parents[1]
    say(f"making {folder.name} from {lock.name} (some 2 GB are downloaded the first time)")
    subprocess.run(["uv", "venv", "--quiet", "--clear", "--python", sys.executable, folder], check=True)
    words = ["uv", "pip", "install", "--quiet", "--require-hashes", "--python", rivals.PYTHON, "-r", lock]
    subprocess.run(words, check=True)
    stamp.touch()


def main() -> int:
    wanted = [bench for bench in BENCHES if not sys.argv[1:] or bench.split()[0] in sys.argv[1:]]
    if any(bench.startswith("versus.py") for bench in wanted):
        make_peers()
    failed = []
    for bench in wanted:
        say(f"--- {bench}")
        started = time.monotonic()
        words = bench.split()
        if subprocess.run([sys.executable, HERE / words[0], *words[1:]], env=os.environ, check=False).returncode:
            failed.append(bench)
        say(f"--- {time.monotonic() - started:.0f} s")
    for bench in failed:
        say(f"failed: {bench}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
