"""The models at a path, whatever a person may mean by it: SavedModels, trees and archives of them, Keras files."""

from __future__ import annotations

from pathlib import Path

from penstock.savedmodel.keras import exported
from penstock.savedmodel.layout import ModelFolder, find_models, is_keras_file


def locate(path: Path, name: str | None = None) -> list[ModelFolder]:
    """The models at `path`; a Keras file is exported into the cache first. Raises UsageError."""
    if is_keras_file(path):
        return find_models(exported(path), name or path.stem)
    return find_models(path, name)
