"""The zoo: twelve models of as many kinds, on disk, with questions to each, for whatever converts and compares models.

`python -m benchmarks.zoo DIR [--only NAME]` guarantees, for each name, a SavedModel in `DIR/NAME/1`, and in `DIR/samples/NAME`
questions as `penstock optimize --samples` takes them; for those that are served, a request's body and TensorFlow's answer, where
`benchmarks.models` has them. Each is made in a process of its own and appears whole or not at all; it is made anew when the code
that it comes from, TensorFlow or Keras is another.

`python -m benchmarks.zoo DIR --accuracy NAME PATH` prints which part of held-out questions the model at PATH answers rightly.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import shutil
import subprocess
import sys
from functools import partial
from importlib.metadata import version
from pathlib import Path

import numpy as np

from benchmarks import models, zoo_inputs, zoo_models
from benchmarks.machine import ROOT
from benchmarks.zoo_inputs import HELD_OUT, SAMPLED, questions

NAMES = tuple(zoo_models.BUILDERS)
#: Those that have learnt something, so that their accuracy says something.
LEARNT = ("perceptron", "conv1d_text", "tf1_graph", "mobilenet_v2", "resnet50", "efficientnet_b0", "efficientnet_b5")
#: Those that are served: over JSON, and as binary tensors.
WITH_BODY, WITH_NPY = "perceptron", "mobilenet_v2"
_SAMPLES = 4
_HELD_OUT_ROWS = 2048
_HELD_OUT_IMAGES = 128
_AT_ONCE = 16


def samples_path(directory: Path, name: str) -> Path:
    """A folder of questions."""
    return directory / "samples" / name


def _rows_of_a_sample(name: str) -> int:
    if name == "efficientnet_b5":
        return 2
    return 8 if name in zoo_inputs.SIDES else 16


def write_samples(name: str, target: Path) -> None:
    """Several files: a calibration takes them one after the other. Strings only JSON can hold."""
    target.mkdir(parents=True)
    rows = _rows_of_a_sample(name)
    inputs = questions(name, _SAMPLES * rows, SAMPLED).inputs
    has_strings = any(array.dtype == object for array in inputs.values())
    for number in range(_SAMPLES):
        part = {key: array[number * rows : (number + 1) * rows] for key, array in inputs.items()}
        if has_strings:
            body = {"inputs": {key: array.tolist() for key, array in part.items()}}
            (target / f"{number}.json").write_text(json.dumps(body))
        else:
            with (target / f"{number}.npz").open("wb") as file:
                np.savez(file, **part)  # type: ignore[arg-type]


def write_npy(name: str, target: Path) -> None:
    """One row of the only input."""
    with target.open("wb") as file:
        np.save(file, questions(name, 1, SAMPLED).inputs["x"])


def write_expected(name: str, saved_model: Path, target: Path) -> None:
    """TensorFlow's answer to it."""
    request = {"instances": questions(name, 1, SAMPLED).inputs["x"]}
    target.write_text(json.dumps(models.answer(saved_model, request)))


def made_of(name: str) -> str:
    """What the content of a model's files depends on; `name` for the record."""
    sources = [Path(module.__file__ or "").read_bytes() for module in (zoo_models, zoo_inputs)]
    digest = hashlib.sha256(b"\0".join(sources)).hexdigest()[:16]
    return f"{name} {digest} keras {version('keras')} tensorflow {_tensorflow_version()}\n"


def _tensorflow_version() -> str:
    for distribution in ("tensorflow", "tensorflow-cpu"):
        try:
            return version(distribution)
        except ModuleNotFoundError:
            continue
    return "none"


def forget_if_other(directory: Path, name: str) -> None:
    """Removes what was made of something else; its stamp goes first and comes last."""
    stamp = directory / "stamps" / name
    if stamp.exists() and stamp.read_text() == made_of(name):
        return
    stamp.unlink(missing_ok=True)
    shutil.rmtree(models.saved_model_path(directory, name), ignore_errors=True)
    shutil.rmtree(samples_path(directory, name), ignore_errors=True)
    for path in (models.body_path, models.npy_path, models.expected_path):
        path(directory, name).unlink(missing_ok=True)


def export(directory: Path, name: str) -> None:
    """Writes what is missing of a model."""
    saved_model = models.saved_model_path(directory, name)
    models.appear(saved_model, partial(zoo_models.build, name))
    models.appear(samples_path(directory, name), partial(write_samples, name))
    if name == WITH_BODY:
        models.appear(models.body_path(directory, name), partial(models.write_body, name))
        models.appear(models.expected_path(directory, name), partial(models.write_expected, name, saved_model))
    if name == WITH_NPY:
        models.appear(models.npy_path(directory, name), partial(write_npy, name))
        models.appear(models.expected_path(directory, name), partial(write_expected, name, saved_model))
    stamp = directory / "stamps" / name
    stamp.parent.mkdir(parents=True, exist_ok=True)
    stamp.write_text(made_of(name))


def prepare(directory: Path, names: tuple[str, ...] = NAMES) -> None:
    """All of them; one process each, so that none has another's memory or random state. Raises CalledProcessError."""
    for name in names:
        forget_if_other(directory, name)
        if not (directory / "stamps" / name).exists():
            run = [sys.executable, "-m", "benchmarks.zoo", str(directory.resolve()), "--export", name]
            subprocess.run(run, cwd=ROOT, env={"TF_CPP_MIN_LOG_LEVEL": "2", **os.environ}, check=True)


def accuracy(name: str, path: Path) -> float:
    """The part of held-out questions that the model at `path` answers rightly, by its output with a column for each class."""
    import penstock

    asked = questions(name, _HELD_OUT_IMAGES if name in zoo_inputs.SIDES else _HELD_OUT_ROWS, HELD_OUT)
    if asked.labels is None:
        raise ValueError(f"{name} has learnt nothing")
    model = penstock.load(path)
    right = 0
    for at in range(0, len(asked.labels), _AT_ONCE):
        answer = model(**{key: array[at : at + _AT_ONCE] for key, array in asked.inputs.items()})
        (columns,) = (array for array in answer.values() if array.ndim == 2)
        right += int((columns.argmax(axis=1) == asked.labels[at : at + _AT_ONCE]).sum())
    return right / len(asked.labels)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.zoo", description="Export the zoo's models.")
    parser.add_argument("directory", type=Path, metavar="DIR")
    parser.add_argument("--only", action="append", choices=NAMES, metavar="NAME", help=", ".join(NAMES))
    parser.add_argument("--export", choices=NAMES, help=argparse.SUPPRESS)
    parser.add_argument("--accuracy", nargs=2, metavar=("NAME", "PATH"), help=f"of {', '.join(LEARNT)}")
    options = parser.parse_args()
    if options.accuracy:
        name, path = options.accuracy
        print(json.dumps(accuracy(name, Path(path))))
    elif options.export:
        export(options.directory, options.export)
    else:
        prepare(options.directory, tuple(options.only or NAMES))


if __name__ == "__main__":
    main()
