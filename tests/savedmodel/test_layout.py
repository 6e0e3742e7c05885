"""What a person's path means, and one clear line for each path that means nothing."""

from __future__ import annotations

import tarfile
from pathlib import Path

import pytest

from penstock.errors import UsageError
from penstock.savedmodel.layout import ModelFolder, find_models, is_keras_file, select_versions, versions_in


def make_tree(root: Path, *folders: str) -> Path:
    """Folders below `root`, each with a saved_model.pb."""
    for folder in folders:
        (root / folder).mkdir(parents=True, exist_ok=True)
        (root / folder / "saved_model.pb").touch()
    return root


def found(models: list[ModelFolder], root: Path) -> dict[str, dict[int, str]]:
    return {model.name: {version: str(path.relative_to(root)) for version, path in model.versions.items()} for model in models}


@pytest.mark.parametrize(
    ("folders", "path", "expected"),
    [
        (["half/00000123"], "half/00000123", {"half": {123: "half/00000123"}}),
        (["half"], "half", {"half": {1: "half"}}),
        (["half/2", "half/10", "half/0001"], "half", {"half": {1: "half/0001", 2: "half/2", 10: "half/10"}}),
        (["half/1", "half/.2", "half/v3"], "half", {"half": {1: "half/1"}}),
        (["m/export/Servo/1"], "m", {"Servo": {1: "m/export/Servo/1"}}),
        (["m/a/b/one/1", "m/two/1", "m/two/2"], "m", {"one": {1: "m/a/b/one/1"}, "two": {1: "m/two/1", 2: "m/two/2"}}),
        (["m/one/1", "m/code"], "m", {"one": {1: "m/one/1"}}),
        (["m/one/1", "m/.hidden/1"], "m", {"one": {1: "m/one/1"}}),
        (["m/one/99999999999999999999", "m/one/1"], "m/one", {"one": {1: "m/one/1"}}),
    ],
)
def test_layouts(tmp_path: Path, folders: list[str], path: str, expected: dict[str, dict[int, str]]) -> None:
    make_tree(tmp_path, *folders)
    assert found(find_models(tmp_path / path), tmp_path) == expected


def test_numeric_folder_without_a_saved_model_is_skipped(tmp_path: Path) -> None:
    make_tree(tmp_path, "half/1")
    (tmp_path / "half" / "2").mkdir()
    assert found(find_models(tmp_path / "half"), tmp_path) == {"half": {1: "half/1"}}


def test_versions_are_ascending_by_number(tmp_path: Path) -> None:
    make_tree(tmp_path, "half/10", "half/9")
    assert list(find_models(tmp_path / "half")[0].versions) == [9, 10]


def test_name_replaces_that_of_one_model_only(tmp_path: Path) -> None:
    make_tree(tmp_path, "one/1", "two/1")
    assert [model.name for model in find_models(tmp_path / "one", "mine")] == ["mine"]
    with pytest.raises(UsageError, match=r"holds 2 models \(one, two\)"):
        find_models(tmp_path, "mine")


def test_relative_paths_and_links_keep_the_name_that_was_given(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make_tree(tmp_path, "real/1")
    (tmp_path / "alias").symlink_to("real")
    monkeypatch.chdir(tmp_path / "real")
    assert find_models(Path("."))[0].name == "real"
    assert find_models(Path("../alias"))[0].name == "alias"
    assert [model.name for model in find_models(tmp_path)] == ["alias", "real"]


def test_links_that_lead_back_up_end(tmp_path: Path) -> None:
    make_tree(tmp_path, "a/b/half/1")
    (tmp_path / "a" / "b" / "up").symlink_to(tmp_path)
    assert [model.name for model in find_models(tmp_path)] == ["half"]


@pytest.mark.parametrize(
    ("files", "path", "message"),
    [
        ([], "nowhere", "nowhere: no such file or folder; expected a folder like"),
        (["m/readme.txt"], "m", r"m: no saved_model\.pb in it; expected a folder like"),
        (["m/readme.txt"], "m/readme.txt", "neither a folder nor an archive"),
        (["net.keras"], "net.keras", r"net\.keras: a Keras file, .*model\.export\('net'\)"),
        (["m/net.h5"], "m", r"net\.h5: a Keras file"),
        (["m/1/saved_model.pb"], "m/1/saved_model.pb", r"give the folder that holds it, .*m/1"),
        (["m/1/saved_model.pbtxt"], "m", r"saved_model\.pbtxt: a SavedModel in text form"),
        (["m/saved_model.pbtxt"], "m", r"saved_model\.pbtxt: a SavedModel in text form"),
        (["m/export/net/saved_model.pb"], "m", r"net/saved_model\.pb: not in a version folder; move it to .*/net/1/"),
        (["m/saved_model.pb", "m/1/saved_model.pb"], "m", r"m: holds saved_model\.pb itself and in .*m/1"),
        (["m/1/saved_model.pb", "m/001/saved_model.pb"], "m", "001 and 1 are the same version 1"),
        (["t/a/x/1/saved_model.pb", "t/b/x/1/saved_model.pb"], "t", "two models named 'x', .*a/x and .*b/x"),
        (["broken.tar.gz"], "broken.tar.gz", r"broken\.tar\.gz: cannot be unpacked"),
    ],
)
def test_mistakes_are_one_line(tmp_path: Path, files: list[str], path: str, message: str) -> None:
    for file in files:
        (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / file).write_bytes(b"not empty")
    with pytest.raises(UsageError, match=message) as caught:
        find_models(tmp_path / path, cache=tmp_path / "cache")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("archive", "folders", "expected"),
    [
        ("model.tar.gz", ["00000123", "124"], {"model": [123, 124]}),
        ("resnet.TGZ", ["1"], {"resnet": [1]}),
        ("model.tar", ["export/Servo/5"], {"Servo": [5]}),
        ("7.tar.gz", ["."], {"model": [1]}),
    ],
)
def test_archives_are_named_after_themselves_or_what_is_in_them(
    tmp_path: Path, archive: str, folders: list[str], expected: dict[str, list[int]]
) -> None:
    content = make_tree(tmp_path / "content", *folders)
    with tarfile.open(tmp_path / archive, "w" if archive.endswith(".tar") else "w:gz") as tar:
        tar.add(content, ".")
    models = find_models(tmp_path / archive, cache=tmp_path / "cache")
    assert {model.name: list(model.versions) for model in models} == expected


def test_archive_without_a_model_is_named(tmp_path: Path) -> None:
    tarfile.open(tmp_path / "empty.tar", "w").close()
    with pytest.raises(UsageError, match=r"empty\.tar, unpacked to .*cache.*: no saved_model\.pb in it"):
        find_models(tmp_path / "empty.tar", cache=tmp_path / "cache")


def test_archives_go_to_the_cache_folder_unless_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PENSTOCK_CACHE", str(tmp_path / "cache"))
    with tarfile.open(tmp_path / "model.tar", "w") as tar:
        tar.add(make_tree(tmp_path / "content", "1"), ".")
    assert find_models(tmp_path / "model.tar")[0].path.is_relative_to(tmp_path / "cache" / "unpacked")


def test_keras_files_are_known_by_their_suffix() -> None:
    assert all(is_keras_file(Path(name)) for name in ("m.keras", "m.h5", "M.HDF5"))
    assert not any(is_keras_file(Path(name)) for name in ("m", "saved_model.pb", "keras", "m.keras.txt"))


@pytest.mark.parametrize(
    ("policy", "expected"),
    [
        ("latest", [10]),
        ("latest:2", [3, 10]),
        ("latest:9", [1, 3, 10]),
        ("all", [1, 3, 10]),
        ("3", [3]),
        ("10, 1", [1, 10]),
        ("1,7", [1]),
        ("007", []),
    ],
)
def test_version_policies(policy: str, expected: list[int]) -> None:
    assert select_versions([10, 1, 3], policy) == expected
    assert select_versions([], policy) == []


@pytest.mark.parametrize("policy", ["", "newest", "latest:", "latest:0", "latest:-1", "all:2", "1,", "1-3", "٣", "1" * 5000])
def test_other_version_policies_are_mistakes(policy: str) -> None:
    with pytest.raises(UsageError, match='expected "latest", "latest:2", "all" or version numbers'):
        select_versions([1], policy)


def test_a_model_in_tensorflow_lites_format_is_a_version(tmp_path: Path) -> None:
    for version in ("1", "2"):
        (tmp_path / "m" / version).mkdir(parents=True)
    (tmp_path / "m" / "1" / "model.tflite").touch()
    assert versions_in(tmp_path / "m") == {1: tmp_path / "m" / "1"}
    (model,) = find_models(tmp_path / "m")
    assert model.versions == {1: tmp_path / "m" / "1"}
    assert versions_in(tmp_path / "m" / "1") == {1: tmp_path / "m" / "1"}
