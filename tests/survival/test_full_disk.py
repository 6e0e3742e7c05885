"""A disk that is full while a model's archive is unpacked: that load fails, and leaves nothing."""

from __future__ import annotations

import os
import random
import subprocess
import tarfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest

from tests.servers import error_of
from tests.survival.bystander import Bystander
from tests.survival.multi_model import MultiModelServer

pytestmark = pytest.mark.xdist_group("survival_loads")

_ROOM_BYTES = 256 << 10


@pytest.fixture
def archive(endpoint: MultiModelServer, tmp_path: Path) -> Path:
    """A model with a file beside it for which there is no room."""
    large = tmp_path / "large"
    large.write_bytes(random.Random(0).randbytes(4 * _ROOM_BYTES))
    target = tmp_path / "model.tar.gz"
    with tarfile.open(target, "w:gz") as tar:
        tar.add(endpoint.exported / "half_plus_two" / "1", "1")
        tar.add(large, "assets/large")
    return target


@contextmanager
def _small_disk(endpoint: MultiModelServer) -> Iterator[None]:
    folder = endpoint.cache / "unpacked"
    folder.mkdir(exist_ok=True)
    options = f"size={_ROOM_BYTES}"
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)], capture_output=True, text=True)
    if mounted.returncode:
        pytest.skip(f"no file system can be mounted here: {mounted.stderr.strip()}")
    try:
        yield
        assert not os.listdir(folder), "something is left of an archive that was not unpacked"
    finally:
        subprocess.run(["umount", str(folder)], check=True)


@contextmanager
def _small_files(endpoint: MultiModelServer) -> Iterator[None]:
    """A limit of what a process may write to a file, which children have from the zygote."""
    zygote = endpoint.one("zygote")
    usual = zygote.rlimit(psutil.RLIMIT_FSIZE)
    zygote.rlimit(psutil.RLIMIT_FSIZE, (_ROOM_BYTES, usual[1]))
    try:
        yield
    finally:
        zygote.rlimit(psutil.RLIMIT_FSIZE, usual)


def test_a_full_disk(endpoint: MultiModelServer, neighbour: Bystander, archive: Path) -> None:
    """When there is room again, the same archive is loaded."""
    with _small_disk(endpoint):
        response = endpoint.load("unpacked", archive)
        assert response.status_code >= 400
        assert "No space left on device" in error_of(response)
    _assert_loads(endpoint, archive)


def test_a_file_that_may_not_become_so_large(endpoint: MultiModelServer, neighbour: Bystander, archive: Path) -> None:
    """What a full disk is like where no file system can be mounted."""
    folder = endpoint.cache / "unpacked"
    with _small_files(endpoint):
        before = sorted(folder.glob("*")) if folder.is_dir() else []
        response = endpoint.load("unpacked", archive)
        assert response.status_code >= 400
        assert "File too large" in error_of(response)
        assert sorted(folder.glob("*")) == before
    _assert_loads(endpoint, archive)


def _assert_loads(endpoint: MultiModelServer, archive: Path) -> None:
    loaded = endpoint.load("unpacked", archive)
    assert loaded.status_code == 200, loaded.text
    assert endpoint.invoke("unpacked", {"instances": [1.0]}).json() == {"predictions": [2.5]}
    assert endpoint.unload("unpacked").status_code == 200
