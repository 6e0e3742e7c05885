"""Scripts written to a folder and loaded, with the process as it was before once the test is over."""

from __future__ import annotations

import logging
import sys
import textwrap
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest

from penstock.errors import PenstockError
from penstock.script.folder import find_script
from penstock.script.script import Invocation, Place, Script
from penstock.tensors import Array

PLACE = Place("http://127.0.0.1:8080", "9000", "127.0.0.1:9000", "half", 60.0)


def invocation(
    body: bytes = b"{}",
    *,
    content_type: str = "",
    accept: str = "",
    custom_attributes: str = "",
    model_name: str | None = None,
    model_version: str | None = None,
    method: str | None = None,
    timeout_s: float = 60.0,
) -> Invocation:
    deadline = time.monotonic() + timeout_s
    return Invocation(body, content_type, accept, custom_attributes, model_name, model_version, method, "request-7", deadline)


@dataclass
class FakeOutputs:
    arrays: dict[str, Array]
    encoded: int = 0

    def json(self) -> bytes:
        self.encoded += 1
        return b'{"predictions": [2.5, 3.0]}'


@dataclass
class FakeRunner:
    """An engine that keeps what it was asked, and answers the same each time, or raises `error`."""

    error: PenstockError | None = None
    asked: list[tuple[object, ...]] = field(default_factory=list)
    outputs: FakeOutputs = field(default_factory=lambda: FakeOutputs({"y": np.array([2.5, 3.0], np.float32)}))

    def run_json(self, body: bytes, method: str, deadline: float) -> FakeOutputs:
        return self._answer(body, method, deadline)

    def run_arrays(self, inputs: Mapping[str, Array], deadline: float) -> FakeOutputs:
        return self._answer(dict(inputs), deadline)

    def _answer(self, *asked: object) -> FakeOutputs:
        self.asked.append(asked)
        if self.error is not None:
            raise self.error
        return self.outputs


Load = Callable[[str], Script]


@pytest.fixture
def clean_imports() -> Iterator[None]:
    """Puts sys.path and sys.modules back."""
    path, modules = list(sys.path), set(sys.modules)
    yield
    sys.path[:] = path
    for name in set(sys.modules) - modules:
        if name == "inference" or "penstock_test" in name:
            del sys.modules[name]


@pytest.fixture
def load(tmp_path: Path, clean_imports: None) -> Load:
    """Loads the text of an inference.py."""

    def load(text: str) -> Script:
        code = tmp_path / "code"
        code.mkdir(exist_ok=True)
        (code / "inference.py").write_text(textwrap.dedent(text))
        return Script.load(find_script([code], None), None, PLACE)

    return load


@pytest.fixture
def logged(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> pytest.LogCaptureFixture:
    """What Penstock logs, however its log is configured."""
    monkeypatch.setattr(logging.getLogger("penstock"), "propagate", True)
    caplog.set_level(logging.INFO, "penstock")
    return caplog
