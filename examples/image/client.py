"""Sends a picture and prints the answer: `python examples/image/client.py [FILE.jpg]`; without a file it draws one."""

from __future__ import annotations

import argparse
import io
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

from PIL import Image, ImageDraw


def drawn() -> bytes:
    """A JPEG of a yellow disc in a blue square."""
    picture = Image.new("RGB", (640, 480), "steelblue")
    ImageDraw.Draw(picture).ellipse((200, 120, 440, 360), fill="gold")
    file = io.BytesIO()
    picture.save(file, "JPEG")
    return file.getvalue()


def main() -> None:
    parser = argparse.ArgumentParser(description="Asks a server what is on a picture.")
    parser.add_argument("file", type=Path, nargs="?", metavar="FILE.jpg", help="a picture; else one is drawn")
    parser.add_argument("--url", default="http://127.0.0.1:8080", help="the server (default: %(default)s)")
    options = parser.parse_args()
    try:
        body = options.file.read_bytes() if options.file else drawn()
    except OSError as error:
        sys.exit(f"{options.file}: {error.strerror}")
    request = urllib.request.Request(f"{options.url.rstrip('/')}/invocations", body, {"Content-Type": "image/jpeg"})
    started = time.perf_counter()
    try:
        with urllib.request.urlopen(request, timeout=30) as response:
            answer = response.read().decode()
    except urllib.error.HTTPError as error:
        sys.exit(f"{options.url} answers {error.code}: {error.read().decode(errors='replace')}")
    except OSError as error:
        sys.exit(f"{options.url} does not answer: {error}")
    print(f"{answer}\nanswered in {(time.perf_counter() - started) * 1e3:.1f} ms")


if __name__ == "__main__":
    main()
