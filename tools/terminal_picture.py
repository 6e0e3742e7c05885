"""Makes docs/terminal.svg, the README's picture of a terminal, from commands that are really run.

`python tools/terminal_picture.py` trains the digits where `make serve` has not done so yet, serves them, asks, and ends the
server. What the commands print is drawn as it came, but for the path of this repository and the example that the server adds.
"""

from __future__ import annotations

import argparse
import os
import shlex
import signal
import subprocess
import sys
import threading
from pathlib import Path

from rich.console import Console
from rich.text import Text

from penstock.config import ServeOptions

ROOT = Path(__file__).resolve().parents[1]
BIN = Path(sys.executable).parent
TARGET = ROOT / "docs" / "terminal.svg"
_COLUMNS = 104
_FOLDER = ".cache/digits"
_MODEL = f"{_FOLDER}/digits.keras"


def run(command: str) -> str:
    """What a command prints on its standard output. Raises CalledProcessError."""
    done = subprocess.run(
        [str(BIN / command.split()[0]), *shlex.split(command)[1:]],
        cwd=ROOT,
        env=environment(),
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    return done.stdout


def environment() -> dict[str, str]:
    """The cache lies within the repository, whose path is left out."""
    return os.environ | {"PENSTOCK_CACHE": ".cache/penstock", "COLUMNS": str(_COLUMNS)}


def show(console: Console, command: str, output: str) -> None:
    """A prompt with the command, and its output."""
    console.print(Text.assemble(("$ ", "bold green"), (command, "bold")))
    console.print(Text(output.replace(f"{ROOT}/", "").rstrip("\n")))
    console.print()


def record(console: Console, port: int) -> None:
    """The commands of the picture."""
    run(f"python examples/digits/train.py {_FOLDER}")
    show(console, f"penstock inspect {_MODEL}", run(f"penstock inspect {_MODEL}"))
    server = subprocess.Popen(
        [BIN / "penstock", "serve", _MODEL, "--port", str(port)], cwd=ROOT, env=environment(), stdout=subprocess.PIPE, text=True
    )
    limit = threading.Timer(60, server.kill)
    limit.start()
    try:
        assert server.stdout is not None
        ready = server.stdout.readline()
        is_usual = port == ServeOptions().port
        show(console, f"penstock serve {_MODEL}{'' if is_usual else f' --port {port}'} &", ready)
        asking = "python examples/digits/ask.py --index 3" + ("" if is_usual else f" --url http://127.0.0.1:{port}")
        run(asking)
        show(console, asking, run(asking))
    finally:
        limit.cancel()
        server.send_signal(signal.SIGTERM)
        server.wait()


def main() -> None:
    parser = argparse.ArgumentParser(description="Draws a terminal in which commands are run.")
    parser.add_argument("--port", type=int, default=ServeOptions().port, help="where to serve (default: %(default)s)")
    port = parser.parse_args().port
    console = Console(record=True, width=_COLUMNS, file=open(os.devnull, "w"), force_terminal=True, color_system="truecolor")  # noqa: SIM115
    record(console, port)
    TARGET.parent.mkdir(exist_ok=True)
    TARGET.write_text(console.export_svg(title="penstock"))
    print(TARGET.relative_to(ROOT))


if __name__ == "__main__":
    main()
