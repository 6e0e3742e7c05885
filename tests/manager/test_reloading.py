"""A client's list of models: what it must be, and when it is answered."""

from __future__ import annotations

from pathlib import Path

import pytest

from penstock.codec.protos import message_class
from penstock.errors import FailedPrecondition, InvalidArgument, Unknown
from penstock.models.desired import Desired
from penstock.models.reloading import await_models, decode_config
from tests.manager.test_manager import World

Config = message_class("tensorflow.serving.ModelServerConfig")


def config_of(*models: tuple[str, str]) -> bytes:
    config = Config()
    config.model_config_list.SetInParent()
    for name, path in models:
        config.model_config_list.config.add(name=name, base_path=path, model_platform="tensorflow")
    serialized: bytes = config.SerializeToString()
    return serialized


def test_a_config_has_its_models() -> None:
    assert [(one.name, one.base_path) for one in decode_config(config_of(("a", "/a"), ("b", "/b")))] == [
        ("a", Path("/a")),
        ("b", Path("/b")),
    ]
    assert decode_config(config_of()) == []


def test_wrong_configs_are_refused() -> None:
    with pytest.raises(InvalidArgument, match="Illegal to list model a multiple times"):
        decode_config(config_of(("a", "/a"), ("a", "/a")))
    with pytest.raises(InvalidArgument, match="absolute path or URI"):
        decode_config(config_of(("a", "a")))
    with pytest.raises(InvalidArgument, match="malformed"):
        decode_config(b"\xff")
    with pytest.raises(FailedPrecondition, match="only legal to transition"):
        decode_config(b"")


def wanted(world: World, *models: str) -> list[Desired]:
    desired = [Desired(model, {1: Path(f"/{model}/1")}, folder=Path(f"/{model}")) for model in models]
    world.want(*desired)
    return desired


def test_the_answer_comes_when_all_models_are_there() -> None:
    world = World()
    await_models(wanted(world, "a", "b"), world.manager, world.answers.append)
    assert world.answers == []
    world.let_load()
    assert world.answers == [None]


def test_no_new_models_are_there_at_once() -> None:
    world = World()
    await_models([], world.manager, world.answers.append)
    assert world.answers == [None]


def test_the_answer_names_what_cannot_be_loaded() -> None:
    world = World()
    await_models(wanted(world, "a"), world.manager, world.answers.append)
    world.let_load(FailedPrecondition("broken"))
    (error,) = world.answers
    assert isinstance(error, Unknown)
    assert error.message == ("1 servable(s) did not become available: {{name: a version: 1} due to error: broken, }")


def test_a_folder_without_versions_is_not_waited_for() -> None:
    world = World()
    none = Desired("none", {}, folder=Path("/none"))
    await_models([*wanted(world, "a"), none], world.manager, world.answers.append)
    world.let_load()
    (error,) = world.answers
    assert isinstance(error, Unknown)
    assert "{name: none version: 0} due to error: /none has no version to serve" in error.message
