"""Takes its time to be imported."""

import time
from typing import Any

time.sleep(2)


def handler(data: Any, context: Any) -> Any:
    return "at last", "text/plain"
