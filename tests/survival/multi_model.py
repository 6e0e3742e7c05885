"""A multi-model endpoint, where tests load and unload models by the API, and what all its processes hold."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import requests

from tests.servers import Server

#: Numbers of gateways and the like stay in a title; of a title, what follows its first line is padding.
_TITLE = re.compile(r"penstock: ([a-z]+(?: [\w./-]+)?)")


@dataclass(frozen=True)
class Holdings:
    """What the processes of a server hold: how many there are by title, open files by title, and memory in bytes by title."""

    processes: Counter[str]
    files: Counter[str]
    bytes: Counter[str]
    shared_memory: frozenset[str]


class MultiModelServer(Server):
    """`penstock sagemaker serve` for many models, which loads the bystander. What is unpacked goes into `cache`."""

    def __init__(self, exported: Path, cache: Path, *arguments: str) -> None:
        self.exported, self.cache = exported, cache
        variables = {"SAGEMAKER_MULTI_MODEL": "true", "PENSTOCK_CACHE": str(cache)}
        super().__init__(*arguments, command=("sagemaker", "serve"), env=variables)
        assert self.load("bystander", "half_plus_two").status_code == 200

    def __enter__(self) -> MultiModelServer:
        return self

    def load(self, name: str, model: str | Path) -> requests.Response:
        """Asks for an exported model, or for what is at a path, on a connection of its own."""
        body = {"model_name": name, "url": str(self.exported / model)}
        return requests.post(f"{self.url}/models", json=body, timeout=60)

    def unload(self, name: str) -> requests.Response:
        return requests.delete(f"{self.url}/models/{name}", timeout=60)

    def invoke(self, name: str, body: Any) -> requests.Response:
        return requests.post(f"{self.url}/models/{name}/invoke", json=body, timeout=60)

    def holdings(self) -> Holdings:
        """What is held now, all processes together."""
        processes: Counter[str] = Counter()
        files: Counter[str] = Counter()
        held: Counter[str] = Counter()
        for process in self.processes():
            try:
                title = _title(process)
                files[title] += process.num_fds()
                processes[title] += 1
                held[title] += _held_bytes(process.pid)
            except psutil.NoSuchProcess:
                continue
        shared = frozenset(file.name for file in Path("/dev/shm").iterdir() if "penstock" in file.name)
        return Holdings(processes, files, held, shared)


def _title(process: psutil.Process) -> str:
    command = " ".join(process.cmdline())
    found = _TITLE.match(command)
    return found[1] if found else command.split("\0")[0]


def _held_bytes(pid: int) -> int:
    """Memory that would come back if the process ended; pages that it shares count as its part of them."""
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    return sum(int(line.split()[1]) << 10 for line in lines if line.startswith(("Pss_Anon:", "Pss_Shmem:")))
