"""Penstock serves TensorFlow and Keras models: `penstock serve PATH`, or in a program `penstock.load(PATH)(x=…)`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from penstock.version import __version__

__all__ = ["LoadedModel", "__version__", "load"]

if TYPE_CHECKING:
    from penstock.program import LoadedModel, load


def __getattr__(name: str) -> Any:
    """`load` brings NumPy and more with it, which the processes of a server may not need."""
    if name in ("LoadedModel", "load"):
        from penstock import program

        return getattr(program, name)
    raise AttributeError(f"module 'penstock' has no attribute {name!r}")
