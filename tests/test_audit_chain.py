"""The audit record withstands who may write to it: 10,000 random falsifications of a log, every one found."""

import contextlib
import json
import random
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from copy import deepcopy
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from functools import cache
from itertools import pairwise
from typing import Any

import pytest
from click.testing import CliRunner
from sqlalchemy import text

from db.errors import NightreadError, Refused
from db.settings import Settings
from db.store import audit, chain, people
from db.store.chain import EMPTY, FIRST, Head
from db.store.connection import connect
from producer.cli import group

KEY, WRONG_KEY = b"what the attacker does not have", b"what the attacker guesses"
EVENTS = 200
FALSIFICATIONS = 10_000
SEED = 20261124

ACTIONS = ("viewed", "reviewed", "signed_in", "threshold_set", "batch_sealed", "retried")


@dataclass(frozen=True)
class Row:
    """A row of the table, apart from any database."""

    id: int
    at: datetime
    actor: str
    action: str
    object: str
    detail: dict[str, Any] = field(default_factory=dict)
    hash: str = ""


Log = list[Row]


def signed(rows: Log, key: bytes = KEY, before: str = FIRST) -> Log:
    """The rows with the hashes that whoever holds `key` would give them."""
    done = []
    for row in rows:
        done.append(replace(row, hash=chain.digest(key, before, row)))
        before = done[-1].hash
    return done


@cache
def night() -> tuple[Row, ...]:
    """A night's honest log."""
    draw = random.Random(SEED)
    moment = datetime(2026, 11, 24, 1, tzinfo=UTC)
    rows = []
    for number in range(1, EVENTS + 1):
        moment += timedelta(microseconds=draw.randrange(1, 10**8))
        detail = {
            "with": draw.choice(["image", "heat map"]),
            "scans": draw.randrange(1000),
            "why": None,
            "of": [number],
        }
        about = f"scan {draw.randrange(10**6)}"
        rows.append(Row(number, moment, draw.choice(["rosa", "ada", "cli:root"]), draw.choice(ACTIONS), about, detail))
    return tuple(signed(rows))


# What somebody does who writes to the table and has not the key. Each takes a log and gives another.


def edit_words(log: Log, draw: random.Random) -> Log:
    at, name = draw.randrange(len(log)), draw.choice(["actor", "action", "object", "hash"])
    value = getattr(log[at], name)
    spot = draw.randrange(len(value))
    letter = draw.choice([one for one in "0123456789abcdefé \0" if one != value[spot]])
    return with_row(log, at, **{name: value[:spot] + letter + value[spot + 1 :]})


def edit_detail(log: Log, draw: random.Random) -> Log:
    at = draw.randrange(len(log))
    detail = deepcopy(log[at].detail)
    change = draw.randrange(5)
    if change == 0:
        del detail[draw.choice(list(detail))]
    elif change == 1:
        detail["signed_by"] = "ada"
    elif change == 2:
        detail["scans"] += draw.choice([-1, 1, 10**9])
    elif change == 3:
        detail["scans"] = str(detail["scans"])
    else:
        detail["of"].append(0)
    return with_row(log, at, detail=detail)


def move_time(log: Log, draw: random.Random) -> Log:
    at = draw.randrange(len(log))
    by = timedelta(microseconds=draw.choice([-1, 1]) * draw.choice([1, 10**3, 10**6, 36 * 10**8, 864 * 10**8]))
    return with_row(log, at, at=log[at].at + by)


def swap_fields(log: Log, draw: random.Random) -> Log:
    one, other = draw.sample(range(len(log)), 2)
    name = draw.choice(["detail", "at", "object", "hash"])
    return with_row(with_row(log, one, **{name: getattr(log[other], name)}), other, **{name: getattr(log[one], name)})


def delete_some(log: Log, draw: random.Random) -> Log:
    start = draw.randrange(len(log) - 1)
    length = min(draw.choice([1, 1, 2, 50]), len(log) - 1 - start)  # the last row stays: no cut end
    return log[:start] + log[start + length :]


def delete_and_close_the_gap(log: Log, draw: random.Random) -> Log:
    return renumbered(delete_some(log, draw))


def cut_the_end(log: Log, draw: random.Random) -> Log:
    return log[: draw.choice([0, len(log) - 1, draw.randrange(len(log))])]


def cut_the_beginning(log: Log, draw: random.Random) -> Log:
    rest = log[draw.randrange(1, len(log)) :]
    return draw.choice([rest, renumbered(rest)])


def reorder(log: Log, draw: random.Random) -> Log:
    """Rows change places and take the numbers of their places."""
    length = draw.choice([2, 3, 20])
    start = draw.randrange(len(log) - length)
    part = log[start : start + length]
    mixed = part[:]
    while mixed == part:
        draw.shuffle(mixed)
    return renumbered(log[:start] + mixed + log[start + length :])


def renumber(log: Log, draw: random.Random) -> Log:
    """The order stays; numbers leave a gap, or begin elsewhere."""
    start, by = draw.randrange(len(log)), draw.choice([1, 7, 10**6])
    return log[:start] + [replace(row, id=row.id + by) for row in log[start:]]


def repeat(log: Log, draw: random.Random) -> Log:
    """A true event stands in the log twice."""
    row, where = draw.choice(log), draw.randrange(len(log) + 1)
    return renumbered([*log[:where], row, *log[where:]])


def insert_forged(log: Log, draw: random.Random) -> Log:
    """An event that never was, hashed under a guessed key; what follows is hashed anew or left."""
    where = draw.randrange(len(log) + 1)
    before = log[where - 1].hash if where else FIRST
    model = draw.choice(log)
    forged = replace(model, id=where + 1, actor="rosa", action="reviewed", detail={"verdict": "dismiss"})
    following = renumbered(log[where:], first=where + 2)
    if draw.random() < 0.5:
        return log[:where] + signed([forged, *following], WRONG_KEY, before)
    return log[:where] + signed([forged], WRONG_KEY, before) + following


def rewrite_the_end(log: Log, draw: random.Random) -> Log:
    """A new history from somewhere on, whole in itself, under a guessed key."""
    start = draw.randrange(len(log))
    changed = [replace(row, actor="ada") if row.actor != "ada" else replace(row, actor="rosa") for row in log[start:]]
    return log[:start] + signed(changed, WRONG_KEY, log[start - 1].hash if start else FIRST)


FALSIFY: dict[str, Callable[[Log, random.Random], Log]] = {
    function.__name__: function
    for function in (
        edit_words, edit_detail, move_time, swap_fields, delete_some, delete_and_close_the_gap, cut_the_end,
        cut_the_beginning, reorder, renumber, repeat, insert_forged, rewrite_the_end,
    )
}  # fmt: skip


def with_row(log: Log, spot: int, /, **changed: Any) -> Log:
    return [*log[:spot], replace(log[spot], **changed), *log[spot + 1 :]]


def renumbered(log: Log, first: int = 1) -> Log:
    return [replace(row, id=number) for number, row in enumerate(log, first)]


def falsified(draw: random.Random, kind: str | None = None) -> tuple[str, Log]:
    """A kind of falsification and a log to which it was done, which says something else than the honest one."""
    honest = list(night())
    while True:
        chosen = kind or draw.choice(list(FALSIFY))
        log = FALSIFY[chosen](honest, draw)
        if log != honest:  # (swapping equal details changes nothing)
            return chosen, log


def is_found(log: Log, *heads: Head) -> bool:
    try:
        chain.walk(log, KEY, heads)
    except ValueError:
        return True
    return False


def head_of(log: Log, number: int = EVENTS) -> Head:
    return Head(number, log[number - 1].hash)


def test_an_honest_log_is_whole():
    log = list(night())

    assert chain.walk(log, KEY, [head_of(log)]) == head_of(log)
    assert chain.walk(log, KEY, [head_of(log, 7), EMPTY]) == head_of(log)
    assert chain.walk([], KEY) == EMPTY


@pytest.mark.timeout(900)  # 15 s on a quiet machine
def test_every_one_of_ten_thousand_falsifications_is_found():
    draw, head = random.Random(SEED), head_of(list(night()))
    counts, missed = dict.fromkeys(FALSIFY, 0), []

    for number in range(FALSIFICATIONS):
        kind, log = falsified(draw)
        counts[kind] += 1
        if not is_found(log, head):
            missed.append((number, kind))

    assert missed == []
    assert sum(counts.values()) == FALSIFICATIONS
    assert min(counts.values()) > FALSIFICATIONS / len(FALSIFY) / 2


def test_the_key_and_the_head_are_what_finds_them():
    """The test above could fail: who has the key is found by the head alone, and a cut end without one by nothing."""
    log = list(night())
    rewritten = signed([replace(row, actor="nobody") for row in log])
    shortened = log[:-3]

    assert not is_found(rewritten)
    assert is_found(rewritten, head_of(log))
    assert not is_found(shortened)
    assert is_found(shortened, head_of(log))


def test_a_cut_end_with_an_older_head_put_back_is_found_by_a_head_kept_elsewhere():
    draw, log = random.Random(SEED), list(night())

    for _ in range(200):
        cut = log[: draw.randrange(1, len(log) - 1)]
        put_back = head_of(log, draw.randrange(1, len(cut) + 1))
        kept_elsewhere = head_of(log, draw.randrange(len(cut) + 1, len(log) + 1))

        assert not is_found(cut, put_back)  # the limit that audit.py states
        assert is_found(cut, put_back, kept_elsewhere)


def test_a_log_that_goes_on_after_its_head_was_noted_is_whole():
    """A crash between the commit and the noting of the head leaves it behind."""
    log = list(night())

    assert not is_found(log, head_of(log, EVENTS - 1), head_of(log, 1))


def test_a_head_of_another_log_is_found():
    log = list(night())

    assert is_found(log, Head(EVENTS, "0" * 64))
    assert is_found(log, Head(EVENTS, log[-2].hash))


def test_events_of_before_numbers_were_covered_are_taken_with_their_gaps_and_only_at_the_beginning():
    def old(row, before):
        return replace(row, hash=chain._hmac(KEY, [before, *chain._said(row)]))

    first, second, third = (replace(row, id=number) for row, number in zip(night(), (1, 4, 5), strict=False))
    first = old(first, FIRST)
    second = old(second, first.hash)
    (new,) = signed([third], before=second.hash)

    assert chain.walk([first, second, new], KEY) == Head(5, new.hash)
    assert is_found([first, replace(second, actor="x"), new])
    assert is_found([second, new])
    assert is_found([first, second, new, old(replace(first, id=6), new.hash)])


@pytest.mark.parametrize("text", ["", "7", "seven " + "0" * 64, "7 abc", "7 " + "0" * 64 + " more"])
def test_what_is_no_head_is_not_taken_for_one(text):
    with pytest.raises(ValueError):  # noqa: PT011 (whatever it says: both callers say it in their own words)
        Head.parse(text)


def test_a_head_reads_as_it_was_written():
    assert Head.parse(str(head_of(list(night())))) == head_of(list(night()))


# With a real database


@pytest.fixture
def logged(home):
    """A home with some events on record, and nothing that guards them: what somebody has who owns the database."""
    db = connect(home)
    for turn in range(40):
        people.note_event(db, by="rosa", action="viewed", about=f"scan {turn}", detail={"with": "heat map"})
    with db.writing() as session:
        for action in ("update", "delete"):
            session.execute(text(f"DROP TRIGGER audit_events_no_{action}"))
    yield db
    db.engine.dispose()


def rows_of(db) -> Log:
    with db.reading() as session:
        return [
            Row(one.id, one.at, one.actor, one.action, one.object, one.detail, one.hash)
            for one in session.query(audit.AuditEvent).order_by(audit.AuditEvent.id)
        ]


def put(db, log: Log) -> None:
    """Write a log over the one in the table, past every function of ours."""
    written = "INSERT INTO audit_events VALUES (:id, :at, :actor, :action, :object, :detail, :hash)"
    values = [
        vars(row) | {"at": row.at.strftime("%Y-%m-%d %H:%M:%S.%f"), "detail": json.dumps(row.detail)} for row in log
    ]
    with db.writing() as session:
        session.execute(text("DELETE FROM audit_events"))
        if values:
            session.execute(text(written), values)


@pytest.mark.parametrize("kind", [kind for kind in FALSIFY if kind not in {"edit_detail"}])
def test_what_is_found_in_rows_is_found_in_the_database(logged, kind):
    draw, honest = random.Random(kind), rows_of(logged)
    put(logged, honest)
    assert audit.verify(logged) == len(honest)

    for _ in range(4):
        log = FALSIFY[kind](honest, draw)
        if repr(log) == repr(honest) or len({row.hash for row in log}) < len(log):
            continue  # nothing changed, or a copy that the table itself refuses (hashes are unique)
        put(logged, log)
        with pytest.raises(ValueError, match=r"audit"):
            audit.verify(logged)


def test_a_changed_detail_is_found_in_the_database(logged):
    honest = rows_of(logged)
    for changed in ({"with": "image"}, {}, {"with": "heat map", "by": "ada"}):
        put(logged, with_row(honest, 12, detail=changed))
        with pytest.raises(ValueError, match="event 13 was altered"):
            audit.verify(logged)


def crash_after_recording(db, about):
    def crash():
        raise RuntimeError("the crash")

    with contextlib.suppress(RuntimeError), db.writing() as session:
        audit.record(session, "rosa", "viewed", about)
        crash()


@pytest.mark.parametrize("change", ["detail = 'no JSON'", "at = 'yesterday'", "actor = x'ff'", "hash = 7", "id = 1000"])
def test_garbage_in_a_column_is_found_and_no_traceback(logged, change):
    with logged.writing() as session:
        session.execute(text(f"UPDATE audit_events SET {change} WHERE id = 20"))

    with pytest.raises(ValueError):  # noqa: PT011 (the words are those of whoever could not read it)
        audit.verify(logged)


def test_events_are_numbered_without_a_gap_also_after_a_transaction_that_failed(db):
    before = audit.verify(db)

    crash_after_recording(db, "scan 1")
    people.note_event(db, by="rosa", action="viewed", about="scan 2")

    assert audit.verify(db) == before + 1
    assert all(one.id + 1 == other.id for one, other in pairwise(rows_of(db)))


def test_the_head_is_noted_after_the_commit_and_never_before_it(home):
    db = connect(home)
    people.note_event(db, by="rosa", action="viewed", about="scan 1")
    noted = (home.home / "audit.head").read_text()

    crash_after_recording(db, "scan 2")

    assert (home.home / "audit.head").read_text() == noted
    assert noted.split() == [str(audit.verify(db)), rows_of(db)[-1].hash]


def test_a_crash_before_the_head_was_noted_is_no_tampering_and_the_next_event_notes_it(home, monkeypatch):
    db = connect(home)
    with monkeypatch.context() as crash:
        crash.setattr(audit, "_keep_head", lambda config, head: None)
        people.note_event(db, by="rosa", action="viewed", about="scan 1")

    behind = audit.verify(db)
    people.note_event(db, by="rosa", action="viewed", about="scan 2")

    assert audit.verify(db) == behind + 1
    assert (home.home / "audit.head").read_text().split()[0] == str(behind + 1)


def test_the_sweep_notes_a_head_that_was_left_behind_and_never_makes_a_missing_one(home, monkeypatch):
    head = home.home / "audit.head"
    with monkeypatch.context() as crash:
        crash.setattr(audit, "_keep_head", lambda config, newest: None)
        behind = head.read_text()
        people.note_event(connect(home), by="test", action="tried", about="nothing")
    assert head.read_text() == behind

    audit.note_end(connect(home))

    assert int(head.read_text().split()[0]) == int(behind.split()[0]) + 1
    head.unlink()
    audit.note_end(connect(home))
    assert not head.exists()


def test_a_head_that_cannot_be_noted_does_not_undo_what_was_committed(home, monkeypatch, caplog):
    db = connect(home)
    before = audit.verify(db)

    def full_disk(path, content):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(audit, "_overwrite", full_disk)
    people.note_event(db, by="rosa", action="viewed", about="scan 1")

    assert audit.verify(db) == before + 1
    assert "No space left" in caplog.text


def test_many_processes_worth_of_writers_keep_one_chain_and_the_newest_head(db):
    before = audit.verify(db)
    opened = [connect(db.config) for _ in range(4)]  # as four processes would

    def work(number):
        people.note_event(opened[number % 4], by=f"writer {number % 4}", action="viewed", about=f"scan {number}")

    with ThreadPoolExecutor(8) as many:
        list(many.map(work, range(80)))

    assert audit.verify(db) == before + 80
    assert (db.config.home / "audit.head").read_text().split()[0] == str(before + 80)
    for one in opened:
        one.engine.dispose()


def test_without_any_head_the_record_is_not_called_whole(logged):
    (logged.config.home / "audit.head").unlink()

    with pytest.raises(Refused, match="--head"):
        audit.verify(logged)


def test_a_head_file_with_something_else_in_it_is_found(logged):
    for content in ("", "soon", "5"):
        (logged.config.home / "audit.head").write_text(content)
        with pytest.raises(ValueError, match="altered"):
            audit.verify(logged)


def test_a_secret_is_made_once_by_whoever_comes_first_and_never_read_half_written(tmp_path):
    for turn in range(20):
        file = tmp_path / str(turn) / "audit.key"

        with ThreadPoolExecutor(8) as many:
            read = set(many.map(lambda _, file=file: audit.secret_file(file), range(8)))

        assert len(read) == 1
        assert len(read.pop()) == 64
        assert [path.name for path in file.parent.iterdir()] == ["audit.key"]
        assert file.stat().st_mode & 0o077 == 0


def test_an_empty_key_file_is_refused_and_not_used(tmp_path):
    (tmp_path / "audit.key").touch()

    with pytest.raises(Refused, match="empty"):
        audit.audit_key(Settings(home=tmp_path))


# The command


def verified(*words):
    result = CliRunner().invoke(group, ["audit", "verify", "--json", *words], standalone_mode=False)
    if result.exception:
        raise result.exception
    return json.loads(result.stdout)


def test_the_command_prints_the_head_and_takes_it_back_later(logged):
    told = verified()
    people.note_event(logged, by="rosa", action="viewed", about="scan 1")

    again = verified("--head", told["head"])

    assert told["intact"]
    assert again["events"] == told["events"] + 1


def test_the_command_finds_a_cut_end_with_its_head_by_the_head_that_an_admin_kept(logged):
    """The attacker owns database and home folder, and puts back both as they were."""
    honest, head = rows_of(logged), verified()["head"]
    put(logged, honest[:-5])
    (logged.config.home / "audit.head").write_text(f"{honest[-6].id} {honest[-6].hash}\n")

    assert verified()["intact"]
    with pytest.raises(NightreadError, match="end of the audit log is missing"):
        verified("--head", head)


def test_the_command_refuses_what_is_no_head(logged):
    result = CliRunner().invoke(group, ["audit", "verify", "--head", "soon"])

    assert result.exit_code == 2
    assert "is no head" in result.output
