"""The models that are measured, and the request bodies that are sent to them.

`python benchmarks/models.py DIR` guarantees, for each name in NAMES, a SavedModel in `DIR/NAME/1`; `DIR/NAME.keras` for
the Keras ones; and `DIR/bodies/NAME.json` with `DIR/bodies/NAME.expected.json`, TensorFlow's own answer to that body.
Seeds are fixed, what exists is kept, and a file or folder appears whole or not at all. Assumes TensorFlow and Keras.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

SEED = 20240229
IMAGE_SIDE = 224
FLAT_IMAGE = IMAGE_SIDE * IMAGE_SIDE * 3


def saved_model_path(directory: Path, name: str) -> Path:
    """The version folder, which peers load."""
    return directory / name / "1"


def keras_path(directory: Path, name: str) -> Path:
    return directory / f"{name}.keras"


def body_path(directory: Path, name: str) -> Path:
    return directory / "bodies" / f"{name}.json"


def expected_path(directory: Path, name: str) -> Path:
    return directory / "bodies" / f"{name}.expected.json"


def half_plus_two(target: Path) -> None:
    """x [None] float32 -> y = 0.5 x + 2, as variables, like TensorFlow Serving's test model."""
    import tensorflow as tf

    module = tf.Module()
    module.a = tf.Variable(0.5, name="a")
    module.b = tf.Variable(2.0, name="b")
    serve = tf.function(lambda x: {"y": module.a * x + module.b}, input_signature=[tf.TensorSpec([None], tf.float32, name="x")])
    module.serve = serve
    tf.saved_model.save(module, str(target), signatures={"serving_default": serve})


def identity(target: Path) -> None:
    """x [None, 150528] float32 -> y = x · 1: nothing to compute, so what is timed is how a 600 KB tensor travels."""
    import tensorflow as tf

    module = tf.Module()
    module.one = tf.Variable(1.0, name="one")
    serve = tf.function(
        lambda x: {"y": module.one * x}, input_signature=[tf.TensorSpec([None, FLAT_IMAGE], tf.float32, name="x")]
    )
    module.serve = serve
    tf.saved_model.save(module, str(target), signatures={"serving_default": serve})


def perceptron() -> Any:
    """100-256-256-10 with ReLU and softmax, random weights."""
    import keras

    keras.utils.set_random_seed(SEED)
    inputs = keras.Input((100,), name="x")
    hidden = keras.layers.Dense(256, activation="relu")(inputs)
    hidden = keras.layers.Dense(256, activation="relu")(hidden)
    return keras.Model(inputs, keras.layers.Dense(10, activation="softmax")(hidden), name="perceptron")


def mobilenet() -> Any:
    """MobileNetV2 as Keras has it, random weights, its normalizations fitted to four random images.

    Unfitted, the signal fades from layer to layer until every answer is exactly 0.001, and no check could fail.
    """
    import keras
    import numpy as np

    keras.utils.set_random_seed(SEED)
    image = keras.Input((IMAGE_SIDE, IMAGE_SIDE, 3), name="x")
    model = keras.applications.MobileNetV2(input_tensor=image, weights=None)
    for layer in model.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.momentum = 0.0
    model(np.random.default_rng(SEED).random((4, IMAGE_SIDE, IMAGE_SIDE, 3), np.float32), training=True)
    return model


MODULES: dict[str, Callable[[Path], None]] = {"half_plus_two": half_plus_two, "identity": identity}
KERAS: dict[str, Callable[[], Any]] = {"perceptron": perceptron, "mobilenet": mobilenet}
NAMES = (*MODULES, *KERAS)
WITH_BODY = ("half_plus_two", *KERAS)


def body(name: str) -> dict[str, Any]:
    """The request, in TensorFlow Serving's row format; random numbers keep all their digits, as clients send them."""
    source = random.Random(SEED)
    if name == "half_plus_two":
        return {"instances": [1.0, 2.0, 5.0]}
    if name == "perceptron":
        return {"instances": [[source.random() for _ in range(100)]]}
    image = [[[source.random() for _ in range(3)] for _ in range(IMAGE_SIDE)] for _ in range(IMAGE_SIDE)]
    return {"instances": [image]}


def answer(saved_model: Path, request: dict[str, Any]) -> dict[str, Any]:
    """What TensorFlow itself answers to the body: the reference for every server."""
    import numpy as np
    import tensorflow as tf

    signature = tf.saved_model.load(str(saved_model)).signatures["serving_default"]
    outputs = signature(x=tf.constant(np.asarray(request["instances"], np.float32)))
    return {"predictions": next(iter(outputs.values())).numpy().tolist()}


def appear(target: Path, write: Callable[[Path], None]) -> None:
    """Calls write with a path beside target, and renames it to target when done; keeps what exists."""
    if target.exists():
        return
    print(f"models: {target}", flush=True)
    # The mark stands in front, because Keras insists on the ending of the name.
    unfinished = target.with_name(f"unfinished-{target.name}")
    target.parent.mkdir(parents=True, exist_ok=True)
    if unfinished.is_dir():
        shutil.rmtree(unfinished)
    write(unfinished)
    unfinished.replace(target)


def write_keras(build: Callable[[], Any], target: Path) -> None:
    build().save(target)


def write_saved_model(keras_file: Path, target: Path) -> None:
    import keras

    keras.saving.load_model(keras_file, compile=False).export(str(target), verbose=False)


def write_body(name: str, target: Path) -> None:
    target.write_text(json.dumps(body(name)))


def write_expected(name: str, saved_model: Path, target: Path) -> None:
    target.write_text(json.dumps(answer(saved_model, body(name))))


def export(directory: Path) -> None:
    """Writes what is missing in the directory."""
    for name, module in MODULES.items():
        appear(saved_model_path(directory, name), module)
    for name, build in KERAS.items():
        keras_file = keras_path(directory, name)
        appear(keras_file, partial(write_keras, build))
        appear(saved_model_path(directory, name), partial(write_saved_model, keras_file))
    for name in WITH_BODY:
        appear(body_path(directory, name), partial(write_body, name))
        appear(expected_path(directory, name), partial(write_expected, name, saved_model_path(directory, name)))


def main() -> None:
    parser = argparse.ArgumentParser(description="Export the measured models and their request bodies.")
    parser.add_argument("directory", type=Path, metavar="DIR")
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    export(parser.parse_args().directory)


if __name__ == "__main__":
    main()
