"""The engine whose libraries are loaded first, while the rest of the server is still being put together.

A guess: light to make, and a wrong one costs a process that nobody needs.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable

from penstock.config import ServeOptions
from penstock.engine.engines import PACKAGES, TENSORFLOW, seems_installed

_PLANS = ("plan.json", os.path.join("assets.extra", "penstock", "plan.json"))


def first_engine(options: ServeOptions, paths: Iterable[str]) -> str:
    """What the plan of the first model says, else the first engine that is installed."""
    if options.engine != "auto":
        return options.engine
    if options.plan != "ignore":
        for path in paths:
            winner = _planned(path)
            if winner and seems_installed(winner):
                return winner
    return next((name for name in PACKAGES if seems_installed(name)), TENSORFLOW)


def _planned(path: str) -> str:
    """The engine that the plan of the newest version names; empty where there is no plan to be read."""
    try:
        numbers = [name for name in os.listdir(path) if name.isdecimal()]
    except OSError:
        return ""
    newest = [os.path.join(path, max(numbers, key=int))] if numbers else []
    for folder in (path, *newest):
        for file in _PLANS:
            try:
                with open(os.path.join(folder, file), "rb") as opened:
                    plan = json.load(opened)
                engines = {one["name"]: one["engine"] for one in plan["variants"]}
                return str(engines.get(plan["winner"], ""))
            except (OSError, ValueError, KeyError, TypeError):
                continue
    return ""
