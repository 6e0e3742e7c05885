"""Does what it is told: the body is {"do": …}, one of the functions below."""

import ctypes
import json
import os
import sys
import time
import urllib.request
from collections.abc import Callable
from typing import Any


def handler(data: Any, context: Any) -> Any:
    order = json.loads(data.read())
    return _DO[order["do"]](order, context)


def _context(order: Any, context: Any) -> Any:
    seen = {name: value for name, value in context._asdict().items() if name != "channel"}
    model_name, *rest = context
    return json.dumps(
        {
            **seen,
            "fields": context._fields,
            "first": model_name,
            "others": len(rest),
            "channel": type(context.channel).__name__,
            "left_s": context.deadline - time.monotonic(),
            "request_id": context.request_id,
        }
    ), "application/json"


def _rest(order: Any, context: Any) -> Any:
    """Asks its own model, through the server."""
    body = json.dumps({"instances": order["instances"]}).encode()
    with urllib.request.urlopen(context.rest_uri, body, context.timeout) as answer:
        return answer.read(), answer.headers["Content-Type"]


def _raise(order: Any, context: Any) -> Any:
    raise ValueError(order.get("text", ""))


def _sleep(order: Any, context: Any) -> Any:
    time.sleep(order["seconds"])
    return "slept"


class _HttpError(Exception):
    def __init__(self, status: str, title: str, description: str) -> None:
        self.status, self.title, self.description = status, title, description


def _http_error(order: Any, context: Any) -> Any:
    raise _HttpError("422 Unprocessable Entity", "Not this one", "too long")


def _print(order: Any, context: Any) -> Any:
    line = "x" * 1023 + "\n"
    for _ in range(order["megabytes"] << 10):
        sys.stdout.write(line)
    return "printed", "text/plain"


def _give(order: Any, context: Any) -> Any:
    """Wrong values and odd ones, as handlers of people return them."""
    return {
        "nothing": None,
        "number": 5,
        "dict": {"a": 1},
        "three": ("a", "b", "c"),
        "dict body": ({"a": 1}, "application/json"),
        "bad type": ("a", 7),
        "split type": ("a", "text/plain\r\nX-Evil: 1"),
        "list": ["a", "text/plain"],
        "text": "text alone",
        "bytes": (b"\x00\xff", "application/octet-stream"),
        "empty": (None, "text/plain"),
    }[order["value"]]


_DO: dict[str, Callable[[Any, Any], Any]] = {
    "context": _context,
    "rest": _rest,
    "raise": _raise,
    "http error": _http_error,
    "sys.exit": lambda order, context: sys.exit(order["code"]),
    "os._exit": lambda order, context: os._exit(3),
    "segfault": lambda order, context: ctypes.string_at(0),
    "sleep": _sleep,
    "print": _print,
    "give": _give,
    "pid": lambda order, context: (str(os.getpid()), "text/plain"),
}
