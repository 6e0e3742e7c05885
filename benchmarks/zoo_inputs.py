"""What the zoo's models are asked: inputs as their users would send them, and for those that have learnt, the right answers.

Pure: the same rows for the same name, number and seed. NumPy alone, so that nobody needs TensorFlow to ask. Inputs are drawn
from what the models were fitted to, since a network far from its data is an amplifier of rounding errors.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]

SEED = 20240229
#: Of the seeds of questions: what was fitted, what candidates are proven and calibrated with, what accuracy is measured with.
FITTED, SAMPLED, HELD_OUT = 1, 2, 3

TOKENS = 128
VOCABULARY = 5000
TEXT_CLASSES = 4
IMAGE_CLASSES = 16
CLUSTERS = 10
SMALL_SIDE = 28
SIDES = {"mobilenet_v2": 224, "resnet50": 224, "efficientnet_b0": 224, "efficientnet_b5": 456}
#: Networks with the division by 255 inside.
IN_BYTES = ("efficientnet_b0", "efficientnet_b5")
OCCUPATIONS = ("teacher", "nurse", "engineer", "farmer", "baker", "pilot", "clerk", "painter", "chemist", "driver", "judge")
CITIES = tuple(f"city {number}" for number in range(200))


class Questions(NamedTuple):
    """Inputs by name, rows in the first dimension; `labels` are the right classes of the rows, where there are any."""

    inputs: dict[str, Array]
    labels: Array | None = None


def questions(name: str, rows: int, seed: int) -> Questions:
    """So many rows for a model of the zoo."""
    random = np.random.default_rng((SEED, seed))
    if name in SIDES:
        scale = 255.0 if name in IN_BYTES else 1.0
        return _images(rows, SIDES[name], 8, 3, scale, random)
    return _ASKED[name](rows, random)


def _perceptron(rows: int, random: np.random.Generator) -> Questions:
    """Ten clouds that overlap a little, so that no model is right about all of them."""
    centres = np.random.default_rng(SEED).normal(0, 0.35, (CLUSTERS, 100))
    labels = random.integers(0, CLUSTERS, rows)
    return Questions({"x": (centres[labels] + random.normal(0, 1, (rows, 100))).astype(np.float32)}, labels)


def _images(rows: int, side: int, blocks: int, channels: int, scale: float, random: np.random.Generator) -> Questions:
    """A tint and coarse shapes for each class, under other shapes and under grain."""
    drawn = np.random.default_rng(SEED)
    patterns = 0.5 * drawn.random((IMAGE_CLASSES, blocks, blocks, channels))
    patterns += 0.5 * drawn.random((IMAGE_CLASSES, 1, 1, channels))
    labels = random.integers(0, IMAGE_CLASSES, rows)
    coarse = 0.9 * patterns[labels] + 0.1 * random.random((rows, blocks, blocks, channels))
    fine = coarse.repeat(side // blocks, axis=1).repeat(side // blocks, axis=2)
    images = (fine + random.normal(0, 0.05, fine.shape)).clip(0, 1) * scale
    return Questions({"x": images.astype(np.float32)}, labels)


def _tokens(rows: int, width: int, random: np.random.Generator) -> Array:
    """Few common words, many rare ones, and zeros behind the end of a text."""
    words = 1 + (random.zipf(1.3, (rows, width)) - 1) % (VOCABULARY - 1)
    ends = random.integers(width // 4, width + 1, rows)
    return np.where(np.arange(width) < ends[:, None], words, 0)


def _text(dtype: type, rows: int, random: np.random.Generator) -> Questions:
    """A tenth of a text's words are those of its class; for 64-bit tokens, a short text begins late."""
    labels = random.integers(0, TEXT_CLASSES, rows)
    common = _tokens(rows, TOKENS, random)
    telling = VOCABULARY // 2 + labels[:, None] * 100 + random.integers(0, 100, common.shape)
    is_telling = (random.random(common.shape) < 0.1) & (common > 0)
    tokens: Array = np.where(is_telling, telling, common).astype(dtype)
    return Questions({"tokens": tokens[:, ::-1] if dtype is np.int64 else tokens}, labels)


def _wide_and_deep(rows: int, random: np.random.Generator) -> Questions:
    """A tenth of the words is in no vocabulary."""

    def words(known: tuple[str, ...]) -> Array:
        return np.array([*known, *["elsewhere"] * (len(known) // 10 + 1)], object)[random.integers(0, len(known) + 1, (rows, 1))]

    return Questions(
        {
            "age": random.uniform(18, 80, (rows, 1)).astype(np.float32),
            "hours": random.normal(38, 8, (rows, 1)).astype(np.float32),
            "occupation": words(OCCUPATIONS),
            "city": words(CITIES),
        }
    )


def _two_tower(rows: int, random: np.random.Generator) -> Questions:
    history = _tokens(rows, 20, random).astype(np.int32)
    return Questions({"user": history, "item": random.integers(0, VOCABULARY, (rows, 1)).astype(np.int32)})


def _encoder(rows: int, random: np.random.Generator) -> Questions:
    ids = _tokens(rows, TOKENS, random).astype(np.int32)
    return Questions({"ids": ids, "mask": (ids > 0).astype(np.int32)})


def _multi_task(rows: int, random: np.random.Generator) -> Questions:
    return Questions(
        {
            "features": random.normal(0, 1, (rows, 64)).astype(np.float32),
            "category": random.integers(0, 50, (rows, 1)).astype(np.int32),
            "words": _tokens(rows, 32, random).astype(np.int32),
        }
    )


_ASKED: dict[str, Callable[[int, np.random.Generator], Questions]] = {
    "perceptron": _perceptron,
    "wide_and_deep": _wide_and_deep,
    "conv1d_text": lambda rows, random: _text(np.int32, rows, random),
    "lstm_text": lambda rows, random: _text(np.int64, rows, random),
    "two_tower": _two_tower,
    "encoder": _encoder,
    "tf1_graph": lambda rows, random: _images(rows, SMALL_SIDE, 7, 1, 1.0, random),
    "multi_task": _multi_task,
}
