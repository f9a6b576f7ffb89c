"""What leaves this machine goes over TLS: the addresses of queue and database are judged before anything connects."""

from ipaddress import ip_address
from urllib.parse import SplitResult, parse_qs, urlsplit

from sqlalchemy import make_url
from sqlalchemy.exc import ArgumentError

from db.errors import Refused

# psycopg's modes that never fall back to plaintext (PostgreSQL, "SSL Support"); only the last checks the host's name.
TLS_MODES = {"require", "verify-ca", "verify-full"}


def require_private_queue(url: str) -> None:
    """Raises Refused unless this broker URL (several are parted by ";") stays on this machine or uses TLS with the
    server's certificate checked: kombu checks none unless the URL asks for it."""
    for one in url.split(";"):
        parts = _split(one)
        if parts.scheme == "redis+socket" or (parts.scheme in {"redis", "rediss"} and _is_here(parts.hostname or "")):
            continue
        asked = {name: values[-1].lower() for name, values in parse_qs(parts.query).items()}
        if parts.scheme != "rediss":
            raise Refused(
                "NIGHTREAD_QUEUE_URL leaves this machine in plaintext: use rediss:// with ?ssl_cert_reqs=required "
                "(deploy/valkey has the server's settings), 127.0.0.1, or a Unix socket"
            )
        is_checked = asked.get("ssl_cert_reqs") in {"required", "cert_required"}
        if not is_checked or asked.get("ssl_check_hostname", "true") not in {"true", "1", "yes"}:
            raise Refused(
                "NIGHTREAD_QUEUE_URL would trust any server: add ?ssl_cert_reqs=required (and ssl_ca_certs=FILE where "
                "the authority is your own), without ssl_check_hostname=false"
            )


def require_private_database(url: str) -> None:
    """Raises Refused unless this SQLAlchemy URL is SQLite, stays on this machine, or insists on TLS."""
    try:
        made = make_url(url)
    except ArgumentError as error:
        raise Refused("NIGHTREAD_DATABASE_URL is no SQLAlchemy URL: postgresql+psycopg://USER@HOST/NAME") from error
    if made.get_backend_name() == "sqlite":
        return
    hosts = [made.host or "", *_values(made.query.get("host")), *_values(made.query.get("hostaddr"))]
    if all(_is_here(host) for several in hosts for host in several.split(",")):
        return
    modes = _values(made.query.get("sslmode"))
    if not modes or not TLS_MODES.issuperset(modes):
        raise Refused(
            "NIGHTREAD_DATABASE_URL leaves this machine without insisting on TLS: add "
            "?sslmode=verify-full&sslrootcert=FILE (sslmode=require at the least)"
        )


def require_private_issuer(url: str) -> None:
    """Raises Refused unless this address of an identity provider is https, or http on this machine; none is fine."""
    if url and not is_private_web(url):
        raise Refused("NIGHTREAD_OIDC_ISSUER must begin with https:// (http:// for a provider on this machine)")


def is_private_web(url: str) -> bool:
    """Whether this is a web address that is spoken to over TLS, or does not leave this machine."""
    try:
        parts = urlsplit(url)
        host = parts.hostname or ""
    except ValueError:
        return False
    return bool(host) and (parts.scheme == "https" or (parts.scheme == "http" and _is_here(host)))


def _split(url: str) -> SplitResult:
    try:
        parts = urlsplit(url)
        parts.port  # noqa: B018 (raises where it is no number)
    except ValueError as error:
        raise Refused("NIGHTREAD_QUEUE_URL is no URL: rediss://USER:PASSWORD@HOST:6379/0") from error
    return parts


def _is_here(host: str) -> bool:
    """Whether a host is this machine: none (the default), a socket's path, localhost, a loopback address."""
    if host in {"", "localhost"} or host.startswith(("/", "@")):
        return True
    bare = host[1 : host.index("]")] if host.startswith("[") and "]" in host else host
    for name in (bare, bare.rpartition(":")[0]):  # SQLAlchemy's hosts may carry a port
        try:
            return ip_address(name).is_loopback
        except ValueError:
            if name == "localhost":
                return True
    return False


def _values(given: str | tuple[str, ...] | None) -> tuple[str, ...]:
    return (given,) if isinstance(given, str) else given or ()
