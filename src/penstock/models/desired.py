"""What a source wants to be served, one model at a time."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from penstock.errors import NotFound, UsageError
from penstock.savedmodel.archive import SUFFIXES
from penstock.savedmodel.layout import find_models

#: Folders that are looked at for a model which somebody has named; meanwhile nothing else happens here.
_MAX_FOLDERS = 1000


@dataclass(frozen=True, slots=True)
class Desired:
    """One model as a source wants it now.

    `versions` are the version folders that its policy chose, ascending; there may be none. `folder` is where the model lives.
    A pinned model is never evicted. One on demand is loaded when it is first asked for; where that means unpacking `archive`,
    its versions are not known before. `fingerprint` changes with the content of the archive; it is empty for folders.
    """

    model: str
    versions: Mapping[int, Path]
    labels: Mapping[str, int] = field(default_factory=dict)
    folder: Path | None = None
    is_pinned: bool = True
    on_demand: bool = False
    archive: Path | None = None
    fingerprint: str = ""


def desired_at(model: str, url: str) -> Desired:
    """The model in a folder or archive that somebody named, who alone takes it out again. Raises NotFound where there is none."""
    try:
        return _desired_at(model, url)
    except (OSError, ValueError, UsageError):  # a name that is too long, a folder that may not be entered, a zero byte
        raise NotFound(f"Could not find valid base path {url} for servable {model}") from None


def _desired_at(model: str, url: str) -> Desired:
    """Raises OSError, ValueError, UsageError."""
    path = Path(os.path.abspath(url.removeprefix("file://")))
    if path.is_file() and path.name.lower().endswith(SUFFIXES):
        stat = path.stat()
        return Desired(
            model,
            {},
            folder=path,
            on_demand=True,
            archive=path,
            fingerprint=f"{stat.st_mtime_ns}-{stat.st_size}",
        )
    versions = find_models(path, model, max_folders=_MAX_FOLDERS)[0].versions
    return Desired(model, versions, folder=path)
