"""Scoring gives way to whoever waits for a page: workers and their decoders run behind other processes."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from db.settings import Settings
from workers.background import NICE
from workers.decoding import DecoderPool
from workers.provisions import decoder_pool

GIVES_WAY = "import os; from workers.background import give_way; give_way(); give_way(); print(os.nice(0))"
AUTOGROUP = "print(open('/proc/self/autogroup').read())"


def said(code: str) -> list[str]:
    """What a process of its own session, after `code`, prints."""
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, start_new_session=True
    )
    return done.stdout.split("\n")


def test_a_worker_stands_back_once_however_often_it_is_told():
    assert said(GIVES_WAY)[0] == str(max(NICE, os.nice(0)))


@pytest.mark.skipif(not Path("/proc/self/autogroup").exists(), reason="this kernel has no autogroups")
def test_its_session_stands_back_too():
    assert said(f"{GIVES_WAY}; {AUTOGROUP}")[1].endswith(f"nice {max(NICE, os.nice(0))}")


def test_a_decoder_is_as_nice_as_who_started_it(tmp_path):
    with decoder_pool(Settings(home=tmp_path, decoders=1)) as pool:
        assert isinstance(pool, DecoderPool)
        with pool._borrowed() as decoder:
            pid = decoder._process.pid
            assert os.getpriority(os.PRIO_PROCESS, pid) == os.nice(0)
            shared = Path(f"/proc/{pid}/autogroup")
            assert not shared.exists() or shared.read_text().split()[-1] == str(os.nice(0))
