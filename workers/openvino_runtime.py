"""OpenVINO and its operations, from one place: what names it is drawn from here (telemetry is off: `workers`)."""

import openvino
from openvino import opset13 as op

__all__ = ["op", "openvino"]
