"""What was measured so far, a line for each curve: an interrupted run goes on from it.

A file with a first line that says what was asked; one of another question is set aside by beginning anew.
"""

from __future__ import annotations

from pathlib import Path

import msgspec

from penstock.errors import UsageError
from penstock.lock import take
from penstock.tune.curve import Curve
from penstock.tune.setting import Setting

FILE = "points.jsonl"


class Point(msgspec.Struct, frozen=True):
    """A curve of a setting. `why` it was measured: search, repeat, worth. `round` of the repeats."""

    setting: Setting
    curve: Curve
    why: str
    round: int = 0
    seconds: float = 0.0


class _Head(msgspec.Struct, frozen=True):
    question: str


class Journal:
    """The file of one question in a folder, which no other process uses meanwhile.

    Raises UsageError where it cannot be written, and where another process does.
    """

    def __init__(self, folder: Path, question: str) -> None:
        self._file = folder / FILE
        self.points: list[Point] = []
        try:
            self._lock = take(self._file, f"--out {folder}: another process is tuning there; give another folder, or wait")
            lines = self._file.read_bytes().splitlines() if self._file.exists() else []
            if not lines or not _asks(lines[0], question):
                self._file.write_bytes(msgspec.json.encode(_Head(question)) + b"\n")
            for line in lines[1:] if lines and _asks(lines[0], question) else ():
                try:
                    self.points.append(msgspec.json.decode(line, type=Point))
                except msgspec.MsgspecError:
                    break  # the line that was being written when it was interrupted
            if self.points or lines:
                self._rewrite(question)
        except OSError as error:
            raise UsageError(f"--out {folder}: {error.strerror}") from None

    def find(self, setting: Setting, why: str, number: int = 0) -> Point | None:
        """What an interrupted run has measured."""
        return next((one for one in self.points if (one.setting, one.why, one.round) == (setting, why, number)), None)

    def add(self, point: Point) -> None:
        self.points.append(point)
        with self._file.open("ab") as file:
            file.write(msgspec.json.encode(point) + b"\n")

    def _rewrite(self, question: str) -> None:
        lines = [msgspec.json.encode(_Head(question)), *map(msgspec.json.encode, self.points)]
        self._file.write_bytes(b"\n".join(lines) + b"\n")


def _asks(line: bytes, question: str) -> bool:
    try:
        return msgspec.json.decode(line, type=_Head).question == question
    except msgspec.MsgspecError:
        return False
