"""Submitting: one batch, each file once, whoever does it and whenever they die; few rings, however many wait."""

import time
from concurrent.futures import ThreadPoolExecutor

import pytest
import redis
from ledger import folder as found_files
from ledger import submission as described
from producers import submit_and_die, submit_together
from sqlalchemy import func, select

from db.schema import Batch, Scan
from db.settings import Settings
from db.store import intake, reading, scoring
from db.store.connection import connect, database
from db.words import Reason
from producer import submission
from workers import queue, sweep

PNG = b"\x89PNG\r\n\x1a\n"


def write(folder, count):
    folder.mkdir(parents=True)
    for number in range(count):
        (folder / f"{number:05}.png").write_bytes(PNG + str(number).encode())
    return folder


def registered(db):
    """How many scans and paths there are, and the sealed and open batches."""
    with db.reading() as session:
        scans, paths = session.execute(select(func.count(), func.count(Scan.path.distinct()))).one()
        batches = session.execute(select(Batch.id, Batch.sealed_at.is_not(None)).order_by(Batch.id)).all()
    return scans, paths, [tuple(row) for row in batches]


def test_twenty_producers_on_one_folder_make_one_batch_with_each_file_once(db, tmp_path):
    folder = write(tmp_path / "scans", 300)

    done = submit_together(db.config, folder, 20)

    assert {one.batch_id for one in done} == {1}
    assert sum(one.added for one in done) == 300
    assert {one.added + one.known for one in done} == {300}
    assert registered(db) == (300, 300, [(1, True)])
    totals = reading.totals(db, 1)
    assert (totals.found, totals.waiting, totals.reasons) == (300, 300, {})


@pytest.mark.parametrize("at", ["before", "after"])
def test_a_producer_killed_at_any_page_goes_on_into_the_same_batch_and_seals_it(db, tmp_path, at):
    for batches, page in enumerate((1, 2, 3, 4, 5, 0)):  # pages of 16; 0 is the seal
        folder = tmp_path / f"{at}-{page}"
        write(folder, 80)
        for file in folder.iterdir():
            file.write_bytes(file.read_bytes() + str(page).encode())
        submit_and_die(db.config, folder, at=at, page=page)
        began = intake.open_submissions(db)
        was_sealed = (at, page) == ("after", 0)
        assert len(began) == (0 if was_sealed or (at, page) == ("before", 1) else 1)

        batch = submission.submit(db, folder, site_name="local").batch_id

        assert [number for number, _ in began] in ([], [batch])
        assert batch == batches + 1
        assert intake.open_submissions(db) == []
        totals = reading.totals(db, batch)
        assert (totals.found, totals.waiting) == (80, 80)


def test_resuming_goes_on_with_what_a_killed_producer_began(db, tmp_path):
    folder = write(tmp_path / "scans", 80)
    submit_and_die(db.config, folder, at="after", page=2)

    (resumed,) = submission.resume(db)

    assert (resumed.added, resumed.known) == (48, 32)
    assert registered(db) == (80, 80, [(1, True)])


def test_a_folder_submitted_while_another_producer_was_killed_over_it_is_one_batch(db, tmp_path):
    folder = write(tmp_path / "scans", 80)
    submit_and_die(db.config, folder, at="after", page=3)

    done = submit_together(db.config, folder, 4)

    assert {one.batch_id for one in done} == {1}
    assert registered(db) == (80, 80, [(1, True)])


@pytest.fixture
def read_on(monkeypatch):
    """What workers had claimed and completed whenever a file after the first page of two was read."""
    monkeypatch.setattr(submission, "FIRST_PAGE", 2)
    find_files, seen = submission.find_files, []

    def noted(root, **told):
        for number, found in enumerate(find_files(root, **told)):
            if number >= 2:
                seen.append(intake.under_way(database(), 1))
            yield found

    monkeypatch.setattr(submission, "find_files", noted)
    return seen


def test_reading_goes_on_once_the_first_chunk_is_complete(home, tmp_path, read_on):
    folder, db = write(tmp_path / "scans", 4), database()

    def work():
        while (claim := scoring.claim_chunk(db, "w", trained_model_id=1, lease_seconds=60)) is None:
            time.sleep(0.01)
        time.sleep(3 * submission.CLAIMED_SECONDS)
        assert scoring.complete_chunk(
            db, claim, [scoring.Rejected(scan.id, Reason.BLANK, "a test") for scan in claim.scans]
        )

    with ThreadPoolExecutor(1) as worker:
        working = worker.submit(work)
        submission.submit(db, folder, site_name="local")
        working.result(60)

    assert read_on == [(0, 1)] * 2


def test_reading_goes_on_where_nobody_claims_the_first_chunk(home, tmp_path, read_on):
    submission.submit(database(), write(tmp_path / "scans", 4), site_name="local")

    assert read_on == [(0, 0)] * 2


def test_ten_thousand_waiting_chunks_are_a_few_rings_however_many_ring(home, queue_server):
    db = connect(home)
    for start in range(0, 10_000, 1000):
        intake.add_page(db, described(db, chunk_size=1), found_files(10_000)[start : start + 1000])
    raw = redis.Redis(unix_socket_path=queue_server.removeprefix("redis+socket://"), socket_timeout=10)
    ringer = queue.app(Settings(home=home.home, queue_url=queue_server))

    with ThreadPoolExecutor(8) as ringers:
        list(ringers.map(lambda _: queue.ring(10_000, with_app=ringer), range(16)))
    for _ in range(3):
        sweep.sweep(db)

    assert raw.llen(queue.QUEUE) == queue.MOST_RINGS
    raw.flushall()
    sweep.sweep(db)
    assert raw.llen(queue.QUEUE) == queue.MOST_RINGS
    db.engine.dispose()
