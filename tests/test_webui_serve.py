"""The web process in service: what it logs of requests that it cannot even read."""

import os
import re
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from webui.serve import QuietLogger

PATIENCE = 180.0  # seconds for the process to start, on a busy machine
CANARY = "Canary-Patient-0001"
# What gunicorn refuses before the application sees it, each with a name in it; and two that it hands on.
REQUESTS = {
    "method": f"{CANARY} / HTTP/1.1\r\nHost: localhost\r\n\r\n",
    "lower method": f"get /{CANARY} HTTP/1.1\r\nHost: localhost\r\n\r\n",
    "line": f"GET /scan/{CANARY} and more HTTP/1.1\r\n\r\n",
    "version": f"GET / HTTP/{CANARY}\r\n\r\n",
    "header name": f"GET / HTTP/1.1\r\nHost: localhost\r\nX {CANARY}: 1\r\n\r\n",
    "header": f"GET / HTTP/1.1\r\nHost: localhost\r\n{CANARY}\r\n\r\n",
    "folded": f"GET / HTTP/1.1\r\nHost: localhost\r\nX: 1\r\n {CANARY}\r\n\r\n",
    "coding": f"POST / HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: {CANARY}\r\n\r\n",
    "length": f"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: {CANARY}\r\n\r\n",
    "chunk": f"POST /sign-in HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n{CANARY}\r\n",
    "long line": f"GET /{CANARY * 500} HTTP/1.1\r\nHost: localhost\r\n\r\n",
    "long header": f"GET / HTTP/1.1\r\nHost: localhost\r\nX: {CANARY * 1000}\r\n\r\n",
    "path": f"GET /{CANARY}?{CANARY} HTTP/1.1\r\nHost: localhost\r\nUser-Agent: {CANARY}\r\nConnection: close\r\n\r\n",
    "host": f"GET / HTTP/1.1\r\nHost: {CANARY}.example\r\nConnection: close\r\n\r\n",
}


def answer(port: int, request: str) -> bytes:
    with socket.create_connection(("127.0.0.1", port), timeout=60) as connection:
        connection.sendall(request.encode())
        connection.shutdown(socket.SHUT_WR)
        said = b""
        while part := connection.recv(65536):
            said += part
    return said


@pytest.fixture
def served(home, tmp_path):
    """`nightread web` as its own process: its port, and the file that its log goes to."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    log = tmp_path / "web.log"
    command = [sys.executable, "-m", "producer", "web", "--port", str(port)]
    environment = {**os.environ, "NIGHTREAD_HOME": str(home.home)}
    with log.open("wb") as out, subprocess.Popen(command, env=environment, stdout=out, stderr=out) as web:
        try:
            wait_until_up(port, web)
            yield port, log
        finally:
            web.terminate()
            try:
                web.wait(timeout=60)
            except subprocess.TimeoutExpired:
                web.kill()


def wait_until_up(port: int, web: subprocess.Popen) -> None:
    end = time.monotonic() + PATIENCE
    while time.monotonic() < end and web.poll() is None:
        try:
            if b"ok\n" in answer(port, "GET /health HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"):
                return
        except OSError:
            time.sleep(0.2)
    raise TimeoutError("the web process does not answer")


def test_the_log_of_the_web_process_holds_no_word_of_a_request(served: tuple[int, Path]):
    port, log = served

    refused = {name: answer(port, request) for name, request in REQUESTS.items()}

    said = log.read_text()
    assert CANARY not in said
    assert "0001" not in said
    assert said.count("Invalid request from ip=127.0.0.1") >= 8
    assert len(re.findall(r"nightread\.web GET \(no route\) \d+", said)) >= 1
    assert refused["path"].startswith(b"HTTP/1.1 303")
    assert CANARY.encode() not in refused["path"]
    assert refused["host"].startswith(b"HTTP/1.1 400")


def test_an_error_of_the_server_is_logged_by_its_kind_and_place_alone(capsys):
    from gunicorn.config import Config

    logger = QuietLogger(Config())
    try:
        raise ValueError(f"{CANARY} is no number")
    except ValueError:
        logger.exception("Error handling request %s %s", "GET", f"/{CANARY}")

    said = capsys.readouterr().err
    assert "Error handling request: ValueError" in said
    assert "test_webui_serve.py" in said
    assert CANARY not in said
