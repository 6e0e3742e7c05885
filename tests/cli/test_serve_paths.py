"""What `penstock serve` takes: version folders, trees, archives and Keras files."""

from __future__ import annotations

import shutil
import tarfile
from pathlib import Path

from tests.servers import Server


def _sagemaker_tree(models: Path, root: Path) -> Path:
    shutil.copytree(models / "half_plus_two" / "1", root / "export" / "Servo" / "1700000000")
    shutil.copytree(models / "scalar" / "1", root / "export" / "other" / "1")
    (root / "code").mkdir()
    return root


def test_a_version_folder_is_a_model_of_that_version(models: Path) -> None:
    with Server(models / "two_versions" / "1", "--gateways", "1") as server:
        (status,) = server.get("/v1/models/two_versions").json()["model_version_status"]
        assert status["version"] == "1"
        assert server.predict("two_versions", {"instances": [1.0]}) == {"predictions": [2.5]}


def test_a_model_folder_is_served_in_its_newest_version_under_the_name_that_is_given(models: Path) -> None:
    with Server(models / "two_versions", "--name", "halves", "--gateways", "1") as server:
        assert [one["version"] for one in server.get("/v1/models/halves").json()["model_version_status"]] == ["2"]
        assert server.predict("halves", {"instances": [1.0]}) == {"predictions": [3.5]}


def test_a_sagemaker_tree_is_all_models_in_it(models: Path, tmp_path: Path) -> None:
    with Server(_sagemaker_tree(models, tmp_path), "--gateways", "1") as server:
        assert server.predict("Servo", {"instances": [1.0]}) == {"predictions": [2.5]}
        assert server.predict("other", {"inputs": 1.0}) == {"outputs": 2.0}


def test_an_archive_is_unpacked(models: Path, tmp_path: Path) -> None:
    archive = tmp_path / "model.tar.gz"
    with tarfile.open(archive, "w:gz") as tar:
        tar.add(_sagemaker_tree(models, tmp_path / "tree"), ".")
    with Server(archive, "--gateways", "1") as server:
        assert server.predict("Servo", {"instances": [1.0]}) == {"predictions": [2.5]}


def test_keras_files_are_exported_once(models: Path, tmp_path: Path) -> None:
    """With one line of progress, and none when they are in the cache already."""
    chosen = [f"--model={kind}={models / 'keras_files' / f'dense.{kind}'}" for kind in ("keras", "h5")]
    for time in ("first", "second"):
        with Server(*chosen, "--gateways", "1", env={"PENSTOCK_CACHE": str(tmp_path / "cache")}) as server:
            for name in ("keras", "h5"):
                assert server.predict(name, {"instances": [[1.0, 2.0], [0.0, 0.5]]}) == {"predictions": [[6.0], [1.0]]}
            progress = [line for line in server.err if "exporting" in line]
            assert len(progress) == (2 if time == "first" else 0)
            assert server.err == progress


def test_a_keras_file_has_its_own_name(models: Path) -> None:
    with Server(models / "keras_files" / "dense.keras", "--gateways", "1") as server:
        assert server.predict("dense", {"instances": [[1.0, 2.0]]}) == {"predictions": [[6.0]]}
