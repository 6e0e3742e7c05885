"""The handwritten digits of scikit-learn, and how any picture of a digit becomes one like them.

An image is 8 by 8 cells from 0 (paper) to 16 (ink), and the digit fills its height.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from PIL import Image, ImageOps
from sklearn.datasets import load_digits

CELLS = 8
INK = 16
_HELD_OUT = 360
_PIXELS_PER_CELL = 32


class Split(NamedTuple):
    """Images [n, 8, 8] as float32 and labels [n]."""

    images: np.ndarray[Any, Any]
    labels: np.ndarray[Any, Any]


def load() -> tuple[Split, Split]:
    """The images to learn from, and the last fifth, which no training sees."""
    digits = load_digits()
    images = digits.images.astype(np.float32)
    return Split(images[:-_HELD_OUT], digits.target[:-_HELD_OUT]), Split(images[-_HELD_OUT:], digits.target[-_HELD_OUT:])


def to_picture(cells: np.ndarray[Any, Any]) -> Image.Image:
    """A picture for people: enlarged, ink dark on bright paper."""
    grey = np.round(255 - cells * (255 / INK)).astype(np.uint8)
    size = CELLS * _PIXELS_PER_CELL
    return ImageOps.expand(Image.fromarray(grey).resize((size, size), Image.Resampling.NEAREST), _PIXELS_PER_CELL, fill=255)


def from_picture(picture: Image.Image) -> np.ndarray[Any, Any]:
    """The 8 by 8 cells of a picture of one digit, dark on bright or bright on dark. Raises ValueError for an empty one."""
    opaque = Image.new("RGBA", picture.size, "white")
    opaque.alpha_composite(picture.convert("RGBA"))
    ink = ImageOps.invert(opaque.convert("L"))
    if np.asarray(ink).mean() > 127:
        ink = ImageOps.invert(ink)
    box = ink.point(lambda level: 255 if level > 32 else 0).getbbox()
    if box is None:
        raise ValueError("there is nothing on the picture")
    left, top, right, bottom = box
    side = max(right - left, bottom - top)
    square = Image.new("L", (side, side), 0)
    square.paste(ink.crop(box), ((side - (right - left)) // 2, (side - (bottom - top)) // 2))
    small = np.asarray(square.resize((CELLS, CELLS), Image.Resampling.BOX), np.float32)
    return np.round(small * (INK / max(float(small.max()), 1.0)))
