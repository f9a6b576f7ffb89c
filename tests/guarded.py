"""A queue server as deploy/valkey has it, but for TLS (the wheel's Valkey is built without it) and on a Unix socket."""

import hashlib
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from deploy import queue_server as server

VALKEY = Path(__file__).parent.parent / "deploy" / "valkey"
USER, PASSWORD = "nightread", "correct-horse"


@contextmanager
def guarded_server(folder: Path) -> Iterator[Path]:
    """Run one with its data in `folder`; yields the path of its socket."""
    folder.mkdir(mode=0o700)
    kept = [line for line in (VALKEY / "valkey.conf").read_text().splitlines() if not line.startswith("tls-")]
    text = "\n".join([*kept, f"unixsocket {folder}/q.sock", "unixsocketperm 600"])
    text = text.replace("/etc/valkey/users.acl", f"{folder}/users.acl").replace("dir /data", f"dir {folder}")
    (folder / "valkey.conf").write_text(text + "\n")
    hashed = hashlib.sha256(PASSWORD.encode()).hexdigest()
    users = (VALKEY / "users.acl").read_text().replace("REPLACE_WITH_SHA256_OF_THE_PASSWORD", hashed)
    (folder / "users.acl").write_text(users)
    with (folder / "log").open("wb") as log:
        command = [server.find_server(), folder / "valkey.conf"]
        process = subprocess.Popen(command, env=server.environment(), stdout=log, stderr=log)
    try:
        deadline = time.monotonic() + 120
        while not (folder / "q.sock").exists():
            assert process.poll() is None, (folder / "log").read_text()
            assert time.monotonic() < deadline
            time.sleep(0.05)
        yield folder / "q.sock"
    finally:
        process.terminate()
        process.wait(30)
