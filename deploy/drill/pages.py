"""Somebody who asks the web server for pages all night, and has no right to any patient: nobody, and a reader of
another site. What they are answered is kept for the auditor."""

import http.cookiejar
import re
import secrets
import threading
import urllib.error
import urllib.parse
import urllib.request
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from db.store import people
from db.store.connection import connect
from db.store.sites import site_named
from db.words import Role
from webui import passwords

if TYPE_CHECKING:
    from deploy.drill.parts import House

NAME = "visitor"
EVERY_SECONDS = 2.0
ANSWER_SECONDS = 5.0
ADDRESSES = (
    "/",
    "/batches",
    "/batches/1",
    "/batches/progress.json",
    "/scan/{key}",
    "/scan/{key}/image.png",
    "/nowhere",
)
TOKEN = re.compile(r'name="csrf_token" value="([^"]+)"')


@dataclass
class Visitor:
    """Asks until it is stopped; answers go to `logs/pages`."""

    house: "House"
    answers: int = 0
    _password: str = field(default_factory=lambda: secrets.token_urlsafe(24))
    _end: threading.Event = field(default_factory=threading.Event)
    _thread: threading.Thread | None = None

    def start(self) -> None:
        """Make the reader of the other site, and begin."""
        db = connect(self.house.direct)
        hashed = passwords.hash_password(self._password)
        elsewhere = {site_named(db, self.house.elsewhere).id}
        people.add_user(db, NAME, role=Role.READER, password_hash=hashed, site_ids=elsewhere, by="drill")
        db.engine.dispose()
        (self.house.supervisor.logs / "pages").mkdir()
        self._thread = threading.Thread(target=self._visit, name="visitor", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Leave."""
        self._end.set()
        if self._thread is not None:
            self._thread.join(60)

    def _visit(self) -> None:
        nobody, reader = _browser(), _browser()
        while not self._end.wait(EVERY_SECONDS):
            key = self._some_key()
            for address in ADDRESSES:
                for browser in (nobody, reader):
                    page = self._ask(browser, address.format(key=key))
                    if browser is reader and 'action="/sign-in"' in page:
                        self._sign_in(reader, page)

    def _sign_in(self, browser: urllib.request.OpenerDirector, page: str) -> None:
        token = TOKEN.search(page)
        if token:
            told = {"name": NAME, "password": self._password, "csrf_token": token[1]}
            self._ask(browser, "/sign-in", urllib.parse.urlencode(told).encode())

    def _some_key(self) -> str:
        try:
            return str(self.house.ask("SELECT key FROM scans ORDER BY key LIMIT 1", seconds=2.0)[0][0])
        except Exception:  # noqa: BLE001 (the database is being shaken; any key will do)
            return "0" * 32

    def _ask(self, browser: urllib.request.OpenerDirector, address: str, form: bytes | None = None) -> str:
        place = f"http://127.0.0.1:{self.house.config.web_port}{address}"
        headers = {"Origin": f"http://127.0.0.1:{self.house.config.web_port}"} if form else {}
        request = urllib.request.Request(place, data=form, headers=headers)
        try:
            with browser.open(request, timeout=ANSWER_SECONDS) as answer:
                return self._keep(address, answer.status, str(answer.headers), answer.read())
        except urllib.error.HTTPError as error:
            return self._keep(address, error.code, str(error.headers), error.read())
        except OSError:
            return ""  # the web server is being shaken, too

    def _keep(self, address: str, status: int, headers: str, body: bytes) -> str:
        self.answers += 1
        kept = self.house.supervisor.logs / "pages" / f"{self.answers:05d}.txt"
        kept.write_bytes(f"{address}\n{status}\n{headers}\n".encode() + body)
        return body.decode(errors="replace")


def _browser() -> urllib.request.OpenerDirector:
    return urllib.request.build_opener(urllib.request.HTTPCookieProcessor(http.cookiejar.CookieJar()))
