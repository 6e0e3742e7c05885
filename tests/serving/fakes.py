"""Stand-ins with the interfaces of the real ones."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np

from penstock.errors import PenstockError
from penstock.serving.call import Call
from penstock.serving.routes import Servable
from penstock.tensors import FLOAT, Array, Signature, TensorSpec


def signature(name: str = "serving_default", inputs: Sequence[str] = ("x",), outputs: Sequence[str] = ("y",)) -> Signature:
    """A signature of float matrices with rows."""

    def specs(names: Sequence[str]) -> dict[str, TensorSpec]:
        return {one: TensorSpec(one, FLOAT, (None, None)) for one in names}

    return Signature(name, specs(inputs), specs(outputs))


class FakeModel:
    """An engine model that is a Python function; `runs` has the rows of each run."""

    def __init__(self, function: Callable[[Array], Array], *signatures: Signature) -> None:
        self.signatures: Mapping[str, Signature] = {one.name: one for one in signatures or (signature(),)}
        self._function = function
        self.runs: list[int] = []

    def run(
        self,
        signature: str,
        inputs: Mapping[str, Array],
        outputs: Sequence[str] | None = None,
        timeout_s: float | None = None,
    ) -> dict[str, Array]:
        first = next(iter(inputs.values()))
        self.runs.append(len(first))
        return {name: self._function(first) for name in self.signatures[signature].outputs}

    def close(self) -> None:
        pass


class FakeCall(Call):
    """A call that puts itself into a list when it has ended."""

    def __init__(
        self, servable: Servable, signature: Signature, inputs: tuple[Array, ...], deadline_ns: int, ended: list[Call]
    ) -> None:
        super().__init__(servable, signature, inputs, deadline_ns)
        self._ended = ended

    def ended(self) -> None:
        self._ended.append(self)


class FakeHost:
    """Takes calls and keeps them, or refuses them with `error`."""

    def __init__(self, error: PenstockError | None = None) -> None:
        self.load = 0
        self.calls: list[Call] = []
        self.error = error

    def submit(self, call: Call) -> None:
        if self.error is not None:
            raise self.error
        self.load += 1
        self.calls.append(call)


def rows(*values: float) -> Array:
    return np.array([[value] for value in values], np.float32)
