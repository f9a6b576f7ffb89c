"""What a batch registered of its folder, for whoever looks at the folder again."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from sqlalchemy import select

from db.schema import Batch, Outcome, Scan
from db.store.connection import Database
from db.store.scoring import current_outcome

PAGE = 2000  # files in one question


@dataclass(frozen=True)
class Registered:
    """A file as it was registered: `path` is relative to the root; `reason` is why it was rejected, if it was."""

    path: str
    size: int
    sha256: str | None
    reason: str | None


def folder(db: Database, batch_id: int) -> tuple[str, str | None]:
    """The folder that a batch came from, and its manifest."""
    with db.reading() as session:
        batch = session.get_one(Batch, batch_id)
        return batch.root, batch.manifest


def files(db: Database, batch_id: int) -> Iterator[list[Registered]]:
    """A batch's files in pages, in the order of their paths; no transaction stays open while one is looked at."""
    after: str | None = None
    while page := _page(db, batch_id, after):
        yield page
        after = page[-1].path


def unregistered(db: Database, batch_id: int, paths: Sequence[str]) -> list[str]:
    """Those of these paths of a batch's folder that no batch of the site registered there."""
    with db.reading() as session:
        batch = session.get_one(Batch, batch_id)
        known = select(Scan.path).where(Scan.path.in_(paths))
        left = set(paths) - set(session.scalars(known.where(Scan.batch_id == batch_id)))
        if left:
            same = select(Batch.id).where(Batch.site_id == batch.site_id, Batch.root == batch.root)
            others = select(Scan.path).where(Scan.batch_id.in_(same), Scan.path.in_(left))
            left -= set(session.scalars(others))
        return [path for path in paths if path in left]


def _page(db: Database, batch_id: int, after: str | None) -> list[Registered]:
    with db.reading() as session:
        model_id = session.get_one(Batch, batch_id).trained_model_id
        columns = select(Scan.path, Scan.size, Scan.sha256, Outcome.reason)
        mine = columns.outerjoin(Outcome, current_outcome(model_id)).where(Scan.batch_id == batch_id)
        if after is not None:
            mine = mine.where(Scan.path > after)
        return [Registered(*row) for row in session.execute(mine.order_by(Scan.path).limit(PAGE))]
