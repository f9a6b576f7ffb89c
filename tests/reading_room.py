"""A reading room to test the web with: real SQLite, real sites, users, batches and drawn pictures."""

import hashlib
import re
import secrets
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from functools import cache
from pathlib import Path

import cv2
import numpy as np
import pyotp
from builders import chest
from flask import Flask
from flask.testing import FlaskClient
from sqlalchemy import select
from werkzeug.test import TestResponse

from db.files import derived_path
from db.schema import AuditEvent, Scan
from db.settings import Settings
from db.store import codes, entries, intake, models, people, scoring
from db.store.connection import connect
from db.store.sites import add_site, every_site, set_site
from db.words import Cause, Reason, Role, Stage, State, Verdict
from webui import create_app, passwords, totp
from workers.preprocessing import prepare

PASSWORD = "three unrelated words"
NOBODYS_KEY = "0" * 32
# Headers by which a browser says that a request comes from a page of somebody else.
FOREIGN = [
    {"Sec-Fetch-Site": "cross-site"},
    {"Sec-Fetch-Site": "same-site"},
    {"Sec-Fetch-Site": "none"},
    {"Origin": "https://evil.example"},
    {"Origin": "null"},
    {"Origin": "http://localhost.evil.example"},
    {"Sec-Fetch-Site": "cross-site", "Origin": "http://localhost"},
]


def routes(app: Flask) -> list[tuple[str, str, str]]:
    """(endpoint, method, address) of everything that the application answers, from its URL map."""
    filled = {"key": NOBODYS_KEY, "batch_id": "1", "filename": "nightread.css"}
    return [
        (rule.endpoint, method, re.sub(r"<(?:\w+:)?(\w+)>", lambda found: filled[found[1]], rule.rule))
        for rule in app.url_map.iter_rules()
        for method in sorted((rule.methods or set()) - {"HEAD", "OPTIONS"})
    ]


@cache
def hashed() -> str:
    return passwords.hash_password(PASSWORD)


@dataclass(frozen=True)
class Found:
    """A file of a submitted folder and how its screening ends; neither score, reason nor cause: it waits."""

    path: str = "night/one.png"
    score: float | None = None
    patient: str | None = None
    age: float | None = None
    reason: Reason | None = None
    cause: Cause | None = None
    seed: int = 0
    shape: tuple[int, int] = (96, 80)  # height, width in pixels
    evidence: dict | None = field(default=None)
    share: float | None = None  # with which it was drawn from the cleared
    study: str | None = None
    tags: dict | None = None
    detail: str | None = None  # of the reason


class ReadingRoom:
    """Builds what a test needs through the store's own functions."""

    def __init__(self, config: Settings) -> None:
        self.db = connect(config)
        self.config = config
        self.app: Flask = create_app(config)
        self.app.testing = False  # errors become pages, as in service

    def close(self) -> None:
        self.db.engine.dispose()
        self.app.extensions["nightread"].engine.dispose()

    def site(self, name: str = "local", **reads: object) -> int:
        """A site's id, made where it is new; `reads`: readers, blind_first, sample_share, prevalence from now on."""
        known = {site.name: site.id for site in every_site(self.db)}
        site_id = known[name] if name in known else add_site(self.db, name, by="test")
        if reads:
            set_site(self.db, name, reads, by="test")
        return site_id

    def user(self, name: str = "dr-a", *, role: Role = Role.READER, sites: Sequence[str] = ("local",)) -> str:
        site_ids = {self.site(site) for site in sites}
        people.add_user(self.db, name, role=role, password_hash=hashed(), site_ids=site_ids, by="test")
        return name

    def users(self, *names: str, role: Role = Role.READER) -> None:
        """Several people of the site `local`."""
        for name in names:
            self.user(name, role=role)

    def newer_model(self, version: str = "2") -> int:
        """Another trained model, active from now on; its id."""
        known = vars(models.active(self.db)) | {"version": version, "threshold_why": "a test"}
        fields = models.Registration.__dataclass_fields__
        newer = models.register(self.db, models.Registration(**{name: known[name] for name in fields}), by="test")
        models.activate(self.db, newer, why="a test", by="test")
        return newer

    def night(self, *found: Found, site: str = "local", root: str = "/nights/monday", pictures: bool = False) -> int:
        """Submit and screen these files; the batch's id."""
        model = models.active(self.db)
        submission = intake.Submission(self.site(site), model.id, root)
        intake.add_page(self.db, submission, [self._file(root, file) for file in found])
        batch = intake.seal(self.db, submission)
        keys = self.keys(batch)
        results = {file.path: self._result(file) for file in found}
        while claim := scoring.claim_chunk(self.db, "w", trained_model_id=model.id, lease_seconds=60):
            done = [result(scan.id) for scan in claim.scans if (result := results[scan.path])]
            scoring.complete_chunk(self.db, claim, done)
            if len(done) < len(claim.scans):
                break
        for file in found if pictures else ():
            self.picture(keys[file.path], file)
        return batch

    def scan_id(self, key: str) -> int:
        with self.db.reading() as session:
            return session.scalars(select(Scan.id).where(Scan.key == key)).one()

    def keys(self, batch: int) -> dict[str, str]:
        """Path -> key of a batch's scans."""
        with self.db.reading() as session:
            rows = session.execute(select(Scan.path, Scan.key).where(Scan.batch_id == batch))
            return {path: key for path, key in rows}  # noqa: C416

    def one(self, **fields: object) -> str:
        """One flagged scan with its pictures; its key."""
        file = Found(**{"score": 0.9, **fields})
        batch = self.night(file, root=f"/nights/{file.path}", pictures=True)
        return self.keys(batch)[file.path]

    def says(self, by: str, key: str, verdict: str, *, stage: Stage = Stage.VERDICT, **said: object) -> State:
        """What a reader says of a scan; where its entry stands then."""
        me = people.user_named(self.db, by)
        return entries.add_review(self.db, self.scan_id(key), me=me, stage=stage, verdict=Verdict(verdict), **said)

    def entry(self, key: str, by: str = "dr-a") -> entries.EntryView | None:
        """A scan's entry as somebody may see it."""
        return entries.entry(self.db, self.scan_id(key), me=people.user_named(self.db, by))

    def holds(self, by: str, key: str) -> bool:
        """Somebody has the scan open from now on."""
        return entries.hold(self.db, self.scan_id(key), me=people.user_named(self.db, by))

    def picture(self, key: str, file: Found) -> None:
        grey = chest(*file.shape, seed=file.seed)
        image, heat, seen = (derived_path(self.config.derived, key, kind) for kind in ("image", "heat", "input"))
        image.parent.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(image), grey)
        cv2.imwrite(str(heat), _heat(*file.shape))
        cv2.imwrite(str(seen), prepare(grey, 64)[0])

    def events(self, action: str) -> list[AuditEvent]:
        with self.db.reading() as session:
            return list(session.scalars(select(AuditEvent).where(AuditEvent.action == action)))

    def visitor(self) -> "Browser":
        return Browser(self.app.test_client())

    def signed_in(self, name: str = "dr-a") -> "Browser":
        browser = self.visitor()
        assert browser.sign_in(name).status_code == 303
        return browser

    def inside(self, name: str = "dr-a", *, awaits_code: bool = False) -> "Browser":
        """Somebody with a session, without the second that checking a password takes."""
        token = secrets.token_urlsafe(32)
        user = people.user_named(self.db, name)
        digest = hashlib.sha256(token.encode()).hexdigest()
        people.start_session(self.db, user.id, digest, by="test", awaits_code=awaits_code)
        browser = self.visitor()
        browser.client.set_cookie("nightread", token)
        return browser

    def opened(self, batch: int, name: str = "boss") -> "Browser":
        """An admin who opened a batch, with a reason."""
        browser = self.inside(name)
        answer = browser.post(f"/batches/{batch}", page="/account", reason="a test of what is seen")
        assert answer.status_code == 303
        return browser

    def app_of(self, name: str = "dr-a") -> pyotp.TOTP:
        """Enrol an app for one-time passwords, as of long ago; its codes."""
        user, nonce = people.user_named(self.db, name), totp.new_nonce()
        codes.begin(self.db, user.id, nonce, by="test")
        begun = codes.begun(self.db, user.id)
        assert codes.confirm(self.db, begun, step=0, recovery_sha256=[], by="test")
        return totp.app_for(self.app.secret_key, nonce)

    def _file(self, root: str, file: Found) -> intake.FoundFile:
        content = hashlib.sha256(f"{root}/{file.path}".encode("utf-8", "surrogateescape")).hexdigest()
        return intake.FoundFile(
            file.path,
            4711,
            content,
            reason=file.reason,
            detail=file.detail,
            patient=file.patient,
            study=file.study,
            age=file.age,
            tags=file.tags,
        )

    def _result(self, file: Found):
        if file.cause:
            return lambda scan_id: scoring.Failed(scan_id, file.cause, "gave up")
        if file.score is None:
            return None
        evidence = file.evidence or _evidence(file)
        classes = {"normal": 1 - file.score, "covid": file.score}
        drawn = {} if file.share is None else {"share": file.share}
        return lambda scan_id: scoring.Scored(
            scan_id, file.score, classes, evidence, "tensorflow", "float32", "cpu", 0.1, **drawn
        )


class Browser:
    """A test client that fills in forms as a browser does."""

    def __init__(self, client: FlaskClient) -> None:
        self.client = client

    def get(self, path: str) -> TestResponse:
        return self.client.get(path)

    def token(self, page: str = "/sign-in") -> str:
        found = re.search(r'name="csrf_token" value="([^"]+)"', self.client.get(page).text)
        assert found, f"{page} has no form token"
        return found[1]

    def post(self, path: str, page: str | None = None, **fields: str) -> TestResponse:
        """Send the form that `page` (by default, the address itself) shows."""
        return self.client.post(path, data={"csrf_token": self.token(page or path), **fields})

    def sign_in(self, name: str = "dr-a", password: str = PASSWORD, **fields: str) -> TestResponse:
        return self.post("/sign-in", name=name, password=password, **fields)

    def cookie(self) -> str | None:
        found = self.client.get_cookie("nightread")
        return found.value if found else None


def _heat(height: int, width: int) -> np.ndarray:
    down, across = np.mgrid[0 : 1 : height * 1j, 0 : 1 : width * 1j]
    spot = np.exp(-(((across - 0.3) / 0.14) ** 2) - ((down - 0.6) / 0.14) ** 2)
    colours = cv2.applyColorMap((255 * spot).astype(np.uint8), cv2.COLORMAP_JET)
    return np.dstack([colours, (200 * spot).astype(np.uint8)])


def _evidence(file: Found) -> dict:
    _, evidence = prepare(chest(*file.shape, seed=file.seed), 64)
    return asdict(evidence)


def samples() -> Path:
    return Path(__file__).parents[1] / "deploy" / "samples"
