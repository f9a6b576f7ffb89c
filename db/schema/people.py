"""The tables of who signs in, and how."""

from datetime import datetime

from sqlalchemy import (
    ForeignKey,
    Index,
    String,
    false,
)
from sqlalchemy.orm import Mapped, mapped_column

from db.schema.base import Base


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
