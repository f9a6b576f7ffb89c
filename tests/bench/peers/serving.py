"""How a bench talks to a peer: a process that loads its model once, says that it is ready, and then screens one folder
after the other as standard input names them. Times are taken here, without the start of Python and the load."""

import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

Screen = Callable[[list[Path]], dict[str, Any] | None]  # may say itself how many images it counts in how many seconds


def serve(screen: Screen) -> None:
    """Answer orders {"folder", "limit"} with {"images", "seconds"} until standard input ends."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what frameworks print must not get among the answers
    print(json.dumps({"ready": True}), file=answers, flush=True)
    for line in sys.stdin:
        order = json.loads(line)
        files = sorted(Path(order["folder"]).iterdir())[: order["limit"]]
        started = time.perf_counter()
        said = screen(files) or {}
        told = {"images": len(files), "seconds": time.perf_counter() - started} | said
        print(json.dumps(told), file=answers, flush=True)
