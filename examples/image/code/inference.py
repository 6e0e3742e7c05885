"""A picture in, its five most probable classes out.

The body of a request is the file as it is: JPEG, PNG or WebP.
"""

from __future__ import annotations

import io
import json
from typing import Any

import numpy as np
from PIL import Image, UnidentifiedImageError

from penstock.errors import InvalidArgument

_FORMATS = ("JPEG", "PNG", "WEBP")
_SIDE = 224
_ANSWERS = 5


def input_handler(data: Any, context: Any) -> dict[str, np.ndarray[Any, Any]]:
    """The picture as pixels [1, 224, 224, 3]. Raises InvalidArgument (400) for what is not a picture."""
    try:
        with Image.open(io.BytesIO(data.read()), formats=_FORMATS) as picture:
            picture.draft("RGB", (_SIDE, _SIDE))  # lets the JPEG decoder skip detail that resizing would drop
            pixels = picture.convert("RGB").resize((_SIDE, _SIDE), Image.Resampling.BILINEAR)
    except UnidentifiedImageError:
        raise InvalidArgument(f"the body is not a picture in one of the formats {', '.join(_FORMATS)}") from None
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise InvalidArgument(f"the picture cannot be decoded: {error}") from error
    return {"image": np.asarray(pixels)[np.newaxis]}


def output_handler(response: Any, context: Any) -> tuple[str, str]:
    """`{"predictions": [{"class": 281, "probability": 0.4}, …]}`, the most probable first."""
    probabilities = response.arrays["probabilities"][0]
    best = np.argsort(-probabilities, kind="stable")[:_ANSWERS]
    predictions = [{"class": int(index), "probability": round(float(probabilities[index]), 6)} for index in best]
    return json.dumps({"predictions": predictions}), "application/json"
