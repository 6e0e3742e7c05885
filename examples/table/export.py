"""Makes the model of this example: `python examples/table/export.py DIR` writes DIR/table/1 and DIR/table/code.

A network for customers of a shop with seeded random weights. It takes three numbers of each customer, which of them are
known, and the numbers of their city and plan; it gives the chance that they leave and what they will spend.
"""

from __future__ import annotations

import argparse
import os
import shutil
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "-1")

_NUMBERS = 3
_CITIES = 6
_PLANS = 4


def network() -> Any:
    """Embeddings of what is named, beside the numbers, then 32 units and two outputs."""
    import keras
    from keras import layers

    keras.utils.set_random_seed(1)
    numbers = keras.Input((_NUMBERS,), dtype="float32", name="numbers")
    known = keras.Input((_NUMBERS,), dtype="float32", name="known")
    city = keras.Input((), dtype="int32", name="city")
    plan = keras.Input((), dtype="int32", name="plan")
    parts = [numbers, known, layers.Embedding(_CITIES, 4)(city), layers.Embedding(_PLANS, 2)(plan)]
    hidden = layers.Dense(32, activation="relu")(layers.Concatenate()(parts))
    outputs = {
        "leaves": layers.Dense(1, activation="sigmoid", name="leaves")(hidden),
        "spends": layers.Dense(1, activation="softplus", name="spends")(hidden),
    }
    return keras.Model({"numbers": numbers, "known": known, "city": city, "plan": plan}, outputs, name="table")


def main() -> None:
    parser = argparse.ArgumentParser(description="Exports a network for tables, and the script beside it.")
    parser.add_argument("folder", type=Path, metavar="DIR", help="where the model folder `table` is made")
    model = parser.parse_args().folder / "table"
    network().export(model / "1", verbose=False)
    shutil.copytree(
        Path(__file__).with_name("code"), model / "code", ignore=shutil.ignore_patterns("__pycache__"), dirs_exist_ok=True
    )
    print(f"{model} is there")


if __name__ == "__main__":
    main()
