"""A model store, and several sources as one."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from penstock.errors import UsageError
from penstock.models.desired import Desired
from penstock.models.sources import CombinedSource, FolderSource, Polled, StoreSource
from tests.sources.stores import add_version, write


def names(polled: Polled) -> list[str]:
    return [one.model for one in polled.desired]


def archive_of(polled: Polled) -> Desired:
    (desired,) = polled.desired
    return desired


def test_folders_and_archives_are_models_that_are_loaded_when_asked_for(tmp_path: Path) -> None:
    folder = add_version(tmp_path / "half", "3")
    add_version(tmp_path / "plain" / "..", "plain")
    for name in ("one.tar.gz", "two.v2.TGZ", "three.tar"):
        (tmp_path / name).write_bytes(name.encode())
    for name in ("notes.txt", ".hidden.tar.gz", ".tar"):
        (tmp_path / name).touch()
    (tmp_path / "code").mkdir()
    add_version(tmp_path / ".cache")
    polled = StoreSource(tmp_path).poll()
    assert polled.problems == []
    found = {one.model: one for one in polled.desired}
    assert set(found) == {"half", "plain", "one", "two.v2", "three"}
    assert found["half"] == Desired("half", {3: folder}, folder=tmp_path / "half", is_pinned=False, on_demand=True)
    assert found["plain"].versions == {1: tmp_path / "plain"}
    assert found["one"].archive == tmp_path / "one.tar.gz"
    assert found["one"].versions == {}
    assert all(one.on_demand and not one.is_pinned for one in polled.desired)
    assert found["one"].fingerprint != found["three"].fingerprint != ""


def test_models_come_and_go_with_their_files(tmp_path: Path) -> None:
    add_version(tmp_path / "a")
    write(tmp_path / "b.tar", "content", 1)
    source = StoreSource(tmp_path)
    assert names(source.poll()) == ["a", "b"]
    shutil.rmtree(tmp_path / "a")
    (tmp_path / "b.tar").unlink()
    add_version(tmp_path / "c")
    assert names(source.poll()) == ["c"]


@pytest.mark.parametrize(("content", "second"), [("other", 1), ("content", 2)])
def test_a_replaced_archive_has_another_fingerprint_once_it_has_stopped_changing(
    tmp_path: Path, content: str, second: int
) -> None:
    write(tmp_path / "a.tar", "content", 1)
    source = StoreSource(tmp_path)
    first = archive_of(source.poll())
    assert archive_of(source.poll()) == first
    write(tmp_path / "a.tar", content, second)
    assert archive_of(source.poll()) == first
    second_one = archive_of(source.poll())
    assert second_one.fingerprint != first.fingerprint
    assert second_one.archive == first.archive


def test_an_archive_that_is_being_copied_shows_up_when_it_is_complete(tmp_path: Path) -> None:
    source = StoreSource(tmp_path)
    assert source.poll() == Polled([], [])
    for size in range(1, 5):
        write(tmp_path / "a.tar.gz", b"x" * size, size)
        assert source.poll().desired == []
    assert names(source.poll()) == ["a"]


def test_versions_of_folders_are_chosen_by_the_policy(tmp_path: Path) -> None:
    for version in ("1", "2"):
        add_version(tmp_path / "a", version)
    assert list(StoreSource(tmp_path).poll().desired[0].versions) == [2]
    assert list(StoreSource(tmp_path, "all").poll().desired[0].versions) == [1, 2]
    assert StoreSource(tmp_path, "9").poll().desired == []
    with pytest.raises(UsageError, match="newest"):
        StoreSource(tmp_path, "newest")


def test_of_two_with_one_name_the_folder_comes_first_then_the_alphabet(tmp_path: Path) -> None:
    add_version(tmp_path / "a")
    for name in ("a.tar", "b.tar", "b.tgz"):
        (tmp_path / name).touch()
    polled = StoreSource(tmp_path).poll()
    assert [(one.model, one.archive) for one in polled.desired] == [("a", None), ("b", tmp_path / "b.tar")]
    assert polled.problems == [
        f"model {name}: {tmp_path / file} is passed over, another of that name comes first"
        for name, file in (("a", "a.tar"), ("b", "b.tgz"))
    ]


def test_one_broken_folder_keeps_its_model_as_it_was_and_the_others_too(tmp_path: Path) -> None:
    add_version(tmp_path / "a", "1")
    add_version(tmp_path / "b", "1")
    source = StoreSource(tmp_path)
    before = source.poll().desired
    add_version(tmp_path / "a", "01")
    polled = source.poll()
    assert polled.desired == before
    assert len(polled.problems) == 1
    assert "01 and 1 are the same version" in polled.problems[0]


def test_a_store_that_is_away_keeps_its_models(tmp_path: Path) -> None:
    store = tmp_path / "store"
    add_version(store / "a")
    source = StoreSource(store)
    assert names(source.poll()) == ["a"]
    store.rename(tmp_path / "away")
    polled = source.poll()
    assert names(polled) == ["a"]
    assert polled.problems == [f"model store {store}: No such file or directory"]
    assert source.poll().problems == []


def test_a_link_to_nowhere_in_the_store_is_a_problem_of_its_own(tmp_path: Path) -> None:
    add_version(tmp_path / "a")
    (tmp_path / "b.tar").symlink_to("nowhere")
    (tmp_path / "c").symlink_to("nowhere")
    (tmp_path / "d").symlink_to("d")
    polled = StoreSource(tmp_path).poll()
    assert names(polled) == ["a"]
    assert polled.problems == [f"model b: {tmp_path / 'b.tar'}: No such file or directory"]


def test_several_sources_are_one_and_the_first_wins_a_name(tmp_path: Path) -> None:
    add_version(tmp_path / "store" / "a")
    add_version(tmp_path / "store" / "b")
    add_version(tmp_path / "mine")
    source = CombinedSource([FolderSource("b", tmp_path / "mine"), StoreSource(tmp_path / "store")])
    polled = source.poll()
    assert {one.model: one.folder for one in polled.desired} == {"b": tmp_path / "mine", "a": tmp_path / "store" / "a"}
    assert polled.problems == [f"model b is there twice: {tmp_path / 'mine'} is served, {tmp_path / 'store' / 'b'} is not"]
    assert source.poll().problems == []


def test_problems_of_each_source_are_passed_on(tmp_path: Path) -> None:
    source = CombinedSource([FolderSource("a", tmp_path / "a"), FolderSource("b", tmp_path / "b")])
    assert len(source.poll().problems) == 2
    assert source.poll().problems == []
