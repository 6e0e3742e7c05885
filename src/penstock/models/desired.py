"""What a source wants to be served, one model at a time."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path


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
