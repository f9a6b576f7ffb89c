"""The whole system over the ideal: scans a second from submission to the last outcome, through intake, queue, worker,
decoder processes and ledger, over cores / (inference + preparation), both measured alone in the same round.

    python tests/bench/night.py --set P --precision float32

Inference alone is the bare engine over ready pixels, preparation alone a plain loop that reads, hashes, decodes and
prepares the same files, each with every core busy; a second row takes the decoder processes with nothing else
running instead; a third leaves intake out (from the first claim to the last outcome). Two stages are compared with int8
over all and float32 over those that get a second look. What is flagged costs a picture for review, which the ideal does
not count.
"""

import argparse
import hashlib
import shutil
import statistics
import tempfile
from pathlib import Path

import alone
import ratio
import sets
from house import House, house
from ratio import CORES, say

GOAL = ">= 0.95"
SAMPLED = 1600  # images that preparation alone looks at, at most


def one_round(at: House, name: str, folder: Path, bare_of: object, reduce: tuple[str, ...]) -> dict[str, float]:
    """Ideal, night, ideal over one new folder; what each gave."""
    files = sorted(folder.iterdir())[:SAMPLED]
    pixels = alone.pixels_of(files[: max(160, min(len(files), 480))])
    bare = alone.Bare(bare_of, pixels, sets.THRESHOLD)
    hashes = [hashlib.sha256(file.read_bytes()).hexdigest() for file in files]
    inference = [bare.core_seconds()]
    loop, pool = alone.loop_seconds(files, reduce), alone.pool_seconds(files, hashes, reduce)
    night = at.night(folder)
    inference.append(bare.core_seconds())
    engine = statistics.mean(inference)
    say(
        f"  {name}: system {night.rate:.1f}/s (scoring {night.scoring_rate:.1f}/s); core-ms alone: inference "
        f"{engine * 1e3:.2f}, loop {loop * 1e3:.2f}, decoders {pool * 1e3:.2f}; ideal {CORES / (engine + loop):.1f}/s, "
        f"ratio {night.rate * (engine + loop) / CORES:.3f}; {night.seconds:.1f} s, {night.flagged} flagged, "
        f"{night.second_looks} looked at twice"
    )
    return {
        "whole": night.rate * (engine + loop) / CORES,
        "whole over decoders": night.rate * (engine + pool) / CORES,
        "scoring": night.scoring_rate * (engine + loop) / CORES,
        "rate": night.rate,
        "bare": CORES / engine,
        "flagged": night.flagged / night.scored,
        "others": night.others,
        "looks": night.second_looks / night.scored,
    }


def measure(name: str, precision: str, count: int, rounds: int, decode: str) -> None:
    """Record the three figures of one set at one precision."""
    say(f"night {name} {precision}: {rounds} rounds of {count} files")
    with tempfile.TemporaryDirectory(prefix="nrb-") as temporary:
        bare_of, reduce = alone.scorer_at(precision), alone.codecs(decode)
        found: list[dict[str, float]] = []
        with house(Path(temporary) / "h", precision=precision, decode=decode) as at:
            warm = Path(temporary) / "warm"
            sets.write_set(name, warm, max(16, count // 8), seed=99)
            at.night(warm)  # the worker loads its model during this one
            for number in range(rounds):
                folder = Path(temporary) / f"round{number}"
                sets.write_set(name, folder, count, seed=number)
                found.append(one_round(at, name, folder, bare_of, reduce))
                shutil.rmtree(folder)
    both = {key: [one[key] for one in found] for key in found[0]}
    middle = {key: statistics.median(values) for key, values in both.items()}
    note = (
        f"{middle['rate']:.1f} scans/s; bare engine {middle['bare']:.1f}/s; {count} files a round, "
        f"{middle['flagged']:.1%} flagged, {middle['looks']:.1%} looked at twice; others took "
        f"{max(both['others']):.1%} of the machine at most"
    )
    decoded = "" if decode == "auto" else f", {decode} decoding"
    title = f"{name} at {precision}{decoded}: whole system over ideal"
    ratio.record(title, GOAL, both["whole"], note=note)
    ratio.record(f"{title}, decoder processes as preparation", "", both["whole over decoders"])
    ratio.record(f"{title}, from the first claim", "", both["scoring"])


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--set", default="P", help="letters of sets: PJNDK")
    parser.add_argument("--precision", default="float32", help="float32, bfloat16, int8, two_stage; several by commas")
    parser.add_argument("--decode", default="auto", help="the setting DECODE: auto, exact or reduced")
    parser.add_argument("--count", type=int, default=0, help="files a round (default: what takes some 20 s on 2 cores)")
    parser.add_argument("--rounds", type=int, default=ratio.ROUNDS)
    given = parser.parse_args()
    for name in given.set:
        for precision in given.precision.split(","):
            share = {"float32": 0.4, "bfloat16": 0.7}.get(precision, 1.0) if name != "K" else 1.0
            measure(name, precision, given.count or sets.scaled(name, share), given.rounds, given.decode)


if __name__ == "__main__":
    main()
