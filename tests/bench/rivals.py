"""Starts peers in their own environment (.bench-venv, made from peers.lock) and has them screen folders."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

PROJECT = Path(__file__).parents[2]
PEERS = Path(__file__).parent / "peers"
PYTHON = PROJECT / ".bench-venv" / "bin" / "python"


@dataclass
class Peer:
    """A peer that is ready."""

    process: "subprocess.Popen[str]"

    def screen(self, folder: Path, limit: int) -> dict[str, Any]:
        """What the first `limit` files of a folder took: {"images", "seconds"} and what else the peer tells."""
        assert self.process.stdin is not None
        print(json.dumps({"folder": str(folder), "limit": limit}), file=self.process.stdin, flush=True)
        return self._answer()

    def _answer(self) -> dict[str, Any]:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            raise SystemExit(f"a peer ended with status {self.process.wait()}")
        return dict(json.loads(line))


@contextmanager
def peer(script: str, *words: str, environment: Mapping[str, str] | None = None) -> Iterator[Peer]:
    """A peer's script with its arguments, ready to screen; ended with the block."""
    if not PYTHON.exists():
        raise SystemExit(
            "the peers' environment is missing: make .bench-venv (uv venv, then install tests/bench/peers.lock)"
        )
    surrounding = {
        **{name: value for name, value in os.environ.items() if not name.startswith("NIGHTREAD_")},
        "PYTHONPATH": f"{PROJECT}{os.pathsep}{PEERS}",
        "PYTHONUNBUFFERED": "1",
        **(environment or {}),
    }
    process = subprocess.Popen(
        [str(PYTHON), str(PEERS / script), *words],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=sys.stderr if os.environ.get("BENCH_LOUD") else subprocess.DEVNULL,
        text=True,
        env=surrounding,
    )
    one = Peer(process)
    try:
        one._answer()
        yield one
    finally:
        assert process.stdin is not None
        process.stdin.close()
        try:
            process.wait(60)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
