"""Builds the wheel, installs it into a clean environment, and serves a model from there: what a user's first minute is.

Everything happens in a temporary folder, which is gone afterwards. The model is made by the Python that runs this
script; the environment under test has nothing but the wheel and what the wheel asks for. Exit code 1 and a line that
says what failed where anything is not as it must be.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
import venv
import zipfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
_START_LIMIT_S = 120.0
_STOP_LIMIT_S = 30.0
_MODEL = """
import sys
import tensorflow as tf

class HalfPlusTwo(tf.Module):
    @tf.function(input_signature=[tf.TensorSpec([None], tf.float32, name="x")])
    def __call__(self, x):
        return {"y": x / 2 + 2}

tf.saved_model.save(HalfPlusTwo(), sys.argv[1])
"""


class Failed(Exception):
    """What is not as it must be."""


def environment(folder: Path) -> dict[str, str]:
    """This process's environment without what would let the clean one see anything but itself."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("PENSTOCK_", "PYTHON", "VIRTUAL_ENV"))}
    return kept | {"PENSTOCK_CACHE": str(folder / "cache"), "TF_CPP_MIN_LOG_LEVEL": "3"}


def run(title: str, command: list[str], folder: Path) -> str:
    """The standard output of a command. Raises Failed."""
    started = time.monotonic()
    done = subprocess.run(command, cwd=folder, env=environment(folder), capture_output=True, text=True, check=False)
    if done.returncode:
        raise Failed(f"{title}: exit code {done.returncode}\n{done.stdout}{done.stderr}")
    print(f"{time.monotonic() - started:6.1f} s  {title}", flush=True)
    return done.stdout


def built_wheel(folder: Path) -> Path:
    """The wheel of this source tree, with what has to be in it."""
    run("build the wheel", [sys.executable, "-m", "build", "--wheel", "--outdir", str(folder), str(ROOT)], folder)
    (wheel,) = folder.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
    for wanted in ("penstock/py.typed", "penstock/savedmodel/descriptors.binpb"):
        if wanted not in names:
            raise Failed(f"{wheel.name} has no {wanted}")
    for name in names:
        if not name.startswith(("penstock/", f"{wheel.name.split('-py')[0]}.dist-info/")):
            raise Failed(f"{wheel.name} has {name}, which does not belong to it")
    return wheel


def installed(wheel: Path, folder: Path) -> Path:
    """The folder of commands of a new environment with the wheel and TensorFlow."""
    venv.create(folder / "environment", with_pip=True)
    commands = folder / "environment" / "bin"
    pip = [str(commands / "pip"), "install", "-q", "--no-compile"]
    run("install it into a clean environment", [*pip, f"{wheel}[tensorflow-cpu]"], folder)
    return commands


def serve_once(command: Path, model: Path, folder: Path) -> None:
    """Serves the model, asks once, ends the server as a container's platform would. Raises Failed."""
    started = time.monotonic()
    server = subprocess.Popen(
        [str(command), "serve", str(model), "--port", "0"], cwd=folder, env=environment(folder), stdout=subprocess.PIPE, text=True
    )
    limit = threading.Timer(_START_LIMIT_S, server.kill)
    limit.start()
    try:
        assert server.stdout is not None
        line = server.stdout.readline()
        if "ready on " not in line:
            raise Failed(f"penstock serve did not come up; it said: {line!r}")
        answer = ask(line.strip().rpartition("ready on ")[2] + f"/v1/models/{model.name}:predict", {"instances": [1.0, 2.0, 5.0]})
        if answer != {"predictions": [2.5, 3.0, 4.5]}:
            raise Failed(f"penstock serve answers {answer}")
        print(f"{time.monotonic() - started:6.1f} s  serve, from the command to the first answer", flush=True)
        server.send_signal(signal.SIGTERM)
        code = server.wait(_STOP_LIMIT_S)
        if code != 0:
            raise Failed(f"penstock serve ends with exit code {code} when it is told to stop")
    finally:
        limit.cancel()
        server.kill()
        server.wait()


def ask(url: str, body: object) -> object:
    request = urllib.request.Request(url, json.dumps(body).encode(), {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=30) as response:
        return json.load(response)


def check(folder: Path) -> None:
    """All steps in `folder`. Raises Failed."""
    wheel = built_wheel(folder)
    commands = installed(wheel, folder)
    penstock = str(commands / "penstock")
    version = run("penstock --version", [penstock, "--version"], folder).split()[-1]
    if version != wheel.name.split("-")[1]:
        raise Failed(f"penstock --version says {version}, and the wheel is {wheel.name}")
    problems = json.loads(run("penstock doctor", [penstock, "doctor", "--json"], folder))["problems"]
    if problems:
        raise Failed(f"penstock doctor finds: {problems}")
    model = folder / "half_plus_two"
    run("make a model", [sys.executable, "-c", _MODEL, str(model / "1")], folder)
    serve_once(commands / "penstock", model, folder)


def main() -> None:
    started = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="penstock-wheel-") as scratch:
        try:
            check(Path(scratch))
        except Failed as error:
            sys.exit(f"check_wheel: {error}")
    print(f"{time.monotonic() - started:6.1f} s  in all; the wheel is good")


if __name__ == "__main__":
    main()
