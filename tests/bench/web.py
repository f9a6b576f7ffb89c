"""The web while the night runs: worklist, scan page and picture from the real web process, asked again and again by
somebody who is signed in, while the real worker scores at full speed on the same cores, and then with nothing else to
do. Interleaved, BENCH_ROUNDS (5) times; reported is the ratio of the 95th percentiles, the median of the rounds with
the lowest and the highest.

BENCH_FILES (500) are submitted in each round, 224-pixel JPEGs: the round lasts as long as they are being scored."""

import http.cookiejar
import os
import re
import sys
import tempfile
import time
import urllib.parse
import urllib.request
from collections.abc import Callable
from itertools import chain, count
from pathlib import Path

import numpy as np
import ratio
from pictures import pictures, write

from db.settings import Settings
from db.store import reading
from db.store.connection import Database, connect
from deploy import home, local
from deploy.supervisor import Supervisor
from producer import submission

FILES = int(os.environ.get("BENCH_FILES", "500"))
PAUSE = 0.05  # seconds between two requests: some ten times as busy as a reader
PATIENCE = 300.0  # seconds for the worker to load its model and flag a first page
KINDS = ("worklist", "scan page", "picture")

Times = dict[str, list[float]]  # kind -> milliseconds of each answer


def write_folder(folder: Path, seed: int) -> Path:
    """FILES JPEGs of 224 pixels that no earlier folder held."""
    noise = np.random.default_rng(seed)
    several = pictures(FILES)
    folder.mkdir(parents=True)
    for number in range(FILES):
        write(folder / f"{number:05d}.jpg", several[number % len(several)], noise)
    return folder


class Browser:
    """Somebody who reads, signed in."""

    def __init__(self, address: str, name: str, password: str) -> None:
        self.address = address
        cookies = urllib.request.HTTPCookieProcessor(http.cookiejar.CookieJar())
        self._opener = urllib.request.build_opener(cookies)
        token = re.search(r'name="csrf_token"[^>]*value="([^"]+)"', self.get("sign-in").decode())
        form = {"csrf_token": token[1] if token else "", "name": name, "password": password}
        self._opener.open(f"{address}sign-in", urllib.parse.urlencode(form).encode(), timeout=30).close()
        self._keys: list[str] = []

    def addresses(self) -> dict[str, str]:
        """One address of each of KINDS; the scans of the worklist take turns."""
        if not self._keys:
            self._keys = re.findall(r'href="/scan/([0-9a-f]{32})"', self.get("").decode())
        key = self._keys.pop() if self._keys else ""
        return dict(zip(KINDS, ("", f"scan/{key}", f"scan/{key}/image.png"), strict=True))

    def milliseconds(self, path: str) -> float:
        """How long a page took to come."""
        started = time.perf_counter()
        self.get(path)
        return 1000 * (time.perf_counter() - started)

    def get(self, path: str) -> bytes:
        with self._opener.open(self.address + path, timeout=30) as answer:
            content: bytes = answer.read()
        if b'id="password"' in content and path != "sign-in":
            raise SystemExit("the session ended")
        return content


def main() -> None:
    with tempfile.TemporaryDirectory(prefix="nrw-") as temporary:
        os.environ["NIGHTREAD_HOME"] = str(Path(temporary) / "h")
        config = local.with_free_port(Settings(home=Path(temporary) / "h", web_port=0))
        db = connect(config)
        password = home.make_ready(db).passwords["reader"]
        with local.only_one(config) as lock:
            parts = Supervisor(config.home / "logs", lock or 0, lambda text: print(text, file=sys.stderr))
            try:
                parts.start([*local.queue_parts(config), *local.scoring_parts(config), *local.web_parts(config)])
                browser = Browser(f"http://{config.web_host}:{config.web_port}/", "reader", password)
                rounds = [one_round(db, browser, Path(temporary) / f"scans{n}", n) for n in range(ratio.ROUNDS + 1)]
            finally:
                parts.stop()
        report(rounds[1:])  # the first one fills the worklist and the caches


def one_round(db: Database, browser: Browser, folder: Path, seed: int) -> tuple[Times, Times]:
    """While a new folder is scored; then as often with nothing else to do."""
    write_folder(folder, seed)
    batch = submission.submit(db, folder, site_name="local").batch_id
    wait_for_flags(db, batch)
    started, before = time.monotonic(), reading.totals(db, batch)
    loaded = ask(browser, lambda _: not reading.totals(db, batch).is_done)
    seconds, after = time.monotonic() - started, reading.totals(db, batch)
    idle = ask(browser, lambda asked: asked < len(loaded["picture"]))
    rate = (before.waiting - after.waiting) / seconds
    print(f"web: round {seed}: {rate:.0f} images/s; {figures(loaded)}; idle {figures(idle)}", file=sys.stderr)
    return loaded, idle


def wait_for_flags(db: Database, batch: int) -> None:
    deadline = time.monotonic() + PATIENCE
    while not (totals := reading.totals(db, batch)).flagged:
        if time.monotonic() > deadline or totals.is_done:
            raise SystemExit(f"no list to ask for: {totals}")
        time.sleep(0.2)


def ask(browser: Browser, goes_on: Callable[[int], bool]) -> Times:
    """Milliseconds of each answer, one of each kind in turn; `goes_on` is asked with their number so far."""
    times: Times = {kind: [] for kind in KINDS}
    for asked in count():
        if asked % 5 == 0 and not goes_on(asked):
            return times
        for kind, path in browser.addresses().items():
            times[kind].append(browser.milliseconds(path))
            time.sleep(PAUSE)
    raise AssertionError


def report(rounds: list[tuple[Times, Times]]) -> None:
    for kind in KINDS:
        loaded, idle = ([half[kind] for half in halves] for halves in zip(*rounds, strict=True))
        ratios = [p95(busy) / p95(quiet) for busy, quiet in zip(loaded, idle, strict=True)]
        ratio.record(
            f"Web while scoring over idle, p95: {kind}",
            "",
            ratios,
            note=f"{p95([*chain(*loaded)]):.0f} ms over {p95([*chain(*idle)]):.0f} ms, {sum(map(len, idle))} of each",
        )


def p95(times: list[float]) -> float:
    return sorted(times)[int(0.95 * (len(times) - 1))]


def figures(times: Times) -> str:
    return ", ".join(f"{kind} p95 {p95(times[kind]):.0f} ms" for kind in KINDS)


if __name__ == "__main__":
    main()
