"""What the Open Inference Protocol's APIs say of models, and which they may have loaded."""

from __future__ import annotations

from typing import Any

import pytest

from penstock.api.administration import Answer
from penstock.api.oip_models import OipModels
from penstock.api.oip_settings import LOG_SETTINGS, fixed_settings
from penstock.errors import FailedPrecondition, InvalidArgument, PenstockError, PermissionDenied, Unimplemented
from penstock.serving.routes import NotLoaded, NotYet, Routes, Servable, State
from penstock.tensors import Signature, TensorSpec, dtype_of_name


class _Administration:
    """Does at once what it is asked for."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, ...]] = []

    def load(self, model: str, url: str, answer: Answer) -> None:
        self.asked.append(("load", model, url))
        answer(None)

    def unload(self, model: str, answer: Answer) -> None:
        self.asked.append(("unload", model))
        answer(None)

    def want(self, model: str, answer: Answer) -> None:
        self.asked.append(("want", model))
        answer(None)

    def reload_config(self, config: bytes, answer: Answer) -> None:
        raise AssertionError("nobody asks for that")


def spec(name: str, dtype: str = "float", shape: tuple[int | None, ...] | None = (None, 3)) -> TensorSpec:
    return TensorSpec(name, dtype_of_name(dtype), shape)


def signature(name: str, *inputs: TensorSpec) -> Signature:
    return Signature(name, {one.name: one for one in inputs}, {"y": spec("y")})


def servable(routes: Routes, name: str, version: int, state: State, *signatures: Signature) -> Servable:
    made = routes.servable(name, version, lambda: Servable(name, version))
    made.signatures = {one.name: one for one in signatures}
    made.update(state, None)
    return made


def models_of(routes: Routes, *, loads: bool = False, loads_paths: bool = False) -> tuple[OipModels, _Administration]:
    administration = _Administration()
    return OipModels(routes, administration, loads=loads, loads_paths=loads_paths, max_batch_size=32), administration


def test_the_signature_is_the_default_or_the_only_one_or_the_named_one() -> None:
    routes = Routes()
    one = servable(routes, "one", 1, State.AVAILABLE, signature("predict"))
    two = servable(routes, "two", 1, State.AVAILABLE, signature("serving_default"), signature("other"))
    none = servable(routes, "none", 1, State.AVAILABLE, signature("a"), signature("b"))
    assert OipModels.signature(one, "").name == "predict"
    assert OipModels.signature(two, "").name == "serving_default"
    assert OipModels.signature(two, "other").name == "other"
    with pytest.raises(InvalidArgument, match="Model 'two' has no signature 'c'; it has: serving_default, other"):
        OipModels.signature(two, "c")
    with pytest.raises(InvalidArgument, match="name one with the parameter signature_name; it has: a, b"):
        OipModels.signature(none, "")


def test_what_is_not_there_can_still_be_waited_for() -> None:
    routes = Routes()
    servable(routes, "loading", 1, State.LOADING)
    models, _ = models_of(routes)
    with pytest.raises(NotLoaded, match="unknown model 'nobody'") as caught:
        models.find("nobody", "")
    assert caught.value.model == "nobody"
    with pytest.raises(NotYet, match="its state is LOADING"):
        models.find("loading", "")


def test_a_server_is_ready_when_it_can_answer_for_some_model() -> None:
    routes = Routes()
    models, _ = models_of(routes)
    assert models.is_ready()
    servable(routes, "a", 1, State.LOADING)
    assert not models.is_ready()
    servable(routes, "b", 1, State.AVAILABLE)
    assert models.is_ready()


def test_the_index_has_every_version_with_its_state_and_reason() -> None:
    routes = Routes()
    servable(routes, "b", 2, State.AVAILABLE)
    servable(routes, "b", 1, State.UNLOADING)
    servable(routes, "a", 1, State.LOADING).update(State.END, FailedPrecondition("it is broken"))
    models, _ = models_of(routes)
    assert models.index(ready_only=False) == [
        {"name": "a", "version": "1", "state": "UNAVAILABLE", "reason": "it is broken"},
        {"name": "b", "version": "1", "state": "UNLOADING", "reason": ""},
        {"name": "b", "version": "2", "state": "READY", "reason": ""},
    ]
    assert [one["version"] for one in models.index(ready_only=True)] == ["2"]


def test_unknown_sizes_ranks_and_types_are_told_as_well_as_can_be() -> None:
    routes = Routes()
    inputs = (spec("a", shape=None), spec("b", "complex64", (2,)), spec("c", "string", ()))
    servable(routes, "m", 1, State.AVAILABLE, signature("serving_default", *inputs))
    models, _ = models_of(routes)
    assert models.metadata("m", "", "")["inputs"] == [
        {"name": "a", "datatype": "FP32", "shape": [-1]},
        {"name": "b", "datatype": "COMPLEX64", "shape": [2]},
        {"name": "c", "datatype": "BYTES", "shape": []},
    ]
    assert [one["data_type"] for one in models.config("m", "", "")["input"]] == ["TYPE_FP32", "TYPE_INVALID", "TYPE_STRING"]


def test_the_config_leaves_the_rows_away_where_they_are_put_together() -> None:
    routes = Routes()
    made = servable(routes, "m", 1, State.AVAILABLE, signature("serving_default", spec("x")))
    models, _ = models_of(routes)
    assert (models.config("m", "", "")["max_batch_size"], models.config("m", "", "")["input"][0]["dims"]) == (0, [-1, 3])
    made.batches = frozenset({"serving_default"})
    assert (models.config("m", "", "")["max_batch_size"], models.config("m", "", "")["input"][0]["dims"]) == (32, [3])


@pytest.mark.parametrize(
    ("loads", "loads_paths", "parameters", "asked", "error"),
    [
        (False, False, {}, [], PermissionDenied),
        (True, False, {}, [("want", "m")], None),
        (True, False, {"url": "/models/m"}, [], PermissionDenied),
        (False, True, {"url": "/models/m"}, [("load", "m", "/models/m")], None),
        (False, True, {"url": 5}, [], Unimplemented),
        (True, True, {"config": "{}"}, [], Unimplemented),
        (True, True, {"file:1/model.savedmodel": "AAAA"}, [], Unimplemented),
    ],
)
def test_models_are_loaded_as_far_as_it_was_allowed(
    loads: bool, loads_paths: bool, parameters: dict[str, Any], asked: list[tuple[str, ...]], error: type[PenstockError] | None
) -> None:
    models, administration = models_of(Routes(), loads=loads, loads_paths=loads_paths)
    answers: list[PenstockError | None] = []
    models.load("m", parameters, answers.append)
    assert administration.asked == asked
    assert [type(one) for one in answers] == [type(None) if error is None else error]


def test_models_are_unloaded_only_where_it_was_allowed() -> None:
    answers: list[PenstockError | None] = []
    models, administration = models_of(Routes())
    models.unload("m", answers.append)
    assert isinstance(answers[0], PermissionDenied)
    models, administration = models_of(Routes(), loads=True)
    models.unload("m", answers.append)
    assert administration.asked == [("unload", "m")]


def test_a_setting_may_be_set_to_what_it_is() -> None:
    assert fixed_settings(LOG_SETTINGS, {"log_info": True, "log_format": None}) is LOG_SETTINGS
    for wished in ({"log_info": False}, {"nothing": None}):
        with pytest.raises(Unimplemented, match="cannot be changed while the server runs"):
            fixed_settings(LOG_SETTINGS, wished)
