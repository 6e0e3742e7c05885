"""Trains a small Keras network on scikit-learn's handwritten digits and saves it: `python examples/digits/train.py DIR`.

Takes seconds, downloads nothing, and does nothing where DIR/digits.keras is there already. The network takes images of
8 by 8 cells from 0 to 16, as the data set has them, and gives the probabilities of the ten digits.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from images import Split, from_picture, load, to_picture

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "-1")

_EPOCHS = 12


@contextmanager
def quiet() -> Iterator[None]:
    """Drops standard error: TensorFlow greets there when it is imported, and no setting of its own stops it."""
    kept = os.dup(2)
    with open(os.devnull, "w") as nowhere:
        os.dup2(nowhere.fileno(), 2)
    try:
        yield
    finally:
        sys.stderr.flush()
        os.dup2(kept, 2)
        os.close(kept)


def varied(split: Split) -> Split:
    """Each image four times: as it is, as ask.py would cut it out of a picture, a cell to the left, a cell to the right."""
    cut = np.stack([from_picture(to_picture(image)) for image in split.images])
    padded = np.pad(split.images, ((0, 0), (0, 0), (1, 1)))
    return Split(np.concatenate([split.images, cut, padded[:, :, 2:], padded[:, :, :-2]]), np.tile(split.labels, 4))


def network() -> Any:
    """Two layers of convolution, one of 64 units, one of ten probabilities."""
    from keras import Input, Sequential, layers

    return Sequential(
        [
            Input((8, 8), name="image"),
            layers.Rescaling(1 / 16),
            layers.Reshape((8, 8, 1)),
            layers.Conv2D(32, 3, padding="same", activation="relu"),
            layers.MaxPooling2D(),
            layers.Conv2D(64, 3, padding="same", activation="relu"),
            layers.Flatten(),
            layers.Dropout(0.3),
            layers.Dense(64, activation="relu"),
            layers.Dense(10, activation="softmax", name="probabilities"),
        ],
        name="digits",
    )


def train(target: Path) -> None:
    """Trains, prints the accuracy over the images that were held out, saves."""
    with quiet():
        import keras
    keras.utils.set_random_seed(1)
    learned, test = load()
    training = varied(learned)
    model = network()
    model.compile(optimizer="adam", loss="sparse_categorical_crossentropy", metrics=["accuracy"])
    model.fit(training.images, training.labels, batch_size=64, epochs=_EPOCHS, verbose=0)
    _, accuracy = model.evaluate(test.images, test.labels, verbose=0)
    target.parent.mkdir(parents=True, exist_ok=True)
    model.save(target)
    print(f"{accuracy:.1%} of {len(test.labels)} held-out digits are read correctly")


def main() -> None:
    parser = argparse.ArgumentParser(description="Trains a network on handwritten digits.")
    parser.add_argument("folder", type=Path, metavar="DIR", help="where digits.keras is saved")
    target = parser.parse_args().folder / "digits.keras"
    if target.exists():
        print(f"{target} is there already")
        return
    print("training a small network on scikit-learn's handwritten digits", flush=True)
    started = time.monotonic()
    train(target)
    print(f"{target} saved after {time.monotonic() - started:.0f} s")


if __name__ == "__main__":
    main()
