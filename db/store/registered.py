"""What a batch registered of its folder, for whoever looks at the folder again."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from sqlalchemy import and_, select

from db.schema import Batch, Outcome, Scan
from db.store import canonical
from db.store.connection import Database


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
    while True:
        with db.reading() as session:
            model_id = session.get_one(Batch, batch_id).trained_model_id
            page = canonical.page(batch_id, after)
            same = Outcome.scan_id == page.c.id, Outcome.generation == page.c.scan_generation
            joined = (
                select(page.c.path, page.c.size, page.c.sha256, Outcome.reason)
                .outerjoin(Outcome, and_(*same, Outcome.trained_model_id == model_id))
                .order_by(page.c.path)
            )
            found = [Registered(*row) for row in session.execute(joined)]
        if not found:
            return
        yield found
        after = found[-1].path


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
