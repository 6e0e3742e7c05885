"""Installing a script's requirements.txt with pip, once for each content, into a folder of the cache.

Guarantees: a folder in the cache is complete, because it appears there by a rename; of several processes that want the
same folder, one installs and the others wait for it; pip and all that it starts end with the time-out.
"""

from __future__ import annotations

import hashlib
import os
import platform
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from penstock.errors import FailedPrecondition
from penstock.lock import try_take
from penstock.observe.log import get_logger

logger = get_logger("script")

_LOCK_POLL_S = 0.05
_LAST_LINES = 8
_LONGEST_REASON = 2000
#: `name[extra] >= 1.0; marker`: found by its name alone, wherever the file lies.
_BY_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*\s*(\[[^]]*\]\s*)?([<>=!~;(#].*)?")
_ARCHIVES = (".whl", ".zip", ".tar.gz", ".tgz")


def installed(requirements: Path, cache: Path, python: str = sys.executable, timeout_s: float = 600.0) -> Path:
    """The folder in `cache` with the packages of `requirements`, installed now unless they were before.

    `python` is the interpreter that will import them. Relative paths in the file are relative to its folder. Raises
    FailedPrecondition with the last lines of pip.
    """
    until = time.monotonic() + timeout_s
    try:
        target = cache / _key(requirements, python)
        if target.is_dir():
            return target
        with _locked(target.with_suffix(".lock"), until) as lock:
            if not target.is_dir():
                _install(requirements, target, python, until, lock.fileno())
    except TimeoutError:
        raise FailedPrecondition(f"{requirements}: not installed within {timeout_s:g} s") from None
    except (OSError, UnicodeDecodeError) as error:
        raise FailedPrecondition(f"{requirements}: cannot be installed: {error}") from error
    return target


def _key(requirements: Path, python: str) -> str:
    """A name for what pip would install: the file's content, the interpreter, and what else lies in a folder it refers to."""
    content = requirements.read_bytes()
    parts: list[bytes | str] = [content, python, sys.version, platform.platform()]
    lines = [line.strip() for line in content.decode("utf-8-sig").splitlines()]
    if not all(map(_is_by_name, lines)):
        parts += _listing(requirements.resolve().parent)
    digest = hashlib.sha256()
    for part in parts:
        data = part if isinstance(part, bytes) else part.encode(errors="surrogateescape")
        digest.update(b"%d:" % len(data) + data)
    return digest.hexdigest()[:32]


def _is_by_name(line: str) -> bool:
    if not line or line.startswith("#"):
        return True
    return bool(_BY_NAME.fullmatch(line)) and not line.lower().endswith(_ARCHIVES)


def _listing(folder: Path) -> Iterator[str]:
    """The folder, and each file below it with its size and time of change."""
    yield str(folder)
    for path in sorted(folder.rglob("*")):
        if path.is_file() and "__pycache__" not in path.parts:
            status = path.stat()
            yield f"{path.relative_to(folder)} {status.st_size} {status.st_mtime_ns}"


def _locked(path: Path, until: float) -> BinaryIO:
    """Takes the lock. Raises TimeoutError when another holds it for too long."""
    while (file := try_take(path)) is None:
        if time.monotonic() > until:
            raise TimeoutError
        time.sleep(_LOCK_POLL_S)
    return file


def _install(requirements: Path, target: Path, python: str, until: float, lock: int) -> None:
    """Installs beside the target and renames. pip gets the lock too, and so keeps it should this process die."""
    logger.info("installing %s (once; kept in %s)", requirements, target)
    scratch = target.with_name(f".installing-{target.name}")
    shutil.rmtree(scratch, ignore_errors=True)
    scratch.mkdir()
    try:
        _run_pip(requirements.resolve(), scratch.resolve(), python, until, lock)
        scratch.rename(target)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def _run_pip(requirements: Path, target: Path, python: str, until: float, lock: int) -> None:
    command = [python, "-m", "pip", "install", "--requirement", str(requirements), "--target", str(target)]
    command += ["--no-input", "--disable-pip-version-check", "--progress-bar", "off", "--no-warn-script-location"]
    pip = subprocess.Popen(
        command,
        cwd=requirements.parent,
        env={**os.environ, "PIP_ROOT_USER_ACTION": "ignore"},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        pass_fds=(lock,),
        start_new_session=True,
    )
    with pip:
        try:
            output, _ = pip.communicate(timeout=max(0.0, until - time.monotonic()))
        except BaseException as error:
            os.killpg(pip.pid, signal.SIGKILL)
            if isinstance(error, subprocess.TimeoutExpired):
                raise TimeoutError from None
            raise
    if pip.returncode:
        raise FailedPrecondition(f"{requirements}: pip cannot install it: {_reason(output)}")


def _reason(output: bytes) -> str:
    lines = [line.strip() for line in output.decode(errors="replace").splitlines() if line.strip()]
    return "\n".join(lines[-_LAST_LINES:])[-_LONGEST_REASON:] or "it gave no reason"
