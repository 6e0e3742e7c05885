"""`penstock.load`: a model in one's own program, NumPy in and out, without a server."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from penstock.codec.convert import convert
from penstock.engine.base import Engine, EngineModel, EngineOptions
from penstock.engine.engines import make_engine
from penstock.errors import FailedPrecondition, InvalidArgument, UsageError
from penstock.models.engine_choice import choose
from penstock.savedmodel.locate import locate
from penstock.tensors import Array, Signature, TensorSpec

_engines: dict[tuple[str, tuple[str, ...]], Engine] = {}
_engines_lock = threading.Lock()


class LoadedModel:
    """A model that can be called: `model(x=array)` gives a dict of arrays. Thread-safe.

    Signatures other than `serving_default` are attributes: `model.classify(x=array)`; those whose names are no
    identifiers are reached with `model.run(inputs, signature)`.
    """

    def __init__(self, model: EngineModel, path: Path) -> None:
        self._model = model
        self.path = path

    @property
    def signatures(self) -> Mapping[str, Signature]:
        return self._model.signatures

    def signature(self, name: str | None = None) -> Signature:
        """A signature; `serving_default`, or the only one, where no name is given. Raises FailedPrecondition."""
        signatures = self._model.signatures
        if name is None and "serving_default" not in signatures and len(signatures) == 1:
            return next(iter(signatures.values()))
        found = signatures.get(name or "serving_default")
        if found is None:
            raise FailedPrecondition(
                f'Serving signature key "{name or "serving_default"}" not found. There are: {", ".join(signatures)}.'
            )
        return found

    def run(
        self, inputs: Mapping[str, Any], signature: str | None = None, outputs: Sequence[str] | None = None
    ) -> dict[str, Array]:
        """Runs a signature over anything that NumPy can make arrays of the right dtype from.

        Raises InvalidArgument for inputs that cannot be converted, and the errors of the engine.
        """
        found = self.signature(signature)
        arrays = {
            name: _as_input(found.inputs[name], value) if name in found.inputs else np.asarray(value)
            for name, value in inputs.items()
        }
        return self._model.run(found.name, arrays, outputs)

    def __call__(self, **inputs: Any) -> dict[str, Array]:
        return self.run(inputs)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(name)
        if name in self._model.signatures:

            def call(signature: str, **inputs: Any) -> dict[str, Array]:
                return self.run(inputs, signature)

            return partial(call, name)
        raise AttributeError(f"the model has no signature {name!r}; it has {', '.join(self._model.signatures)}")

    def __dir__(self) -> list[str]:
        return sorted({*super().__dir__(), *self._model.signatures})

    def __repr__(self) -> str:
        return f"<penstock model {self.path} ({', '.join(self._model.signatures)})>"

    def close(self) -> None:
        """Frees the model; no call may be under way or follow."""
        self._model.close()


def load(
    path: str | Path,
    *,
    tags: Sequence[str] = ("serve",),
    intra_op: int = 0,
    inter_op: int = 0,
    op_libraries: Sequence[str] = (),
    engine: str = "auto",
    plan: str = "auto",
) -> LoadedModel:
    """Loads the newest version of the model at `path`: whatever `penstock serve` takes, in the engine that it would take.

    Raises UsageError where there is no model, and PenstockError where it cannot be loaded.
    """
    folders = locate(Path(path))
    if len(folders) != 1:
        raise UsageError(f"{path}: holds {len(folders)} models ({', '.join(one.name for one in folders)}); name one")
    versions = folders[0].versions
    folder = versions[max(versions)]
    choice = choose(folder, engine, plan, tags=tags)
    threads = intra_op or (choice.variant.threads if choice.variant else 0)
    options = EngineOptions(tags=tuple(tags), intra_op=threads, inter_op=inter_op, op_libraries=tuple(op_libraries))
    return LoadedModel(_engine(choice.engine, tuple(op_libraries)).load(choice.folder, options), folder)


def _engine(name: str, op_libraries: tuple[str, ...]) -> Engine:
    with _engines_lock:
        if (name, op_libraries) not in _engines:
            _engines[name, op_libraries] = make_engine(name, op_libraries)
        return _engines[name, op_libraries]


def _as_input(spec: TensorSpec, value: Any) -> Array:
    """`value` as an array that the input takes. Raises InvalidArgument for what is no array, or cannot be converted."""
    try:
        # As NumPy's own texts and bytes they would lose the zeros that they end with.
        keeps = spec.dtype.is_string and not isinstance(value, np.ndarray)
        array = np.asarray(value, np.object_ if keeps else None)
    except ValueError as error:
        raise InvalidArgument(f"Input {spec.name}: {error}") from None
    return convert(array, spec)
