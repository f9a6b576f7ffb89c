"""The tables of the reading room: worklist entries and their counts, reviews, cases, acknowledgements."""

from datetime import datetime

from sqlalchemy import (
    Float,
    ForeignKey,
    Index,
    String,
    Text,
    UniqueConstraint,
    text,
    true,
)
from sqlalchemy.orm import Mapped, mapped_column

from db.schema.base import Base
from db.words import Stage

_SECOND, _SEEN, _REPEAT = "state = 'second'", "NOT blind OR state = 'done'", "verdict = 'repeat'"


class Entry(Base):
    """A scan's place on its model's worklist: it was flagged, or drawn from the cleared. Changes with every review;
    what was said stays in `reviews`."""

    __tablename__ = "entries"
    __table_args__ = (
        UniqueConstraint("scan_id", "trained_model_id"),
        Index("ix_entries_list", "trained_model_id", "site_id", "state", "rank", "id"),
        Index("ix_entries_since", "trained_model_id", "site_id", "state", "submitted_at", "id"),
        Index("ix_entries_batch", "batch_id", "state", "rank", "id"),
        # A second reader's part of the list: what others read first, by who that was.
        Index(
            "ix_entries_second",
            *("trained_model_id", "site_id", "first_reader_id", "rank", "id"),
            sqlite_where=text(_SECOND),
            postgresql_where=text(_SECOND),
        ),
        Index(
            "ix_entries_second_since",
            *("trained_model_id", "site_id", "first_reader_id", "submitted_at", "id"),
            sqlite_where=text(_SECOND),
            postgresql_where=text(_SECOND),
        ),
        # Scores that every reader may see.
        Index(
            "ix_entries_score",
            *("trained_model_id", "site_id", "state", "score", "id"),
            sqlite_where=text(_SEEN),
            postgresql_where=text(_SEEN),
        ),
        Index("ix_entries_repeat", "scan_id", sqlite_where=text(_REPEAT), postgresql_where=text(_REPEAT)),
    )
    id: Mapped[int] = mapped_column(primary_key=True)
    scan_id: Mapped[int] = mapped_column(ForeignKey("scans.id"))
    trained_model_id: Mapped[int] = mapped_column(ForeignKey("trained_models.id"))
    site_id: Mapped[int] = mapped_column(ForeignKey("sites.id"))
    batch_id: Mapped[int] = mapped_column(ForeignKey("batches.id"))
    score: Mapped[float] = mapped_column(Float)
    rank: Mapped[float] = mapped_column(Float)  # the list's order, highest first: the score, or a random number
    share: Mapped[float | None] = mapped_column(Float)  # with which it was drawn from the cleared; NULL: it was flagged
    blind: Mapped[bool]  # score and heat map stay hidden until a reader's first impression is saved
    readers: Mapped[int]  # how many must read it: 1 or 2
    state: Mapped[str] = mapped_column(String(12))
    verdict: Mapped[str | None] = mapped_column(String(20))  # what it came to, once done
    first_reader_id: Mapped[int | None] = mapped_column(ForeignKey("users.id"))
    submitted_at: Mapped[datetime]  # its batch's
    decided_at: Mapped[datetime | None]
    holder_id: Mapped[int | None] = mapped_column(ForeignKey("users.id"))  # who has it open (a soft lock)
    held_since: Mapped[datetime | None]
    held_until: Mapped[float | None] = mapped_column(Float)  # seconds since 1970 on the database's clock


class EntryCount(Base):
    """How many entries of a site and model are in a state; kept with every change, so that nobody counts rows. No
    foreign keys: a verdict that makes a new row would wait for whoever holds site or model, and may wait for it."""

    __tablename__ = "entry_counts"
    site_id: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    trained_model_id: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    state: Mapped[str] = mapped_column(String(12), primary_key=True)
    # Of those in state `second`, who read them first: that reader's list leaves them out. 0 in every other state.
    reader_id: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    count: Mapped[int]


class Review(Base):
    """A reader's verdict on a scan; append-only, and a reader's newest supersedes their earlier ones."""

    __tablename__ = "reviews"
    __table_args__ = (Index("ix_reviews_reader", "reader_id", "id"),)
    id: Mapped[int] = mapped_column(primary_key=True)
    scan_id: Mapped[int] = mapped_column(ForeignKey("scans.id"), index=True)
    reader_id: Mapped[int] = mapped_column(ForeignKey("users.id"))
    stage: Mapped[str] = mapped_column(String(12), default=Stage.VERDICT, server_default=Stage.VERDICT)
    verdict: Mapped[str] = mapped_column(String(20))
    findings: Mapped[list[str] | None]  # words of the setting FINDINGS
    note: Mapped[str] = mapped_column(Text)
    saw_score: Mapped[bool] = mapped_column(default=True, server_default=true())
    saw_others: Mapped[bool] = mapped_column(default=True, server_default=true())  # other readers' verdicts
    at: Mapped[datetime]


class CaseStep(Base):
    """What happened to a case outside of screening and reading; append-only, and the newest of a step rules."""

    __tablename__ = "case_steps"
    id: Mapped[int] = mapped_column(primary_key=True)
    scan_id: Mapped[int] = mapped_column(ForeignKey("scans.id"), index=True)
    step: Mapped[str] = mapped_column(String(20))
    result: Mapped[str | None] = mapped_column(String(20))  # of the laboratory
    at: Mapped[datetime]  # when it happened
    by: Mapped[str] = mapped_column(String(100))
    recorded_at: Mapped[datetime]
    note: Mapped[str] = mapped_column(Text)


class Acknowledgement(Base):
    """That somebody took note of a scan that could not be screened, or sent it again; append-only."""

    __tablename__ = "acknowledgements"
    id: Mapped[int] = mapped_column(primary_key=True)
    scan_id: Mapped[int] = mapped_column(ForeignKey("scans.id"), index=True)
    generation: Mapped[int]  # of the outcome that was seen
    action: Mapped[str] = mapped_column(String(20))
    by: Mapped[str] = mapped_column(String(100))
    note: Mapped[str] = mapped_column(Text)
    at: Mapped[datetime]
