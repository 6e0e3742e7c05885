"""Makes the model of this example: `python examples/image/export.py DIR` writes DIR/image/1 and DIR/image/code.

MobileNetV2 with seeded random weights: nothing is downloaded, so its answers mean nothing, but it costs what the trained
one costs. It takes pixels from 0 to 255 as uint8 and gives the probabilities of 1000 classes.
"""

from __future__ import annotations

import argparse
import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "-1")

_SHAPE = (224, 224, 3)


def network() -> Any:
    """MobileNetV2, named at both ends, with the scaling of pixels to -1 … 1 in front."""
    import keras

    keras.utils.set_random_seed(1)
    image = keras.Input(_SHAPE, dtype="uint8", name="image")
    scaled = keras.layers.Rescaling(1 / 127.5, offset=-1.0)(image)
    body = keras.applications.MobileNetV2(input_shape=_SHAPE, weights=None)
    model = keras.Model({"image": image}, {"probabilities": body(scaled)}, name="image")
    for layer in body.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.momentum = 0.0
    model({"image": noise()}, training=True)
    return model


def noise() -> np.ndarray[Any, Any]:
    """Four pictures of coloured squares. Normalized by what they look like inside, the network tells pictures apart."""
    squares = np.random.default_rng(1).integers(0, 256, (4, 14, 14, 3), np.uint8)
    return squares.repeat(16, axis=1).repeat(16, axis=2)


def main() -> None:
    parser = argparse.ArgumentParser(description="Exports MobileNetV2 with random weights, and the script beside it.")
    parser.add_argument("folder", type=Path, metavar="DIR", help="where the model folder `image` is made")
    model = parser.parse_args().folder / "image"
    network().export(model / "1", verbose=False)
    shutil.copytree(
        Path(__file__).with_name("code"), model / "code", ignore=shutil.ignore_patterns("__pycache__"), dirs_exist_ok=True
    )
    print(f"{model} is there")


if __name__ == "__main__":
    main()
