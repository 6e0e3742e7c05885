"""Takes 90 MB of memory for as long as it lives."""

from typing import Any

HELD = b"x" * 90_000_000


def handler(data: Any, context: Any) -> Any:
    return str(len(HELD)), "text/plain"
