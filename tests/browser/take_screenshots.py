"""Screenshots for the README: a reading room filled with drawn pictures and nobody's data, served by the real web
process: `python tests/browser/take_screenshots.py [FOLDER]` (by default deploy/screenshots). Needs Chromium."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING

ROOT = Path(__file__).parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "tests"), str(Path(__file__).parent)]

from drawn_night import Film, dicom_of, submit, twelve_bits  # noqa: E402
from driving import LAPTOP, PORTRAIT, address_answers  # noqa: E402
from playwright.sync_api import sync_playwright  # noqa: E402
from reading_room import Found, ReadingRoom  # noqa: E402
from sqlalchemy import func, select, update  # noqa: E402

from db.schema import Batch, Entry, Outcome, Scan  # noqa: E402
from db.settings import Settings  # noqa: E402
from db.store import heartbeats, sites  # noqa: E402
from db.store.connection import connect, now  # noqa: E402
from db.words import Cause, Reason, Role, Stage  # noqa: E402
from deploy import home, local  # noqa: E402

if TYPE_CHECKING:
    from collections.abc import Iterator

    from playwright.sync_api import Page

CHROMIUM = Path(os.environ.get("CHROMIUM", "/usr/bin/chromium"))
NIGHTS = 7
PACE = 12.5  # scans a second, about what two cores do
TALL = {"width": 1366, "height": 1500}
SHARE = 0.2  # of the cleared that the earlier nights drew


def main(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="nrs-") as temporary:
        config = local.with_free_port(Settings(home=Path(temporary) / "h", web_port=0))
        db = connect(config)
        home.make_ready(db)
        db.engine.dispose()
        room = ReadingRoom(config)
        key = fill(room)
        with serving(config) as address, sync_playwright() as driver:
            browser = driver.chromium.launch(executable_path=str(CHROMIUM), args=["--no-sandbox", "--disable-gpu"])
            for name, path, who, options in (
                ("worklist", "/", "dr-lopez", {}),
                ("worklist-dark", "/", "dr-lopez", {"color_scheme": "dark"}),
                ("scan", f"/scan/{key}", "dr-lopez", {}),
                ("scan-portrait", f"/scan/{key}", "dr-lopez", {"viewport": PORTRAIT}),
                ("batches", "/batches", "dr-lopez", {}),
                ("batch", "/batches/1", "dr-lopez", {}),
                ("quality", "/quality", "admin", {"viewport": TALL}),
            ):
                context = browser.new_context(**{"viewport": LAPTOP, "base_url": address, **options})
                session = {"name": "nightread", "value": room.inside(who).cookie(), "url": address}
                context.add_cookies([{**session, "httpOnly": True, "sameSite": "Strict"}])
                take(context.new_page(), path, folder / f"{name}.png")
                context.close()
            browser.close()
        room.close()


@contextmanager
def serving(config: Settings) -> Iterator[str]:
    """`nightread web` on this home."""
    command = [sys.executable, "-m", "producer", "web", "--port", str(config.web_port)]
    environment = {**os.environ, "NIGHTREAD_HOME": str(config.home)}
    with subprocess.Popen(command, cwd=ROOT, env=environment, stderr=subprocess.DEVNULL) as web:
        try:
            address_answers(f"http://localhost:{config.web_port}/health")
            yield f"http://localhost:{config.web_port}"
        finally:
            web.terminate()


def take(page: Page, path: str, file: Path) -> None:
    page.goto(path)
    if path.startswith("/scan/"):
        page.wait_for_selector("#viewer[data-state=ready]")
        page.wait_for_selector("#viewer[data-heat-state=ready]")
    page.wait_for_timeout(500)
    page.screenshot(path=file)
    print(file)


def fill(room: ReadingRoom) -> str:
    """Nights of two sites, read but for the last one; the key of the scan to show."""
    for name in ("dr-lopez", "dr-okafor"):
        room.user(name, sites=["local", "Hospital del Mar"])
    room.user("dr-ferrer", role=Role.ARBITER, sites=["local", "Hospital del Mar"])
    clinic = "Hospital del Mar"
    sites.set_site(room.db, "local", {"sample_share": SHARE, "prevalence": 0.02}, by="script")
    sites.set_site(room.db, clinic, {"sample_share": SHARE, "prevalence": 0.02, "readers": 2}, by="script")
    for night in range(NIGHTS, 0, -1):
        past(room, night)
    for site in ("local", clinic):
        sites.set_site(room.db, site, {"sample_share": 0.0}, by="script")
    films = [
        Film(
            f"{2026_1124_000 + 7 * n}.dcm",
            dicom_of(twelve_bits(30 + n, 1024, 0.9 - n / 20), PatientID=f"P-{40_100 + 13 * n}"),
            0.981 - n / 31,
            hot=(3 + n % 2, 1 + n % 4),
            patient=f"P-{40_100 + 13 * n}",
        )
        for n in range(9)
    ]
    keys = submit(room, *films, root="/nights/2026-11-24")
    room.night(*lost(), root="/nights/2026-11-24-clinic", site="Hospital del Mar")
    paced(room)
    heartbeats.beat(
        room.db, name="gpu-1:gpu:0", host="gpu-1", device="gpu:0", pid=1, doing="waiting for a chunk", scans=48_210
    )
    room.user("admin-on-duty", role=Role.ADMIN, sites=["local", "Hospital del Mar"])
    room.holds("dr-okafor", keys[1])
    return keys[0]


def lost() -> list[Found]:
    """What the clinic's folder held last night."""
    files = [Found(f"c-{n:03}.dcm", score=0.01 + (n % 40) / 700, patient=f"M-{n}") for n in range(160)]
    flagged = [Found(f"c-{200 + n}.dcm", score=0.93 - n / 20, patient=f"M-{200 + n}") for n in range(5)]
    bad = [
        Found("c-301.dcm", reason=Reason.TRUNCATED, patient="M-301"),
        Found("c-302.dcm", reason=Reason.NOT_FRONTAL, patient="M-302"),
        Found("c-303.jpg", reason=Reason.NOT_CHEST),
        Found("c-304.dcm", cause=Cause.OUT_OF_MEMORY, patient="M-304"),
    ]
    return files + flagged + bad


def past(room: ReadingRoom, nights_ago: int) -> None:
    """One earlier night, all read by two readers."""
    chance = [((n * 7907 + nights_ago * 7919) % 1000) / 1000 for n in range(120)]
    found = [
        Found(f"n{nights_ago}-{n}.dcm", score=0.3 + 0.7 * one if n % 9 == 0 else 0.075 * one, share=drawn(n))
        for n, one in enumerate(chance)
    ]
    batch = room.night(*found, root=f"/nights/{nights_ago}-ago", site=("local", "Hospital del Mar")[nights_ago % 2])
    at = now() - timedelta(days=nights_ago)
    with room.db.writing() as session:
        session.execute(update(Batch).where(Batch.id == batch).values(submitted_at=at, sealed_at=at))
        session.execute(update(Entry).where(Entry.batch_id == batch).values(submitted_at=at))
    paced(room)
    keys, readers = room.keys(batch), ("dr-lopez", "dr-okafor")[: 1 + nights_ago % 2]
    for n, file in enumerate(found):
        if n % 9 == 0 or file.share:
            is_positive = n % 27 < 18 if n % 9 == 0 else n == 5 and nights_ago % 4 == 0
            said = "confirm" if is_positive else "dismiss"
            for reader in readers:
                room.says(reader, keys[file.path], said if n % 7 else "dismiss", stage=Stage.IMPRESSION)
            for reader in readers:
                room.says(reader, keys[file.path], "dismiss" if reader == "dr-okafor" and n % 45 == 0 else said)
            if room.entry(keys[file.path], "dr-ferrer").may_arbitrate:
                room.says("dr-ferrer", keys[file.path], said, stage=Stage.ARBITRATION)
    with room.db.writing() as session:
        session.execute(update(Entry).where(Entry.batch_id == batch).values(decided_at=at + timedelta(hours=9)))


def paced(room: ReadingRoom) -> None:
    """Outcomes as if a worker had taken its time: nothing was scored here, and no page shall boast of it."""
    with room.db.writing() as session:
        for batch_id, submitted_at in session.execute(select(Batch.id, Batch.submitted_at)).all():
            mine = select(Scan.id).where(Scan.batch_id == batch_id)
            seconds = session.execute(select(func.count()).select_from(mine.subquery())).scalar_one() / PACE
            late = submitted_at + timedelta(seconds=seconds)
            session.execute(update(Outcome).where(Outcome.scan_id.in_(mine)).values(at=late))


def drawn(n: int) -> float | None:
    return SHARE if n % 9 and n % 5 == 0 else None


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else ROOT / "deploy" / "screenshots")
