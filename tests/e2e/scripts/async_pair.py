"""Handlers that wait, on one event loop: `?` asks how many were waiting at the same time at the most."""

import asyncio
import json
from typing import Any

waiting = most = 0


async def input_handler(data: Any, context: Any) -> Any:
    global waiting, most
    waiting += 1
    most = max(most, waiting)
    await asyncio.sleep(0.2)
    waiting -= 1
    return data.read()


async def output_handler(response: Any, context: Any) -> Any:
    await asyncio.sleep(0)
    return json.dumps({**response.json(), "most": most}), "application/json"
