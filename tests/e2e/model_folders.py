"""Model folders that a test may change: copies of the exported models, with scripts, as archives, and put in place whole."""

from __future__ import annotations

import io
import os
import shutil
import tarfile
import tempfile
from collections.abc import Callable
from pathlib import Path

_SCRIPTS = Path(__file__).with_name("scripts")

#: Puts something unusual into an archive.
Hostile = Callable[[tarfile.TarFile], None]


def put_version(source: Path, model: Path, version: int = 1) -> Path:
    """Copies the version folder `source` to MODEL/VERSION, where it appears whole."""
    model.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".copying-", dir=model) as scratch:
        shutil.copytree(source, Path(scratch) / "copy")
        return (Path(scratch) / "copy").rename(model / str(version))


def put_text(file: Path, text: str) -> Path:
    """Writes a file, or replaces it, as a whole."""
    file.parent.mkdir(parents=True, exist_ok=True)
    scratch = file.with_name(f".{file.name}.part")
    scratch.write_text(text)
    return scratch.replace(file)


def with_script(source: Path, model: Path, name: str) -> Path:
    """A model folder with the version folder `source` and the script tests/e2e/scripts/NAME.py."""
    put_version(source, model)
    put_text(model / "code" / "inference.py", (_SCRIPTS / f"{name}.py").read_text())
    return model


def put_archive(model: Path, archive: Path, *added: Hostile) -> Path:
    """Packs what is in `model` into a .tar.gz, or replaces one, as a whole."""
    archive.parent.mkdir(parents=True, exist_ok=True)
    scratch = archive.with_name(f".{archive.name}.part")
    with tarfile.open(scratch, "w:gz") as tar:
        for child in sorted(os.listdir(model)):
            tar.add(model / child, child)
        for add in added:
            add(tar)
    return scratch.replace(archive)


def escaping_file(name: str) -> Hostile:
    """A file with a name that leads elsewhere."""

    def add(tar: tarfile.TarFile) -> None:
        member = tarfile.TarInfo(name)
        member.size = 4
        tar.addfile(member, io.BytesIO(b"evil"))

    return add


def link_to(target: Path, name: str = "1/link") -> Hostile:
    """A symbolic link that leads elsewhere."""

    def add(tar: tarfile.TarFile) -> None:
        member = tarfile.TarInfo(name)
        member.type, member.linkname = tarfile.SYMTYPE, str(target)
        tar.addfile(member)

    return add


def heavy_model(source: Path, model: Path) -> Path:
    """A model that takes about 100 MB, as the size of its files says beforehand."""
    with_script(source, model, "heavy")
    with (model / "1" / "assets" / "zeros").open("wb") as file:
        file.truncate(60_000_000)
    return model
