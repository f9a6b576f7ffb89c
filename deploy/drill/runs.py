"""What a run leaves for its auditor: where everything lies, and what every file must have come to."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class ExpectedOutcome:
    """How one file must have ended: `kind` as in the outcomes table.

    `score` only where it was scored. `reason` only where it was rejected or failed; where two are right (a worker
    that hangs may be killed or given up, whichever comes first) they are joined by `|`: use `reasons`.
    """

    kind: str
    score: float | None = None
    reason: str | None = None

    @property
    def reasons(self) -> frozenset[str]:
        """The reasons that are right; empty for a scored file."""
        return frozenset(self.reason.split("|")) if self.reason else frozenset()


@dataclass(frozen=True)
class Expected:
    """One submitted folder: its site and root as registered, and each of its files by path relative to the root.

    Files that the folder lost after submission are in `files`, too."""

    site: str
    root: Path
    files: Mapping[bytes, ExpectedOutcome]


@dataclass(frozen=True)
class Run:
    """A run that came to its end: workers, sweeps, producers and web have stopped; the servers still answer.

    `home` is NIGHTREAD_HOME (derived pictures, audit.head ...). `database_url` is SQLAlchemy's; it goes to the server
    itself, past the proxy. `queue_socket` is the queue server's own Unix socket, its append-only file lies in
    `queue_socket.parent`. `logs` holds a log of each part, and in `logs/pages` the answers of the web server that no
    reader had a right to see. No string of `canaries` may be in any of these, but for the database.
    """

    home: Path
    database_url: str
    queue_socket: Path
    audit_key: bytes
    batches: tuple[Expected, ...]
    logs: Path
    canaries: tuple[str, ...]


@dataclass(frozen=True)
class Violation:
    """A promise that did not hold: `check` is the auditor's letter (A to G) or W for what the drill itself saw (work
    that waited past its deadline, a part that did not stop); `said` is one sentence without patient data."""

    check: str
    said: str
