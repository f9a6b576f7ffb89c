"""What it costs to hand over scans: ours, a page of rows a transaction and a few rings, over one row and one message an
image (SQLAlchemy and Celery's `apply_async`), into the same kind of database and queue server, with nobody taking out.

Files are read and hashed before on either side, so neither does it here: both get paths, sizes and hashes. Rivals
commit each row before its message is sent, as a worker that finds no row for its message would fail; a second row lets
them write a thousand rows a transaction first.
"""

import os
import secrets
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import ratio
from celery import Celery
from ratio import say
from sqlalchemy import create_engine, event
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column

from db import settings as reading_settings
from db.settings import Settings
from db.store import intake, models
from db.store.connection import Database, connect
from db.store.intake import FoundFile, Submission
from db.store.sites import site_named
from deploy import home, queue_server
from producer.submission import _Bell, _registered, pages
from workers import queue

SCANS = int(100_000 * float(os.environ.get("BENCH_SIZE", "1")))
PAGE = 1000


class Base(DeclarativeBase):
    pass


class Row(Base):
    """What rivals keep of an image."""

    __tablename__ = "images"
    id: Mapped[int] = mapped_column(primary_key=True)
    path: Mapped[str]
    size: Mapped[int]
    sha256: Mapped[str]
    state: Mapped[str]


def found_files() -> list[FoundFile]:
    """SCANS files that no earlier round had."""
    return [FoundFile(f"{at // 1000:04d}/{at:07d}.png", 50_000, secrets.token_hex(32)) for at in range(SCANS)]


def ours(db: Database, files: list[FoundFile], root: str) -> tuple[float, float]:
    """Seconds of registering a folder's files, rings included; and of the rings alone."""
    submission = Submission(site_named(db, home.SITE).id, models.active(db).id, root)
    started, ringing, bell = time.perf_counter(), 0.0, _Bell()
    for page in _registered(db, submission, pages(files)):
        ringing += timed(lambda chunks=page.chunks: bell.ring(chunks))
    intake.seal(db, submission)
    ringing += timed(bell.last_ring)
    return time.perf_counter() - started, ringing


def one_by_one(app: Celery, rows: Session, files: list[FoundFile], commit_each: int) -> tuple[float, float]:
    """Seconds of one row and one message an image; and of the messages alone."""
    started, sending = time.perf_counter(), 0.0
    task = app.tasks["screen_one"]
    for start in range(0, len(files), commit_each):
        made = [
            Row(path=one.path, size=one.size, sha256=one.sha256 or "", state="new")
            for one in files[start : start + commit_each]
        ]
        rows.add_all(made)
        rows.flush()
        names = [one.id for one in made]
        rows.commit()
        before = time.perf_counter()
        for name in names:
            task.apply_async(args=[name])
        sending += time.perf_counter() - before
    return time.perf_counter() - started, sending


def timed(do: Callable[[], object]) -> float:
    """Seconds that it takes."""
    started = time.perf_counter()
    do()
    return time.perf_counter() - started


def rows_at(file: Path) -> Session:
    """A SQLite database, set as ours is."""
    engine = create_engine(f"sqlite:///{file}")

    @event.listens_for(engine, "connect")
    def quick(connection: object, record: object) -> None:
        connection.execute("PRAGMA journal_mode=WAL")  # type: ignore[attr-defined]
        connection.execute("PRAGMA synchronous=FULL")  # type: ignore[attr-defined]

    Base.metadata.create_all(engine)
    return Session(engine)


def screen_one(image: int) -> None:
    """What a rival's worker would do; nobody takes it out here."""


def main() -> None:
    with tempfile.TemporaryDirectory(prefix="nre-") as temporary:
        folder = Path(temporary)
        config = Settings(home=folder / "h", queue_url="")
        os.environ |= {"NIGHTREAD_HOME": str(config.home)}
        reading_settings.settings.cache_clear()
        db = connect(config)
        home.make_ready(db)
        with queue_server.serving(reading_settings.settings()) as url:
            app = Celery("rival", broker=url)
            app.task(name="screen_one")(screen_one)
            rounds = [one_round(db, app, folder, number) for number in range(ratio.ROUNDS)]
    record(rounds)


def one_round(db: Database, app: Celery, folder: Path, number: int) -> dict[str, float]:
    """Both sides in turn; what they are like to each other."""
    files = found_files()
    mine, ringing = ours(db, files, f"/scans/{number}")
    with rows_at(folder / f"each{number}.db") as rows:
        each, sending = one_by_one(app, rows, files, 1)
    with rows_at(folder / f"pages{number}.db") as rows:
        paged, _ = one_by_one(app, rows, files, PAGE)
    app.control.purge()
    with queue.app(reading_settings.settings()).connection_for_write() as connection:
        connection.default_channel.client.delete(queue.QUEUE)
    say(
        f"  ours {mine:.2f} s, of which rings {ringing * 1e3:.1f} ms; row and message {each:.1f} s, of which messages "
        f"{sending:.1f} s; rows by the thousand {paged:.1f} s"
    )
    return {"each": each / mine, "paged": paged / mine, "queue": sending / ringing, "ours": SCANS / mine}


def record(rounds: list[dict[str, float]]) -> None:
    """Three rows."""
    rate = sorted(one["ours"] for one in rounds)[len(rounds) // 2]
    note = f"{SCANS:,} scans a round; ours {rate:,.0f} scans/s"
    ratio.record(
        "Enqueueing with SQL rows: one row and `apply_async` an image over ours",
        ">= 5",
        [one["each"] for one in rounds],
        note=note,
    )
    ratio.record(
        "Enqueueing with SQL rows: rows by the thousand, `apply_async` an image, over ours",
        "",
        [one["paged"] for one in rounds],
        note=note,
    )
    ratio.record(
        "Enqueueing, the queue's part: `apply_async` an image over our rings",
        ">= 100",
        [one["queue"] for one in rounds],
        note=note,
    )


if __name__ == "__main__":
    main()
