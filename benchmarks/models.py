"""The models that are measured, and the request bodies that are sent to them.

`python benchmarks/models.py DIR` guarantees, for each name in NAMES, a SavedModel in `DIR/NAME/1`, for the examples with the
present script in `DIR/NAME/code`; `DIR/NAME.keras` for what peers load with Keras; and, at `body_path` and `expected_path`,
a request body with TensorFlow's own answer to it. Seeds are fixed, what exists is kept, and a file or folder appears whole
or not at all. Assumes TensorFlow, Keras and Pillow.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import random
import runpy
import shutil
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

EXAMPLES = Path(__file__).parents[1] / "examples"
SEED = 20240229
IMAGE_SIDE = 224
FLAT_IMAGE = IMAGE_SIDE * IMAGE_SIDE * 3


def saved_model_path(directory: Path, name: str) -> Path:
    """The version folder, which peers load."""
    return directory / name / "1"


def keras_path(directory: Path, name: str) -> Path:
    return directory / f"{name}.keras"


def body_path(directory: Path, name: str) -> Path:
    """What is posted, of the type `content_type`."""
    if name == "multitask":
        return EXAMPLES / name / "page.html"
    return directory / "bodies" / ("image.jpg" if name == "image" else f"{name}.json")


def npy_path(directory: Path, name: str) -> Path:
    """The JSON body's array as a file of NumPy's."""
    return directory / "bodies" / f"{name}.npy"


def content_type(name: str) -> str:
    return {"multitask": "text/html", "image": "image/jpeg"}.get(name, "application/json")


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


def increment(target: Path) -> None:
    """x [None] float32 -> y = x + 1: a tensor of any size comes back as large as it went in, and another."""
    import tensorflow as tf

    module = tf.Module()
    module.one = tf.Variable(1.0, name="one")
    serve = tf.function(lambda x: {"y": x + module.one}, input_signature=[tf.TensorSpec([None], tf.float32, name="x")])
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


MODULES: dict[str, Callable[[Path], None]] = {"half_plus_two": half_plus_two, "identity": identity, "increment": increment}
KERAS: dict[str, Callable[[], Any]] = {"perceptron": perceptron, "mobilenet": mobilenet}
# Models with a script, each exported by its own export.py.
SCRIPTED = ("multitask", "image")
NAMES = (*MODULES, *KERAS, *SCRIPTED)
WITH_JSON = ("half_plus_two", *KERAS)
WITH_NPY = ("mobilenet",)


def body(name: str) -> dict[str, Any]:
    """The request, in TensorFlow Serving's row format; random numbers keep all their digits, as clients send them."""
    source = random.Random(SEED)
    if name == "half_plus_two":
        return {"instances": [1.0, 2.0, 5.0]}
    if name == "perceptron":
        return {"instances": [[source.random() for _ in range(100)]]}
    image = [[[source.random() for _ in range(3)] for _ in range(IMAGE_SIDE)] for _ in range(IMAGE_SIDE)]
    return {"instances": [image]}


def write_picture(target: Path) -> None:
    """A JPEG of 640×480 pixels with the coarse shapes and the grain of a photograph."""
    import numpy as np
    from PIL import Image

    source = np.random.default_rng(SEED)
    shapes = Image.fromarray(source.integers(0, 256, (12, 16, 3), np.uint8)).resize((640, 480), Image.Resampling.BICUBIC)
    grainy = np.asarray(shapes, np.float32) + source.normal(0, 6, (480, 640, 3))
    Image.fromarray(grainy.clip(0, 255).astype(np.uint8)).save(target, "JPEG", quality=85)


def answer(saved_model: Path, request: dict[str, Any]) -> dict[str, Any]:
    """What TensorFlow itself answers to the body: the reference for every server."""
    import numpy as np
    import tensorflow as tf

    signature = tf.saved_model.load(str(saved_model)).signatures["serving_default"]
    outputs = signature(x=tf.constant(np.asarray(request["instances"], np.float32)))
    return {"predictions": next(iter(outputs.values())).numpy().tolist()}


def scripted_answer(model: Path, request: bytes) -> str:
    """What TensorFlow itself answers between the handlers of the model's script."""
    import tensorflow as tf

    code = str(model / "code")
    sys.path.insert(0, code)
    try:
        script = runpy.run_path(f"{code}/inference.py")
    finally:
        sys.path.remove(code)
    inputs = {name: tf.constant(array) for name, array in script["input_handler"](io.BytesIO(request), None).items()}
    outputs = tf.saved_model.load(str(model / "1")).signatures["serving_default"](**inputs)
    text, _ = script["output_handler"](SimpleNamespace(arrays={name: value.numpy() for name, value in outputs.items()}), None)
    return str(text)


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


def write_npy(name: str, target: Path) -> None:
    import numpy as np

    with target.open("wb") as file:
        np.save(file, np.asarray(body(name)["instances"], np.float32))


def write_scripted_expected(model: Path, request: Path, target: Path) -> None:
    target.write_text(scripted_answer(model, request.read_bytes()))


def export_scripted(name: str, directory: Path) -> None:
    """What the example's export.py makes, its folder last; the script is brought up to date in any case."""
    target = directory / name
    if not target.exists():
        print(f"models: {target}", flush=True)
        unfinished = directory / f"unfinished-{name}"
        shutil.rmtree(unfinished, ignore_errors=True)
        subprocess.run([sys.executable, str(EXAMPLES / name / "export.py"), str(unfinished)], check=True)
        for made in sorted(unfinished.iterdir(), key=Path.is_dir):
            made.replace(directory / made.name)
        unfinished.rmdir()
    shutil.copytree(EXAMPLES / name / "code", target / "code", ignore=shutil.ignore_patterns("__pycache__"), dirs_exist_ok=True)


def forget_if_older(target: Path, sources: list[Path]) -> None:
    """Removes a file that was made from what has changed since."""
    if target.exists() and target.stat().st_mtime < max(source.stat().st_mtime for source in sources):
        target.unlink()


def export(directory: Path) -> None:
    """Writes what is missing in the directory."""
    for name, module in MODULES.items():
        appear(saved_model_path(directory, name), module)
    for name, build in KERAS.items():
        keras_file = keras_path(directory, name)
        appear(keras_file, partial(write_keras, build))
        appear(saved_model_path(directory, name), partial(write_saved_model, keras_file))
    for name in WITH_JSON:
        appear(body_path(directory, name), partial(write_body, name))
        appear(expected_path(directory, name), partial(write_expected, name, saved_model_path(directory, name)))
    for name in WITH_NPY:
        appear(npy_path(directory, name), partial(write_npy, name))
    appear(body_path(directory, "image"), write_picture)
    for name in SCRIPTED:
        export_scripted(name, directory)
        request, expected = body_path(directory, name), expected_path(directory, name)
        forget_if_older(expected, [request, *(EXAMPLES / name / "code").glob("*.py")])
        appear(expected, partial(write_scripted_expected, directory / name, request))


def main() -> None:
    parser = argparse.ArgumentParser(description="Export the measured models and their request bodies.")
    parser.add_argument("directory", type=Path, metavar="DIR")
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    export(parser.parse_args().directory)


if __name__ == "__main__":
    main()
