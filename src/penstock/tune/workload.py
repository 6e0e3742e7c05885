"""What the server is asked while it is tuned: a user's bodies, a user's samples, or what the model's signature says."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from penstock.bench.bodies import Body, body_of, form_of, made_up, read
from penstock.bench.target import Target, find_target
from penstock.errors import UsageError
from penstock.optimize.samples import given, rows_of
from penstock.tensors import Signature

_DEFAULT = "serving_default"


@dataclass(frozen=True, slots=True, kw_only=True)
class Workload:
    """A request of `rows` rows by an API in a format (both empty: the first there is), with a body or samples of the user's."""

    model: str
    api: str = ""
    format: str = ""
    rows: int = 1
    body: str = ""
    content_type: str = ""
    samples: str = ""
    seed: int = 0

    def target(self, url: str) -> Target:
        return find_target(url, self.model, self.api)

    def bodies(self, target: Target, signatures: Mapping[str, Signature], rows: int = 0) -> list[Body]:
        """Bodies of so many rows (0: as the workload has); none where the user's body is what it is. Raises UsageError."""
        form = form_of(target, self.format)
        if self.body:
            return [] if rows else read(Path(self.body), self.content_type, target, form)
        if not self.samples:
            return [made_up(target, form, rows or self.rows, self.seed)]
        signature = signatures.get(_DEFAULT) or next(iter(signatures.values()))
        arrays = rows_of(given(Path(self.samples), signatures), signature, rows or self.rows)
        if arrays is None:
            raise UsageError(f"--samples {self.samples}: no rows of signature {signature.name}; --body takes whole requests")
        return [body_of(target, form, arrays, Path(self.samples).name)]

    def describe(self, target: Target, bodies: list[Body]) -> str:
        what = bodies[0].name if len(bodies) == 1 else f"{len(bodies)} bodies"
        return f"{target.path}, {what}"
