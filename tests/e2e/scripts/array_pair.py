"""Bare floats, in and out, as arrays; `Accept: application/json` gets the same as JSON."""

from typing import Any

import numpy as np


def input_handler(data: Any, context: Any) -> Any:
    return {"x": np.frombuffer(data.read(), "<f8")}


def output_handler(response: Any, context: Any) -> Any:
    if context.accept_header == "application/json":
        return response.text, "application/json"
    return response.arrays["y"].tobytes(), "application/octet-stream"
