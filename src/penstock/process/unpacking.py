"""Unpacking a model's archive in a process of its own: a full disk, a bomb or a slow archive is nobody else's matter."""

from __future__ import annotations

import signal
import socket
from pathlib import Path

from setproctitle import setproctitle

from penstock.config import cache_folder
from penstock.errors import FailedPrecondition, UsageError
from penstock.process.channel import FrameSocket
from penstock.process.lifeline import end_with_supervisor
from penstock.process.messages import Unpacked, UnpackSpec, encode, error_message
from penstock.savedmodel.layout import find_models


def run_unpacking(spec: UnpackSpec, control: socket.socket, lifeline: int) -> None:
    """The life of such a process: unpack, say what versions there are."""
    setproctitle(f"penstock: unpacking {spec.model}")
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    end_with_supervisor(lifeline)
    archive = Path(spec.archive)
    try:
        cache = cache_folder() / "unpacked"
        found = find_models(archive, spec.model, cache)[0]
        root = cache / found.path.relative_to(cache).parts[0]
        message = Unpacked({version: str(path) for version, path in found.versions.items()}, str(root), None)
    except UsageError as error:
        message = Unpacked({}, "", error_message(FailedPrecondition(str(error))))
    FrameSocket(control).send(encode(message))
