"""From a folder to a sealed batch: pages of scans go into SQL while the folder is still being read."""

import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

from db.errors import QueueUnreachable, Refused
from db.settings import Settings
from db.store import intake, models
from db.store.connection import Database
from db.store.intake import FoundFile, Page, Submission
from db.store.sites import site_named
from producer.intake import find_files
from producer.manifest import Manifest
from workers import queue

PAGE = 1024  # scans a transaction: whole chunks
PAGE_SECONDS = 2.0
# The first one is smaller, so that the first scans are being scored while the rest are still found.
FIRST_PAGE, FIRST_SECONDS = 128, 0.5
RING_SECONDS = 1.0
# Reading on beside the first chunk would take half of a small machine from it, and twice the time to the first outcome.
SCORED_SECONDS, CLAIMED_SECONDS, LOOK_SECONDS = 3.0, 0.5, 0.05


@dataclass(frozen=True)
class Submitted:
    """What a submission did; `added` files are new, `known` ones were submitted before. `rang` tells whether the
    queue answered; if not, the sweep rings."""

    batch_id: int
    added: int
    known: int
    rang: bool


def submit(
    db: Database,
    folder: Path,
    *,
    site_name: str,
    urgent: bool = False,
    manifest: Path | None = None,
    progress: Callable[[int], None] = lambda found: None,
) -> Submitted:
    """Register every file below `folder` and seal the batch; the same folder again, unchanged, gives the same
    batch. Interrupted at any moment it loses nothing: submitting or resuming goes on.
    Raises Unknown (site), Refused (folder outside the roots), RootUnavailable, click.BadParameter (manifest)."""
    site = site_named(db, site_name)
    root = _allowed(folder, db.config)
    submission = Submission(
        site_id=site.id,
        trained_model_id=models.active(db).id,
        root=str(root),
        urgent=urgent,
        manifest=None if manifest is None else str(manifest.absolute()),
        chunk_size=db.config.chunk_size,
    )
    return fill(db, submission, progress=progress)


def resume(db: Database, *, progress: Callable[[int], None] = lambda found: None) -> list[Submitted]:
    """Go on with every submission that was interrupted, under the model it began with."""
    return [
        fill(db, replace(submission, chunk_size=db.config.chunk_size), progress=progress)
        for _, submission in intake.open_submissions(db)
    ]


def fill(db: Database, submission: Submission, *, progress: Callable[[int], None]) -> Submitted:
    """Read the folder of a submission into its batch and seal it."""
    lines = Manifest.read(Path(submission.manifest) if submission.manifest else None)
    max_bytes = db.config.max_file_mb * 1_000_000
    submission = replace(submission, resumes=intake.is_open(db, submission))
    files = find_files(Path(submission.root), max_bytes=max_bytes, manifest=lines)
    added = known = 0
    bell = _Bell()
    for page in _registered(db, submission, pages(files)):
        added, known = added + page.added, known + page.known
        progress(added + known)
        bell.ring(page.chunks)
        if page.batch_id is not None and added + known == FIRST_PAGE:
            _let_it_be_scored(db, page.batch_id)
    return Submitted(intake.seal(db, submission), added, known, bell.last_ring())


def _let_it_be_scored(db: Database, batch_id: int) -> None:
    """Wait until the first chunk is complete, SCORED_SECONDS at most; where no worker claims it, CLAIMED_SECONDS."""
    since = time.monotonic()
    while (waited := time.monotonic() - since) < SCORED_SECONDS:
        claimed, completed = intake.under_way(db, batch_id)
        if completed or (not claimed and waited > CLAIMED_SECONDS):
            return
        time.sleep(LOOK_SECONDS)


def preview(folder: Path, *, config: Settings, manifest: Path | None) -> list[FoundFile]:
    """What `submit` would find, without registering anything."""
    lines = Manifest.read(manifest)
    return list(find_files(_allowed(folder, config), max_bytes=config.max_file_mb * 1_000_000, manifest=lines))


def pages(files: Iterable[FoundFile]) -> Iterator[list[FoundFile]]:
    """Files in pages: of PAGE, or of what was found in PAGE_SECONDS; the first one is small."""
    page: list[FoundFile] = []
    size, seconds, since = FIRST_PAGE, FIRST_SECONDS, time.monotonic()
    for found in files:
        page.append(found)
        if len(page) >= size or time.monotonic() - since > seconds:
            yield page
            page, size, seconds, since = [], PAGE, PAGE_SECONDS, time.monotonic()
    if page:
        yield page


def _registered(db: Database, submission: Submission, found: Iterable[list[FoundFile]]) -> Iterator[Page]:
    """Write one page while the next is read; not so the first, which is to be scored before the next is there."""
    writing: Future[Page] | None = None
    with ThreadPoolExecutor(1, "register") as writer:
        for number, page in enumerate(found):
            if writing is not None:
                yield writing.result()
            writing = writer.submit(intake.add_page, db, submission, page)
            if number == 0:
                yield writing.result()
                writing = None
        if writing is not None:
            yield writing.result()


@dataclass
class _Bell:
    """Rings for the first chunks at once, then now and then, and for the last ones: a ring wakes a worker until
    nothing waits, so that ringing for each page would only cost."""

    due: float = 0.0
    unrung: int = 0  # chunks
    rang: bool = True

    def ring(self, chunks: int) -> None:
        """Note these chunks, and ring where it is time."""
        self.unrung += chunks
        if self.unrung and time.monotonic() >= self.due:
            self.last_ring()
            self.due = time.monotonic() + RING_SECONDS

    def last_ring(self) -> bool:
        """Ring for whatever was not rung for; whether the queue answered the last time that it was asked."""
        if self.unrung:
            self.rang, self.unrung = _is_heard(self.unrung), 0
        return self.rang


def _is_heard(chunks: int) -> bool:
    try:
        queue.ring(chunks)
    except QueueUnreachable:
        return False
    return True


def _allowed(folder: Path, config: Settings) -> Path:
    root = folder.resolve()
    if config.roots and not any(root.is_relative_to(allowed.resolve()) for allowed in config.roots):
        listed = ", ".join(map(str, config.roots))
        raise Refused(f"{root} is outside the roots that every worker can read ({listed}): see NIGHTREAD_ROOTS")
    return root
