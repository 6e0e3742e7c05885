"""What came of the archives that models are in: each is unpacked once, and again when its content is another."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from penstock.models.desired import Desired


@dataclass(slots=True)
class _Unpacked:
    """What was in an archive: nothing yet where `versions` is empty."""

    archive: Path
    fingerprint: str
    versions: dict[int, Path] = field(default_factory=dict)
    root: Path | None = None

    def is_of(self, one: Desired) -> bool:
        return self.archive == one.archive and self.fingerprint == one.fingerprint


class Archives:
    """The archives of all models, by the models' names. Bookkeeping: somebody else unpacks, one archive of a model at a time."""

    def __init__(self) -> None:
        self._under_way: set[str] = set()
        self._unpacked: dict[str, _Unpacked] = {}

    def begin(self, one: Desired, archive: Path) -> bool:
        """Whether `archive` is to be unpacked now; it is not while another of this model still is."""
        if one.model in self._under_way:
            return False
        self._under_way.add(one.model)
        self._unpacked[one.model] = _Unpacked(archive, one.fingerprint)
        return True

    def is_under_way(self, model: str) -> bool:
        return model in self._under_way

    def end(self, model: str, archive: Path, versions: dict[int, Path], root: Path) -> None:
        """The archive is unpacked, into `root`."""
        self._under_way.discard(model)
        unpacked = self._unpacked.get(model)
        if unpacked is not None and unpacked.archive == archive:
            unpacked.versions, unpacked.root = versions, root

    def fail(self, model: str) -> None:
        """The archive cannot be unpacked."""
        self._under_way.discard(model)
        self._unpacked.pop(model, None)

    def forget(self, model: str) -> None:
        """Nobody wants the model any more."""
        self._unpacked.pop(model, None)

    def versions(self, one: Desired) -> dict[int, Path]:
        """The version folders of a model's archive as it is now; none before it is unpacked."""
        unpacked = self._unpacked.get(one.model)
        return dict(unpacked.versions) if unpacked is not None and unpacked.is_of(one) else {}

    def root(self, model: str) -> Path | None:
        """The folder that the model was unpacked into."""
        unpacked = self._unpacked.get(model)
        return None if unpacked is None else unpacked.root
