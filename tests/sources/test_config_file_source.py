"""The config file as a source: what changes in it is taken, what is wrong with it changes nothing."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from penstock.errors import UsageError
from penstock.models.config_file import ConfiguredModel
from penstock.models.desired import Desired
from penstock.models.fixed_source import FixedSource
from penstock.models.sources import CombinedSource, ConfigFileSource, FolderSource, StoreSource
from tests.sources.stores import add_version, write


def config(root: Path, *models: str, extra: str = "") -> str:
    entries = [f"config {{ name: '{name}' base_path: '{root / name}' model_platform: 'tensorflow' {extra} }}" for name in models]
    return "model_config_list {\n" + "\n".join(entries) + "\n}\n"


def wanted(source: ConfigFileSource) -> dict[str, list[int]]:
    return {one.model: list(one.versions) for one in source.poll().desired}


def make_models(root: Path) -> None:
    for model, version in (("a", "1"), ("a", "2"), ("b", "5")):
        add_version(root / model, version)


def test_each_model_of_the_file_is_wanted_and_polled(tmp_path: Path) -> None:
    make_models(tmp_path)
    file = write(tmp_path / "models.config", config(tmp_path, "a", "b", extra="version_labels { key: 'x' value: 5 }"), 1)
    source = ConfigFileSource(file)
    assert wanted(source) == {"a": [2], "b": [5]}
    assert source.poll().desired[1].labels == {"x": 5}
    add_version(tmp_path / "b", "6")
    assert wanted(source) == {"a": [2], "b": [6]}


def test_a_changed_file_is_taken_and_a_model_that_it_lacks_is_not_wanted_any_more(tmp_path: Path) -> None:
    make_models(tmp_path)
    file = write(tmp_path / "models.config", config(tmp_path, "a"), 1)
    source = ConfigFileSource(file)
    assert wanted(source) == {"a": [2]}
    write(file, config(tmp_path, "b", "a", extra="model_version_policy { all {} }"), 2)
    assert wanted(source) == {"b": [5], "a": [1, 2]}
    write(file, "model_config_list {}", 3)
    assert wanted(source) == {}


def test_a_file_that_was_replaced_in_the_same_instant_is_another_file(tmp_path: Path) -> None:
    make_models(tmp_path)
    file = write(tmp_path / "models.config", config(tmp_path, "a"), 1)
    source = ConfigFileSource(file)
    os.replace(write(tmp_path / "new", config(tmp_path, "b"), 1), file)
    assert wanted(source) == {"b": [5]}


def test_without_polling_the_file_is_read_once_and_its_models_are_still_watched(tmp_path: Path) -> None:
    make_models(tmp_path)
    file = write(tmp_path / "models.config", config(tmp_path, "a"), 1)
    source = ConfigFileSource(file, is_polled=False)
    write(file, config(tmp_path, "b"), 2)
    add_version(tmp_path / "a", "3")
    assert wanted(source) == {"a": [3]}


@pytest.mark.parametrize("content", [b"model_config_list {", b"\xff", b"", b"# empty", b"custom_model_config {}"])
def test_a_broken_file_keeps_the_last_good_one_and_is_told_once(tmp_path: Path, content: bytes) -> None:
    make_models(tmp_path)
    file = write(tmp_path / "models.config", config(tmp_path, "a"), 1)
    source = ConfigFileSource(file)
    assert source.poll().problems == []
    write(file, content, 2)
    polled = source.poll()
    assert [one.model for one in polled.desired] == ["a"]
    assert len(polled.problems) == 1
    assert polled.problems[0].startswith(f"{file}: ")
    assert source.poll().problems == []
    add_version(tmp_path / "a", "3")
    assert wanted(source) == {"a": [3]}, "its folders are watched all the same"
    write(file, config(tmp_path, "b"), 3)
    assert wanted(source) == {"b": [5]}


def test_another_mistake_in_the_file_is_another_problem(tmp_path: Path) -> None:
    make_models(tmp_path)
    file = write(tmp_path / "models.config", config(tmp_path, "a"), 1)
    source = ConfigFileSource(file)
    write(file, "oops", 2)
    (problem,) = source.poll().problems
    assert problem.startswith(f"{file}: Error parsing text-format tensorflow.serving.ModelServerConfig: 1:1: ")
    write(file, config(tmp_path, "a", "a"), 3)
    assert source.poll().problems == [f"{file}: Illegal to list model a multiple times in config list"]


def test_a_file_that_goes_away_and_comes_back_changes_nothing(tmp_path: Path) -> None:
    make_models(tmp_path)
    file = write(tmp_path / "models.config", config(tmp_path, "a"), 1)
    source = ConfigFileSource(file)
    file.rename(tmp_path / "away")
    polled = source.poll()
    assert [one.model for one in polled.desired] == ["a"]
    assert polled.problems == [f"{file}: No such file or directory"]
    (tmp_path / "away").rename(file)
    assert source.poll().problems == []
    assert wanted(source) == {"a": [2]}


@pytest.mark.parametrize("content", [None, b"nonsense", b"\xff\xfe"])
def test_at_the_start_a_wrong_file_is_an_error(tmp_path: Path, content: bytes | None) -> None:
    file = tmp_path / "models.config"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(UsageError, match=r"models\.config: "):
        ConfigFileSource(file)


def test_models_may_be_added_to_a_file_that_had_none(tmp_path: Path) -> None:
    make_models(tmp_path)
    file = write(tmp_path / "models.config", "", 1)
    source = ConfigFileSource(file)
    assert wanted(source) == {}
    write(file, config(tmp_path, "a"), 2)
    assert wanted(source) == {"a": [2]}


def test_one_missing_folder_leaves_the_other_models_alone(tmp_path: Path) -> None:
    make_models(tmp_path)
    source = ConfigFileSource(write(tmp_path / "models.config", config(tmp_path, "gone", "a"), 1))
    polled = source.poll()
    assert {one.model: list(one.versions) for one in polled.desired} == {"gone": [], "a": [2]}
    assert len(polled.problems) == 1
    assert "model gone: " in polled.problems[0]


def test_a_new_policy_for_a_folder_that_is_away_chooses_from_what_was_seen(tmp_path: Path) -> None:
    make_models(tmp_path)
    file = write(tmp_path / "models.config", config(tmp_path, "a"), 1)
    source = ConfigFileSource(file)
    assert wanted(source) == {"a": [2]}
    (tmp_path / "a").rename(tmp_path / "away")
    write(file, config(tmp_path, "a", extra="model_version_policy { specific { versions: 1 } }"), 2)
    assert wanted(source) == {"a": [1]}


def test_request_logging_is_named_once_as_without_effect(tmp_path: Path) -> None:
    make_models(tmp_path)
    source = ConfigFileSource(write(tmp_path / "models.config", config(tmp_path, "a", extra="logging_config {}"), 1))
    assert source.poll().problems == ["model a: logging_config has no effect"]
    assert source.poll().problems == []


def test_a_clients_models_take_the_place_of_those_of_the_file_until_it_changes(tmp_path: Path) -> None:
    make_models(tmp_path)
    file = write(tmp_path / "models.config", config(tmp_path, "a"), 1)
    source = CombinedSource([FixedSource([Desired("given", {1: tmp_path})]), ConfigFileSource(file), StoreSource(tmp_path)])
    assert {one.model for one in source.poll().desired if not one.on_demand} == {"given", "a"}
    source.reload([ConfiguredModel("b", tmp_path / "b", "latest:1", {})])
    assert {one.model for one in source.poll().desired if not one.on_demand} == {"b"}
    assert [one.model for one in source.poll().desired if one.on_demand] == ["a"]
    write(file, config(tmp_path, "a"), 2)
    assert {one.model for one in source.poll().desired if not one.on_demand} == {"a"}


def test_a_clients_models_take_the_place_of_those_that_were_given(tmp_path: Path) -> None:
    make_models(tmp_path)
    source = CombinedSource([FolderSource("a", tmp_path / "a")])
    source.reload([ConfiguredModel("b", tmp_path / "b", "latest:1", {})])
    assert [(one.model, list(one.versions)) for one in source.poll().desired] == [("b", [5])]
    source.reload([])
    assert source.poll().desired == []
