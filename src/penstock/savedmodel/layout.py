"""What a path given by a person is: a version, a model, a tree of models, or an archive of one of these.

Guarantees: whatever is there, the answer is the models in it, or one line that says what is wrong and what was
expected. Folders below that may not be read are passed over.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from penstock.config import cache_folder
from penstock.errors import UsageError
from penstock.savedmodel.archive import SUFFIXES, unpack

GRAPH_FILE = "saved_model.pb"
TEXT_GRAPH_FILE = "saved_model.pbtxt"
#: A model in TensorFlow Lite's format, instead of a SavedModel or beside it.
LITE_FILE = "model.tflite"
#: A model in ONNX's format, by the name that Triton's repositories give it.
ONNX_FILE = "model.onnx"
#: What `penstock optimize` writes of a version; a folder may have it, and a variant of the model, instead of a SavedModel.
PLAN_FILE = "plan.json"
#: Any of these makes a folder a version.
_MODEL_FILES = (GRAPH_FILE, LITE_FILE, ONNX_FILE, PLAN_FILE)

_KERAS_SUFFIXES = (".keras", ".h5", ".hdf5")
_MAX_VERSION = (1 << 63) - 1
_MAX_DIGITS = 255
_FALLBACK_NAME = "model"
#: Folders of a tree that are looked at, so that a mistaken path costs seconds and not hours.
_MAX_FOLDERS = 100_000
_EXPECTED = "expected a folder like MODEL/1/saved_model.pb"
#: What the file system answers where there is nothing to serve; any other error may be a passing one.
_NOT_THERE = frozenset({errno.ENOENT, errno.ENOTDIR, errno.EACCES, errno.ELOOP})


@dataclass(frozen=True, slots=True)
class ModelFolder:
    """A model on disk: `versions` are its version folders, ascending."""

    name: str
    path: Path
    versions: dict[int, Path]


def is_keras_file(path: Path) -> bool:
    """Whether the name is one that Keras gives its own files (.keras, .h5, .hdf5)."""
    return path.suffix.lower() in _KERAS_SUFFIXES


def find_models(
    path: Path, name: str | None = None, cache: Path | None = None, max_folders: int = _MAX_FOLDERS
) -> list[ModelFolder]:
    """The models that `path` means, at least one, each with at least one version.

    `name` replaces the name of the one model found. Archives are unpacked into `cache`, by default in the cache folder. In a tree
    `max_folders` are looked at. Raises UsageError.
    """
    path = Path(os.path.abspath(path))  # not resolved: the name of a link is the name a person gave
    if not os.path.exists(path):
        raise UsageError(f"{path}: no such file or folder; {_EXPECTED}")
    if os.path.isdir(path):
        if not os.access(path, os.R_OK | os.X_OK):
            raise UsageError(f"{path}: this user may not read the folder")
        models = _models_of_folder(path, path.name or _FALLBACK_NAME, max_folders)
    else:
        models = _models_of_file(path, cache_folder() / "unpacked" if cache is None else cache)
    if name is None:
        return models
    if len(models) > 1:
        found = ", ".join(model.name for model in models)
        raise UsageError(f"{path}: holds {len(models)} models ({found}), so they cannot all be named {name!r}")
    return [ModelFolder(name, models[0].path, models[0].versions)]


def select_versions(versions: Iterable[int], policy: str) -> list[int]:
    """Those of `versions` that `policy` wants, ascending: "latest", "latest:2", "all", or numbers like "1,3".

    Numbers that are not among `versions` are left out. Raises UsageError for any other policy.
    """
    there = sorted(set(versions))
    kind, _, argument = policy.strip().partition(":")
    if kind == "all" and not argument:
        return there
    if kind == "latest" and policy.strip() == "latest":
        return there[-1:]
    if kind == "latest" and _is_number(argument) and int(argument) > 0:
        return there[-int(argument) :]
    numbers = [number.strip() for number in policy.split(",")]
    if all(map(_is_number, numbers)):
        wanted = {int(number) for number in numbers}
        return [version for version in there if version in wanted]
    raise UsageError(f'version policy {policy!r}: expected "latest", "latest:2", "all" or version numbers like "1,3"')


def versions_in(folder: Path) -> dict[int, Path]:
    """The versions of the model in `folder`, ascending: its numeric children with a model's file, or the folder itself.

    One listing and one or two look-ups for each numeric child; no file is read, so this can be asked every second. Raises
    OSError where the file system does not answer, UsageError where two folders are the same version.
    """
    names = sorted(os.listdir(folder))
    versions = _numbered(folder, names, _surely_holds_graph)
    if not any(name in names for name in _MODEL_FILES):
        return versions
    if versions:
        raise UsageError(_held_twice(folder, versions))
    return _model_of_version(folder, folder.name).versions


def version_of_name(name: str) -> int | None:
    """The version that a folder's name stands for, or None: digits, leading zeros allowed, 63 bits."""
    return int(name) if _is_number(name) and int(name) <= _MAX_VERSION else None


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdigit() and len(text) <= _MAX_DIGITS


def _holds_graph(folder: Path) -> bool:
    return any(os.path.isfile(folder / name) for name in _MODEL_FILES)


def _surely_holds_graph(folder: Path) -> bool:
    """As `_holds_graph`, but raises OSError where that is not known now."""
    return any(_is_surely_file(folder / name) for name in _MODEL_FILES)


def _is_surely_file(path: Path) -> bool:
    try:
        return stat.S_ISREG(os.stat(path).st_mode)
    except OSError as error:
        if error.errno in _NOT_THERE:
            return False
        raise


def _models_of_file(path: Path, cache: Path) -> list[ModelFolder]:
    lower = path.name.lower()
    for suffix in SUFFIXES:
        if lower.endswith(suffix):
            stem = path.name[: -len(suffix)]
            folder = unpack(path, cache)
            try:
                return _models_of_folder(folder, _FALLBACK_NAME if not stem or _is_number(stem) else stem)
            except UsageError as error:
                raise UsageError(f"{path}, unpacked to {error}") from error
    if is_keras_file(path):
        raise UsageError(f"{path}: a Keras file, not a SavedModel; make one with Keras: model.export({path.stem!r})")
    if path.name in (GRAPH_FILE, TEXT_GRAPH_FILE):
        raise UsageError(f"{path}: a file of a SavedModel; give the folder that holds it, {path.parent}")
    raise UsageError(f"{path}: neither a folder nor an archive ({', '.join(SUFFIXES)}); {_EXPECTED}")


def _models_of_folder(path: Path, name: str, max_folders: int = _MAX_FOLDERS) -> list[ModelFolder]:
    versions = _versions_of(path)
    if _holds_graph(path):
        if versions:
            raise UsageError(_held_twice(path, versions))
        return [_model_of_version(path, name)]
    if versions:
        return [ModelFolder(name, path, versions)]
    return _models_of_tree(path, max_folders)


def _model_of_version(path: Path, name: str) -> ModelFolder:
    version = version_of_name(name)
    if version is None:
        return ModelFolder(name, path, {1: path})
    return ModelFolder(path.parent.name or _FALLBACK_NAME, path.parent, {version: path})


def _held_twice(path: Path, versions: dict[int, Path]) -> str:
    return f"{path}: holds {GRAPH_FILE} itself and in {next(iter(versions.values()))}; remove one"


def _versions_of(model: Path) -> dict[int, Path]:
    """The numeric children with a SavedModel, ascending; none where the folder cannot be listed."""
    return _numbered(model, [child.name for child in _entries(model)], _holds_graph)


def _numbered(model: Path, names: Iterable[str], holds_graph: Callable[[Path], bool]) -> dict[int, Path]:
    versions: dict[int, Path] = {}
    for name in names:
        version = version_of_name(name)
        if version is None or not holds_graph(model / name):
            continue
        if version in versions:
            raise UsageError(f"{model}: {versions[version].name} and {name} are the same version {version}")
        versions[version] = model / name
    return dict(sorted(versions.items()))


def _models_of_tree(path: Path, max_folders: int) -> list[ModelFolder]:
    """A tree as SageMaker's containers take it: any folder with numeric children is a model, named as the folder."""
    models: dict[str, ModelFolder] = {}
    for number, folder in enumerate(_folders_below(path, ())):
        if number >= max_folders:
            raise UsageError(f"{path}: has more than {max_folders} folders; give that of a model, {_EXPECTED}")
        versions = _versions_of(folder)
        if not versions:
            continue
        if folder.name in models:
            raise UsageError(f"{path}: two models named {folder.name!r}, {models[folder.name].path} and {folder}")
        models[folder.name] = ModelFolder(folder.name, folder, versions)
    if not models:
        raise UsageError(_why_none(path))
    return list(models.values())


def _why_none(path: Path) -> str:
    for folder in (path, *_folders_below(path, ())):
        if os.path.isfile(folder / GRAPH_FILE):
            return f"{folder / GRAPH_FILE}: not in a version folder; move it to {folder / '1' / GRAPH_FILE}"
        if os.path.isfile(folder / TEXT_GRAPH_FILE):
            return f"{folder / TEXT_GRAPH_FILE}: a SavedModel in text form; save it again with as_text=False"
        for file in _entries(folder):
            if is_keras_file(file):
                return f"{file}: a Keras file, not a SavedModel; make one with Keras: model.export({file.stem!r})"
    return f"{path}: no {GRAPH_FILE} in it; {_EXPECTED}"


def _folders_below(path: Path, ancestors: tuple[str, ...]) -> Iterator[Path]:
    """All folders below `path`, parents first. Links are followed, but never back into a folder that they are in."""
    real = os.path.realpath(path)
    if real in ancestors:
        return
    for child in _subfolders(path):
        yield child
        if not _holds_graph(child):
            yield from _folders_below(child, (*ancestors, real))


def _entries(folder: Path) -> list[Path]:
    try:
        return sorted(folder.iterdir())
    except OSError:
        return []


def _subfolders(folder: Path) -> list[Path]:
    return [child for child in _entries(folder) if not child.name.startswith(".") and os.path.isdir(child)]
