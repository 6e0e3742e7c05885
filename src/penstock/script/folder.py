"""Finding the user's script: a `code` folder with an inference.py, a lib/ folder or a requirements.txt (contract §3)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from penstock.errors import UsageError
from penstock.observe.log import get_logger

logger = get_logger("script")


@dataclass(frozen=True, slots=True)
class ScriptFolder:
    """A `code` folder, and what was found in it.

    `requirements` is None where there is a `lib` as well: packages that come along stand for those to be installed.
    """

    path: Path
    script: Path | None
    lib: Path | None
    requirements: Path | None


def find_script(candidates: Sequence[Path], universal: Path | None) -> ScriptFolder | None:
    """The folder whose script answers for a model; None where no folder has anything of use.

    `candidates` are the model's own `code` folders, `universal` is the one that all models share; none of them need
    exist. The first folder with an inference.py is taken, in that order, and without any, the first with a lib/ or a
    requirements.txt.
    """
    places = [*candidates, universal] if universal else candidates
    found = [folder for folder in map(_look, places) if folder.script or folder.lib or folder.requirements]
    chosen = next((folder for folder in found if folder.script), found[0] if found else None)
    if chosen is None or chosen.lib is None or chosen.requirements is None:
        return chosen
    logger.warning("%s is not installed: %s is there, and is used instead", chosen.requirements, chosen.lib)
    return ScriptFolder(chosen.path, chosen.script, chosen.lib, None)


def _look(path: Path) -> ScriptFolder:
    script, lib, requirements = path / "inference.py", path / "lib", path / "requirements.txt"
    return ScriptFolder(
        path,
        script if script.is_file() else None,
        lib if lib.is_dir() else None,
        requirements if requirements.is_file() else None,
    )


def require_script(path: Path) -> None:
    """Raises UsageError unless `path` is an inference.py, or a folder with something of use in it."""
    if not path.exists():
        raise UsageError(f"--script {path}: no such file or folder")
    if path.is_file() and path.name != "inference.py":
        raise UsageError(f"--script {path}: expected a file of the name inference.py, or a folder with it")
    found = _look(path.parent if path.is_file() else path)
    if not (found.script or found.lib or found.requirements):
        raise UsageError(f"--script {path}: there is no inference.py in it")
