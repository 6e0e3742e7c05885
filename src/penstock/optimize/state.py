"""What is known so far of an optimization, in a file: an interrupted run goes on from it."""

from __future__ import annotations

import os
from pathlib import Path

import msgspec

from penstock.models.plan import VariantReport
from penstock.optimize.race import Measured, Setting

_FILE = "state.json"


class State(msgspec.Struct):
    """The fate of each candidate, and the figures of the race by contender, setting and batch, a figure for each round."""

    reports: dict[str, VariantReport] = {}
    p50_ms: dict[str, dict[str, list[float]]] = {}
    rows_per_s: dict[str, dict[str, list[float]]] = {}

    def rounds(self, contenders: set[str]) -> int:
        """How many whole rounds of a race between these there are."""
        if set(self.p50_ms) != contenders:
            return 0
        return min((len(times) for one in self.p50_ms.values() for times in one.values()), default=0)

    def measured(self, name: str, rounds: int) -> Measured:
        """A contender's first rounds."""
        if not rounds:
            return Measured()
        times = {_of_text(key): values[:rounds] for key, values in self.p50_ms[name].items()}
        rates = {_of_text(key): values[:rounds] for key, values in self.rows_per_s[name].items()}
        return Measured(times, rates)

    def keep(self, name: str, measured: Measured) -> None:
        self.p50_ms[name] = {_text(*key): values for key, values in measured.p50_ms.items()}
        self.rows_per_s[name] = {_text(*key): values for key, values in measured.rows_per_s.items()}

    def save(self, folder: Path) -> None:
        """Whole or not at all."""
        file = folder / f"{_FILE}.new"
        file.write_bytes(msgspec.json.encode(self))
        os.replace(file, folder / _FILE)


def read_state(folder: Path) -> State:
    """What an interrupted run has left, or nothing."""
    try:
        return msgspec.json.decode((folder / _FILE).read_bytes(), type=State)
    except (OSError, msgspec.MsgspecError):
        return State()


def traces(path: Path) -> tuple[tuple[str, int, int], ...]:
    """Files by their size and time: whether they are those of an interrupted run."""
    files = sorted(path.rglob("*")) if path.is_dir() else [path]
    return tuple((str(file), file.stat().st_size, file.stat().st_mtime_ns) for file in files)


def _text(setting: Setting, batch: int) -> str:
    return f"{setting.threads} {setting.callers} {batch}"


def _of_text(text: str) -> tuple[Setting, int]:
    threads, callers, batch = map(int, text.split())
    return Setting(threads, callers), batch
