"""A folder of versions as a source: what is there now, and what was there while that cannot be seen."""

from __future__ import annotations

import errno
import os
import shutil
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.errors import UsageError
from penstock.models.desired import Desired
from penstock.models.sources import FolderSource
from penstock.savedmodel.layout import select_versions
from tests.sources.stores import add_version


def versions(source: FolderSource) -> list[int]:
    (desired,) = source.poll().desired
    return list(desired.versions)


def test_the_newest_version_is_wanted_and_a_newer_one_as_soon_as_its_graph_is_there(tmp_path: Path) -> None:
    add_version(tmp_path, "1")
    source = FolderSource("half", tmp_path)
    assert versions(source) == [1]
    (tmp_path / "2" / "variables").mkdir(parents=True)
    assert versions(source) == [1]
    add_version(tmp_path, "2")
    assert versions(source) == [2]


def test_all_that_is_known_of_the_model_is_in_what_it_wants(tmp_path: Path) -> None:
    folder = add_version(tmp_path, "00000123")
    polled = FolderSource("half", tmp_path, "all", {"stable": 123}).poll()
    assert polled.desired == [Desired("half", {123: folder}, {"stable": 123}, tmp_path)]
    assert (polled.desired[0].is_pinned, polled.desired[0].on_demand, polled.desired[0].fingerprint) == (True, False, "")
    assert polled.problems == []


@pytest.mark.parametrize("policy", ["latest", "latest:2", "all", "1,3", "2"])
def test_policies_choose_as_the_option_does(tmp_path: Path, policy: str) -> None:
    for name in ("1", "2", "0003", "10"):
        add_version(tmp_path, name)
    assert versions(FolderSource("m", tmp_path, policy)) == select_versions([1, 2, 3, 10], policy)


@given(st.dictionaries(st.integers(0, 999), st.booleans(), max_size=5), st.sampled_from(["latest", "latest:3", "all", "5,7"]))
def test_whatever_comes_and_goes_the_answer_is_what_the_policy_says_of_what_is_there(
    tmp_path_factory: pytest.TempPathFactory, there: dict[int, bool], policy: str
) -> None:
    folder = tmp_path_factory.mktemp("model")
    source = FolderSource("m", folder, policy)
    for version in there:
        add_version(folder, str(version))
    assert versions(source) == select_versions(there, policy)
    for version in [version for version, stays in there.items() if not stays]:
        shutil.rmtree(folder / str(version))
    assert versions(source) == select_versions([version for version, stays in there.items() if stays], policy)


def test_a_wrong_policy_is_refused_at_once(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="newest"):
        FolderSource("m", tmp_path, "newest")


@pytest.mark.parametrize(("name", "version"), [("half", 1), ("00000123", 123)])
def test_a_version_folder_itself_is_its_number_or_version_one(tmp_path: Path, name: str, version: int) -> None:
    folder = add_version(tmp_path, name)
    (desired,) = FolderSource("half", folder).poll().desired
    assert desired.versions == {version: folder}


def test_other_files_and_folders_are_passed_over(tmp_path: Path) -> None:
    add_version(tmp_path, "1")
    for name in ("code", "v2", ".3", "9" * 30, "-4", "٥"):
        add_version(tmp_path, name)
    (tmp_path / "6").touch()
    (tmp_path / "7").symlink_to("7")
    (tmp_path / "8" / "saved_model.pb").mkdir(parents=True)
    assert versions(FolderSource("m", tmp_path, "all")) == [1]


def test_when_all_versions_vanish_none_is_wanted_and_that_is_told_once(tmp_path: Path) -> None:
    source = FolderSource("m", tmp_path, "all")
    folder = add_version(tmp_path)
    assert source.poll().problems == []
    shutil.rmtree(folder)
    polled = source.poll()
    assert polled.desired[0].versions == {}
    assert len(polled.problems) == 1
    assert "has no version now" in polled.problems[0]
    assert source.poll().problems == []


def test_a_policy_that_finds_nothing_says_what_there_is(tmp_path: Path) -> None:
    add_version(tmp_path, "1")
    add_version(tmp_path, "2")
    (problem,) = FolderSource("m", tmp_path, "7").poll().problems
    assert problem.endswith("has no version that 7 asks for; there are: 1, 2")


def test_while_the_folder_is_away_what_was_seen_is_still_wanted(tmp_path: Path) -> None:
    model, away = tmp_path / "m", tmp_path / "away"
    add_version(model)
    source = FolderSource("m", model)
    assert versions(source) == [1]
    model.rename(away)
    polled = source.poll()
    assert list(polled.desired[0].versions) == [1]
    assert polled.problems == [f"model m: {model}: No such file or directory"]
    assert source.poll().problems == []
    away.rename(model)
    assert source.poll().problems == []
    model.rename(away)
    assert len(source.poll().problems) == 1, "a problem that was gone is told again"


def test_a_folder_that_never_was_there_is_a_problem_without_versions(tmp_path: Path) -> None:
    polled = FolderSource("m", tmp_path / "none").poll()
    assert polled.desired[0].versions == {}
    assert "No such file" in polled.problems[0]


def test_a_file_in_the_place_of_the_folder_is_a_problem(tmp_path: Path) -> None:
    (tmp_path / "m").touch()
    assert "Not a directory" in FolderSource("m", tmp_path / "m").poll().problems[0]


def test_a_file_system_that_does_not_answer_for_a_version_unloads_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    add_version(tmp_path)
    source = FolderSource("m", tmp_path)
    assert versions(source) == [1]

    def stale(path: object) -> os.stat_result:
        raise OSError(errno.ESTALE, "Stale file handle", str(path))

    monkeypatch.setattr("penstock.savedmodel.layout.os.stat", stale)
    polled = source.poll()
    monkeypatch.undo()
    assert list(polled.desired[0].versions) == [1]
    assert polled.problems == [f"model m: {tmp_path}: Stale file handle"]


def test_two_folders_of_one_version_are_a_problem_and_change_nothing(tmp_path: Path) -> None:
    add_version(tmp_path, "1")
    source = FolderSource("m", tmp_path)
    assert versions(source) == [1]
    add_version(tmp_path, "001")
    polled = source.poll()
    assert polled.desired[0].versions == {1: tmp_path / "1"}
    assert "001 and 1 are the same version 1" in polled.problems[0]


def test_a_graph_beside_versions_is_a_problem(tmp_path: Path) -> None:
    add_version(tmp_path, "1")
    (tmp_path / "saved_model.pb").touch()
    assert "holds saved_model.pb itself and in" in FolderSource("m", tmp_path).poll().problems[0]


def test_another_folder_takes_over_when_it_can_be_listed(tmp_path: Path) -> None:
    old = add_version(tmp_path / "old")
    source = FolderSource("m", tmp_path / "old")
    source.poll()
    source.change(tmp_path / "new", "all", {"a": 1})
    polled = source.poll()
    assert polled.desired == [Desired("m", {1: old}, {"a": 1}, tmp_path / "new")]
    assert len(polled.problems) == 1
    new = add_version(tmp_path / "new", "2")
    assert source.poll().desired == [Desired("m", {2: new}, {"a": 1}, tmp_path / "new")]


def test_nothing_is_read_and_each_version_costs_one_look(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(20):
        add_version(tmp_path, str(number))
    source = FolderSource("m", tmp_path)
    looks: list[object] = []
    stat = os.stat

    def counted(path: Path) -> os.stat_result:
        looks.append(path)
        return stat(path)

    monkeypatch.setattr("penstock.savedmodel.layout.os.stat", counted)
    monkeypatch.setattr("builtins.open", None)
    polled = source.poll()
    monkeypatch.undo()
    assert list(polled.desired[0].versions) == [19]
    assert len(looks) == 20
