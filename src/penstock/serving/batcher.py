"""Runs a batch: puts rows together, runs once, takes the rows apart.

Guarantees: each request gets the outcome that it would have had alone. Where a batch fails, or its outputs cannot be taken
apart by rows, its requests are run one by one, so that one bad request is not everyone's.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from math import prod

import numpy as np

from penstock.engine.base import EngineModel
from penstock.errors import Internal, PenstockError
from penstock.tensors import Array, Signature

#: As in `penstock.serving.call`.
WHOLE = -1


@dataclass(slots=True)
class Work:
    """Requests for one signature whose rows are together already: `rows` of each, or a single WHOLE."""

    signature: Signature
    outputs: tuple[str, ...] | None
    inputs: list[Array]
    rows: list[int]

    @property
    def total(self) -> int:
        return sum(self.rows)


@dataclass(slots=True)
class Outcome:
    """What `requests` neighbouring requests of a work got: outputs over all their rows, or an error."""

    requests: int
    outputs: dict[str, Array] = field(default_factory=dict)
    error: PenstockError | None = None


class Batcher:
    """Runs works on an engine model. `unbatchable` has the signatures whose outputs turned out not to follow the rows."""

    def __init__(self, model: EngineModel) -> None:
        self._model = model
        self.unbatchable: set[str] = set()

    def run(self, works: Sequence[Work]) -> list[list[Outcome]]:
        """The outcomes of each work. All works have the same signature, outputs and row shapes, or there is only one."""
        first = works[0]
        if len(works) == 1 and len(first.rows) == 1:
            return [[self._run_one(first.signature, first.outputs, first.inputs)]]
        inputs = first.inputs
        if len(works) > 1:
            inputs = [np.concatenate(parts) for parts in zip(*(work.inputs for work in works), strict=True)]
        outcome = self._run_one(first.signature, first.outputs, inputs)
        total = sum(work.total for work in works)
        if outcome.error is not None:
            return [self._run_each(work) for work in works]
        if any(array.ndim == 0 or array.shape[0] != total for array in outcome.outputs.values()):
            self.unbatchable.add(first.signature.name)
            return [self._run_each(work) for work in works]
        return self._take_apart(works, outcome.outputs)

    def _run_one(self, signature: Signature, outputs: tuple[str, ...] | None, inputs: list[Array]) -> Outcome:
        try:
            return Outcome(1, self._model.run(signature.name, dict(zip(signature.inputs, inputs, strict=True)), outputs))
        except PenstockError as error:
            return Outcome(1, error=error)
        except MemoryError:
            return Outcome(1, error=Internal("The model's process ran out of memory."))

    def _run_each(self, work: Work) -> list[Outcome]:
        if len(work.rows) == 1:
            return [self._run_one(work.signature, work.outputs, work.inputs)]
        outcomes: list[Outcome] = []
        at = 0
        for rows in work.rows:
            inputs = [array[at : at + rows] for array in work.inputs]
            outcomes.append(self._run_one(work.signature, work.outputs, inputs))
            at += rows
        return outcomes

    @staticmethod
    def _take_apart(works: Sequence[Work], outputs: dict[str, Array]) -> list[list[Outcome]]:
        results: list[list[Outcome]] = []
        at = 0
        for work in works:
            end = at + work.total
            results.append([Outcome(len(work.rows), {name: array[at:end] for name, array in outputs.items()})])
            at = end
        return results


#: Largest input, in elements a row, for which rows are tried out when a model is loaded.
_MAX_TRIAL_ELEMENTS = 4 << 20


def mixes_rows(model: EngineModel, signature: Signature) -> bool:
    """Whether an answer depends on the other rows of its batch, found out by running rows together and alone.

    A signature says that rows may be added, not that they stay apart: a graph that normalizes over its batch would answer
    wrongly under load. Rows are synthesised from the signature; where they cannot be, or the graph refuses them, nothing is
    known: then the answer is no, unless the signature leaves even the rank open.
    """
    rows = [made_up_row(signature, seed) for seed in (1, 2)]
    if rows[0] is None or rows[1] is None:
        return False
    try:
        alone = [model.run(signature.name, row) for row in rows if row is not None]
        both = model.run(signature.name, {name: np.concatenate([rows[0][name], rows[1][name]]) for name in rows[0]})
    except PenstockError:
        return any(spec.shape is None for spec in signature.inputs.values())
    return not all(_is_apart(array, [one[name] for one in alone]) for name, array in both.items())


def _is_apart(together: Array, alone: Sequence[Array]) -> bool:
    """Whether an output over two rows is the outputs of each, one below the other."""
    if together.ndim == 0 or together.shape[0] != 2 or any(one.shape != (1, *together.shape[1:]) for one in alone):
        return False
    apart = np.concatenate(alone)
    if together.dtype.kind in "fc":
        return bool(np.allclose(together, apart, rtol=1e-2, atol=1e-4, equal_nan=True))
    return together.dtype.kind not in "biuO" or bool(np.array_equal(together, apart))


def made_up_row(signature: Signature, seed: int) -> dict[str, Array] | None:
    """One row for every input, None where the signature does not say enough."""
    random = np.random.default_rng(seed)
    row: dict[str, Array] = {}
    for spec in signature.inputs.values():
        if spec.dtype.is_string:
            return None
        shape = tuple(size or 1 for size in ((1,) if spec.shape is None else spec.shape))
        if prod(shape) > _MAX_TRIAL_ELEMENTS:
            return None
        if spec.dtype.numpy.kind == "f":
            row[spec.name] = random.random(shape, np.float32).astype(spec.dtype.numpy)
        else:
            row[spec.name] = random.integers(0, 2, shape).astype(spec.dtype.numpy)
    return row
