"""The supervisor's side of the processes that unpack archives, one for each archive.

Guarantees: of each archive it is reported once what came of it, after `timeout_s` at the latest, unless the server ends first.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Protocol

import msgspec

from penstock.errors import DeadlineExceeded, Internal, PenstockError
from penstock.process.channel import FrameSocket, frame_pair
from penstock.process.control_loop import ControlLoop
from penstock.process.messages import Unpacked, UnpackSpec
from penstock.process.zygotes import Zygotes


class ArchiveReports(Protocol):
    """Whoever is told what came of archives."""

    def archive_unpacked(self, model: str, archive: Path, versions: dict[int, Path], root: Path) -> None: ...

    def archive_refused(self, model: str, error: PenstockError) -> None: ...


class Unpackings:
    """All of a server, forked by its first zygote."""

    def __init__(self, loop: ControlLoop, zygotes: Zygotes, reports: ArchiveReports, timeout_s: float) -> None:
        self._loop = loop
        self._zygotes = zygotes
        self._reports = reports
        self._timeout_s = timeout_s
        self._is_ending = False
        self._under_way: set[FrameSocket] = set()

    def start(self, model: str, archive: Path) -> None:
        """Has an archive unpacked."""
        ours, theirs = frame_pair()
        control = FrameSocket(ours)
        self._under_way.add(control)

        ended = Internal(f"The process that unpacks {archive.name} ended before it was done.")
        late = DeadlineExceeded(f"{archive.name} was not unpacked within {self._timeout_s:g} s.")
        self._loop.listen(control, partial(self._obey, control, model, archive), partial(self._refuse, control, model, ended))
        self._loop.after(self._timeout_s, partial(self._refuse, control, model, late))
        self._zygotes.spawn(self._zygotes.first, UnpackSpec(model, str(archive)), theirs)

    def _obey(self, control: FrameSocket, model: str, archive: Path, message: msgspec.Struct) -> None:
        if not isinstance(message, Unpacked):
            return
        if message.error is not None:
            self._refuse(control, model, message.error.error())
        elif self._take_out(control):
            versions = {version: Path(path) for version, path in message.versions.items()}
            self._reports.archive_unpacked(model, archive, versions, Path(message.root))

    def _refuse(self, control: FrameSocket, model: str, error: PenstockError) -> None:
        if self._take_out(control):
            self._reports.archive_refused(model, error)

    def _take_out(self, control: FrameSocket) -> bool:
        """Ends listening to a process. False where what came of its archive is known already, or interests nobody."""
        if control not in self._under_way or self._is_ending:
            return False
        self._under_way.remove(control)
        self._loop.drop(control)
        return True

    def forget(self) -> None:
        """After a fork, in the child: closes what only the supervisor may hold."""
        for control in self._under_way:
            control.close()

    def end(self) -> None:
        """Nothing is reported any more; the processes end with the lifeline."""
        self._is_ending = True
