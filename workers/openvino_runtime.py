"""OpenVINO, silent: the only module that imports it, so that nothing here ever sends usage data.

OpenVINO and NNCF report each import and conversion through the package `openvino_telemetry`, which takes a missing
consent file for consent. A module that is None in `sys.modules` cannot be imported (Python reference, 5.3.1), and
both then run without it, as they do where that package is not installed.
"""

import sys

sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]

import openvino  # noqa: E402
from openvino import opset13 as op  # noqa: E402

__all__ = ["op", "openvino"]
