"""The whole system over what others would run, on the same new files in the same round, each at full rate with nothing
else busy; scans a second over images a second.

    python tests/bench/versus.py --set P --precision int8 --peers keras,one,ray,ray-staged,celery
    python tests/bench/versus.py --set K --precision int8 --decode reduced --peers pydicom

keras: a folder script with Keras on TensorFlow, float32, batches of 32. one: the same OpenVINO model at the same
precision in a folder script, one image at a time. ray, ray-staged: the same model in Ray Data, one actor a core that
does all, or tasks that read before one actor that infers. celery: the same model, one Celery task an image, with the
commands that its queue server was sent a scan, over ours. pydicom: `one`, with DICOM read by pydicom and pylibjpeg.
Peers do not hash, keep no evidence and no gate. `the ideal over` a peer is what a system without any cost of its own
would reach with our engine and preparation, each measured alone: where a goal lies above that, none reaches it here.
"""

import argparse
import shutil
import statistics
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import MappingProxyType
from typing import Any

import alone
import ratio
import redis
import rivals
import sets
from house import House, house
from ratio import say

from db.settings import Settings
from deploy import queue_server

# Script and its arguments after the precision; the share of a round's files that it needs to run as long as we do.
PEERS: Mapping[str, tuple[str, tuple[str, ...], float]] = MappingProxyType(
    {
        "keras": ("keras_folder.py", (), 0.2),
        "one": ("one_at_a_time.py", (), 0.5),
        "pydicom": ("one_at_a_time.py", ("pydicom",), 1.0),
        "ray": ("ray_data.py", ("fused",), 1.0),
        "ray-staged": ("ray_data.py", ("staged",), 1.0),
        "celery": ("celery_task.py", (), 0.25),
    }
)
KERAS_GOALS = MappingProxyType({"float32": ">= 2.2", "bfloat16": ">= 4.5", "int8": ">= 8"})
GOALS = MappingProxyType({"ray": ">= 1.2", "ray-staged": ">= 1.2", "celery": ">= 1.4"})


def commands(socket: str) -> int:
    """Commands that a queue server was sent so far."""
    with redis.Redis(unix_socket_path=socket) as client:
        said: Any = client.info("commandstats")
    return sum(int(one["calls"]) for one in said.values())


@contextmanager
def started(name: str, precision: str, folder: Path) -> Iterator[tuple[rivals.Peer, Callable[[], int]]]:
    """A peer that is ready, and what counts its queue server's commands."""
    script, words, _ = PEERS[name]
    asked = precision if precision != "two_stage" else "int8"
    with ExitStack() as stack:
        environment, count = {}, lambda: 0
        if name == "celery":
            queue = Settings(home=folder / "celery", queue_url="")
            url = stack.enter_context(queue_server.serving(queue))
            environment = {"BROKER": url, "ROWS": str(folder / "celery.db")}
            count = lambda: commands(str(queue.queue_socket))  # noqa: E731
        yield stack.enter_context(rivals.peer(script, asked, *words, environment=environment)), count


def compare(name: str, precision: str, peers: list[str], count: int, rounds: int, decode: str) -> None:
    """Record one set's ratio over each peer."""
    say(f"versus {name} {precision}: {', '.join(peers)}; {rounds} rounds of {count} files")
    if decode:
        alone.codecs(decode)  # raises ModelRefused where the shipped model's report allows none, before anybody waits
    found: dict[str, list[tuple[float, float]]] = {}
    saved: list[float] = []
    given = {"decode": decode} if decode else {}
    with tempfile.TemporaryDirectory(prefix="nrv-") as temporary, ExitStack() as stack:
        folder = Path(temporary)
        at = stack.enter_context(house(folder / "h", precision=precision, **given))
        scorer = alone.scorer_at(precision)
        ready = {peer: stack.enter_context(started(peer, precision, folder)) for peer in peers}
        sets.write_set(name, folder / "warm", max(16, count // 10), seed=99)
        at.night(folder / "warm")
        for peer, _ in ready.values():
            peer.screen(folder / "warm", 32)
        for number in range(rounds):
            scans = folder / f"round{number}"
            sets.write_set(name, scans, count, seed=number)
            ours, sent = _ours(at, scans)
            most = alone.ideal(scorer, sorted(scans.iterdir()))
            for peer, (process, count_commands) in ready.items():
                before = count_commands()
                limit = max(16, int(count * PEERS[peer][2]))
                said = process.screen(scans, limit)
                theirs = said["images"] / said["seconds"]
                found.setdefault(f"whole system over {peer}", []).append((ours, theirs))
                found.setdefault(f"the ideal over {peer}", []).append((most, theirs))
                if "rate_with_start" in said:
                    found.setdefault(f"whole system over {peer} with its start", []).append(
                        (ours, said["rate_with_start"])
                    )
                say(f"  {name} {precision}: system {ours:.1f}/s, {peer} {theirs:.1f}/s, ratio {ours / theirs:.2f}")
                if peer == "celery":
                    saved.append((count_commands() - before) / limit / sent)
            shutil.rmtree(scans)
    for what, pairs in found.items():
        write(name, precision, what, pairs, decode)
    if saved:
        note = "from submission to the last outcome, what waits and beats included"
        ratio.record(f"{name} at {precision}: queue commands a scan of Celery over ours", ">= 50", saved, note=note)


def _ours(at: House, scans: Path) -> tuple[float, float]:
    """Our rate, and the commands a scan that our queue server was sent."""
    socket = str(at.db.config.queue_socket)
    before = commands(socket)
    night = at.night(scans)
    return night.rate, (commands(socket) - before) / night.scored


def write(name: str, precision: str, what: str, pairs: list[tuple[float, float]], decode: str) -> None:
    """Record one ratio, of what over which peer."""
    peer = what.split(" over ")[1].split()[0]
    goal = KERAS_GOALS.get(precision, "") if peer == "keras" and name == "P" else GOALS.get(peer, "")
    ours, theirs = (statistics.median(one) for one in zip(*pairs, strict=True))
    decoded = f", {decode} decoding" if decode else ""
    ratio.record(
        f"{name} at {precision}{decoded}: {what}",
        goal if what.startswith("whole") else "",
        [mine / other for mine, other in pairs],
        note=f"{ours:.1f} scans/s over {theirs:.1f} images/s",
    )


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--set", default="P", help="letters of sets: PJNDK")
    parser.add_argument("--precision", default="int8", help="float32, bfloat16, int8, two_stage; several by commas")
    parser.add_argument("--peers", default="keras", help=", ".join(PEERS))
    parser.add_argument("--decode", default="", help="the setting DECODE: exact or reduced (default: as set)")
    parser.add_argument("--count", type=int, default=0, help="files a round (default: what takes some 15 s)")
    parser.add_argument("--rounds", type=int, default=ratio.ROUNDS)
    given = parser.parse_args()
    for name in given.set:
        for precision in given.precision.split(","):
            share = {"float32": 0.4, "bfloat16": 0.7}.get(precision, 1.0) if name != "K" else 0.7
            # Commands a scan are those of a night, not of a minute in which most of them are a waiting worker's.
            share *= 3 if "celery" in given.peers else 1
            count = given.count or sets.scaled(name, share)
            compare(name, precision, given.peers.split(","), count, given.rounds, given.decode)


if __name__ == "__main__":
    main()
