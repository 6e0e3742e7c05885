"""A server whose models are those of a config file, which tests rewrite while it runs."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
import requests

from tests.servers import Server, wait_until


class ConfiguredServer(Server):
    """`penstock serve --model-config-file`, looked at twenty times a second. Model folders are copies, made below `folder`."""

    def __init__(self, folder: Path, exported: Path, *arguments: str) -> None:
        self.folder = folder
        self._exported = exported
        self._served: dict[str, Path] = {}
        self._config = folder / "models.config"
        self.add("bystander", "half_plus_two", is_awaited=False)
        super().__init__("--model-config-file", self._config, "--poll-s", "0.05", *arguments)

    def __enter__(self) -> ConfiguredServer:
        return self

    def add(self, name: str, exported: str, script: str | None = None, *, is_awaited: bool = True) -> Path:
        """Has a copy of an exported model served, with a script where one is given. The folder of the model."""
        target = self.folder / name
        shutil.copytree(self._exported / exported, target)
        if script is not None:
            (target / "code").mkdir()
            (target / "code" / "inference.py").write_text(script)
        self.point(name, target)
        if is_awaited:
            wait_until(lambda: self.states(name) == ["AVAILABLE"], f"{name} is served")
        return target

    def point(self, name: str, folder: Path) -> None:
        """Has the models in `folder` served under `name`."""
        self._served[name] = folder
        self.write(self.config())

    def drop(self, name: str) -> None:
        """Takes a model out of the file."""
        del self._served[name]
        self.write(self.config())

    @contextmanager
    def serving(self, name: str, exported: str, script: str | None = None) -> Iterator[Path]:
        """A model for the time of a test."""
        try:
            yield self.add(name, exported, script)
        finally:
            self.drop(name)
            wait_until(lambda: not self.processes(f"host {name}/"), f"the end of {name}")
            shutil.rmtree(self.folder / name)

    def config(self) -> str:
        """The file's content as it should be now."""
        entries = [
            f"config {{ name: '{name}' base_path: '{path}' model_platform: 'tensorflow' }}" for name, path in self._served.items()
        ]
        return "model_config_list {\n" + "\n".join(entries) + "\n}\n"

    def write(self, text: str) -> None:
        """Puts another file in the place of the config file, at once."""
        new = self._config.with_suffix(".new")
        new.write_text(text)
        os.replace(new, self._config)

    def states(self, name: str) -> list[str]:
        """The states of a model's versions, the newest first; none for a model that is not known."""
        response = self.get(f"/v1/models/{name}")
        return [one["state"] for one in response.json().get("model_version_status", [])]

    def invoke(self, name: str, body: Any, timeout_s: float = 60) -> requests.Response:
        """A request to a model's script, on a connection of its own."""
        fields = {"X-Amzn-SageMaker-Custom-Attributes": f"tfs-model-name={name}"}
        return requests.post(f"{self.url}/invocations", json=body, headers=fields, timeout=timeout_s)

    def host_of(self, name: str) -> psutil.Process:
        return self.one(f"host {name}/")
