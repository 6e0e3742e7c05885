"""Where a script is looked for, and what counts as one."""

from __future__ import annotations

from pathlib import Path

import pytest

from penstock.errors import UsageError
from penstock.script.folder import ScriptFolder, find_script, require_script


def code(folder: Path, *names: str) -> Path:
    """A folder with these files; names that end with / are folders."""
    folder.mkdir(parents=True)
    for name in names:
        (folder / name).mkdir() if name.endswith("/") else (folder / name).touch()
    return folder


def test_nothing_is_found_where_nothing_is(tmp_path: Path) -> None:
    empty = code(tmp_path / "empty", "other.py")
    assert find_script([], None) is None
    assert find_script([tmp_path / "missing", empty], tmp_path / "missing") is None


def test_what_a_folder_has_is_told(tmp_path: Path) -> None:
    folder = code(tmp_path / "code", "inference.py", "requirements.txt")
    expected = ScriptFolder(folder, folder / "inference.py", None, folder / "requirements.txt")
    assert find_script([folder], None) == expected


def test_the_first_script_wins(tmp_path: Path) -> None:
    first, second = code(tmp_path / "1" / "code", "inference.py"), code(tmp_path / "code", "inference.py")
    universal = code(tmp_path / "all", "inference.py")
    for candidates, expected in (([first, second], first), ([second, first], second), ([], universal)):
        found = find_script(candidates, universal)
        assert found is not None
        assert found.path == expected


def test_a_script_for_all_models_beats_a_folder_without_script(tmp_path: Path) -> None:
    own, universal = code(tmp_path / "code", "lib/"), code(tmp_path / "all", "inference.py")
    found = find_script([own], universal)
    assert found is not None
    assert found.path == universal


@pytest.mark.parametrize("name", ["lib/", "requirements.txt"])
def test_a_folder_may_have_no_script(tmp_path: Path, name: str) -> None:
    found = find_script([code(tmp_path / "code", name)], None)
    assert found is not None
    assert found.script is None
    assert (found.lib is None) is (name != "lib/")


def test_requirements_are_ignored_with_a_warning_where_lib_is(tmp_path: Path, logged: pytest.LogCaptureFixture) -> None:
    found = find_script([code(tmp_path / "code", "inference.py", "lib/", "requirements.txt")], None)
    assert found is not None
    assert found.requirements is None
    assert found.lib == tmp_path / "code" / "lib"
    assert "requirements.txt is not installed" in logged.text


def test_names_of_the_wrong_kind_do_not_count(tmp_path: Path) -> None:
    assert find_script([code(tmp_path / "code", "inference.py/", "lib", "requirements.txt/")], None) is None


def test_a_universal_script_must_be_one(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text("")
    (tmp_path / "code").mkdir()
    for path, said in (
        ("nowhere", "no such file or folder"),
        ("mine.py", "expected a file of the name inference.py"),
        ("code", "there is no inference.py in it"),
    ):
        with pytest.raises(UsageError, match=f"--script .*{path}: {said}"):
            require_script(tmp_path / path)
    (tmp_path / "code" / "inference.py").write_text("")
    require_script(tmp_path / "code")
    require_script(tmp_path / "code" / "inference.py")
