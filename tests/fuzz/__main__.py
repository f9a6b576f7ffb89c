"""`python -m fuzz headers|dicom|decoders --seconds N` (from tests/)."""

import argparse
import importlib.util
import os
import platform
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import cv2
import numpy as np

PROJECT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(PROJECT))

from corpus import SCORED, Draw, kinds  # noqa: E402
from corpus.dicoms import STREAM_SYNTAXES, stream_of  # noqa: E402
from corpus.running import decoders_of, peak_mb, pool  # noqa: E402

from db.errors import UnreadableImage  # noqa: E402
from workers.decoding import Source  # noqa: E402
from workers.images import reader_for  # noqa: E402
from workers.preprocessing import Evidence  # noqa: E402

MOST_SEED_BYTES = 60_000
MEMORY_MB, SECONDS = 1024, 5


def main() -> int:
    """0 when nothing broke the contract."""
    parser = argparse.ArgumentParser(prog="python -m fuzz", description=__doc__)
    parser.add_argument("target", choices=["headers", "dicom", "decoders"])
    parser.add_argument("--seconds", type=int, default=60)
    parser.add_argument("--seed", type=int, default=int(time.time()) % 2**31)
    parser.add_argument("--keep", type=Path, default=Path(tempfile.gettempdir()) / "nightread-fuzz")
    asked = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))  # clear away when told to stop
    if asked.target != "decoders" and importlib.util.find_spec("atheris") is None:
        print(f"skipped: atheris has no wheel for Python {platform.python_version()} on {platform.machine()}")
        return 0
    asked.keep.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="nr-fuzz-") as folder:
        run = through_decoders if asked.target == "decoders" else in_process
        return run(asked.target, asked.seconds, asked.seed, Path(folder), asked.keep)


def in_process(target: str, seconds: int, seed: int, folder: Path, keep: Path) -> int:
    """libFuzzer on our parsers; a file that breaks the contract is kept."""
    for number, data in enumerate(seeds(target)):
        (folder / f"{number:04}").write_bytes(data)
    command = [sys.executable, "-m", "fuzz.parsers", target, str(folder), f"-max_total_time={seconds}"]
    bounds = [f"-rss_limit_mb={MEMORY_MB}", f"-timeout={4 * SECONDS}", f"-max_len={MOST_SEED_BYTES}", f"-seed={seed}"]
    kept = [f"-artifact_prefix={keep}/{target}-", "-print_final_stats=1", "-verbosity=0"]
    done = subprocess.run(
        [*command, *bounds, *kept], cwd=PROJECT / "tests", stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False
    )
    said = done.stdout.decode(errors="replace")
    runs = re.search(r"number_of_executed_units:\s*(\d+)", said)
    memory = re.search(r"peak_rss_mb:\s*(\d+)", said)
    finding = f"a finding, kept in {keep}" if done.returncode else "no finding"
    print(
        f"{target}: {int(runs[1]) if runs else 0:,} runs in {seconds} s from {number + 1} seeds, peak memory "
        f"{memory[1] if memory else '?'} MiB, {finding}"
    )
    if done.returncode != 0:
        print(said[-6000:])
    return done.returncode


def seeds(target: str) -> list[bytes]:
    """Small files of the corpus that the target reads, one of each kind; for DICOM bare streams too."""
    made = [kind.make(Draw(seed)).data for seed, kind in enumerate(kinds().values(), 400)]
    wanted = [data for data in made if _is_for(target, data)]
    if target == "dicom":
        wanted += [stream_of(Draw(seed).grey, syntax) for seed, syntax in enumerate(STREAM_SYNTAXES)]
    return [data[:MOST_SEED_BYTES] for data in wanted if len(data) <= 2 * MOST_SEED_BYTES]


def _is_for(target: str, data: bytes) -> bool:
    reader = reader_for(data[:132])
    return reader is not None and (reader.name == "dicom") == (target == "dicom")


def mutated(data: bytes, other: bytes, rng: np.random.Generator) -> bytes:
    """A few changes: bits, bytes, numbers at their ends, blocks lost, doubled, zeroed, taken from another file."""
    changed = bytearray(data)
    for _ in range(int(rng.integers(1, 6))):
        if len(changed) < 8:
            break
        # Half of all changes near the beginning, where the headers are.
        at = int(rng.integers(min(len(changed), 700 if rng.random() < 0.5 else len(changed)) - 4))
        size = int(2 ** rng.uniform(0, 10))
        match int(rng.integers(8)):
            case 0:
                changed[at] ^= 1 << int(rng.integers(8))
            case 1:
                changed[at] = int(rng.integers(256))
            case 2:
                changed[at : at + 4] = int(rng.choice([0, 1, 0x7FFFFFFF, 0xFFFFFFFF, 0xFFFF])).to_bytes(4, "little")
            case 3:
                del changed[at : at + size]
            case 4:
                changed[at:at] = changed[at : at + size]
            case 5:
                changed[at : at + size] = bytes(len(changed[at : at + size]))
            case 6:
                begin = int(rng.integers(max(len(other) - size, 1)))
                changed[at : at + size] = other[begin : begin + size]
            case _:
                del changed[max(at, len(changed) // 4) :]
    return bytes(changed)


def through_decoders(target: str, seconds: int, seed: int, folder: Path, keep: Path) -> int:
    """Mutated files through a real decoder. Its death costs a file: counted, and the file kept."""
    rng = np.random.default_rng(seed)
    sound = [data for data in _picture_files() if len(data) <= 4 * MOST_SEED_BYTES]
    runs = scored = deaths = broken = slow = 0
    peak, process, source = 0.0, 0, Source(str(folder), "file")
    others = decoders_of(os.getpid())
    until = time.monotonic() + seconds
    with pool() as decoders:
        while time.monotonic() < until:
            data = mutated(*(sound[int(n)] for n in rng.integers(len(sound), size=2)), rng)
            (folder / "file").write_bytes(data)
            started = time.process_time(), time.monotonic()
            try:
                _check_copy(decoders.review_copy(source), decoders.prepare(source, 64).evidence)
                scored += 1
            except UnreadableImage:
                pass
            except Exception as error:  # noqa: BLE001 (that is what is looked for)
                broken += 1
                shutil.copy(folder / "file", keep / f"broken-{seed}-{runs}")
                print(f"{type(error).__name__}: {error}")
            if time.monotonic() - started[1] > 4 * SECONDS:
                slow += 1
                shutil.copy(folder / "file", keep / f"slow-{seed}-{runs}")
            runs += 1
            found = peak_mb(process) if process else 0.0
            if not found and (now := decoders_of(os.getpid()) - others):
                if process:
                    deaths += 1
                    shutil.copy(folder / "file", keep / f"death-{seed}-{runs}")
                (process,) = now
                found = peak_mb(process)
            peak = max(peak, found)
    print(
        f"decoders: {runs:,} mutated files in {seconds} s (seed {seed}), {scored:,} scored, {deaths} cost a decoder, "
        f"{slow} took longer than {4 * SECONDS} s, peak memory {peak:.0f} MiB, {broken} broke the contract"
    )
    return int(bool(not runs or broken or slow or peak > MEMORY_MB))


def _check_copy(copy: bytes, evidence: Evidence) -> None:
    """Raise AssertionError where a readers' copy and what is said of it do not belong together."""
    samples = cv2.imdecode(np.frombuffer(copy, np.uint8), cv2.IMREAD_UNCHANGED)
    display = evidence.display
    assert display is not None
    assert samples.shape == (evidence.height, evidence.width)
    assert samples.itemsize == (1 if display["bits"] <= 8 else 2)
    assert samples.max() < 2 ** display["bits"]


def _picture_files() -> list[bytes]:
    """Files that score, three times each, and one of each kind that does not."""
    every = list(kinds().values())
    first = [kind.make(Draw(seed)) for seed, kind in enumerate(every, 300)]
    scored = [kind for kind, file in zip(every, first, strict=True) if file.reason is SCORED]
    again = [kind.make(Draw(seed)) for seed, kind in enumerate(scored, 700)]
    return [file.data for file in (*first, *again, *again) if reader_for(file.data[:132]) is not None]


if __name__ == "__main__":
    sys.exit(main())
