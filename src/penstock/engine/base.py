"""What an engine is to the rest: it loads a version folder, and runs a signature over arrays."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from penstock.tensors import Array, Signature


@dataclass(frozen=True, slots=True)
class EngineOptions:
    """How an engine loads and runs a model.

    `intra_op` and `inter_op` are threads (0: the engine's own choice, inter_op 0: in the calling thread). `config` is a
    serialized ConfigProto that these options are laid over. `op_libraries` are shared objects with custom ops. `gpu` are the
    numbers of the GPUs it may see ("": all), `gpu_memory_fraction` what it may take of the memory of each (0: all).
    `device` is auto, cpu, cuda or tensorrt: what an engine computes on. `borrows_inputs` says that the caller leaves inputs as
    they are until it has done with the outputs, which may then be the same memory; only for graphs that keep nothing of what
    they are given.
    """

    tags: tuple[str, ...] = ("serve",)
    intra_op: int = 0
    inter_op: int = 0
    config: bytes = b""
    op_libraries: tuple[str, ...] = ()
    device: str = "auto"
    gpu: str = ""
    gpu_memory_fraction: float = 0.0
    borrows_inputs: bool = False


class EngineModel(Protocol):
    """A graph loaded in an engine. Thread-safe."""

    signatures: Mapping[str, Signature]

    def run(
        self,
        signature: str,
        inputs: Mapping[str, Array],
        outputs: Sequence[str] | None = None,
        timeout_s: float | None = None,
    ) -> dict[str, Array]:
        """Runs `signature` once.

        `inputs` has an array of the signature's dtype for each input; shapes are the graph's business. Returns the named
        outputs (all where None). Arrays that come back may be read-only and own their memory.
        Raises the PenstockError of the engine's code, with the engine's message.
        """
        ...

    def close(self) -> None:
        """Frees the graph; no run may be under way or follow."""
        ...


class Engine(Protocol):
    """A library that executes graphs. Making one loads the library and no more: it can be forked afterwards."""

    name: str

    @property
    def version(self) -> str: ...

    def load(self, path: Path, options: EngineOptions) -> EngineModel:
        """Loads the version folder `path`. Raises a PenstockError whose message says what is wrong with it."""
        ...
