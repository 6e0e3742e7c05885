"""The event loop on which the `async def` handlers of a process run: one, so that clients can be kept between requests.

Guarantees: nothing that a handler raises ends the loop; a handler that is late is cancelled, or, where it lets nobody else run,
shows in `blocked_s`. Assumes that a process which is forked after the first handler ran needs no loop.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Awaitable
from concurrent import futures
from functools import cache
from typing import Any

from penstock.errors import DeadlineExceeded
from penstock.observe.log import get_logger

logger = get_logger("script")


def run_async(awaitable: Awaitable[Any], deadline: float) -> Any:
    """The result of `awaitable`, from any thread but the loop's own.

    Raises what it raises, and DeadlineExceeded at `deadline` (on the clock of `time.monotonic()`).
    """
    future = asyncio.run_coroutine_threadsafe(_contained(awaitable), _event_loop())
    done, _ = futures.wait([future], max(0.0, deadline - time.monotonic()))
    if not done:
        future.cancel()
        _ask_for_a_sign()
        raise DeadlineExceeded("The model's script was not done when the time of the request was over.")
    result, error = future.result()
    if error is not None:
        raise error
    return result


def blocked_s() -> float:
    """For how long the loop has not come round since a handler was late: one that blocks it cannot be cancelled. 0: it has."""
    asked_at = _asked_at
    return time.monotonic() - asked_at if asked_at else 0.0


def _ask_for_a_sign() -> None:
    global _asked_at
    if not _asked_at:
        _asked_at = time.monotonic()
        _event_loop().call_soon_threadsafe(_give_a_sign)


def _give_a_sign() -> None:
    global _asked_at
    _asked_at = 0.0


async def _contained(awaitable: Awaitable[Any]) -> tuple[Any, BaseException | None]:
    """The result and no error, or one of the errors that asyncio would let through to the loop's thread."""
    try:
        return await awaitable, None
    except (SystemExit, KeyboardInterrupt) as error:
        return None, error


_starting = threading.Lock()
#: When a thread asked the loop for a sign of life that it has not given.
_asked_at = 0.0


def _event_loop() -> asyncio.AbstractEventLoop:
    with _starting:
        return _started_loop()


@cache
def _started_loop() -> asyncio.AbstractEventLoop:
    loop = asyncio.new_event_loop()
    threading.Thread(target=_run_forever, args=(loop,), daemon=True, name="script event loop").start()
    return loop


def _run_forever(loop: asyncio.AbstractEventLoop) -> None:
    asyncio.set_event_loop(loop)
    while True:
        try:
            loop.run_forever()
        except (SystemExit, KeyboardInterrupt) as error:
            logger.error("a task of the script raised %r; its event loop goes on", error)
