"""The peers' own Python environments, under benchmarks/.envs.

All peers share one environment where pip finds versions for all of them at once, else each gets its own. It is made
anew only when the pinned requirements or the Python change. A peer that cannot be installed has a reason instead of an
interpreter. Assumes a Unix layout (`bin/python`).
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
STAMP = "requirements.installed"
LIST_VERSIONS = (
    "import json; from importlib.metadata import distributions; "
    "print(json.dumps({d.name.lower().replace('_', '-'): d.version for d in distributions()}))"
)


def requirements(peer: str) -> Path:
    return PEERS / peer / "requirements.txt"


def install(environment: Path, peers: Iterable[str]) -> Path | str:
    """Makes an environment with all the peers' requirements: its interpreter, or what pip said last where it failed."""
    python = environment / "bin" / "python"
    files = [requirements(peer) for peer in sorted(peers)]
    wanted = sys.version.split()[0] + "\n" + "".join(file.read_text() for file in files)
    stamp = environment / STAMP
    if stamp.exists() and stamp.read_text() == wanted:
        return python
    print(f"installing {', '.join(file.parent.name for file in files)} into {environment}", file=sys.stderr, flush=True)
    shutil.rmtree(environment, ignore_errors=True)
    venv.create(environment, with_pip=True)
    arguments = [part for file in files for part in ("-r", str(file))]
    command = [str(python), "-m", "pip", "install", "-q", "--disable-pip-version-check", *arguments]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    if result.returncode != 0:
        shutil.rmtree(environment, ignore_errors=True)
        return (result.stderr.strip().splitlines() or ["pip said nothing"])[-1]
    stamp.write_text(wanted)
    return python


def prepare(peers: Iterable[str]) -> tuple[dict[str, Path], dict[str, str]]:
    """Each peer's interpreter, and the reasons of those that have none."""
    # The shared one always holds all peers, so that a run with fewer of them does not rebuild it.
    everyone = [folder.name for folder in sorted(PEERS.iterdir()) if (folder / "requirements.txt").exists()]
    peers = list(peers)
    if not peers:
        return {}, {}
    shared = install(ENVIRONMENTS / "peers", everyone)
    if isinstance(shared, Path):
        return dict.fromkeys(peers, shared), {}
    print(f"no one environment holds all peers, so each gets its own: {shared}", file=sys.stderr)
    outcomes = {peer: install(ENVIRONMENTS / peer, [peer]) for peer in peers}
    ready = {peer: outcome for peer, outcome in outcomes.items() if isinstance(outcome, Path)}
    missing = {peer: f"not installed: {outcome}" for peer, outcome in outcomes.items() if isinstance(outcome, str)}
    return ready, missing


def versions(python: Path) -> dict[str, str]:
    """Every distribution in an environment, by its lower-case name."""
    told = subprocess.run([str(python), "-c", LIST_VERSIONS], capture_output=True, text=True, check=True).stdout
    found: dict[str, str] = json.loads(told)
    return found
