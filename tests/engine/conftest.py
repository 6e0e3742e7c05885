"""The models that the engine tests run, and the engines that they run them in."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from penstock.engine.base import Engine, EngineModel, EngineOptions
from penstock.engine.tensorflow import TensorFlowEngine

#: Each engine that must keep the contract (test_engine_contract.py), by name.
ENGINES: dict[str, Callable[[], Engine]] = {"tensorflow": TensorFlowEngine}

Load = Callable[[str], EngineModel]


@pytest.fixture(scope="session")
def exports(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder with what exports.py exports: `exports / "arithmetic"`."""
    if importlib.util.find_spec("tensorflow") is None:
        pytest.skip("TensorFlow, which exports the models, is not installed")
    folder = tmp_path_factory.mktemp("engine_models")
    program = [sys.executable, str(Path(__file__).with_name("exports.py")), str(folder)]
    subprocess.run(program, check=True, capture_output=True, env={**os.environ, "CUDA_VISIBLE_DEVICES": "-1"})
    return folder


@pytest.fixture(scope="session", params=sorted(ENGINES))
def engine(request: pytest.FixtureRequest) -> Engine:
    return ENGINES[request.param]()


@pytest.fixture(scope="session")
def load(engine: Engine, exports: Path) -> Iterator[Load]:
    """Loads one of the exported models, once; closes them all in the end."""
    loaded: dict[str, EngineModel] = {}

    def load(name: str) -> EngineModel:
        if name not in loaded:
            loaded[name] = engine.load(exports / name, EngineOptions())
        return loaded[name]

    yield load
    for model in loaded.values():
        model.close()
