"""Runs a batch: puts rows together, runs once, takes the rows apart.

Guarantees: each request gets the outcome that it would have had alone. Where a batch fails, or its outputs cannot be taken
apart by rows, its requests are run one by one, so that one bad request is not everyone's.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from math import prod
from typing import Any

import ml_dtypes
import numpy as np
from numpy.random import default_rng  # here: loaded after the fork, it would cost each host 2.6 MB of its own (measured)

from penstock.engine.base import EngineModel
from penstock.errors import Internal, InvalidArgument, PenstockError
from penstock.serving.batch_policy import BatchPolicy
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


#: What padding may add to the inputs of a batch; where it is more, its requests run one by one.
_MAX_PADDING_BYTES = 64 << 20
#: Takes all batches as they come.
_UNBOUNDED = BatchPolicy(max_rows=sys.maxsize)
#: Why a batch is run again, request by request. No client sees it.
_APART = Internal("The outputs do not follow the rows.")


class Batcher:
    """Runs works on an engine model as a policy says. `unbatchable` has the signatures whose outputs do not follow the rows."""

    def __init__(self, model: EngineModel, policy: BatchPolicy = _UNBOUNDED) -> None:
        self._model = model
        self._policy = policy
        self.unbatchable: set[str] = set()

    def run(self, works: Sequence[Work]) -> list[list[Outcome]]:
        """The outcomes of each work. All works have the same signature, outputs and row shapes, or there is only one.

        Where the policy pads shapes, those of their rows may differ, but for the number of dimensions.
        """
        first = works[0]
        total = sum(work.total for work in works)
        is_alone = len(works) == 1 and len(first.rows) == 1
        if is_alone:
            limit = self._policy.max_request_rows
            if limit and total > limit:
                error = InvalidArgument(f"Task size {total} is larger than maximum input batch size {limit}")
                return [[Outcome(1, error=error)]]
            if total == WHOLE or first.signature.name in self.unbatchable or self._policy.takes_as_it_is(total):
                return [[self._run_one(first.signature, first.outputs, first.inputs)]]
        inputs = self._put_together(works)
        if inputs is None:
            return [self.run([work])[0] for work in works]
        outcome = self._run_rows(first, inputs, total)
        if outcome.error is not None:
            has_own_error = is_alone and outcome.error is not _APART
            return [[outcome]] if has_own_error else [self._run_each(work) for work in works]
        return self._take_apart(works, outcome.outputs)

    def _put_together(self, works: Sequence[Work]) -> list[Array] | None:
        """Each input over the rows of all works; None where padding would cost too much."""
        if len(works) == 1:
            return works[0].inputs
        columns = list(zip(*(work.inputs for work in works), strict=True))
        if self._policy.pads_shapes:
            added = sum(_added_bytes(column) for column in columns)
            if added > _MAX_PADDING_BYTES:
                return None
            columns = [_padded(column) for column in columns] if added else columns
        return [np.concatenate(column) for column in columns]

    def _run_rows(self, work: Work, inputs: list[Array], total: int) -> Outcome:
        """One outcome for all rows, which the engine may get in parts, and filled up; an error where they must run apart."""
        parts: list[dict[str, Array]] = []
        at = 0
        for rows in self._policy.cuts(total):
            outcome = self._run_filled(work, [array[at : at + rows] for array in inputs], rows)
            if outcome.error is not None:
                return outcome
            parts.append(outcome.outputs)
            at += rows
        if len(parts) == 1:
            return Outcome(1, parts[0])
        try:
            return Outcome(1, {name: np.concatenate([part[name] for part in parts]) for name in parts[0]})
        except ValueError:  # the shape of a part's rows depends on what is in it
            return Outcome(1, error=_APART)

    def _run_filled(self, work: Work, inputs: list[Array], rows: int) -> Outcome:
        """Runs a batch with copies of its first row behind it, as far as the policy wants them, and leaves them out again."""
        filled = self._policy.filled(rows)
        if filled > rows:
            inputs = [np.concatenate([array, np.repeat(array[:1], filled - rows, axis=0)]) for array in inputs]
        outcome = self._run_one(work.signature, work.outputs, inputs)
        if outcome.error is not None:
            return outcome
        if any(array.ndim == 0 or array.shape[0] != filled for array in outcome.outputs.values()):
            self.unbatchable.add(work.signature.name)
            return Outcome(1, error=_APART)
        if filled > rows:
            outcome.outputs = {name: array[:rows] for name, array in outcome.outputs.items()}
        return outcome

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


def _widest(arrays: Sequence[Array]) -> tuple[int, ...]:
    """The smallest shape of a row that those of all arrays fit into."""
    return tuple(map(max, zip(*(array.shape[1:] for array in arrays), strict=True)))


def _added_bytes(arrays: Sequence[Array]) -> int:
    """What `_padded` would add."""
    if len({array.shape[1:] for array in arrays}) == 1:
        return 0
    row = prod(_widest(arrays))
    return sum((array.shape[0] * row - array.size) * array.itemsize for array in arrays)


def _padded(arrays: Sequence[Array]) -> tuple[Array, ...]:
    """`arrays` with rows of one shape: each has its own first element where it had none (contract §5)."""
    row = _widest(arrays)
    padded: list[Array] = []
    for array in arrays:
        if array.shape[1:] != row:
            wide = np.zeros((array.shape[0], *row), array.dtype)
            wide[...] = array.flat[0] if array.size else b"" if array.dtype == object else 0
            wide[tuple(map(slice, array.shape))] = array
            array = wide
        padded.append(array)
    return tuple(padded)


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
    if together.dtype.kind == "V":  # of ml_dtypes: short floats and short integers
        near = 4 * _last_digit(together.dtype)
        return bool(np.allclose(together.astype(np.float32), apart.astype(np.float32), rtol=near, atol=1e-4, equal_nan=True))
    return together.dtype.kind not in "biuO" or bool(np.array_equal(together, apart))


def _last_digit(dtype: np.dtype[Any]) -> float:
    """What the last digit of a short float is beside the number; 0 for integers."""
    try:
        return float(ml_dtypes.finfo(dtype).eps)  # type: ignore[no-untyped-call]
    except ValueError:
        return 0.0


def made_up_row(signature: Signature, seed: int) -> dict[str, Array] | None:
    """One row for every input, None where the signature does not say enough."""
    random = default_rng(seed)
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
