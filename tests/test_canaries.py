"""A thousand made-up identifiers, planted wherever a patient's may be, then looked for wherever none may be.

They stand as names, ids, study ids and accession numbers in DICOM headers, as names of files and folders, in a
manifest, in what is no image, in notes, in addresses, headers and forms, and as passwords typed into the name field.
Then comes a night (the real intake, queue, decoders and store; outcomes by hand) and a day of web use. `deploy/drill`
does the same with real workers under faults. The search knows each identifier in plain, escaped, hexadecimal and
base64 form.
"""

import hashlib
import logging
import random
import re
import string
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from html.parser import HTMLParser
from pathlib import Path

import pytest
import redis
from builders import CHEST, dicom, encoded
from click.testing import CliRunner
from reading_room import Browser, ReadingRoom
from sqlalchemy import select, text

from db.errors import UnreadableImage
from db.schema import Base
from db.store import heartbeats, models, scoring
from db.words import Cause, Role
from deploy.drill.canaries import Search, below
from producer.cli import group
from workers import derived
from workers.decoding import DecoderPool, Source
from workers.images import Limits

DICOMS, CUT, TEXTS, LISTED, FOLDERS = 70, 20, 40, 40, 30

# Where identifiers are at home. Everything else that the database, the web or a command says is a sink.
AT_HOME = {
    "scans.path",
    "scans.patient",
    "scans.study",
    "batches.manifest",  # the manifest's own path
    "reviews.note",
}
# What a page may say, and to whom: the scans of a reader's own sites, and of a batch that an admin opened on record.
PAGES_AT_HOME = re.compile(r"/(\?.*)?|/scan/[0-9a-f]{32}|/batches/\d+(\?.*)?")
# The sign-in form gives the name that somebody typed back to that same browser; so does the verdict's form its note.
FIELDS_GIVEN_BACK = re.compile(r'<input id="name"[^>]*>|<textarea id="(?:note|reason)".*?</textarea>', re.DOTALL)


@dataclass
class Planted:
    """Makes identifiers, each once, and remembers what each was planted as."""

    dice: random.Random = field(default_factory=lambda: random.Random(4))
    kinds: dict[str, str] = field(default_factory=dict)

    def word(self, kind: str, length: int = 12) -> str:
        word = "Q" + "".join(self.dice.choices(string.ascii_letters + string.digits, k=length - 1))
        return self._new(word, kind)

    def uid(self, kind: str) -> str:
        return self._new("1.2.826.0." + "".join(self.dice.choices("123456789", k=24)), kind)

    def _new(self, word: str, kind: str) -> str:
        assert word not in self.kinds
        self.kinds[word] = kind
        return word


def plant_folder(root: Path, planted: Planted) -> Path:
    """A night's folder full of identifiers, and the manifest that goes with it."""
    folders = [root / planted.word("folder") for _ in range(FOLDERS)]
    for n in range(DICOMS + CUT):
        content = dicom(**header(planted))
        name = planted.word("file") + ".dcm"
        kept = content if n < DICOMS else content[: len(content) - 1000 * (1 + n % 10)]
        write(folders[n % FOLDERS] / name, kept)
    for n in range(TEXTS):
        words = f"Letter about {planted.word('text')}, the patient.\n".encode()
        write(folders[n % FOLDERS] / f"{planted.word('file')}.png", words)
    lines = ["path,patient,study"]
    for n in range(LISTED):
        path = folders[n % FOLDERS] / f"Müller {planted.word('file')}.png"
        picture = CHEST.copy()
        picture[0, n] ^= 1
        write(path, encoded(".png", picture))
        lines.append(f"{path.relative_to(root)},{planted.word('patient')},{planted.uid('study')}")
    manifest = root.parent / f"{planted.word('manifest')}.csv"
    manifest.write_text("\n".join(lines))
    return manifest


def header(planted: Planted) -> dict[str, object]:
    return {
        "PatientName": f"{planted.word('name')}^{planted.word('name')}",
        "PatientID": planted.word("patient"),
        "StudyInstanceUID": planted.uid("study"),
        "StudyID": planted.word("study id"),
        "AccessionNumber": planted.word("accession number"),
    }


def write(path: Path, content: bytes) -> None:
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(content)


class Sinks:
    """Everything that was said where no identifier may be, by place."""

    def __init__(self) -> None:
        self.said: dict[str, list[bytes]] = defaultdict(list)

    def add(self, place: str, *said: str | bytes) -> None:
        self.said[place] += [one if isinstance(one, bytes) else one.encode("utf-8", "surrogateescape") for one in said]

    def leaks(self, planted: Planted) -> dict[str, set[str]]:
        words = tuple(planted.kinds)
        search = Search(words)
        found = {place: search.within(b"\n".join(said)) for place, said in self.said.items()}
        return {place: {f"{planted.kinds[words[n]]} {words[n]}" for n in some} for place, some in found.items() if some}


class Addresses(HTMLParser):
    """Every attribute of a page that holds an address, and every one that scripts read."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.found: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag, attributes):
        names = ("href", "src", "srcset", "action", "formaction", "poster", "data", "cite", "id", "class")
        self.found += [value or "" for name, value in attributes if name in names or name.startswith("data-")]


@dataclass
class Day:
    """Web use by several people; what they got goes to the sinks, but for pages that are theirs to read."""

    sinks: Sinks
    home: list[bytes] = field(default_factory=list)  # pages where identifiers are at home

    def look(self, answer, *, path: str = "", is_theirs: bool = False):
        """Take in an answer: its body, its headers, its addresses."""
        self.sinks.add("headers", *(f"{name}: {value}" for name, value in answer.headers))
        page = FIELDS_GIVEN_BACK.sub("", answer.text) if answer.content_type.startswith("text/html") else ""
        self.sinks.add("addresses in pages", *Addresses(page).found)
        if is_theirs and answer.status_code in (200, 400) and PAGES_AT_HOME.fullmatch(path):
            self.home.append(answer.data)
        else:
            self.sinks.add(f"page {answer.status_code}", page or answer.data)
        return answer

    def visit(self, browser: Browser, paths: list[str], *, is_theirs: bool) -> None:
        for path in paths:
            self.look(browser.get(path), path=path, is_theirs=is_theirs)


# The night


def screen(room: ReadingRoom, root: Path) -> None:
    """Every waiting scan ends: read by the real decoders, scored by hand."""
    limits = Limits(room.config.max_file_mb * 1_000_000, 64_000_000, room.config.min_side)
    model = models.active(room.db).id
    with DecoderPool(2, limits, memory_bytes=2**31, seconds=60) as decoders:
        while claim := scoring.claim_chunk(room.db, "host/cpu", trained_model_id=model, lease_seconds=600):
            heartbeats.beat(
                room.db, name="host/cpu", host="host", device="cpu", pid=1, doing=f"chunk {claim.chunk_id}", scans=0
            )
            scoring.complete_chunk(room.db, claim, [ended(room, decoders, root, scan) for scan in claim.scans])


def ended(room: ReadingRoom, decoders: DecoderPool, root: Path, scan) -> scoring.Result:
    """Rejected as the decoders say; else failed, scored or flagged by turns, the flagged with their review copy."""
    source = Source(str(root), scan.path, hashlib.sha256((root / scan.path).read_bytes()).hexdigest())
    try:
        decoded = decoders.prepare(source, 64)
    except UnreadableImage as error:
        return scoring.Rejected(scan.id, error.code, error.detail)
    if scan.id % 10 == 0:
        return scoring.Failed(scan.id, Cause.TIMED_OUT, "no worker finished")
    if scan.id % 10 == 1:
        derived.keep_copy(room.config.derived, decoders, source, scan.key)
        derived.keep_input(room.config.derived, scan.key, decoded.pixels)
    score = 0.9 if scan.id % 2 else 0.1
    classes = {"covid": score, "normal": 1 - score}
    return scoring.Scored(scan.id, score, classes, asdict(decoded.evidence), "tensorflow", "float32", "cpu", 0.1)


def command(sinks: Sinks, *arguments: str) -> str:
    """A command's output; whatever it says is a sink."""
    done = CliRunner().invoke(group, arguments, standalone_mode=False)
    assert done.exception is None, (arguments, done.exception)
    sinks.add(f"nightread {' '.join(arguments[:1])}", done.output, done.stderr)
    return done.stdout


# The day


def errors(day: Day, room: ReadingRoom, planted: Planted, key: str) -> None:
    """Every error page, asked for with identifiers wherever a request can hold one."""
    reader, nobody = room.inside("reader"), room.visitor()
    token = reader.token("/account")

    def typed() -> str:
        return planted.word("typed")

    def sends(address: str, form: dict[str, str] | None = None, **options: object):
        options.setdefault("method", "POST")
        answer = reader.client.open(address, data={"csrf_token": token, **(form or {})}, **options)
        # A form with a gap comes back on the scan's own page.
        is_theirs = "Choose confirm, dismiss, unsure or repeat first." in answer.text
        return day.look(answer, path=address, is_theirs=is_theirs)

    for address in ("/?after={}", "/?model={}", "/batches/1?after={}", "/{}", "/scan/{}", "/scan/{}/image.png"):
        day.look(reader.get(address.format(typed())))
        day.look(nobody.get(address.format(typed())))
    for address in ("/batches/progress.json?batch={}", "/static/{}", "/sign-in?next=/{}", "/sign-in/code?next={}"):
        day.look(reader.get(address.format(typed())))
    for name in ("User-Agent", "Referer", "Accept", "Cookie", "X-Forwarded-For", "Origin", "Sec-Fetch-Site"):
        sends(f"/scan/{key}", {"verdict": typed()}, headers={name: f"nightread={typed()}"})
    day.look(reader.client.get("/", headers={"Host": f"{typed()}.example"}))
    sends(f"/scan/{key}", method=typed())  # 405
    sends(f"/scan/{key}", {"verdict": typed(), "note": typed()})  # 400
    sends(f"/scan/{key}", {"verdict": "confirm", "note": typed() * 30_000})  # 413
    sends("/batches/1", {"reason": typed()})  # 403
    sends("/account", {"old": typed(), "new": typed(), "again": typed()})
    sends("/account/codes", {"password": typed(), "code": typed()})
    sends("/account/codes/confirm", {"code": typed()})
    reader.client.post(f"/scan/{key}", data={"csrf_token": typed(), "note": typed()})  # 400, no token of ours
    with room.db.writing() as session:
        session.execute(text("ALTER TABLE reviews RENAME TO away"))
    assert sends(f"/scan/{key}", {"verdict": "confirm", "note": typed()}).status_code in (500, 503)
    with room.db.writing() as session:
        session.execute(text("ALTER TABLE away RENAME TO reviews"))


def sign_in_failures(day: Day, room: ReadingRoom, planted: Planted) -> None:
    """Names that nobody has, passwords typed into the name field, wrong passwords and codes; to the 429."""
    visitor = room.visitor()
    for n in range(24):
        names = ("wrong name", "password in the name field")
        answer = visitor.sign_in(planted.word(names[n % 2]), planted.word("wrong password"), next=planted.word("typed"))
        day.look(answer)
    assert answer.status_code == 429
    half = room.inside("half", awaits_code=True)
    for _ in range(3):
        day.look(half.post("/sign-in/code", code=planted.word("wrong code"), next=planted.word("typed")))


def readings(day: Day, room: ReadingRoom, planted: Planted, keys: list[str]) -> None:
    """Readers and admins at work: what is theirs is at home with them, what is not is a sink."""
    pages = ["/", "/batches", "/batches/1", "/batches/progress.json?batch=1", "/account", "/account/codes", "/health"]
    scans = [f"/scan/{key}" for key in keys[:20]]
    pictures = [f"{scan}/{kind}.png" for scan in scans for kind in ("image", "heat")]
    nexts = [f"{scan}/next" for scan in scans]
    for name, is_theirs in (("reader", True), ("stranger", False), ("admin", False)):
        day.visit(room.inside(name), [*pages, *scans, *pictures, *nexts], is_theirs=is_theirs)
    day.visit(room.visitor(), ["/sign-in", *pages, *scans, *pictures, *nexts], is_theirs=False)
    opener = room.opened(1, "opener")
    day.visit(opener, [*pages, *scans, *pictures], is_theirs=True)
    reader = room.inside("reader")
    for key in keys[:10]:
        day.look(reader.post(f"/scan/{key}", verdict="unsure", note=f"ask {planted.word('note')}"))
    day.visit(reader, scans[:10], is_theirs=True)


# The search


def of_database(room: ReadingRoom) -> Iterator[tuple[str, str]]:
    """Every column of every table with all its values."""
    with room.db.reading() as session:
        for table in Base.metadata.sorted_tables:
            rows = session.execute(select(table)).all()
            for column in table.columns:
                values = (row._mapping[column] for row in rows)
                yield f"{table.name}.{column.name}", "\n".join(str(value) for value in values if value is not None)


def of_queue(room: ReadingRoom, url: str) -> Iterator[bytes]:
    """Every key and message of the queue server, and what it wrote to disk."""
    client = redis.Redis(unix_socket_path=url.removeprefix("redis+socket://"), socket_timeout=30)
    read = {
        b"list": lambda key: client.lrange(key, 0, -1),
        b"set": client.smembers,
        b"hash": lambda key: [part for pair in client.hgetall(key).items() for part in pair],
        b"zset": lambda key: client.zrange(key, 0, -1),
        b"string": lambda key: [client.get(key)],
    }
    for key in client.scan_iter():
        yield from (key, *read[client.type(key)](key))
    for name, content in below(Path(url.removeprefix("redis+socket://")).parent):
        yield name.encode() + b"\n" + content


@pytest.fixture
def house(queue_server, room):
    room.user("reader")
    room.user("half")
    room.app_of("half")
    room.user("stranger", sites=["elsewhere"])
    for name in ("admin", "opener"):
        room.user(name, role=Role.ADMIN)
    return room


def test_none_of_a_thousand_identifiers_is_where_none_may_be(house, queue_server, tmp_path, caplog):
    planted, sinks = Planted(), Sinks()
    day = Day(sinks)
    root = tmp_path / "monday"
    root.mkdir()
    manifest = plant_folder(root, planted)
    caplog.set_level(logging.DEBUG)

    command(sinks, "submit", str(root), "--site", "local", "--manifest", str(manifest), "--json")
    sinks.add("messages", *of_queue(house, queue_server))
    screen(house, root)
    command(sinks, "status", "--json")
    command(sinks, "status")
    keys = [key for _, key in sorted(house.keys(1).items())]
    readings(day, house, planted, keys)
    errors(day, house, planted, keys[0])
    sign_in_failures(day, house, planted)
    while len(planted.kinds) < 1000:
        day.look(house.visitor().get(f"/{planted.word('typed')}"))
    sinks.add("messages", *of_queue(house, queue_server))
    command(sinks, "audit", "export")
    command(sinks, "audit", "verify")
    command(sinks, "user", "list")
    sinks.add("logs", caplog.text, *(str(record.__dict__) for record in caplog.records))
    tables = [house.config.home / f"nightread.db{suffix}" for suffix in ("", "-wal", "-shm")]
    sinks.add("files", *(content for _, content in below(house.config.home, without=tables)))
    columns = dict(of_database(house))
    for name in columns.keys() - AT_HOME:
        sinks.add(f"column {name}", columns[name])

    assert len(planted.kinds) == 1000
    assert sinks.leaks(planted) == {}
    # They were there to be found: in the columns and on the pages where they are at home, and in the files.
    at_home = Search(tuple(planted.kinds)).within("\n".join(columns[name] for name in AT_HOME).encode())
    assert len(at_home) > 350
    assert len(Search(tuple(planted.kinds)).within(b"\n".join(day.home))) > 100
    assert {place.split()[-1] for place in sinks.said if place.startswith("page")} >= {
        "200",
        "303",
        "400",
        "401",
        "403",
        "404",
        "405",
        "413",
        "429",
    }
    assert len(columns) > 100
    assert len(caplog.records) > 300
