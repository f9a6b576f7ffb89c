"""Who comes in by single sign-on: users whom an admin linked to a subject of the identity provider; nobody is made."""

from sqlalchemy import func, select, update

from db.errors import Refused
from db.schema import AuditEvent, User, WebSession
from db.store.audit import record
from db.store.connection import Database, now
from db.store.people import UserView, user_named

LONGEST = 255  # characters of issuer and subject together
RETURNED = "sign_on_returned"


def link(db: Database, user_id: int, *, issuer: str, subject: str | None, by: str) -> None:
    """Let the provider's `subject` in as this user from now on; None: nobody any more. Sessions of theirs end.
    Raises Refused where that subject is somebody else's, or no subject."""
    told = None if subject is None else told_apart(issuer, subject)
    with db.writing() as session:
        user = session.get_one(User, user_id)
        taken = session.scalar(select(User.name).where(User.subject == told, User.id != user_id)) if told else None
        if taken is not None:
            raise Refused(f"that subject is linked to user {taken!r} already")
        if user.subject == told:
            return
        user.subject = told
        ended = update(WebSession).where(WebSession.user_id == user_id, WebSession.ended_at.is_(None))
        session.execute(ended.values(ended_at=now()))
        record(session, by, "user_linked" if told else "user_unlinked", f"user {user_id}", {"subject": told})


def user_of(db: Database, *, issuer: str, subject: str) -> UserView | None:
    """The user whom this subject is linked to, if there is one."""
    with db.reading() as session:
        name = session.scalar(select(User.name).where(User.subject == f"{issuer} {subject}"))
    return None if name is None else user_named(db, name)


def told_apart(issuer: str, subject: str) -> str:
    """A subject with its issuer: another one may call somebody else by the same. Raises Refused."""
    if not issuer:
        raise Refused("set NIGHTREAD_OIDC_ISSUER first: a subject belongs to its identity provider")
    told = f"{issuer} {subject}"
    if not subject or not subject.isprintable() or subject != subject.strip() or len(told) > LONGEST:
        raise Refused(f"a subject is printable text, with its issuer at most {LONGEST} characters")
    return told


def spend(db: Database, digest: str) -> bool:
    """Whether a sign-on that the provider sends back comes back for the first time; on record each time."""
    about = f"sign-on {digest[:64]}"
    with db.writing() as session:
        record(session, "nobody", RETURNED, about)  # first: what follows is one at a time then
        same = select(func.count()).where(AuditEvent.action == RETURNED, AuditEvent.object == about)
        return session.scalar(same) == 1
