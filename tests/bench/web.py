"""The worklist while the night runs: the page of the real web process, asked again and again by somebody who is signed
in, while many small files are being scored by the real worker; then asked as often with nothing else to do.

BENCH_FILES (10,000) are submitted; BENCH_SECONDS (60) is how long each of the two is measured."""

import http.cookiejar
import os
import re
import statistics
import sys
import tempfile
import time
import urllib.parse
import urllib.request
from pathlib import Path

import numpy as np
from pictures import pictures, write

from db.settings import Settings
from db.store import reading
from db.store.connection import Database, connect
from deploy import home, local
from deploy.supervisor import Supervisor
from producer import submission

FILES = int(os.environ.get("BENCH_FILES", "10000"))
SECONDS = float(os.environ.get("BENCH_SECONDS", "60"))
PATIENCE = 300.0  # seconds for the worker to load its model and flag a first page


def write_folder(folder: Path) -> None:
    """FILES different JPEGs of 224 pixels, 1,000 a folder."""
    noise = np.random.default_rng(0)
    several = pictures(1000)
    for number in range(FILES):
        below = folder / f"{number // 1000:03d}"
        below.mkdir(parents=True, exist_ok=True)
        write(below / f"{number:05d}.jpg", several[number % len(several)], noise)


class Browser:
    """Somebody at the list, signed in."""

    def __init__(self, address: str, name: str, password: str) -> None:
        self.address = address
        cookies = urllib.request.HTTPCookieProcessor(http.cookiejar.CookieJar())
        self._opener = urllib.request.build_opener(cookies)
        token = re.search(r'name="csrf_token"[^>]*value="([^"]+)"', self._get("sign-in"))
        form = {"csrf_token": token[1] if token else "", "name": name, "password": password}
        self._opener.open(f"{address}sign-in", urllib.parse.urlencode(form).encode(), timeout=30).close()

    def milliseconds(self) -> float:
        """How long the worklist took to come."""
        started = time.perf_counter()
        page = self._get("")
        seconds = time.perf_counter() - started
        if "Sign in" in page or "row" not in page:
            raise SystemExit("the worklist did not come")
        return 1000 * seconds

    def _get(self, path: str) -> str:
        with self._opener.open(self.address + path, timeout=30) as answer:
            return str(answer.read().decode())


def main() -> None:
    with tempfile.TemporaryDirectory(prefix="nrw-") as temporary:
        os.environ["NIGHTREAD_HOME"] = str(Path(temporary) / "h")
        config = local.with_free_port(Settings(home=Path(temporary) / "h", web_port=0))
        db = connect(config)
        password = home.make_ready(db).passwords["reader"]
        write_folder(Path(temporary) / "scans")
        with local.only_one(config) as lock:
            parts = [
                Supervisor(config.home / "logs", lock or 0, lambda text: print(text, file=sys.stderr)) for _ in "12"
            ]
            web, scoring = parts
            try:
                web.start(local.web_parts(config))
                scoring.start([*local.queue_parts(config), *local.scoring_parts(config)])
                browser = Browser(f"http://{config.web_host}:{config.web_port}/", "reader", password)
                measure(db, Path(temporary) / "scans", browser, scoring)
            finally:
                scoring.stop()
                web.stop()


def measure(db: Database, folder: Path, browser: Browser, scoring: Supervisor) -> None:
    """Print both halves and their ratio; a batch that is done early ends the first one."""
    batch = submission.submit(db, folder, site_name="local").batch_id
    deadline = time.monotonic() + PATIENCE
    while (before := reading.totals(db, batch)).flagged < min(50, FILES // 10):
        if time.monotonic() > deadline or before.is_done:
            raise SystemExit(f"no list to ask for: {before}")
        time.sleep(0.5)
    loaded = asked(browser, lambda: not reading.totals(db, batch).is_done)
    after = reading.totals(db, batch)
    scoring.stop()
    idle = asked(browser, lambda: True)
    done = before.waiting - after.waiting
    print(f"web: while {done:,} of {FILES:,} files were done in {SECONDS:.0f} s at most: worklist {figures(loaded)}")
    ratio = statistics.median(loaded) / statistics.median(idle)
    print(f"web: with nothing else to do: worklist {figures(idle)}; median under load over idle {ratio:.2f}")


def asked(browser: Browser, is_on) -> list[float]:
    """Milliseconds of each answer, five times a second, while `is_on`, for at most SECONDS."""
    until, times = time.monotonic() + SECONDS, []
    while time.monotonic() < until and (len(times) % 10 or is_on()):
        times.append(browser.milliseconds())
        time.sleep(0.2)
    return times


def figures(times: list[float]) -> str:
    """Median and 95th percentile."""
    p95 = sorted(times)[int(0.95 * (len(times) - 1))]
    return f"p50 {statistics.median(times):.0f} ms, p95 {p95:.0f} ms, {len(times)} times"


if __name__ == "__main__":
    main()
