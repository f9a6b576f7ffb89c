"""The worklist on PostgreSQL, by size and depth: every way to ask for a page, its counts and a verdict, on databases
that differ in nothing but how many entries they have. Ratios of medians, measured in turn; at most LIMIT each.

BENCH_SIZES (1000,100000,1000000) are entries; BENCH_ASKED (60) is how often each is asked."""

import os
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import ratio
from sqlalchemy import create_engine, event, text

from db.migrate import upgrade
from db.settings import Settings
from db.store import entries, models, people, worklist
from db.store.connection import Database, connect
from db.store.people import UserView
from db.store.sites import add_site, set_site
from db.store.worklist import Filters, Order, Place
from db.words import Role, Stage, State, Verdict
from deploy.drill import postgres

SMALL, MIDDLE, LARGE = (int(size) for size in os.environ.get("BENCH_SIZES", "1000,100000,1000000").split(","))
ASKED = int(os.environ.get("BENCH_ASKED", "60"))
LIMIT = 1.5
SITES = 3  # one reader, unblinded; two readers; two readers, blind, sampling
A_BATCH = 100  # entries of one night of one site
FIRST = datetime(2020, 1, 1, 6, tzinfo=UTC)

MODEL = models.Registration(
    name="bench",
    version="1",
    folder="",
    architecture="resnet50",
    classes=["normal", "covid"],
    flag_classes=["covid"],
    input_size=224,
    preprocessing_version="1",
    weights_sha256="0" * 64,
    minimum_age=None,
    report={},
    threshold=0.5,
    threshold_why="a benchmark",
)

# One entry a row n (1..): every batch is of one site, a patient has two scans, a tenth waits for a second reader.
ROWS = [
    """
    INSERT INTO batches (id, site_id, trained_model_id, root, urgent, submitted_at, sealed_at)
    SELECT n, n % 3 + 1, 1, '/night'::bytea, false, :first + n / 3 * interval '1 day', :first
    FROM generate_series(1, :size / :batch) AS n
    """,
    """
    INSERT INTO scans (id, key, batch_id, path, size, sha256, patient, study)
    SELECT n, md5(n::text), (n - 1) % (:size / :batch) + 1, convert_to(n || '.png', 'UTF8'), 1, repeat(md5(n::text), 2),
           'P' || lpad((n / 2)::text, 8, '0'), '1.2.826.' || n
    FROM generate_series(1, :size) AS n
    """,
    """
    INSERT INTO outcomes (scan_id, trained_model_id, generation, kind, score, class_scores, flagged, threshold,
                          evidence, engine, precision, device, seconds, at)
    SELECT id, 1, 0, 'scored', 0.5 + random() / 2, '{}', true, 0.5, '{}', 'tensorflow', 'float32', 'cpu', 0.1, :first
    FROM scans
    """,
    """
    INSERT INTO entries (scan_id, trained_model_id, site_id, batch_id, score, rank, share, blind, readers, state,
                         verdict, first_reader_id, submitted_at)
    SELECT scans.id, 1, site_id, batch_id, score, CASE site_id WHEN 3 THEN random() ELSE score END, NULL, site_id = 3,
           CASE site_id WHEN 1 THEN 1 ELSE 2 END, state, CASE state WHEN 'done' THEN 'confirm' END,
           CASE WHEN state = 'second' OR state = 'done' THEN scans.id / 10 % 3 + 1 END, submitted_at
    FROM scans JOIN outcomes ON scan_id = scans.id JOIN batches ON batches.id = batch_id,
         LATERAL (SELECT (ARRAY['unread', 'unread', 'unread', 'unread', 'unread', 'unread', 'second', 'second', 'done',
                                'arbiter'])[scans.id * 7 / 3 % 10 + 1] AS state) AS states
    ORDER BY scans.id
    """,
]


@dataclass
class Bench:
    """A database of so many entries, and its seconds in the database since it was last asked."""

    size: int
    db: Database
    me: UserView
    inside: float = 0.0
    left: list[int] = field(default_factory=list)

    def items(self, *, after: Place | None = None, limit: int = 50, **asked: Any) -> list[Any]:
        filters = Filters(**asked)
        return worklist.page(self.db, me=self.me, model_id=1, filters=filters, after=after, limit=limit)

    def place(self, share: float, **where: Any) -> Place:
        """A place so far down the list, with a page left below it."""
        states, me = "(state = 'unread' OR state = 'second' AND first_reader_id <> :me)", self.me.id
        down = f"SELECT id FROM entries WHERE {states} ORDER BY rank DESC, id DESC OFFSET :skipped LIMIT 1"
        with self.db.reading() as session:
            total = session.scalar(text(f"SELECT count(*) FROM entries WHERE {states}"), {"me": me})
            skipped = max(int(share * total) - 60, 0)
            return Place(0.0, session.scalars(text(down), {"me": me, "skipped": skipped}).one())


def fill(db: Database, size: int) -> UserView:
    """A reader of every site, and the rows."""
    upgrade(db)
    models.activate(db, models.register(db, MODEL, by="bench"), why="a benchmark", by="bench")
    sites = {add_site(db, f"site {n}", by="bench") for n in range(SITES)}
    for name in ("ada", "bea", "cid"):
        people.add_user(db, name, role=Role.READER, password_hash="x", site_ids=sites, by="bench")
    with db.writing() as session:
        for statement in ROWS:
            session.execute(text(statement), {"size": size, "batch": A_BATCH, "first": FIRST})
    set_site(db, "site 1", {"readers": 2}, by="bench")
    set_site(db, "site 2", {"readers": 2, "sample_share": 0.1}, by="bench")
    entries.recount(db, repair=True)
    with db.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.execute(text("VACUUM ANALYZE"))
    return people.user_named(db, "ada")


def opened(cluster: postgres.Cluster, folder: Path, size: int, stack: ExitStack) -> Bench:
    """A database of so many entries, closed with the stack."""
    engine = create_engine(cluster.url(), isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        connection.execute(text(f"CREATE DATABASE size_{size}"))
    engine.dispose()
    config = Settings(home=folder / f"home-{size}", database_url=cluster.url(f"size_{size}"))
    config.home.mkdir(mode=0o700)
    db = connect(config)
    stack.callback(db.engine.dispose)
    started = time.perf_counter()
    bench = Bench(size, db, fill(db, size))
    print(f"{size:9,} entries: made in {time.perf_counter() - started:.0f} s", file=sys.stderr)
    _watch(bench)
    with db.reading() as session:
        unread = "SELECT scan_id FROM entries WHERE state = 'unread' AND site_id = 1 ORDER BY id LIMIT 400"
        bench.left = list(session.scalars(text(unread)))
    return bench


def _watch(bench: Bench) -> None:
    """Add up the time between a statement's way out and its answer."""
    begun: list[float] = []
    event.listen(bench.db.engine, "before_cursor_execute", lambda *told: begun.append(time.perf_counter()))

    def answered(*told: Any) -> None:
        bench.inside += time.perf_counter() - begun.pop()

    event.listen(bench.db.engine, "after_cursor_execute", answered)


def questions(bench: Bench) -> dict[str, Callable[[], Any]]:
    """Every way to ask, by name; each gives what it found, so that nothing is measured that finds nothing."""
    middle, end = bench.place(0.5), bench.place(1.0)
    with bench.db.reading() as session:
        batch = session.scalar(text("SELECT max(id) FROM batches WHERE site_id = 1"))
        newest = session.scalar(text("SELECT max(submitted_at) FROM batches"))
    week = {"since": newest - timedelta(days=1)}
    patient = f"P{bench.size // 4:08}"
    db, me = bench.db, bench.me
    return {
        "first page": bench.items,
        "page in the middle": lambda: bench.items(after=middle),
        "last page": lambda: bench.items(after=end),
        "newest first": lambda: bench.items(order=Order.NEWEST),
        "one site": lambda: bench.items(site_id=2),
        "one batch": lambda: bench.items(batch_id=batch),
        "two nights": lambda: bench.items(**week),
        "two nights, newest first": lambda: bench.items(**week, order=Order.NEWEST),
        "a score band": lambda: bench.items(lowest=0.6, highest=0.7),
        "done": lambda: bench.items(state=State.DONE),
        "a patient": lambda: bench.items(text=patient),
        "how a patient begins": lambda: bench.items(text=patient[:-1]),
        "the next scan": lambda: worklist.next_entries(db, me=me, model_id=1, after=middle),
        "an entry": lambda: entries.entry(db, bench.left[-1], me=me),
        "counts": lambda: worklist.counts(db, me=me, model_id=1).to_read,
        "models to read": lambda: worklist.models_to_read(db, me=me),
        "open and decide": lambda: _decide(bench),
    }


def _decide(bench: Bench) -> bool:
    scan = bench.left.pop()
    held = entries.hold(bench.db, scan, me=bench.me)
    entries.add_review(bench.db, scan, me=bench.me, stage=Stage.VERDICT, verdict=Verdict.DISMISS)
    return held


def measured(one: Bench, other: Bench, ask: Callable[[Bench], Callable[[], Any]]) -> list[list[tuple[float, float]]]:
    """(whole, in the database) in ms, of both in turn."""
    asked = [(bench, ask(bench)) for bench in (one, other)]
    taken: list[list[tuple[float, float]]] = [[], []]
    for number in range(ASKED + 5):
        for which, (bench, question) in enumerate(asked):
            bench.inside, started = 0.0, time.perf_counter()
            found = question()
            whole = time.perf_counter() - started
            if not found:
                raise SystemExit("a question found nothing")
            if number >= 5:
                taken[which].append((1000 * whole, 1000 * bench.inside))
    return taken


def told(name: str, taken: list[list[tuple[float, float]]]) -> float:
    """Print one line: medians and quartiles, and the ratios; the larger of these."""
    shown, ratios = "", []
    for part in (0, 1):
        quarters = [statistics.quantiles([one[part] for one in side], n=4) for side in taken]
        ratios.append(quarters[1][1] / quarters[0][1])
        for low, median, high in quarters:
            shown += f"{median:8.2f} ({low:.2f}-{high:.2f})"
        shown += f" {ratios[-1]:5.2f}  "
    print(f"{name:26}{shown}", flush=True)
    return max(ratios)


def main() -> int:
    """Print the table; 1 where a ratio is above the limit."""
    folder = Path(tempfile.mkdtemp(prefix="nr-bench-"))
    try:
        with postgres.serving(folder) as cluster, ExitStack() as stack:
            small, middle, large = (opened(cluster, folder, size, stack) for size in (SMALL, MIDDLE, LARGE))
            print(f"{'milliseconds':26}whole: {'one':>10}{'other':>20}  ratio    in the database: one, other, ratio")
            print(f"{MIDDLE:,} entries: the first page, the page by the end")
            by_depth = [lambda bench: questions(bench)["first page"], lambda bench: questions(bench)["last page"]]
            asked = iter(by_depth)
            worst = [told("last over first", measured(middle, middle, lambda bench: next(asked)(bench)))]
            print(f"{SMALL:,} entries, {LARGE:,} entries")
            for name in questions(small):
                worst.append(told(name, measured(small, large, lambda bench, name=name: questions(bench)[name])))  # type: ignore[misc]
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    note = f"medians of {ASKED} questions each, in turn; PostgreSQL"
    ratio.record(f"Worklist: last page over first at {MIDDLE:,} entries", f"<= {LIMIT}", worst[:1], note=note)
    title = f"Worklist: {LARGE:,} entries over {SMALL:,}, the worst question"
    ratio.record(title, f"<= {LIMIT}", [max(worst[1:])], note=note)
    print(f"the worst ratio: {max(worst):.2f} (limit {LIMIT})")
    return 0 if max(worst) <= LIMIT else 1


if __name__ == "__main__":
    raise SystemExit(main())
