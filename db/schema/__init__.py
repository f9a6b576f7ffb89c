"""The tables: columns and constraints, no behaviour."""

from db.schema.base import Base, FileName, UtcDateTime
from db.schema.ledger import (
    Activation,
    AuditEvent,
    Batch,
    Chunk,
    GoldenScore,
    Outcome,
    Retirement,
    Scan,
    Site,
    Threshold,
    TrainedModel,
    Worker,
)
from db.schema.people import Authenticator, RecoveryCode, User, UserSite, WebSession
from db.schema.reading import Acknowledgement, CaseStep, Entry, EntryCount, Review

__all__ = [
    "Acknowledgement",
    "Activation",
    "AuditEvent",
    "Authenticator",
    "Base",
    "Batch",
    "CaseStep",
    "Chunk",
    "Entry",
    "EntryCount",
    "FileName",
    "GoldenScore",
    "Outcome",
    "RecoveryCode",
    "Retirement",
    "Review",
    "Scan",
    "Site",
    "Threshold",
    "TrainedModel",
    "User",
    "UserSite",
    "UtcDateTime",
    "WebSession",
    "Worker",
]
