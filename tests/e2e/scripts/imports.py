"""Imports a module that lies in lib/, or that requirements.txt names."""

from typing import Any

import greeting  # type: ignore[import-not-found]


def handler(data: Any, context: Any) -> Any:
    return greeting.TEXT, "text/plain"
