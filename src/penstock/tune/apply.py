"""Giving a running server the settings that were found, as far as it can take them while it serves."""

from __future__ import annotations

import urllib.error
import urllib.request

import msgspec

from penstock.bench.target import trusting
from penstock.errors import PenstockError, Unavailable
from penstock.process.live_settings import LIVE
from penstock.tune.result import TuneResult
from penstock.tune.setting import NAMES

#: New processes are loaded before the old ones go.
_TIMEOUT_S = 900.0


def apply(url: str, result: TuneResult) -> list[str]:
    """Changes a server that was started with --admin-api; the options that it would have to be started anew with.

    Raises PenstockError where it cannot be reached, or does not take them.
    """
    values = {name: getattr(result.winner, name) for name in NAMES if name in LIVE}
    request = urllib.request.Request(
        f"{url.rstrip('/')}/settings", msgspec.json.encode(values), {"Content-Type": "application/json"}, method="POST"
    )
    try:
        with urllib.request.urlopen(request, timeout=_TIMEOUT_S, context=trusting()) as answer:
            answer.read()
    except urllib.error.HTTPError as error:
        said = error.read().decode(errors="replace")
        hint = "; only a server with --admin-api takes settings" if error.code == 404 else ""
        raise PenstockError(f"{url}: HTTP {error.code}: {said}{hint}") from None
    except OSError as error:
        raise Unavailable(f"{url}: {getattr(error, 'reason', error)}") from None
    return [name for name in result.chosen if name not in LIVE]
