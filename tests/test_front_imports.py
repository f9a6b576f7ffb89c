"""A front end never loads TensorFlow: submitting and reviewing work on a small machine."""

import importlib.util
import subprocess
import sys

import pytest

FRONT = ("producer.cli", "producer.commands", "webui", "webui.cli", "webui.serve")
HEAVY = ("tensorflow", "keras", "openvino", "jax", "torch")


@pytest.mark.parametrize("module", [name for name in FRONT if importlib.util.find_spec(name)])
def test_the_front_starts_without_the_engine(module):
    code = (
        f"import sys, importlib; importlib.import_module({module!r})\n"
        "import webui; [importlib.import_module(f'webui.{name}') for name in webui.PAGES]\n"
        f"print(sorted(name for name in sys.modules if name.split('.')[0] in {HEAVY!r}))"
    )

    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=True)

    assert done.stdout.strip() == "[]"
