"""Lets the engine be asked by as many requests at the same time as the body says."""

import json
import threading
from typing import Any

_all_here: dict[int, threading.Barrier] = {}
_lock = threading.Lock()


def input_handler(data: Any, context: Any) -> Any:
    order = json.loads(data.read())
    with _lock:
        barrier = _all_here.setdefault(order["round"], threading.Barrier(order["count"]))
    barrier.wait(10)
    return json.dumps({"instances": [order["milliseconds"]]})


def output_handler(response: Any, context: Any) -> Any:
    return response.content, "application/json"
