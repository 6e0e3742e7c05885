"""Keeps engines from reporting to their makers what they run: a server that is told to load a model tells nobody else.

ONNX Runtime (from 1.29 on) and OpenVINO do it by default, with threads and files of their own, as soon as they are imported.
"""

from __future__ import annotations

import os
import sys


def refuse_telemetry() -> None:
    """To be called before either is imported. Children inherit it."""
    os.environ["ORT_DISABLE_TELEMETRY"] = "1"
    # OpenVINO and NNCF take a package that cannot be imported for one that is not installed.
    sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]
