"""A house in which every page has something to show, with words that the test chooses in every place where words come
from outside."""

import re
from dataclasses import dataclass, fields, replace

from reading_room import Browser, Found, ReadingRoom, routes
from sqlalchemy import select

from db.schema import Scan
from db.settings import Settings
from db.store import cases, heartbeats, people, unscreened
from db.store.connection import now
from db.words import Cause, Closing, LabResult, Reason, Role, Step
from webui.batches import REASON_CHARACTERS

# Characters that the forms of some of these take.
MOST = {
    "reason": REASON_CHARACTERS[1],
    "acknowledged": unscreened.NOTE_CHARACTERS[1],
    "closing": cases.NOTE_CHARACTERS,
    "laboratory": cases.NOTE_CHARACTERS,
}
GUESTS = ("nobody", "dr-a", "arbiter", "centre", "boss", "opener")  # `opener`: an admin who opened the batches

# What else the lists can show.
MORE = [
    *("/batches/2", "/batches/3", "/no/such/page", "/quality?model=1", "/quality?model=2"),
    *("/?model=1", "/?model=2", "/?state=done", "/?state=arbiter", "/?state=unread&order=newest", "/?reader=dr-a"),
    *("/?site_id=2&lowest=0.1&highest=1", "/?batch_id=999", "/arbitration?model=1"),
    *(f"/unscreened?standing={standing}" for standing in ("acknowledged", "resolved", "duplicate")),
    *(f"/cases?show={show}" for show in ("all", "closed", "discrepant")),
]


@dataclass(frozen=True)
class Words:
    """What others wrote, by where it ends up. Each begins with its own name, so that a page that shows it is known."""

    patient: str = "patient"
    study: str = "study"
    file: str = "file"
    folder: str = "folder"
    site: str = "site"
    note: str = "note of a reader"
    reason: str = "reason of an admin"
    acknowledged: str = "acknowledged, and why"
    laboratory: str = "laboratory's note"
    closing: str = "closing note"
    finding: str = "finding"
    reader: str = "reader"
    worker: str = "worker"
    doing: str = "doing"
    model: str = "model"
    tag: str = "tag"
    detail: str = "detail of a rejection"

    def but(self, change) -> "Words":
        """The same with `change` applied to each."""
        return replace(self, **{each.name: change(each.name, getattr(self, each.name)) for each in fields(self)})


def house(config: Settings, words: Words) -> ReadingRoom:
    """Fill a fresh home: two sites, two models, all roles, three batches in which every kind of outcome occurs."""
    room = ReadingRoom(config)
    sites = ["local", words.site]
    for name, role in (("dr-a", Role.READER), ("dr-b", Role.READER), (words.reader, Role.READER)):
        room.user(name, role=role, sites=sites)
    room.user("arbiter", role=Role.ARBITER, sites=sites)
    room.user("centre", role=Role.CENTRE, sites=sites)
    for name in ("boss", "opener"):
        room.user(name, role=Role.ADMIN, sites=sites)
    _night(room, words)
    _readings(room, words)
    heartbeats.beat(
        room.db, name=words.worker, host=words.worker, device=words.worker[:60], pid=4711, doing=words.doing, scans=3
    )
    _newer_model(room, words)
    room.opened(1, "opener")
    browser = room.inside("opener")
    browser.post("/batches/2", page="/account", reason=words.reason[: MOST["reason"]])
    return room


def _found(words: Words, name: str, **more) -> Found:
    tags = {"Modality": words.tag, "StudyDescription": words.tag, "ViewPosition": "PA"}
    path = f"night/{name} {words.file}.png"
    patient = words.patient if "score" in more else f"{name} {words.patient}"[:200]  # else the others would resolve it
    return Found(path, patient=patient, study=words.study, tags=tags, age=47.0, **more)


def _night(room: ReadingRoom, words: Words) -> None:
    flagged = [_found(words, f"flagged-{n}", score=0.9 - n / 50, seed=n) for n in range(4)]
    lost = [
        _found(words, "rejected-0", reason=Reason.TRUNCATED, detail=words.detail),
        _found(words, "rejected-1", reason=Reason.NOT_FRONTAL, detail=words.detail),
        _found(words, "failed", cause=Cause.OUT_OF_MEMORY),
    ]
    cleared = _found(words, "cleared", score=0.1)
    room.night(*flagged, *lost, cleared, site=words.site, root=f"/nights/{words.folder}", pictures=True)
    room.night(Found("other.png", score=0.8), Found("waits.png"), root=f"/nights/2 {words.folder}", pictures=True)


def _readings(room: ReadingRoom, words: Words) -> None:
    keys = named(room)
    first, second, third = (keys[f"flagged-{n}"] for n in range(3))
    known = [words.finding] if words.finding in room.config.findings else []
    room.says(words.reader, first, "confirm", note=words.note, findings=known)
    room.says("dr-b", second, "unsure", note=words.note, findings=known)
    room.says("dr-a", third, "repeat", note=words.note)
    noted = words.acknowledged[: MOST["acknowledged"]]
    mine = set(people.user_named(room.db, "dr-a").site_ids)
    unscreened.acknowledge(room.db, keys["rejected-1"], site_ids=mine, by=words.reader, note=noted)
    for step, result, note in (
        (Step.LABORATORY, LabResult.NEGATIVE, words.laboratory),
        (Step.CLOSED, Closing.RELEASED, words.closing),
    ):
        scan_id = room.scan_id(first)
        cases.add_step(room.db, scan_id, step=step, result=result, at=now(), note=note[: MOST["closing"]], by="dr-a")


def _newer_model(room: ReadingRoom, words: Words) -> None:
    room.newer_model(words.model[:40])
    room.night(_found(words, "newest", score=0.7), site=words.site, root=f"/nights/3 {words.folder}", pictures=True)


def named(room: ReadingRoom) -> dict[str, str]:
    """What a scan was called here -> its key."""
    with room.db.reading() as session:
        scans = session.execute(select(Scan.path, Scan.key)).all()
    return {(re.match(r"night/([\w-]+)", path) or [path, path])[1]: key for path, key in scans}


def guest(room: ReadingRoom, who: str) -> Browser:
    """One of GUESTS at the door."""
    if who == "nobody":
        return room.visitor()
    browser = room.inside(who)
    if who == "opener":
        for batch in (1, 2, 3):
            browser.post(f"/batches/{batch}", page="/account", reason="a test of what is seen")
    return browser


def addresses(room: ReadingRoom) -> list[str]:
    """Of everything that the application answers to GET, from its URL map, with each kind of scan; and the lists of
    everything else that a list can show."""
    keys = named(room)
    some = [keys[name] for name in ("flagged-0", "flagged-1", "flagged-3", "cleared", "rejected-0", "failed")]
    found = []
    for _, method, address in routes(room.app):
        if method == "GET":
            found += [address.replace("0" * 32, key) for key in some] if "0" * 32 in address else [address]
    return list(dict.fromkeys([address for address in found if "/static/" not in address] + MORE))
