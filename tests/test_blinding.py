"""Blinding, by comparison: the same house twice, alike to the last key but for one secret (a scan is flagged here and
drawn from the cleared there; the first reader confirms here and dismisses there). Whoever may not know the secret must
get the same bytes from both, whatever they ask for."""

import re
import shutil
from dataclasses import dataclass
from datetime import UTC, datetime

import pytest
from reading_room import NOBODYS_KEY, Browser, Found, ReadingRoom, routes
from sqlalchemy import select, update

from db.schema import Batch, Entry, Outcome, Scan
from db.store import agreement
from db.store.people import user_named
from db.words import Reason, Role, Stage, State
from webui.guard import SAFE_METHODS

SECRET, COMPANY, CLEARED, BROKEN = "x.png", "company.png", "cleared.png", "broken.txt"
KEYS = {path: f"{n:x}" * 32 for n, path in enumerate((SECRET, COMPANY, CLEARED, BROKEN), start=10)}
RANKS = {SECRET: 0.7, COMPANY: 0.3}
NIGHT = datetime(2026, 11, 23, 22, 0, tzinfo=UTC)
PATIENT = "PE-77"
SHARE = 0.25
# What is asked besides the plain address of every route.
HEADERS = [{"X-Nightread-Ahead": KEYS[COMPANY]}, {"Accept": "application/json"}]
QUERIES = {
    "worklist.index": [
        *("state=unread", "state=second", "state=arbiter", "state=done", "state=withdrawn", "lowest=0", "lowest=0.5"),
        *("highest=0.5", "order=newest", "order=oldest", "reader=first", "verdict=confirm", "batch_id=1", "after=1"),
    ],
    "review.show": ["anyway=1", "again=1", "state=done"],
    "review.skip": ["order=newest", f"ahead={KEYS[COMPANY]}"],
    "cases.index": ["view=all", "view=cleared", "view=to_read", "view=confirmed", "view=dismissed"],
    "batches.progress": ["batch=1"],
    "quality.index": ["site=1", "threshold=0.3", "site=1&threshold=0.9"],
}
# Left out: what ends or changes one's own account.
NOT_ASKED = {"static", "auth.sign_out", "account.change_password", "codes.begin", "codes.confirm"}
FORM = {"text": PATIENT, "reason": "a reason that is long enough", "action": "seen", "note": "a note", "step": "closed"}
CHANGING = [
    (re.compile(rb'name="csrf_token" value="[^"]*"'), b"TOKEN"),
    (re.compile(rb"\d{4}-\d\d-\d\d[T ]\d\d:\d\d(:\d\d(\.\d+)?)?(\+00:00| UTC)?"), b"MOMENT"),
    (re.compile(rb"\d\d:\d\d UTC"), b"CLOCK"),
]


@dataclass(frozen=True)
class House:
    """One of the two: a reading room, and what is asked in it."""

    room: ReadingRoom

    def answers(self, who: str) -> dict[tuple[str, ...], tuple[object, ...]]:
        """What somebody gets from every route that reads, then from every one that changes something."""
        browser = self.room.inside(who)
        got = {}
        for method, address, headers in asked(self.room):
            form = {"csrf_token": browser.token("/account"), **FORM} if method not in SAFE_METHODS else None
            answer = browser.client.open(address, method=method, data=form, headers=headers)
            got[method, address, *headers] = told(answer)
        return got

    def entry_of(self, path: str, by: str):
        return self.room.entry(KEYS[path], by)


def asked(room: ReadingRoom) -> list[tuple[str, str, dict[str, str]]]:
    """Method, address and headers of everything that is asked; what only reads first."""
    found: list[tuple[str, str, dict[str, str]]] = []
    for endpoint, method, pattern in routes(room.app):
        if endpoint in NOT_ASKED or endpoint.split(".")[0] in NOT_ASKED:
            continue
        has_key = NOBODYS_KEY in pattern
        for address in (
            [pattern.replace(NOBODYS_KEY, KEYS[path]) for path in (SECRET, CLEARED)] if has_key else [pattern]
        ):
            found.append((method, address, {}))
            found += [(method, f"{address}?{query}", {}) for query in QUERIES.get(endpoint, []) if method == "GET"]
        if endpoint in ("review.show", "review.skip", "review.image", "review.give_verdict"):
            found += [(method, pattern.replace(NOBODYS_KEY, KEYS[SECRET]), headers) for headers in HEADERS]
    return sorted(found, key=lambda one: (one[0] not in SAFE_METHODS, one[1]))


def told(answer) -> tuple[object, ...]:
    """Status, headers and bytes of an answer, without what changes from one request to the next."""
    headers = sorted((name, value) for name, value in answer.headers if name != "Set-Cookie")
    data = answer.data
    for pattern, instead in CHANGING:
        data = pattern.sub(instead, data)
    kept = [(name, value) for name, value in headers if name != "Content-Length"]
    return answer.status_code, kept, data


def differing(first: dict, second: dict) -> list[tuple[str, ...]]:
    assert first.keys() == second.keys()
    assert not [asked for asked, answer in first.items() if answer[0] >= 500]
    return [asked for asked in first if first[asked] != second[asked]]


@pytest.fixture
def build(home, tmp_path):
    """`build(secret, **reads)`: one of the houses, at a site that reads like this."""
    rooms = []

    def made(secret: Found, **reads: object) -> House:
        config = home.model_copy(update={"home": tmp_path / str(len(rooms))})
        shutil.copytree(home.home, config.home)
        room = ReadingRoom(config)
        rooms.append(room)
        furnish(room, secret, reads)
        return House(room)

    yield made
    for room in rooms:
        room.close()


def furnish(room: ReadingRoom, secret: Found, reads: dict[str, object]) -> None:
    """A night: the secret, a flagged scan, a cleared and a broken one of the secret's patient. Four people."""
    room.site("local", **reads)
    room.users("first", "second")
    room.user("arbiter", role=Role.ARBITER)
    room.user("centre", role=Role.CENTRE)
    files = [
        secret,
        Found(COMPANY, score=0.8, seed=2),
        Found(CLEARED, score=0.2, patient=PATIENT),
        Found(BROKEN, reason=Reason.NOT_AN_IMAGE, patient=PATIENT),
    ]
    room.night(*files)
    with room.db.writing() as session:
        for path, key in KEYS.items():
            session.execute(update(Scan).where(Scan.path == path).values(key=key))
        for path, rank in RANKS.items():
            of = select(Scan.id).where(Scan.path == path).scalar_subquery()
            session.execute(update(Entry).where(Entry.scan_id == of).values(rank=rank))
        session.execute(update(Entry).values(submitted_at=NIGHT))
        session.execute(update(Batch).values(submitted_at=NIGHT))
        session.execute(update(Outcome).values(at=NIGHT))
    for path in (SECRET, COMPANY):
        room.picture(KEYS[path], Found(path))


FLAGGED = Found(SECRET, score=0.93, patient=PATIENT, age=50.0)
DRAWN = Found(SECRET, score=0.04, patient=PATIENT, age=50.0, share=SHARE)


# A scan that was drawn from the cleared


@pytest.fixture(params=[{"readers": 1}, {"readers": 2}], ids=["one reader", "two readers"])
def pair(request, build) -> tuple[House, House]:
    """The house where the scan is flagged, and the one where it was drawn."""
    reads = {"sample_share": SHARE, **request.param}
    return build(FLAGGED, **reads), build(DRAWN, **reads)


def test_the_two_houses_hold_what_the_comparison_is_about(pair):
    for house, score in zip(pair, (0.93, 0.04), strict=True):
        with house.room.db.reading() as session:
            entry = session.scalars(select(Entry).join(Scan, Scan.id == Entry.scan_id).where(Scan.path == SECRET)).one()
            assert (entry.score, entry.share) == (score, None if score > 0.5 else SHARE)


@pytest.mark.parametrize("who", ["first", "arbiter", "centre"])
def test_nothing_tells_a_drawn_scan_from_a_flagged_one_before_the_impression(pair, who):
    flagged, drawn = (house.answers(who) for house in pair)

    assert differing(flagged, drawn) == []
    assert len({answer[0] for answer in flagged.values()}) > 2  # pages, redirections, refusals: not all one error


def test_the_impression_and_its_answer_do_not_tell_and_what_follows_does(pair):
    said = [impression(house.room.inside("first")) for house in pair]
    pages = [house.room.inside("first").get(f"/scan/{KEYS[SECRET]}") for house in pair]

    assert said[0] == said[1]
    assert said[0][0] == 200
    assert "▲ flagged" in pages[0].text
    assert "not flagged" in pages[1].text
    assert "0.040" in pages[1].text


def impression(browser: Browser) -> tuple[object, ...]:
    form = {"csrf_token": browser.token("/account"), "stage": "impression", "verdict": "dismiss"}
    address = f"/scan/{KEYS[SECRET]}"
    return told(browser.client.post(address, data=form, headers={"Accept": "application/json"}))


@pytest.mark.parametrize("who", ["second", "arbiter", "centre"])
def test_somebody_elses_impression_tells_the_others_nothing(pair, who):
    for house in pair:
        house.room.says("first", KEYS[SECRET], "dismiss", stage=Stage.IMPRESSION)

    assert differing(*(house.answers(who) for house in pair)) == []


def test_a_second_reader_is_as_blind_as_the_first(build):
    reads = {"sample_share": SHARE, "readers": 2}
    pair = build(FLAGGED, **reads), build(DRAWN, **reads)
    for house in pair:
        house.room.says("first", KEYS[SECRET], "dismiss", stage=Stage.IMPRESSION)
        house.room.says("first", KEYS[SECRET], "dismiss")

    assert differing(*(house.answers("second") for house in pair)) == []
    assert all(house.entry_of(SECRET, "second").state == State.SECOND for house in pair)


def test_pictures_are_there_for_both_and_heat_maps_for_neither(pair):
    for house in pair:
        browser = house.room.inside("first")
        got = {kind: browser.get(f"/scan/{KEYS[SECRET]}/{kind}.png") for kind in ("image", "input", "heat")}
        assert not any("Last-Modified" in answer.headers for answer in got.values())

        assert {kind: answer.status_code for kind, answer in got.items()} == {"image": 200, "input": 200, "heat": 404}
        nobodys = browser.get(f"/scan/{NOBODYS_KEY}/heat.png")
        assert told(got["heat"]) == told(nobodys)


def test_the_comparison_sees_a_difference_where_there_is_one(build):
    pair = build(FLAGGED), build(Found(SECRET, score=0.94, patient=PATIENT, age=50.0))

    differ = {address for _, address, *_ in differing(*(house.answers("first") for house in pair))}

    assert {"/", f"/scan/{KEYS[SECRET]}"} <= differ
    assert not any("/image.png" in address for address in differ)


# What the first of two readers said


def read_once(build, **reads: object) -> tuple[House, House]:
    """Two houses of two readers each: the first confirms with one note and finding here, and dismisses there."""
    houses = build(FLAGGED, readers=2, **reads), build(FLAGGED, readers=2, **reads)
    said = [("confirm", "canary-a", ["cavity"]), ("dismiss", "another canary", [])]
    for house, (verdict, note, findings) in zip(houses, said, strict=True):
        if house.entry_of(SECRET, "first").needs_impression:
            house.room.says(
                "first", KEYS[SECRET], verdict, stage=Stage.IMPRESSION, note=f"{note}, at first", findings=findings
            )
        house.room.says("first", KEYS[SECRET], verdict, note=note, findings=findings)
    return houses


@pytest.mark.parametrize("reads", [{}, {"blind_first": True}, {"sample_share": SHARE}], ids=str)
@pytest.mark.parametrize("who", ["second", "arbiter", "centre"])
def test_nothing_that_the_first_reader_said_reaches_anybody_before_both_have_read(build, reads, who):
    confirmed, dismissed = read_once(build, **reads)

    answers = confirmed.answers(who)

    assert differing(answers, dismissed.answers(who)) == []
    assert not any(b"canary" in data for _, _, data in answers.values())


def test_once_both_have_read_they_see_each_others_words(build):
    house, _ = read_once(build)
    house.room.says("second", KEYS[SECRET], "confirm", note="mine")

    assert "canary-a" in house.room.inside("second").get(f"/scan/{KEYS[SECRET]}").text
    assert "mine" in house.room.inside("first").get(f"/scan/{KEYS[SECRET]}").text


def test_who_disagrees_learns_nothing_until_the_arbiter_has_decided(build):
    house, _ = read_once(build)
    house.room.says("second", KEYS[SECRET], "dismiss", note="mine")
    address = f"/scan/{KEYS[SECRET]}"

    before = house.room.inside("second").get(address).text
    between = house.room.inside("arbiter").get(address).text
    house.room.says("arbiter", KEYS[SECRET], "confirm", stage=Stage.ARBITRATION)
    after = house.room.inside("second").get(address).text

    assert ["canary-a" in page for page in (before, between, after)] == [False, True, True]


def test_both_verdicts_count_as_independent_for_the_agreement(build):
    house, _ = read_once(build)
    house.room.inside("second").get(f"/scan/{KEYS[SECRET]}")
    house.room.says("second", KEYS[SECRET], "dismiss")
    house.room.says("arbiter", KEYS[SECRET], "confirm", stage=Stage.ARBITRATION)
    site_ids = set(user_named(house.room.db, "first").site_ids)

    (both,) = agreement.pairs(house.room.db, site_ids=site_ids, model_id=1)

    assert (both.first, both.second, both.said) == ("first", "second", {("confirm", "dismiss"): 1})
    said = house.room.entry(KEYS[SECRET], "arbiter").reviews
    assert [(one.reader, one.saw_others) for one in said] == [("arbiter", True), ("second", False), ("first", False)]
