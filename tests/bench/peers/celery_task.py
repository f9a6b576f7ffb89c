"""One Celery task an image: read, prepare, infer, write one row by SQLAlchemy; Celery as its manual sets it up.

`python celery_task.py` is the front: it starts a worker of one process a core, and enqueues what it is told. BROKER and
ROWS (a SQLite file) come from the environment, PRECISION from the first argument.
"""

import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from celery import Celery
from celery.signals import worker_process_init
from serving import serve
from sqlalchemy import create_engine, event, func, select
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column

CORES = len(os.sched_getaffinity(0))
app = Celery("celery_task", broker=os.environ["BROKER"])
app.conf.update(task_ignore_result=True, broker_connection_retry_on_startup=True)
rows = create_engine(f"sqlite:///{os.environ['ROWS']}", connect_args={"timeout": 60})
loaded: dict[str, Any] = {}


@event.listens_for(rows, "connect")
def _quick(connection: Any, record: Any) -> None:
    connection.execute("PRAGMA journal_mode=WAL")
    connection.execute("PRAGMA synchronous=FULL")


class Base(DeclarativeBase):
    pass


class Score(Base):
    """The outcome of one image."""

    __tablename__ = "scores"
    id: Mapped[int] = mapped_column(primary_key=True)
    path: Mapped[str]
    score: Mapped[float]


@worker_process_init.connect
def _load(**given: Any) -> None:
    from same_model import compiled

    loaded["model"] = compiled(os.environ["PRECISION"], threads=1, streams=1)


@app.task(name="screen_one")
def screen_one(path: str) -> None:
    """Score one image and write its row."""
    from same_model import prepared, score

    value = score(loaded["model"]({0: prepared(Path(path))[None, ..., None]}))
    with Session(rows) as session:
        session.add(Score(path=path, score=value))
        session.commit()


def screen(files: list[Path]) -> dict[str, Any]:
    """From the first message to the last row."""
    before, started = _count(), time.perf_counter()
    for file in files:
        screen_one.apply_async(args=[str(file)])
    while _count() < before + len(files):
        time.sleep(0.05)
    return {"seconds": time.perf_counter() - started}


def _count() -> int:
    with Session(rows) as session:
        return session.scalar(select(func.max(Score.id))) or 0


def main() -> None:
    Base.metadata.create_all(rows)
    words = ["celery", "-A", "celery_task", "worker", "-c", str(CORES), "--loglevel", "WARNING"]
    surrounding = {**os.environ, "PRECISION": sys.argv[1], "OPENBLAS_NUM_THREADS": "1"}
    worker = subprocess.Popen([sys.executable, "-m", *words], env=surrounding, cwd=Path(__file__).parent, stdout=2)
    try:
        serve(screen)
    finally:
        worker.terminate()
        worker.wait(30)


if __name__ == "__main__":
    main()
