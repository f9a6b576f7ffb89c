"""The tables: columns and constraints, no behaviour."""

from datetime import UTC, datetime
from typing import Any, ClassVar

from sqlalchemy import (
    JSON,
    BigInteger,
    CheckConstraint,
    DateTime,
    Dialect,
    Float,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Text,
    TypeDecorator,
    UniqueConstraint,
    false,
    text,
    true,
)
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from db.words import PROTOCOL, Stage

NAMES = {
    "ix": "ix_%(table_name)s_%(column_0_N_name)s",
    "uq": "uq_%(table_name)s_%(column_0_N_name)s",
    "ck": "ck_%(table_name)s_%(constraint_name)s",
    "fk": "fk_%(table_name)s_%(column_0_name)s",
    "pk": "pk_%(table_name)s",
}


class UtcDateTime(TypeDecorator[datetime]):
    """An aware moment in UTC, also on SQLite, which forgets the zone."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        if value is None:
            return None
        if value.tzinfo is None:
            raise ValueError("a moment without a time zone")
        return value.astimezone(UTC)

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        if value is None:
            return None
        return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)


class FileName(TypeDecorator[str]):
    """A path exactly as the file system has it: bytes in the table, str with surrogate escapes in Python."""

    impl = LargeBinary
    cache_ok = True

    def process_bind_param(self, value: str | None, dialect: Dialect) -> bytes | None:
        return None if value is None else value.encode("utf-8", "surrogateescape")

    def process_result_value(self, value: bytes | None, dialect: Dialect) -> str | None:
        return None if value is None else bytes(value).decode("utf-8", "surrogateescape")


Id = BigInteger().with_variant(Integer, "sqlite")


class Base(DeclarativeBase):
    metadata = MetaData(naming_convention=NAMES)
    type_annotation_map: ClassVar[dict[Any, Any]] = {
        int: Id,
        datetime: UtcDateTime(),
        dict[str, Any]: JSON(),
        list[str]: JSON(),
    }


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


class User(Base):
    """Somebody who signs in."""

    __tablename__ = "users"
    __table_args__ = (Index("uq_users_subject", "subject", unique=True),)
    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(String(100), unique=True)
    role: Mapped[str] = mapped_column(String(20))
    password_hash: Mapped[str] = mapped_column(String(200))
    created_at: Mapped[datetime]
    disabled_at: Mapped[datetime | None]
    subject: Mapped[str | None] = mapped_column(String(255))  # whom single sign-on names; NULL: nobody


class UserSite(Base):
    """A site whose scans a reader may open."""

    __tablename__ = "user_sites"
    user_id: Mapped[int] = mapped_column(ForeignKey("users.id"), primary_key=True)
    site_id: Mapped[int] = mapped_column(ForeignKey("sites.id"), primary_key=True)


class WebSession(Base):
    """One sign-in; the cookie holds a random token, this row its hash."""

    __tablename__ = "web_sessions"
    id: Mapped[int] = mapped_column(primary_key=True)
    token_sha256: Mapped[str] = mapped_column(String(64), unique=True)
    user_id: Mapped[int] = mapped_column(ForeignKey("users.id"))
    created_at: Mapped[datetime]
    seen_at: Mapped[datetime]
    ended_at: Mapped[datetime | None]
    awaits_code: Mapped[bool] = mapped_column(default=False, server_default=false())  # the password was right so far
    # The identity provider asked for a second factor and says so.
    second_factor: Mapped[bool] = mapped_column(default=False, server_default=false())


class Authenticator(Base):
    """An app that makes one-time passwords (RFC 6238). Its secret is not here: the web derives it from `nonce` and a
    key of its own (webui/totp.py)."""

    __tablename__ = "authenticators"
    id: Mapped[int] = mapped_column(primary_key=True)
    user_id: Mapped[int] = mapped_column(ForeignKey("users.id"), index=True)
    nonce: Mapped[str] = mapped_column(String(32))
    added_at: Mapped[datetime]
    confirmed_at: Mapped[datetime | None]  # by a first code; until then sign-in does not ask for one
    removed_at: Mapped[datetime | None]
    last_step: Mapped[int] = mapped_column(default=0)  # of the last code that was accepted: none is accepted twice


class RecoveryCode(Base):
    """What lets somebody in once who lost their app; only the hash is kept."""

    __tablename__ = "recovery_codes"
    id: Mapped[int] = mapped_column(primary_key=True)
    authenticator_id: Mapped[int] = mapped_column(ForeignKey("authenticators.id"), index=True)
    code_sha256: Mapped[str] = mapped_column(String(64))
    used_at: Mapped[datetime | None]


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
