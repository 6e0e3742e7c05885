"""Keras files become SavedModels: in a process of its own, once for each content."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from penstock.config import cache_folder
from penstock.errors import UsageError

_EXPORT = """
import os, sys
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "-1")
source, target = sys.argv[1:]
import keras
keras.models.load_model(source, compile=False).export(target, verbose=False)
"""


def exported(source: Path) -> Path:
    """The model folder of a Keras file, from the cache, or exported into it now. Raises UsageError."""
    digest = _digest(source)
    target = cache_folder() / "exported" / digest
    if not (target / "1" / "saved_model.pb").is_file():
        _export(source, target)
    return target


def export_to(source: str, target: str) -> None:
    """`penstock export`: the version folder TARGET/1. Raises UsageError."""
    folder = Path(target)
    if (folder / "1").exists():
        raise UsageError(f"{folder / '1'} is there already")
    _export(Path(source), folder)
    print(f"penstock: exported to {folder / '1'}")


def _digest(source: Path) -> str:
    try:
        with source.open("rb") as file:
            digest = hashlib.sha256()
            while block := file.read(1 << 20):
                digest.update(block)
    except OSError as error:
        raise UsageError(f"{source}: {error.strerror}") from None
    return digest.hexdigest()[:32]


def _export(source: Path, target: Path) -> None:
    """Exports beside the target and renames, so that the target is whole or not there."""
    if not source.is_file():
        raise UsageError(f"{source}: no such file")
    print(f"penstock: exporting {source.name} as a SavedModel (once; kept in {target})", file=sys.stderr, flush=True)
    try:
        target.mkdir(parents=True, exist_ok=True)
        work = Path(tempfile.mkdtemp(prefix=".export-", dir=target))
    except OSError as error:
        raise UsageError(f"{target}: {error.strerror}") from None
    try:
        command = [sys.executable, "-c", _EXPORT, str(source), str(work / "1")]
        done = subprocess.run(command, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL)
        if done.returncode:
            raise UsageError(f"{source}: Keras cannot export it: {_reason(done.stderr)}")
        if not (target / "1").exists():
            os.rename(work / "1", target / "1")
    finally:
        shutil.rmtree(work, ignore_errors=True)


def _reason(stderr: str) -> str:
    """The last line of a traceback, which says what went wrong."""
    if "No module named 'keras'" in stderr:
        return 'Keras is not installed: pip install "penstock[tensorflow]"'
    lines = [line.strip() for line in stderr.splitlines() if line.strip()]
    errors = [line for line in lines if "Error" in line.split(":")[0]]
    return (errors or lines or ["it gave no reason"])[-1][:500]
