"""The script of models that have none: says who answered."""

from typing import Any


def handler(data: Any, context: Any) -> Any:
    return f"universal for {context.rest_uri.rpartition('/')[2]}", "text/plain"
