"""The peers' own Python environments, under benchmarks/.envs.

All peers share one environment where pip finds versions for all of them at once, else each gets its own; those of
ALONE have one each in any case. An environment is made anew only when the pinned requirements or the Python change. A peer that
cannot be installed has a reason instead of an interpreter. Assumes a Unix layout (`bin/python`).
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import venv
from collections.abc import Iterable
from pathlib import Path

from benchmarks.servers import PEERS

ENVIRONMENTS = Path(__file__).with_name(".envs")
#: Peers that bring what would decide the others' versions, as a release of protobuf.
ALONE = ("bentoml", "grpcio_aio", "mlserver", "pytriton", "ray_serve")
STAMP = "requirements.installed"
LIST_VERSIONS = (
    "import json; from importlib.metadata import distributions; "
    "print(json.dumps({d.name.lower().replace('_', '-'): d.version for d in distributions()}))"
)


def requirements(peer: str) -> Path:
    return PEERS / peer / "requirements.txt"


def without_dependencies(peer: str) -> Path:
    """What a peer needs beside its requirements, where pip is not to follow its dependencies; most have no such file."""
    return PEERS / peer / "without_dependencies.txt"


def install(environment: Path, peers: Iterable[str]) -> Path | str:
    """Makes an environment with all the peers' requirements: its interpreter, or what pip said last where it failed."""
    python = environment / "bin" / "python"
    files = [requirements(peer) for peer in sorted(peers)]
    alone = [file for file in map(without_dependencies, sorted(peers)) if file.exists()]
    wanted = sys.version.split()[0] + "\n" + "".join(file.read_text() for file in [*files, *alone])
    stamp = environment / STAMP
    if stamp.exists() and stamp.read_text() == wanted:
        return python
    print(f"installing {', '.join(file.parent.name for file in files)} into {environment}", file=sys.stderr, flush=True)
    shutil.rmtree(environment, ignore_errors=True)
    venv.create(environment, with_pip=True)
    pip = [str(python), "-m", "pip", "install", "-q", "--disable-pip-version-check"]
    commands = [[*pip, *(part for file in files for part in ("-r", str(file)))]]
    commands += [[*pip, "--no-deps", "-r", str(file)] for file in alone]
    for command in commands:
        result = subprocess.run(command, capture_output=True, text=True, check=False)
        if result.returncode != 0:
            shutil.rmtree(environment, ignore_errors=True)
            return (result.stderr.strip().splitlines() or ["pip said nothing"])[-1]
    stamp.write_text(wanted)
    return python


def prepare(peers: Iterable[str], *, apart: bool = False) -> tuple[dict[str, Path], dict[str, str]]:
    """Each peer's interpreter, by its folder, and the reasons of those that have none. apart: none shares its environment."""
    peers = dict.fromkeys(peers)
    alone = [peer for peer in peers if apart or peer in ALONE]
    outcomes = {peer: install(ENVIRONMENTS / peer, [peer]) for peer in alone}
    outcomes |= _together([peer for peer in peers if peer not in alone])
    ready = {peer: outcome for peer, outcome in outcomes.items() if isinstance(outcome, Path)}
    missing = {peer: f"not installed: {outcome}" for peer, outcome in outcomes.items() if isinstance(outcome, str)}
    return ready, missing


def _together(peers: list[str]) -> dict[str, Path | str]:
    # The shared one always holds all peers, so that a run with fewer of them does not rebuild it.
    everyone = [folder.name for folder in sorted(PEERS.iterdir()) if requirements(folder.name).exists()]
    if not peers:
        return {}
    shared = install(ENVIRONMENTS / "peers", [peer for peer in everyone if peer not in ALONE])
    if isinstance(shared, Path):
        return dict.fromkeys(peers, shared)
    print(f"no one environment holds all peers, so each gets its own: {shared}", file=sys.stderr)
    return {peer: install(ENVIRONMENTS / peer, [peer]) for peer in peers}


def versions(python: Path) -> dict[str, str]:
    """Every distribution in an environment, by its lower-case name."""
    told = subprocess.run([str(python), "-c", LIST_VERSIONS], capture_output=True, text=True, check=True).stdout
    found: dict[str, str] = json.loads(told)
    return found
