"""The night run through the real parts: `nightread` as its users run it, the model that ships, real files."""

import ctypes
import json
import os
import signal
import sqlite3
import subprocess
import sys
import time
import urllib.request
from collections import Counter
from pathlib import Path

import builders
import cv2
import numpy as np
import pytest

from db.words import Reason
from deploy.commands import SAMPLES
from workers import images

PATIENCE = 240  # seconds; the machine may be busy


class Nights:
    """One home folder and the command line on it."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.environment = {**os.environ, "NIGHTREAD_HOME": str(home), "NIGHTREAD_WEB_PORT": "0"}
        self.up: subprocess.Popen[str] | None = None
        self.before = None  # called in each command's process before it starts

    def run(self, *arguments, codes=(0,)):
        command = [sys.executable, "-m", "producer", *map(str, arguments)]
        more = {"env": self.environment, "preexec_fn": self.before, "timeout": 600}
        done = subprocess.run(command, capture_output=True, text=True, **more)
        assert done.returncode in codes, done.stderr + done.stdout
        return done

    def json(self, *arguments, codes=(0,)):
        return json.loads(self.run(*arguments, "--json", codes=codes).stdout)

    def start(self):
        command = [sys.executable, "-m", "producer", "up", "--json"]
        self.up = subprocess.Popen(command, env=self.environment, stdout=subprocess.PIPE, text=True)
        shown = ""
        while not shown.rstrip().endswith("}"):
            line = self.up.stdout.readline()
            assert line, "`nightread up` ended"
            shown += line
        self.address = json.loads(shown[shown.index("{") :])["address"]

    def stop(self):
        if self.up is not None:
            self.up.send_signal(signal.SIGINT)
            assert self.up.wait(timeout=90) == 0
            self.up = None

    def until(self, condition, why):
        end = time.monotonic() + PATIENCE
        while not condition():
            assert time.monotonic() < end, f"waited {PATIENCE} s in vain: {why}"
            time.sleep(0.25)

    def until_scored(self, count):
        """Until so many scans have their outcome, asking the tables, which costs the workers nothing."""
        self.until(lambda: self.ask("SELECT count(*) FROM outcomes")[0][0] >= count, f"{count} outcomes")

    def totals(self, batch):
        return self.json("status", batch, codes=(0, 1))["batches"][0]

    def ask(self, question, *values):
        with sqlite3.connect(self.home / "nightread.db") as connection:
            return connection.execute(question, values).fetchall()

    def children(self):
        """Process ids of the workers' children, the ones that score."""
        return [pid for (pid,) in self.ask("SELECT pid FROM workers WHERE stopped_at IS NULL")]


@pytest.fixture
def nights(short_folder):
    made = Nights(short_folder / f"night{time.monotonic_ns()}")
    yield made
    made.stop()


def good_pictures():
    """The shipped samples that pass the gate, as pixels."""
    files = sorted((SAMPLES / "scans").iterdir())
    read = [images.to_grey8(images.read(file.read_bytes(), images.Limits())) for file in files]
    return [cv2.resize(picture, (224, 224), interpolation=cv2.INTER_AREA) for picture in read]


def write_scans(folder, count):
    """`count` different chests of 224 pixels."""
    folder.mkdir(parents=True, exist_ok=True)
    noise = np.random.default_rng(count)
    pictures = good_pictures()
    for number in range(count):
        picture = pictures[number % len(pictures)].astype(np.int16)
        changed = np.clip(picture + noise.integers(-1, 2, picture.shape), 0, 255).astype(np.uint8)
        cv2.imwrite(str(folder / f"{number:04d}.png"), changed)
    return folder


def assert_adds_up(totals):
    assert totals["found"] == sum(totals[kind] for kind in ("scored", "rejected", "failed", "waiting"))
    assert sum(totals["reasons"].values()) == totals["rejected"] + totals["failed"]


def test_a_worker_killed_in_the_middle_of_500_scans_costs_nothing_and_nobody_helps(nights, tmp_path):
    folder = write_scans(tmp_path / "scans", 500)
    nights.start()
    batch = nights.json("submit", folder)["batch"]
    nights.until_scored(64)

    for pid in nights.children():
        os.kill(pid, signal.SIGKILL)
    urllib.request.urlopen(nights.address, timeout=10).close()
    nights.until_scored(500)

    totals = nights.totals(batch)
    assert_adds_up(totals)
    assert (totals["found"], totals["failed"], totals["waiting"]) == (500, 0, 0)
    assert nights.ask("SELECT count(*), count(DISTINCT scan_id) FROM outcomes") == [(500, 500)]


def test_a_worker_told_to_stop_gives_back_its_chunk_within_30_seconds(nights, tmp_path):
    folder = write_scans(tmp_path / "scans", 300)
    nights.start()
    batch = nights.json("submit", folder)["batch"]
    nights.until_scored(64)
    (child,) = nights.children()
    parent = int(Path(f"/proc/{child}/stat").read_text().rsplit(")", 1)[1].split()[1])

    os.kill(parent, signal.SIGTERM)
    told = time.monotonic()
    nights.until(lambda: not Path(f"/proc/{parent}").exists(), "the worker's end")

    assert time.monotonic() - told < 30
    assert nights.ask("SELECT max(attempts) FROM chunks WHERE completed_at IS NULL AND token IS NULL")[0][0] in (
        0,
        None,
    )
    nights.until_scored(300)
    assert nights.totals(batch)["failed"] == 0


def test_each_kind_of_bad_file_ends_with_its_code_and_every_good_scan_is_scored(nights, tmp_path):
    folder = write_scans(tmp_path / "scans", 12)
    expected = write_bad_files(folder)
    nights.before = without_roots_eyes
    nights.run("init")
    batch = nights.json("submit", folder, "--manifest", write_manifest(tmp_path, expected))["batch"]
    spoil_after_submission(folder, expected)

    report = nights.json("screen", folder)

    again = {scan["path"]: scan for scan in nights.json("report", batch)["scans"]}
    assert_adds_up(report)
    wrong = {path: again[path]["reason"] for path in expected if again[path]["reason"] != expected[path]}
    assert wrong == {}
    assert {scan["outcome"] for path, scan in again.items() if path not in expected} == {"scored"}
    assert set(Counter(expected.values())) == set(Reason)


def without_roots_eyes():
    """Let file modes hold for root, too: drop the capabilities that override them (capabilities(7), prctl(2))."""
    drop_from_bounding_set, dac_override, dac_read_search = 24, 1, 2
    for capability in (dac_override, dac_read_search):  # anybody else has none, and may not drop them
        ctypes.CDLL(None).prctl(drop_from_bounding_set, capability, 0, 0, 0)


def write_bad_files(folder):
    """Every kind of bad file below `folder`; path -> the code that it must end with."""
    expected = {}
    bad = {**builders.bad_files(), **builders.turned_away_by_header()}
    for name, (reason, content) in bad.items():
        (folder / f"bad-{name}").write_bytes(content)
        expected[f"bad-{name}"] = reason
    (folder / "bad-blank.png").write_bytes(builders.encoded(".png", np.zeros((300, 300), np.uint8)))
    (folder / "bad-photograph.png").write_bytes(builders.encoded(".png", photograph()))
    (folder / "copy-of-0003.png").write_bytes((folder / "0003.png").read_bytes())
    (folder / "link.png").symlink_to(folder / "0001.png")
    os.mkfifo(folder / "pipe.png")
    (folder / "secret.png").write_bytes(builders.encoded(".png", builders.chest(seed=7)))
    (folder / "secret.png").chmod(0)
    for name in ("child.png", "gone.png", "changed.png"):
        noise = np.random.default_rng(len(name)).integers(-2, 3, (224, 224))
        picture = np.clip(good_pictures()[0] + noise, 0, 255).astype(np.uint8)
        (folder / name).write_bytes(builders.encoded(".png", picture))
    return expected | {
        "bad-blank.png": Reason.BLANK,
        "bad-photograph.png": Reason.NOT_CHEST,
        "copy-of-0003.png": Reason.DUPLICATE,
        "link.png": Reason.OUTSIDE_ROOT,
        "pipe.png": Reason.NOT_A_FILE,
        "secret.png": Reason.NO_PERMISSION,
        "child.png": Reason.OUTSIDE_INTENDED_USE,
        "gone.png": Reason.MISSING,
        "changed.png": Reason.CHANGED_SINCE_SUBMISSION,
    }


def photograph():
    """Not a chest: hard-edged blocks in many greys, like a street seen from above."""
    random = np.random.default_rng(1)
    blocks = random.integers(0, 256, (24, 24), dtype=np.uint8)
    return np.kron(blocks, np.ones((16, 16), np.uint8)).astype(np.uint8)


def write_manifest(folder, expected):
    lines = ["path,patient,age", "child.png,P-child,7", "0000.png,P-adult,70"]
    (folder / "manifest.csv").write_text("\n".join(lines) + "\n")
    return folder / "manifest.csv"


def spoil_after_submission(folder, expected):
    (folder / "gone.png").unlink()
    (folder / "changed.png").write_bytes(builders.encoded(".png", builders.chest(seed=99)))


@pytest.mark.skipif(not os.environ.get("NIGHTREAD_TEST_DATA"), reason="NIGHTREAD_TEST_DATA names no real images")
def test_a_real_folder_is_accounted_for_and_a_second_run_scores_nothing_again(nights):
    folder = Path(os.environ["NIGHTREAD_TEST_DATA"], "incoming")

    first = nights.json("screen", folder)
    outcomes = nights.ask("SELECT id, scan_id, at FROM outcomes ORDER BY id")
    second = nights.json("screen", folder)

    assert_adds_up(first)
    assert (first["found"], first["failed"], first["waiting"]) == (94, 0, 0)
    assert first["scored"] >= 85
    assert {k: second[k] for k in ("batch", "found", "scored", "rejected")} == {
        k: first[k] for k in ("batch", "found", "scored", "rejected")
    }
    assert nights.ask("SELECT id, scan_id, at FROM outcomes ORDER BY id") == outcomes
