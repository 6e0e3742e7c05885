"""Makes the model of this example: `python examples/multitask/export.py DIR`.

Writes DIR/multitask/1 and DIR/multitask/code for `penstock serve`, and DIR/multitask.keras for flask_app.py. The network
has seeded random weights. It reads a web page as word numbers and as structure, and does three tasks on what it has read.
"""

from __future__ import annotations

import argparse
import os
import shutil
import sys
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "-1")

_CODE = Path(__file__).with_name("code")
sys.path.insert(0, str(_CODE))

from features import MAX_WORDS, STRUCTURE, VOCABULARY  # noqa: E402
from inference import TOPICS  # noqa: E402


def network() -> Any:
    """Embedded words, averaged over those that are there, and the structure; 64 shared units; a layer for each task."""
    import keras
    from keras import layers

    keras.utils.set_random_seed(1)
    words = keras.Input((MAX_WORDS,), dtype="int32", name="words")
    structure = keras.Input((len(STRUCTURE),), dtype="float32", name="structure")
    text = layers.GlobalAveragePooling1D()(layers.Embedding(VOCABULARY, 64, mask_zero=True)(words))
    shape = layers.Dense(32, activation="relu")(structure)
    shared = layers.Dense(64, activation="relu")(layers.Concatenate()([text, shape]))
    outputs = {
        "topic": layers.Dense(len(TOPICS), activation="softmax", name="topic")(shared),
        "is_spam": layers.Dense(1, activation="sigmoid", name="is_spam")(shared),
        "quality": layers.Dense(1, name="quality")(shared),
    }
    return keras.Model({"words": words, "structure": structure}, outputs, name="multitask")


def main() -> None:
    parser = argparse.ArgumentParser(description="Exports a network for web pages, and the script beside it.")
    parser.add_argument("folder", type=Path, metavar="DIR", help="where the model folder `multitask` is made")
    folder = parser.parse_args().folder
    model = network()
    model.export(folder / "multitask" / "1", verbose=False)
    model.save(folder / "multitask.keras")
    code = folder / "multitask" / "code"
    shutil.copytree(_CODE, code, ignore=shutil.ignore_patterns("__pycache__"), dirs_exist_ok=True)
    print(f"{folder / 'multitask'} and {folder / 'multitask.keras'} are there")


if __name__ == "__main__":
    main()
