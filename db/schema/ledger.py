"""The tables of the night: sites, models, batches, scans and their outcomes; workers; the audit record."""

from datetime import datetime
from typing import Any

from sqlalchemy import (
    JSON,
    CheckConstraint,
    Float,
    ForeignKey,
    Index,
    String,
    Text,
    UniqueConstraint,
    false,
    text,
)
from sqlalchemy.orm import Mapped, mapped_column

from db.schema.base import Base, FileName
from db.words import PROTOCOL


class Site(Base):
    """A screening centre as an admin registered it."""

    __tablename__ = "sites"
    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(String(100), unique=True)
    time_zone: Mapped[str] = mapped_column(String(60), default="UTC")
    created_at: Mapped[datetime]
    # How this site's scans are read; changed on record (store/sites.py), and noted in each entry as it was then.
    readers: Mapped[int] = mapped_column(default=1, server_default="1")  # 1 or 2
    blind_first: Mapped[bool] = mapped_column(default=False, server_default=false())
    sample_share: Mapped[float] = mapped_column(Float, default=0.0, server_default="0")  # of the cleared, 0 to 1
    prevalence: Mapped[float | None] = mapped_column(Float)  # 0 to 1; NULL: unknown


class TrainedModel(Base):
    """Weights with preprocessing and report, as registered from a folder."""

    __tablename__ = "trained_models"
    __table_args__ = (UniqueConstraint("name", "version"),)
    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(String(100))
    version: Mapped[str] = mapped_column(String(40))
    folder: Mapped[str] = mapped_column(FileName())
    architecture: Mapped[str] = mapped_column(String(40))
    classes: Mapped[list[str]]
    flag_classes: Mapped[list[str]]
    input_size: Mapped[int]
    preprocessing_version: Mapped[str] = mapped_column(String(20))
    weights_sha256: Mapped[str] = mapped_column(String(64))
    minimum_age: Mapped[float | None] = mapped_column(Float)
    report: Mapped[dict[str, Any]]
    registered_at: Mapped[datetime]


class Threshold(Base):
    """An operating point; appended, and the newest rules."""

    __tablename__ = "thresholds"
    __table_args__ = (CheckConstraint("value >= 0 AND value <= 1", name="probability"),)
    id: Mapped[int] = mapped_column(primary_key=True)
    trained_model_id: Mapped[int] = mapped_column(ForeignKey("trained_models.id"), index=True)
    value: Mapped[float] = mapped_column(Float)
    why: Mapped[str] = mapped_column(Text)
    by: Mapped[str] = mapped_column(String(100))
    at: Mapped[datetime]


class Activation(Base):
    """Which trained model new batches run with; appended, and the newest rules."""

    __tablename__ = "activations"
    id: Mapped[int] = mapped_column(primary_key=True)
    trained_model_id: Mapped[int] = mapped_column(ForeignKey("trained_models.id"))
    why: Mapped[str] = mapped_column(Text)
    by: Mapped[str] = mapped_column(String(100))
    at: Mapped[datetime]


class Retirement(Base):
    """A trained model that no new batch may run with any more; batches that started with it finish."""

    __tablename__ = "retirements"
    id: Mapped[int] = mapped_column(primary_key=True)
    trained_model_id: Mapped[int] = mapped_column(ForeignKey("trained_models.id"), unique=True)
    why: Mapped[str] = mapped_column(Text)
    by: Mapped[str] = mapped_column(String(100))
    at: Mapped[datetime]


class Batch(Base):
    """One submission of a folder by a site; sealed once every file of the folder is registered."""

    __tablename__ = "batches"
    __table_args__ = (
        # One open batch a folder: two producers on one folder fill the same batch.
        Index(
            "uq_batches_open",
            "site_id",
            "root",
            "trained_model_id",
            unique=True,
            sqlite_where=text("sealed_at IS NULL"),
            postgresql_where=text("sealed_at IS NULL"),
        ),
        Index("ix_batches_root", "site_id", "root"),
        Index("ix_batches_since", "trained_model_id", "site_id", "submitted_at"),
    )
    id: Mapped[int] = mapped_column(primary_key=True)
    site_id: Mapped[int] = mapped_column(ForeignKey("sites.id"))
    trained_model_id: Mapped[int] = mapped_column(ForeignKey("trained_models.id"))
    root: Mapped[str] = mapped_column(FileName())
    manifest: Mapped[str | None] = mapped_column(FileName())
    urgent: Mapped[bool]
    submitted_at: Mapped[datetime]
    sealed_at: Mapped[datetime | None]


class Chunk(Base):
    """Scans that one worker claims, scores and completes together."""

    __tablename__ = "chunks"
    __table_args__ = (
        Index(
            "ix_chunks_open",
            "priority",
            "id",
            sqlite_where=text("completed_at IS NULL"),
            postgresql_where=text("completed_at IS NULL"),
        ),
    )
    id: Mapped[int] = mapped_column(primary_key=True)
    batch_id: Mapped[int] = mapped_column(ForeignKey("batches.id"), index=True)
    trained_model_id: Mapped[int] = mapped_column(ForeignKey("trained_models.id"))
    priority: Mapped[int]  # higher is claimed first
    attempts: Mapped[int] = mapped_column(default=0)  # claims that did not end in an orderly release
    # Workers that scored the golden image as it should be, named this chunk's only scan, and were then lost with it.
    vouched: Mapped[int] = mapped_column(default=0, server_default="0")
    protocol: Mapped[int] = mapped_column(default=PROTOCOL, server_default="1")  # a worker leaves a newer one alone
    token: Mapped[str | None] = mapped_column(String(32))  # random, 128 bits; NULL while nobody holds it
    worker: Mapped[str | None] = mapped_column(String(200))
    pid: Mapped[int | None]  # the process that claimed it: whoever beats under the same name later is another
    lease_until: Mapped[float | None] = mapped_column(Float)  # seconds since 1970 on the database's clock
    # The scan in hand, written before it is decoded, and only by a worker that scored the golden image first.
    breadcrumb: Mapped[int | None]
    completed_at: Mapped[datetime | None]


_HAS_PATIENT, _HAS_STUDY = "patient IS NOT NULL", "study IS NOT NULL"


class Scan(Base):
    """The record of one submitted image file."""

    __tablename__ = "scans"
    __table_args__ = (
        UniqueConstraint("batch_id", "path"),
        # By the bytes of the text, whatever the database's language: a prefix is a range then.
        Index(
            "ix_scans_patient",
            "patient",
            "id",
            sqlite_where=text(_HAS_PATIENT),
            postgresql_where=text(_HAS_PATIENT),
            postgresql_ops={"patient": "varchar_pattern_ops"},
        ),
        Index(
            "ix_scans_study",
            "study",
            "id",
            sqlite_where=text(_HAS_STUDY),
            postgresql_where=text(_HAS_STUDY),
            postgresql_ops={"study": "varchar_pattern_ops"},
        ),
    )
    id: Mapped[int] = mapped_column(primary_key=True)
    key: Mapped[str] = mapped_column(String(32), unique=True)  # random: what addresses and file names show
    batch_id: Mapped[int] = mapped_column(ForeignKey("batches.id"))
    chunk_id: Mapped[int | None] = mapped_column(ForeignKey("chunks.id"), index=True)
    generation: Mapped[int] = mapped_column(
        default=0, server_default="0"
    )  # raised by a retry on record, never otherwise
    path: Mapped[str] = mapped_column(FileName())  # relative to the batch's root
    size: Mapped[int]  # bytes
    sha256: Mapped[str | None] = mapped_column(String(64), index=True)  # NULL where the bytes could not be read
    patient: Mapped[str | None] = mapped_column(String(200))
    study: Mapped[str | None] = mapped_column(String(200))
    age: Mapped[float | None] = mapped_column(Float)  # years
    tags: Mapped[dict[str, Any] | None] = mapped_column(JSON(none_as_null=True))  # the other DICOM tags kept


_COMPUTED = "pixels_sha256 IS NOT NULL AND reused_from IS NULL"


class Outcome(Base):
    """How one scan ended under one trained model: exactly one of scored, rejected, failed."""

    __tablename__ = "outcomes"
    __table_args__ = (
        UniqueConstraint("scan_id", "trained_model_id", "generation"),
        CheckConstraint(
            "(kind = 'scored' AND score IS NOT NULL AND score >= 0 AND score <= 1"
            " AND flagged IS NOT NULL AND reason IS NULL)"
            " OR (kind IN ('rejected', 'failed') AND score IS NULL AND flagged IS NULL AND reason IS NOT NULL)",
            name="exactly_one_kind",
        ),
        Index(
            "ix_outcomes_flagged",  # a worklist is one trained model's
            "trained_model_id",
            "score",
            "scan_id",
            sqlite_where=text("flagged"),
            postgresql_where=text("flagged"),
        ),
        Index(
            "ix_outcomes_unscreened",
            "scan_id",
            sqlite_where=text("kind <> 'scored'"),
            postgresql_where=text("kind <> 'scored'"),
        ),
        # What was computed, by what was looked at: copies are not looked for.
        Index(
            "ix_outcomes_pixels",
            "pixels_sha256",
            sqlite_where=text(_COMPUTED),
            postgresql_where=text(_COMPUTED),
        ),
    )
    id: Mapped[int] = mapped_column(primary_key=True)
    scan_id: Mapped[int] = mapped_column(ForeignKey("scans.id"))
    trained_model_id: Mapped[int] = mapped_column(ForeignKey("trained_models.id"))
    generation: Mapped[int]
    kind: Mapped[str] = mapped_column(String(10))
    reason: Mapped[str | None] = mapped_column(String(40))  # a Reason or a Cause
    detail: Mapped[str | None] = mapped_column(Text)
    score: Mapped[float | None] = mapped_column(Float)  # probability, 0 to 1
    class_scores: Mapped[dict[str, Any] | None]
    flagged: Mapped[bool | None]
    threshold: Mapped[float | None] = mapped_column(Float)  # the one that `flagged` was computed with
    evidence: Mapped[dict[str, Any] | None]  # what preprocessing cut
    engine: Mapped[str | None] = mapped_column(String(40))
    precision: Mapped[str | None] = mapped_column(String(20))
    device: Mapped[str | None] = mapped_column(String(60))
    seconds: Mapped[float | None] = mapped_column(Float)
    # A score of the first of two stages stands from this threshold on: below it, the second would have looked, too.
    holds_from: Mapped[float | None] = mapped_column(Float)
    # What the score came of: the model's input (S x S bytes), the preprocessing that made it, and everything else that
    # the score depends on (workers/reuse.py). NULL where nothing was computed.
    pixels_sha256: Mapped[str | None] = mapped_column(String(64))
    preprocessing: Mapped[str | None] = mapped_column(String(20))
    recipe: Mapped[str | None] = mapped_column(String(64))
    # The outcome whose numbers these are, where nothing was computed anew. No foreign key: it may be purged before.
    reused_from: Mapped[int | None]
    at: Mapped[datetime]


class GoldenScore(Base):
    """What a trained model gives for the golden image on an engine at a precision, as first seen in good health."""

    __tablename__ = "golden_scores"
    trained_model_id: Mapped[int] = mapped_column(ForeignKey("trained_models.id"), primary_key=True)
    engine: Mapped[str] = mapped_column(String(40), primary_key=True)
    precision: Mapped[str] = mapped_column(String(20), primary_key=True)
    score: Mapped[float] = mapped_column(Float)  # probability, 0 to 1
    distance: Mapped[float] = mapped_column(Float)  # from chest X-rays, as the gate measures
    worker: Mapped[str] = mapped_column(String(200))  # the one that saw it first
    at: Mapped[datetime]


class Worker(Base):
    """A worker process's heartbeat: what people are shown of workers comes from here."""

    __tablename__ = "workers"
    name: Mapped[str] = mapped_column(String(200), primary_key=True)
    host: Mapped[str] = mapped_column(String(100))
    device: Mapped[str] = mapped_column(String(60))
    pid: Mapped[int]
    started_at: Mapped[datetime]
    beat: Mapped[float] = mapped_column(Float)  # seconds since 1970 on the database's clock
    doing: Mapped[str] = mapped_column(String(100))
    scans: Mapped[int] = mapped_column(default=0)
    stopped_at: Mapped[datetime | None]


class AuditEvent(Base):
    """Who did or saw what; append-only, each row's hash covers the row before it."""

    __tablename__ = "audit_events"
    __table_args__ = (Index("ix_audit_events_action", "action", "at"),)
    id: Mapped[int] = mapped_column(primary_key=True)
    at: Mapped[datetime]
    actor: Mapped[str] = mapped_column(String(100))
    action: Mapped[str] = mapped_column(String(40))
    object: Mapped[str] = mapped_column(String(100))
    detail: Mapped[dict[str, Any]]
    hash: Mapped[str] = mapped_column(String(64), unique=True)
