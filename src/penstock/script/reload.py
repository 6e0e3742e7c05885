"""Noticing that a script has changed, for whoever is writing one."""

from __future__ import annotations

import sys
from pathlib import Path


class SourceFiles:
    """The Python files below a folder, as they were at the last look."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._seen = self._state()

    def have_changed(self) -> bool:
        """Whether one was written, added or removed since the last time this was asked."""
        before, self._seen = self._seen, self._state()
        return before != self._seen

    def forget(self) -> None:
        """Has Python import all modules from the folder anew."""
        below = str(self._folder.resolve()) + "/"
        for name, module in list(sys.modules.items()):
            file = getattr(module, "__file__", None)
            if file is not None and str(Path(file).resolve()).startswith(below):
                del sys.modules[name]

    def _state(self) -> dict[str, tuple[int, int]]:
        state: dict[str, tuple[int, int]] = {}
        for file in self._folder.rglob("*.py"):
            try:
                stat = file.stat()
            except OSError:
                continue
            state[str(file)] = (stat.st_mtime_ns, stat.st_size)
        return state
