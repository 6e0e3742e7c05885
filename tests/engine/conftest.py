"""The models that the engine tests run, and the engines that they run them in."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import pytest

from penstock.engine import onnxruntime, openvino, variant
from penstock.engine.base import Engine, EngineModel, EngineOptions
from penstock.engine.engines import ONNXRUNTIME, OPENVINO, TENSORFLOW, installed_version, make_engine
from penstock.optimize import export, same_graphs, shared_weights
from tests.models import made_once

_HERE = Path(__file__).parent
#: What the variants depend on.
_SOURCES = [_HERE / "exports.py", _HERE / "variant_exports.py"]
_SOURCES += [Path(str(module.__file__)) for module in (export, same_graphs, shared_weights, variant, onnxruntime, openvino)]


@dataclass(frozen=True)
class Form:
    """An engine that must keep the contract (test_engine_contract.py), and what it runs.

    `as_saved`: models as TensorFlow has saved them. `any_bytes`: strings need not be UTF-8. `any_rank`: a tensor may have more
    dimensions than the signature says. `checks_indices`: places beyond the end of a table are an error.
    """

    name: str
    engine: str
    as_saved: bool = False
    any_bytes: bool = False
    any_rank: bool = False
    checks_indices: bool = True


FORMS = (
    Form("tensorflow", TENSORFLOW, as_saved=True, any_bytes=True, any_rank=True),
    Form("tensorflow-frozen", TENSORFLOW, any_bytes=True, any_rank=True),
    Form("onnxruntime", ONNXRUNTIME),
    Form("openvino", OPENVINO, checks_indices=False),
)


class Load(Protocol):
    """Loads a model, once; skips the test where it lacks one of the signatures in this form, with the reason."""

    def __call__(self, model: str, *signatures: str) -> EngineModel: ...


@pytest.fixture(scope="session")
def exports() -> Path:
    """The folder with what exports.py exports: `exports / "arithmetic"`."""
    return made_once("engine-models", [str(_SOURCES[0])], _SOURCES[:1])


@pytest.fixture(scope="session")
def variants(exports: Path) -> Path:
    """The folder with what variant_exports.py makes of them: `variants / "openvino" / "arithmetic"`."""
    return made_once("engine-variants", [str(_SOURCES[1]), str(exports)], _SOURCES)


@pytest.fixture(scope="session", params=FORMS, ids=lambda form: str(form.name))
def form(request: pytest.FixtureRequest) -> Form:
    form: Form = request.param
    if not installed_version(form.engine):
        pytest.skip(f"{form.engine} is not installed")
    return form


@pytest.fixture(scope="session")
def engine(form: Form) -> Engine:
    return make_engine(form.engine)


@pytest.fixture(scope="session")
def folder_of(form: Form, exports: Path, request: pytest.FixtureRequest) -> Callable[[str], Path]:
    """Where a model is in this form."""
    if form.as_saved:
        return lambda model: exports / model
    variants: Path = request.getfixturevalue("variants")
    return lambda model: variants / form.name / model


@pytest.fixture(scope="session")
def reasons(form: Form, request: pytest.FixtureRequest) -> dict[str, dict[str, str]]:
    """By model and signature: why it could not be converted."""
    if form.as_saved:
        return {}
    variants: Path = request.getfixturevalue("variants")
    found: dict[str, dict[str, str]] = json.loads((variants / "reasons.json").read_text()).get(form.name, {})
    return found


@pytest.fixture(scope="session")
def load(engine: Engine, folder_of: Callable[[str], Path], reasons: dict[str, dict[str, str]]) -> Iterator[Load]:
    loaded: dict[str, EngineModel] = {}

    def load(model: str, *signatures: str) -> EngineModel:
        for signature in signatures:
            if signature in reasons.get(model, {}):
                pytest.skip(f"{signature} of {model} cannot be converted: {reasons[model][signature]}")
        if model not in loaded:
            loaded[model] = engine.load(folder_of(model), EngineOptions())
        return loaded[model]

    yield load
    for one in loaded.values():
        one.close()


@pytest.fixture
def keeps_state(form: Form) -> None:
    """Skips for what is never made of a model that keeps state, and has no variables that could be broken."""
    if not form.as_saved:
        pytest.skip("what keeps state runs as it was saved")
