"""Keeps the parts of one machine running: starts them, starts again what dies, stops them in good order."""

import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from db.errors import NightreadError
from deploy import undertaker

TICK_SECONDS = 0.2
FIRST_DELAY, LONGEST_DELAY = 0.5, 60.0  # seconds before a part that died is started again; doubled each time
HEALTHY_SECONDS = 60.0  # a part that lived that long starts again without the delays it had gathered
STOP_SECONDS = 35.0  # a worker may take 30 to give its chunk back
READY_SECONDS = 60.0
LOG_BYTES, LOGS_KEPT = 10_000_000, 3

Say = Callable[[str], None]


@dataclass(frozen=True)
class Part:
    """One long-running process. `command` is asked at every start and may prepare it (raising NightreadError);
    parts of a higher `stage` stop first; `ready` says when the parts after it may start. An errand is done, and not
    started again, once it ended with status 0."""

    name: str
    command: Callable[[], Sequence[str]]
    environment: Mapping[str, str]
    stage: int = 1
    ready: Callable[[], bool] | None = None
    is_errand: bool = False


@dataclass
class _Kept:
    part: Part
    process: "subprocess.Popen[bytes] | None" = None
    started: float = 0.0
    delay: float = FIRST_DELAY
    due: float = 0.0
    deaths: int = 0


@dataclass
class Supervisor:
    """Runs parts until `stop`; what they print goes to `logs`/NAME.log, what happens to them to `say`.

    `lock` is a file descriptor that stays locked until the last part ended, even when this process is killed."""

    logs: Path
    lock: int
    say: Say
    longest_delay: float = LONGEST_DELAY
    _kept: list[_Kept] = field(default_factory=list)
    _undertaker: "subprocess.Popen[str] | None" = None
    _stopping: threading.Event = field(default_factory=threading.Event)
    _attending: threading.Lock = field(default_factory=threading.Lock)
    _watcher: threading.Thread | None = None

    def start(self, parts: Sequence[Part]) -> None:
        """Start parts in their order. Raises what the first start of a part raises."""
        self.logs.mkdir(mode=0o700, parents=True, exist_ok=True)
        for part in parts:
            kept = _Kept(part)
            self._launch(kept)
            self._await_ready(kept)
            self._kept.append(kept)
        if self._watcher is None:
            self._watcher = threading.Thread(target=self._watch, name="supervisor", daemon=True)
            self._watcher.start()

    def stop(self, *, patience: float = STOP_SECONDS, down_to: int = 0) -> list[str]:
        """Stop every part, the highest stage first; what is left after `patience` seconds a stage is killed: their
        names. Stages below `down_to` run on, unwatched."""
        self._stopping.set()
        if self._watcher is not None:
            self._watcher.join()
        killed: list[str] = []
        for stage in sorted({kept.part.stage for kept in self._kept if kept.part.stage >= down_to}, reverse=True):
            killed += self._stop([kept for kept in self._kept if kept.part.stage == stage], patience)
        self._kept = [kept for kept in self._kept if kept.part.stage < down_to]
        if self._undertaker is not None and not self._kept:
            self._undertaker.communicate()
        return killed

    def dismiss(self, name: str, *, patience: float = STOP_SECONDS) -> None:
        """Stop a part for good."""
        with self._attending:
            leaving = [kept for kept in self._kept if kept.part.name == name]
            self._kept = [kept for kept in self._kept if kept.part.name != name]
        self._stop(leaving, patience)

    def kill(self) -> None:
        """Stop waiting: whatever still runs is killed now."""
        for kept in self._kept:
            if kept.process is not None:
                undertaker.kill_group(kept.process.pid)

    def count(self, *, stage: int) -> int:
        """How many parts a stage has."""
        return sum(kept.part.stage == stage for kept in self._kept)

    def pid(self, name: str) -> int | None:
        """The process of a part; None while it has none."""
        processes = [kept.process for kept in self._kept if kept.part.name == name]
        return next((process.pid for process in processes if process is not None), None)

    def has(self, name: str) -> bool:
        """Whether a part is kept; an errand is until it succeeded."""
        return any(kept.part.name == name for kept in self._kept)

    def deaths(self, *, stage: int) -> int:
        """How often parts of a stage ended unasked, or could not be started again."""
        return sum(kept.deaths for kept in self._kept if kept.part.stage == stage)

    def last_lines(self, *, stage: int) -> str:
        """The last line of each log of a stage's parts, with the file that it stands in."""
        return "".join(self._last(kept) for kept in self._kept if kept.part.stage == stage)

    def log_of(self, name: str) -> Path:
        """Where a part's output goes."""
        return self.logs / f"{name}.log"

    def _launch(self, kept: _Kept) -> None:
        command = list(kept.part.command())
        log = self.log_of(kept.part.name)
        with log.open("ab") as out:
            out.write(f"--- {datetime.now(UTC):%Y-%m-%d %H:%M:%S} UTC: {kept.part.name} starts\n".encode())
            out.flush()
            kept.process = subprocess.Popen(
                command,
                env=dict(kept.part.environment),
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=out,
                start_new_session=True,
            )
        kept.started = time.monotonic()
        self._tell(f"+ {kept.process.pid} {kept.part.stage}")

    def _await_ready(self, kept: _Kept) -> None:
        deadline = time.monotonic() + READY_SECONDS
        ready, process = kept.part.ready, kept.process
        while ready and process and process.poll() is None and time.monotonic() < deadline and not ready():
            time.sleep(0.05)

    def _watch(self) -> None:
        while not self._stopping.wait(TICK_SECONDS):
            for kept in list(self._kept):
                with self._attending:
                    if kept in self._kept:
                        self._attend(kept)

    def _attend(self, kept: _Kept) -> None:
        now = time.monotonic()
        if kept.process is None:
            if now >= kept.due:
                self._relaunch(kept)
        elif (status := kept.process.poll()) is not None:
            self._bury(kept)
            if kept.part.is_errand and status == 0:
                self._kept.remove(kept)
                return
            kept.deaths += 1
            if now - kept.started > HEALTHY_SECONDS:
                kept.delay = FIRST_DELAY
            self.say(f"{kept.part.name} {_ending(status)}; starting it again in {kept.delay:g} s{self._last(kept)}")
            kept.due, kept.delay = now + kept.delay, min(2 * kept.delay, self.longest_delay)
        else:
            rotate(self.log_of(kept.part.name))

    def _relaunch(self, kept: _Kept) -> None:
        try:
            self._launch(kept)
        except (NightreadError, OSError) as error:
            self.say(f"{kept.part.name} cannot start: {error}")
            kept.deaths += 1
            kept.due, kept.delay = time.monotonic() + kept.delay, min(2 * kept.delay, self.longest_delay)

    def _bury(self, kept: _Kept) -> None:
        """A part's process ended: end what it started, too."""
        if kept.process is not None:
            undertaker.kill_group(kept.process.pid)
            kept.process.wait()
            self._tell(f"- {kept.process.pid}")
            kept.process = None

    def _stop(self, several: Sequence[_Kept], patience: float) -> list[str]:
        killed: list[str] = []
        for kept in several:
            if kept.process is not None:
                kept.process.send_signal(signal.SIGTERM)
        deadline = time.monotonic() + patience
        for kept in several:
            if kept.process is None:
                continue
            try:
                kept.process.wait(max(0.0, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                self.say(f"{kept.part.name} did not stop within {patience:g} s and is killed")
                killed.append(kept.part.name)
            self._bury(kept)
        return killed

    def _tell(self, line: str) -> None:
        if self._undertaker is None or self._undertaker.poll() is not None:
            self._undertaker = self._hire()
        assert self._undertaker.stdin is not None  # noqa: S101 (for the type checker: it was opened as a pipe)
        print(line, file=self._undertaker.stdin, flush=True)

    def _hire(self) -> "subprocess.Popen[str]":
        hired = subprocess.Popen(
            [sys.executable, "-I", "-S", undertaker.__file__],
            stdin=subprocess.PIPE,
            text=True,
            start_new_session=True,
            pass_fds=[self.lock],
        )
        assert hired.stdin is not None  # noqa: S101 (as above)
        for kept in self._kept:
            if kept.process is not None:
                print(f"+ {kept.process.pid} {kept.part.stage}", file=hired.stdin, flush=True)
        return hired

    def _last(self, kept: _Kept) -> str:
        """The last line of a part's log, for whoever wonders why it ended."""
        with self.log_of(kept.part.name).open("rb") as log:
            log.seek(max(0, log.seek(0, 2) - 2000))
            lines = log.read().decode(errors="replace").strip().splitlines()
        return f"\n  {self.log_of(kept.part.name)}: {lines[-1]}" if lines else ""


def rotate(log: Path, *, limit: int = LOG_BYTES) -> None:
    """Move a log that passed `limit` bytes aside and empty it in place: its writer appends and need not know."""
    if not log.exists() or log.stat().st_size < limit:
        return
    for number in range(LOGS_KEPT - 1, 0, -1):
        older = log.with_name(f"{log.name}.{number}")
        if older.exists():
            older.replace(log.with_name(f"{log.name}.{number + 1}"))
    shutil.copyfile(log, log.with_name(f"{log.name}.1"))
    with log.open("r+b") as out:
        out.truncate(0)


def _ending(status: int) -> str:
    return f"was ended by {signal.Signals(-status).name}" if status < 0 else f"ended (status {status})"
