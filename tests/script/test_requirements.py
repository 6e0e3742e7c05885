"""Installing requirements: once, whole, and with pip's own words when it fails. All packages are wheels on this disk."""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from penstock.errors import FailedPrecondition
from penstock.script import requirements as module
from penstock.script.requirements import installed
from tests.servers import wait_until


def wheel(folder: Path, name: str, text: str = "") -> Path:
    """A wheel with one module, whose content is `text`."""
    folder.mkdir(parents=True, exist_ok=True)
    path, info = folder / f"{name}-1.0-py3-none-any.whl", f"{name}-1.0.dist-info"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(f"{name}.py", text)
        archive.writestr(f"{info}/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
        archive.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        archive.writestr(f"{info}/RECORD", f"{name}.py,,\n{info}/METADATA,,\n{info}/WHEEL,,\n{info}/RECORD,,\n")
    return path


def write(folder: Path, text: str) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "requirements.txt"
    path.write_text(text)
    return path


def test_packages_are_importable_from_the_folder(tmp_path: Path) -> None:
    wheel(tmp_path / "code" / "wheels", "penstock_test_one", "VALUE = 7")
    file = write(tmp_path / "code", "--no-index\n--find-links ./wheels\npenstock_test_one  # a comment\n")
    folder = installed(file, tmp_path / "cache")
    done = subprocess.run(
        [sys.executable, "-c", "import penstock_test_one; print(penstock_test_one.VALUE)"],
        env={**os.environ, "PYTHONPATH": str(folder)},
        capture_output=True,
        check=True,
    )
    assert done.stdout == b"7\n"


def test_paths_are_relative_to_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = wheel(tmp_path / "code", "penstock_test_one")
    write(tmp_path / "code", f"--no-index\n./{package.name}\n")
    monkeypatch.chdir(tmp_path)
    folder = installed(Path("code/requirements.txt"), Path("cache"))
    assert (folder / "penstock_test_one.py").is_file()


def test_the_same_file_is_installed_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = write(tmp_path / "a", "# nothing\n")
    folder = installed(first, tmp_path / "cache")
    monkeypatch.setattr(module, "_install", lambda *_: pytest.fail("installed again"))
    assert installed(first, tmp_path / "cache") == folder
    assert installed(write(tmp_path / "b", "# nothing\n"), tmp_path / "cache") == folder


def test_only_finished_folders_and_locks_stay_in_the_cache(tmp_path: Path) -> None:
    folder = installed(write(tmp_path / "a", "# nothing\n"), tmp_path / "cache")
    with pytest.raises(FailedPrecondition):
        installed(write(tmp_path / "b", "--no-index\npenstock_test_missing\n"), tmp_path / "cache")
    names = {path.name for path in (tmp_path / "cache").iterdir() if path.suffix != ".lock"}
    assert names == {folder.name}


def test_names_are_the_same_anywhere_and_paths_are_not(tmp_path: Path) -> None:
    def key(folder: str, text: str) -> str:
        return module._key(write(tmp_path / folder, text), sys.executable)

    plain = "numpy\nscipy[all] >= 1.0 ; python_version > '3'\n\n# comment\npandas==2.*,<3\n"
    assert key("a", plain) == key("b", plain)
    assert key("a", plain) != key("a", plain + "six")
    for line in ("./pkg", "pkg-1.0.whl", "-r other.txt", "--find-links wheels", "pkg @ file:pkg", "-e ."):
        assert key("a", line) != key("b", line), line


def test_what_a_path_leads_to_counts_too(tmp_path: Path) -> None:
    file = write(tmp_path / "code", "./pkg\n")
    before = module._key(file, sys.executable)
    wheel(tmp_path / "code", "penstock_test_one")
    assert module._key(file, sys.executable) != before


def test_another_interpreter_gets_a_folder_of_its_own(tmp_path: Path) -> None:
    file = write(tmp_path, "six\n")
    assert module._key(file, "/usr/bin/python3") != module._key(file, "/opt/python3")


def test_failures_have_the_last_lines_of_pip(tmp_path: Path) -> None:
    with pytest.raises(FailedPrecondition, match=r"requirements\.txt: pip cannot install it: (.|\n)*penstock_test_missing"):
        installed(write(tmp_path, "--no-index\npenstock_test_missing\n"), tmp_path / "cache")


def test_an_interpreter_that_is_not_there_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(FailedPrecondition, match=r"cannot be installed: .*no/python"):
        installed(write(tmp_path, "six\n"), tmp_path / "cache", python=str(tmp_path / "no" / "python"))


@pytest.mark.parametrize("content", [None, b"\xff\xfe\xfa"])
def test_a_file_that_cannot_be_read_is_an_error(tmp_path: Path, content: bytes | None) -> None:
    if content is not None:
        (tmp_path / "requirements.txt").write_bytes(content)
    with pytest.raises(FailedPrecondition, match="cannot be installed"):
        installed(tmp_path / "requirements.txt", tmp_path / "cache")


def is_alive(state: Path) -> bool:
    try:
        return state.read_text().rsplit(")", 1)[1].split()[0] not in "ZX"
    except OSError:
        return False


def test_pip_and_what_it_started_end_with_the_time_out(tmp_path: Path) -> None:
    slow, pids = tmp_path / "python", tmp_path / "pids"
    slow.write_text(f"#!/bin/sh\nsleep 1000 &\necho $! $$ >{pids}\nwait\n")
    slow.chmod(0o755)
    with pytest.raises(FailedPrecondition, match=r"requirements\.txt: not installed within 1 s"):
        installed(write(tmp_path, "six\n"), tmp_path / "cache", python=str(slow), timeout_s=1)
    states = [Path(f"/proc/{pid}/stat") for pid in pids.read_text().split()]
    wait_until(lambda: not any(is_alive(state) for state in states), "pip and what it started have ended")


def test_waiting_for_another_process_has_an_end(tmp_path: Path) -> None:
    file = write(tmp_path, "six\n")
    cache = tmp_path / "cache"
    cache.mkdir()
    lock = (cache / module._key(file, sys.executable)).with_suffix(".lock")
    with module._locked(lock, until=0.0), pytest.raises(FailedPrecondition, match=r"not installed within 0\.1 s"):
        installed(file, cache, timeout_s=0.1)


def test_two_processes_install_once(tmp_path: Path) -> None:
    wheel(tmp_path / "code", "penstock_test_one")
    file = write(tmp_path / "code", "--no-index\n--find-links .\npenstock_test_one\n")
    count = tmp_path / "count"
    counted = tmp_path / "python"
    counted.write_text(f'#!/bin/sh\necho once >>{count}\nexec {sys.executable} "$@"\n')
    counted.chmod(0o755)
    program = "import sys; from pathlib import Path; from penstock.script.requirements import installed\n"
    program += "print(installed(Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3]))"
    command = [sys.executable, "-c", program, str(file), str(tmp_path / "cache"), str(counted)]
    running = [subprocess.Popen(command, stdout=subprocess.PIPE) for _ in range(2)]
    folders = {process.communicate(timeout=60)[0] for process in running}
    assert len(folders) == 1
    assert [process.returncode for process in running] == [0, 0]
    assert count.read_text() == "once\n"
