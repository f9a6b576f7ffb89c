#!/bin/sh
# Make or update a virtual environment from requirements.lock: make_venv.sh FOLDER
# Takes $PYTHON, or the first Python 3.11 to 3.13 that works (a shim that only prints an error does not).
set -eu
venv=$1

works() {
    "$1" -c '
import sys, ctypes, ensurepip, lzma, sqlite3, ssl, venv
sys.exit(not ((3, 11) <= sys.version_info[:2] <= (3, 13) and sys.maxsize > 2**32))' >/dev/null 2>&1
}

find_python() {
    for candidate in ${PYTHON:-python3 python3.12 python3.11 python3.13 python \
        "$HOME"/.pyenv/versions/3.1[123].*/bin/python /usr/local/bin/python3.1[123] /opt/python*/bin/python3}; do
        if works "$candidate"; then
            echo "$candidate"
            return
        fi
    done
    echo "nightread needs 64-bit Python 3.11, 3.12 or 3.13 with venv and ensurepip, and found none that works." >&2
    echo "  Debian, Ubuntu   sudo apt install python3 python3-venv" >&2
    echo "  Fedora, RHEL     sudo dnf install python3.12" >&2
    echo "  without root     https://docs.astral.sh/uv: uv python install 3.12" >&2
    echo "or name one: make PYTHON=/path/to/python3.12 ..." >&2
    return 1
}

if ! works "$venv/bin/python"; then
    python=$(find_python)
    echo "making $venv with $python ($("$python" --version))"
    "$python" -m venv --clear "$venv"
fi
pip="$venv/bin/python -m pip --disable-pip-version-check --no-input"
echo "installing what requirements.lock lists (the first time about 1 GB is downloaded)"
$pip install --require-hashes -r requirements.lock
$pip install --quiet --no-deps --no-build-isolation -e .
