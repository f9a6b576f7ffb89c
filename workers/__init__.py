"""What a worker does, and what it does it with. Sends no usage data, whatever imports OpenVINO first."""

import sys

# OpenVINO and NNCF report each import and conversion through the package `openvino_telemetry`, which takes a missing
# consent file for consent. A module that is None in `sys.modules` cannot be imported (Python reference, 5.3.1), and
# both then run without it. It is said here because Keras may be the first to import OpenVINO.
sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]
