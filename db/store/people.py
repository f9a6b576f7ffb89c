"""Users, their sessions, their reviews."""

from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import func, select, update
from sqlalchemy.orm import Session

from db.errors import Refused, Unknown
from db.schema import AuditEvent, Authenticator, Review, Site, User, UserSite, WebSession
from db.store.audit import record
from db.store.connection import Database, now
from db.store.reading import ReviewView
from db.words import Role


@dataclass(frozen=True)
class UserView:
    """A user as the web sees them; admins see every site, readers those that were given to them."""

    id: int
    name: str
    role: Role
    password_hash: str
    disabled_at: datetime | None
    site_ids: frozenset[int]
    has_codes: bool  # sign-in asks for a one-time password, too
    subject: str | None = None  # as whom single sign-on knows them: issuer and subject


@dataclass(frozen=True)
class Visit:
    """A session and who holds it."""

    session_id: int
    user: UserView
    second_factor: bool = False  # which the identity provider asked for and vouched for


def add_user(db: Database, name: str, *, role: Role, password_hash: str, site_ids: set[int], by: str) -> int:
    """Register a user. Raises Refused when the name is taken."""
    with db.writing() as session:
        if session.scalar(select(User.id).where(User.name == name)) is not None:
            raise Refused(f"user {name!r} exists already")
        user = User(name=name, role=role, password_hash=password_hash, created_at=now())
        session.add(user)
        session.flush()
        session.add_all(UserSite(user_id=user.id, site_id=site_id) for site_id in site_ids)
        record(session, by, "user_added", f"user {user.id}", {"name": name, "role": role})
        return user.id


def users(db: Database) -> list[UserView]:
    """Every user, by name."""
    with db.reading() as session:
        names = session.scalars(select(User.name).order_by(User.name)).all()
    return [user_named(db, name) for name in names]


def user_named(db: Database, name: str) -> UserView:
    """The user of that name. Raises Unknown."""
    with db.reading() as session:
        user = session.scalar(select(User).where(User.name == name))
        if user is None:
            raise Unknown("no such user")
        sites = select(UserSite.site_id).where(UserSite.user_id == user.id)
        if user.role == Role.ADMIN:
            sites = select(Site.id)
        site_ids = frozenset(session.scalars(sites))
        app = (Authenticator.confirmed_at.is_not(None), Authenticator.removed_at.is_(None))
        enrolled = select(Authenticator.id).where(Authenticator.user_id == user.id, *app)
        has_codes = session.scalar(enrolled.limit(1)) is not None
        known = (user.id, user.name, Role(user.role), user.password_hash, user.disabled_at)
        return UserView(*known, site_ids, has_codes, user.subject)


def set_password(db: Database, user_id: int, password_hash: str, *, by: str) -> None:
    """Change a password; every session of the user ends."""
    with db.writing() as session:
        session.get_one(User, user_id).password_hash = password_hash
        _end_sessions(session, user_id)
        record(session, by, "password_changed", f"user {user_id}")


def rehash_password(db: Database, user_id: int, password_hash: str) -> None:
    """Keep the same password under a newer hash; sessions go on."""
    with db.writing() as session:
        session.get_one(User, user_id).password_hash = password_hash
        record(session, "web", "password_rehashed", f"user {user_id}")


def enable_user(db: Database, user_id: int, *, by: str) -> None:
    """Let a disabled user in again."""
    with db.writing() as session:
        session.get_one(User, user_id).disabled_at = None
        record(session, by, "user_enabled", f"user {user_id}")


def give_site(db: Database, user_id: int, site_id: int, *, by: str) -> None:
    """Let a reader open the scans of one more site; nothing happens where they may already."""
    with db.writing() as session:
        if session.get(UserSite, (user_id, site_id)) is None:
            session.add(UserSite(user_id=user_id, site_id=site_id))
            record(session, by, "site_given", f"user {user_id}", {"site": site_id})


def disable_user(db: Database, user_id: int, *, by: str) -> None:
    """Keep a user out from now on; every session of theirs ends."""
    with db.writing() as session:
        session.get_one(User, user_id).disabled_at = now()
        _end_sessions(session, user_id)
        record(session, by, "user_disabled", f"user {user_id}")


def start_session(
    db: Database,
    user_id: int,
    token_sha256: str,
    *,
    by: str,
    awaits_code: bool = False,
    sso: bool = False,
    second_factor: bool = False,
) -> None:
    """Begin a signed-in session, or one that only waits for a one-time password; the token is kept as a hash. `sso`:
    an identity provider signed them in, and with a `second_factor`, where it vouches for one."""
    with db.writing() as session:
        moment = now()
        begun = WebSession(token_sha256=token_sha256, user_id=user_id, created_at=moment, seen_at=moment)
        begun.awaits_code, begun.second_factor = awaits_code, second_factor
        session.add(begun)
        action = "password_accepted" if awaits_code else "signed_in"
        record(session, by, action, f"user {user_id}", {"sso": True} if sso else {})


def visit(
    db: Database, token_sha256: str, *, idle: timedelta, longest: timedelta, is_active: bool = True
) -> Visit | None:
    """Who holds this signed-in session, and, where `is_active`, that they were seen now; None when it ended, ran out
    or still waits for a one-time password."""
    found = _visit(db, token_sha256, idle=idle, longest=longest, awaits_code=False)
    if found is None:
        return None
    here, seen = found
    if is_active and seen < now() - timedelta(minutes=1):  # one write a minute and session, not one a request
        with db.writing() as session:
            session.execute(update(WebSession).where(WebSession.id == here.session_id).values(seen_at=now()))
    return here


def visit_awaiting_code(db: Database, token_sha256: str, *, longest: timedelta) -> Visit | None:
    """Whose password was right in this session, which waits for a one-time password; None when it waits no more."""
    found = _visit(db, token_sha256, idle=longest, longest=longest, awaits_code=True)
    return found[0] if found else None


def _visit(
    db: Database, token_sha256: str, *, idle: timedelta, longest: timedelta, awaits_code: bool
) -> tuple[Visit, datetime] | None:
    with db.reading() as session:
        row = session.scalar(select(WebSession).where(WebSession.token_sha256 == token_sha256))
        if row is None or row.ended_at or row.awaits_code != awaits_code:
            return None
        if row.seen_at < now() - idle or row.created_at < now() - longest:
            return None
        session_id, seen, name = row.id, row.seen_at, session.get_one(User, row.user_id).name
        second_factor = row.second_factor
    user = user_named(db, name)
    return None if user.disabled_at else (Visit(session_id, user, second_factor), seen)


def end_session(db: Database, token_sha256: str, *, by: str) -> None:
    """Sign out, or give up a sign-in that waits for a one-time password."""
    with db.writing() as session:
        row = session.scalar(select(WebSession).where(WebSession.token_sha256 == token_sha256))
        if row is None or row.ended_at:
            return
        row.ended_at = now()
        if not row.awaits_code:
            record(session, by, "signed_out", "session")


def note_event(db: Database, *, by: str, action: str, about: str, detail: dict[str, str] | None = None) -> None:
    """Put on record what somebody did or saw."""
    with db.writing() as session:
        record(session, by, action, about, dict(detail or {}))


def recent_events(
    db: Database, action: str, about: str, *, within: timedelta, since: tuple[set[str], str] | None = None
) -> int:
    """How often something was recorded lately (failed sign-ins of one name or one address, say); `since` has the
    actions and the object of events that start the count anew."""
    with db.reading() as session:
        same = [AuditEvent.action == action, AuditEvent.object == about, AuditEvent.at > now() - within]
        if since is not None:
            restarts, whose = since
            anew = select(func.max(AuditEvent.id)).where(AuditEvent.action.in_(restarts), AuditEvent.object == whose)
            same.append(AuditEvent.id > func.coalesce(anew.scalar_subquery(), 0))
        return session.scalar(select(func.count()).where(*same)) or 0


def reviews(db: Database, scan_id: int) -> list[ReviewView]:
    """Every review of a scan, newest first; for records. Who reads sees what `entries.entry` gives."""
    with db.reading() as session:
        joined = select(User.name, Review).join(User, Review.reader_id == User.id)
        rows = session.execute(joined.where(Review.scan_id == scan_id).order_by(Review.id.desc()))
        return [ReviewView.of(row, name) for name, row in rows]


def _end_sessions(session: Session, user_id: int) -> None:
    ended = update(WebSession).where(WebSession.user_id == user_id, WebSession.ended_at.is_(None))
    session.execute(ended.values(ended_at=now()))
