"""`penstock inspect`: what is in a model, for people and for programs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.model_exports import DTYPES
from tests.servers import run_penstock


def _inspect(path: Path, *arguments: str) -> str:
    done = run_penstock("inspect", path, *arguments)
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


def _described(path: Path) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(_inspect(path, "--json"))
    return found


def test_people_get_a_table(models: Path) -> None:
    text = _inspect(models / "mixed")
    for word in ("mixed", "version 1", "serving_default", "count", "int32", "weights", "[?, 2]", "label", "string"):
        assert word in text
    assert "\x1b" not in text, "no colours in a pipe"


def test_programs_get_json(models: Path) -> None:
    (model,) = _described(models / "mixed")
    assert model["model"] == "mixed"
    (version,) = model["versions"]
    assert version["version"] == 1
    assert version["tags"] == ["serve"]
    assert version["is_stateful"] is False
    assert version["missing_ops"] == []
    assert version["bytes"]["graph"] > 0
    signature = version["signatures"]["serving_default"]
    assert [(one["name"], one["dtype"], one["shape"]) for one in signature["inputs"]] == [
        ("count", "int32", [None]),
        ("name", "string", [None]),
        ("weights", "float", [None, 2]),
    ]


def test_every_element_type_has_its_name(models: Path) -> None:
    (model,) = _described(models / "dtypes")
    signatures = model["versions"][0]["signatures"]
    assert {name: one["inputs"][0]["dtype"] for name, one in signatures.items()} == {name: name for name in DTYPES}
    assert all(one["inputs"][0]["shape"] is None for one in signatures.values())


def test_a_stateful_model_is_named_with_the_reason(models: Path) -> None:
    (model,) = _described(models / "counter")
    assert model["versions"][0]["is_stateful"] is True
    assert model["versions"][0]["stateful_reason"] == "AssignAddVariableOp in signature 'serving_default'"
    assert "stateful" in _inspect(models / "counter")


def test_all_versions_are_shown_newest_first(models: Path) -> None:
    (model,) = _described(models / "two_versions")
    assert [one["version"] for one in model["versions"]] == [2, 1]


def test_assets_count(models: Path) -> None:
    (model,) = _described(models / "vocabulary")
    assert model["versions"][0]["bytes"]["assets"] > 0


def test_missing_operations_are_named_with_what_to_do(models: Path) -> None:
    (model,) = _described(models / "unknown_op")
    assert model["versions"][0]["missing_ops"] == ["Frobni"]
    text = _inspect(models / "unknown_op")
    assert "Frobni" in text
    assert "--op-library" in text


def test_a_folder_of_models_is_shown_whole(models: Path, tmp_path: Path) -> None:
    for name in ("half_plus_two", "scalar"):
        (tmp_path / name).symlink_to(models / name)
    assert sorted(model["model"] for model in _described(tmp_path)) == ["half_plus_two", "scalar"]


@pytest.mark.parametrize(
    ("model", "fragment"),
    [("truncated", "saved_model.pb"), ("without_variables", "variables.data-00000-of-00001"), ("nope", "no such")],
)
def test_what_cannot_be_read_is_one_line(models: Path, model: str, fragment: str) -> None:
    done = run_penstock("inspect", models / model)
    assert done.returncode > 0
    (line,) = done.stderr.splitlines()
    assert line.startswith("penstock: error: ")
    assert fragment in line


def test_tags_that_are_not_there_are_refused_with_those_that_are(models: Path) -> None:
    done = run_penstock("inspect", models / "half_plus_two", "--tags", "gpu")
    assert done.returncode > 0
    assert "gpu" in done.stderr
    assert "serve" in done.stderr
