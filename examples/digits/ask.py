"""Shows a server a picture of a digit and prints what it reads: `python examples/digits/ask.py [--image FILE.png]`.

Without a picture of your own, one of the held-out test images is written as a PNG and read back. Either way the picture
is shrunk to the 8 by 8 cells that the network takes, and sent as JSON to /v1/models/digits:predict.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
import tempfile
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

import numpy as np
from images import INK, from_picture, load, to_picture
from PIL import Image, UnidentifiedImageError

_SHADES = " ░▒▓█"


def drawing(cells: np.ndarray[Any, Any]) -> str:
    """The cells for a terminal, each two characters wide."""
    return "\n".join(
        "  " + "".join(2 * _SHADES[round(float(cell) * (len(_SHADES) - 1) / INK)] for cell in row).rstrip() for row in cells
    )


def held_out_picture(file: Path, index: int | None) -> str:
    """Writes a test image as `file`; says which it is."""
    _, test = load()
    chosen = random.randrange(len(test.labels)) if index is None else index % len(test.labels)
    to_picture(test.images[chosen]).save(file)
    return f"held-out test image {chosen}, a {test.labels[chosen]}"


def ask(url: str, cells: np.ndarray[Any, Any]) -> tuple[np.ndarray[Any, Any], float]:
    """The probabilities of the ten digits, and how many milliseconds the answer took."""
    body = json.dumps({"instances": [cells.tolist()]}).encode()
    request = urllib.request.Request(f"{url.rstrip('/')}/v1/models/digits:predict", body, {"Content-Type": "application/json"})
    started = time.perf_counter()
    with urllib.request.urlopen(request, timeout=30) as response:
        answer = json.load(response)
    return np.array(answer["predictions"][0]), (time.perf_counter() - started) * 1e3


def main() -> None:
    parser = argparse.ArgumentParser(description="Asks a server which digit is on a picture.")
    parser.add_argument("--url", default="http://127.0.0.1:8080", help="the server (default: %(default)s)")
    parser.add_argument("--image", type=Path, metavar="FILE.png", help="a picture of one digit; else a test image")
    parser.add_argument("--index", type=int, metavar="N", help="which test image; else any")
    parser.add_argument("--save", type=Path, metavar="FILE.png", help="keep the test image there")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        file = options.image or options.save or Path(scratch) / "digit.png"
        title = str(file) if options.image else held_out_picture(file, options.index)
        try:
            with Image.open(file) as picture:
                cells = from_picture(picture)
        except (OSError, UnidentifiedImageError, ValueError) as error:
            sys.exit(f"{file}: {error}")
    print(f"{title}\n\n{drawing(cells)}\n")
    try:
        probabilities, milliseconds = ask(options.url, cells)
    except urllib.error.HTTPError as error:
        sys.exit(f"{options.url} answers {error.code}: {error.read().decode(errors='replace')}")
    except OSError as error:
        sys.exit(f"{options.url} does not answer: {error}; start the server with: make serve")
    digit = int(probabilities.argmax())
    print(f"It is a {digit}: probability {probabilities[digit]:.1%}, answered in {milliseconds:.1f} ms")


if __name__ == "__main__":
    main()
