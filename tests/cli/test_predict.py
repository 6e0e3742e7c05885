"""`penstock predict`: one answer without a server."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.servers import run_penstock


def _predict(path: Path, *arguments: str | Path, stdin: bytes = b"") -> str:
    done = run_penstock("predict", path, *arguments, stdin=stdin)
    assert done.returncode == 0, done.stderr
    assert [line for line in done.stderr.splitlines() if not line.startswith("penstock: wrote ")] == []
    return done.stdout


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ({"instances": [1.0, 2.0]}, {"predictions": [2.5, 3.0]}),
        ({"inputs": {"x": [[1.0]]}}, {"outputs": [[2.5]]}),
    ],
)
def test_json_is_answered_as_a_server_would(models: Path, body: Any, expected: Any) -> None:
    assert json.loads(_predict(models / "half_plus_two", "--json", json.dumps(body))) == expected


def test_json_may_come_from_a_file_or_standard_input(models: Path, tmp_path: Path) -> None:
    file = tmp_path / "body.json"
    file.write_text('{"instances":[1.0]}')
    assert json.loads(_predict(models / "half_plus_two", "--json", f"@{file}")) == {"predictions": [2.5]}
    assert json.loads(_predict(models / "half_plus_two", "--json", "@-", stdin=file.read_bytes())) == {"predictions": [2.5]}


def test_arrays_come_from_files_and_go_to_files(models: Path, tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", np.array([1, 2], np.float32))
    arguments = ("--input", f"x={tmp_path / 'x.npy'}")
    assert json.loads(_predict(models / "half_plus_two", *arguments)) == {"outputs": [2.5, 3.0]}
    assert _predict(models / "half_plus_two", *arguments, "--output", tmp_path / "y.npy") == ""
    assert np.load(tmp_path / "y.npy").tolist() == [2.5, 3.0]
    _predict(models / "half_plus_two", *arguments, "--output", tmp_path / "y.npz")
    assert np.load(tmp_path / "y.npz")["y"].tolist() == [2.5, 3.0]


def test_several_inputs_and_outputs(models: Path, tmp_path: Path) -> None:
    arrays = {"count": np.array([2], np.int64), "name": np.array(["a"]), "weights": np.array([[1, 2]], np.float64)}
    arguments: list[str] = []
    for name, array in arrays.items():
        np.save(tmp_path / f"{name}.npy", array)
        arguments += ["--input", f"{name}={tmp_path / name}.npy"]
    assert json.loads(_predict(models / "mixed", *arguments)) == {"outputs": {"label": ["a-2"], "total": [6.0]}}
    _predict(models / "mixed", *arguments, "--output", tmp_path / "out.npz")
    with np.load(tmp_path / "out.npz", allow_pickle=False) as written:
        assert written["total"].tolist() == [6.0]
        assert written["label"].tolist() in ([b"a-2"], ["a-2"])


def test_a_signature_can_be_chosen(models: Path) -> None:
    body = '{"inputs":["text"]}'
    assert json.loads(_predict(models / "strings", "--json", body, "--signature", "binary")) == {"outputs": [{"b64": "dGV4dA=="}]}


def test_a_stateful_signature_without_inputs_can_be_run(models: Path) -> None:
    done = run_penstock("predict", models / "counter", "--json", '{"inputs": 3}')
    assert json.loads(done.stdout) == {"outputs": 3}


@pytest.mark.parametrize(
    ("arguments", "fragment"),
    [
        ((), "give either --json BODY or --input NAME=FILE.npy"),
        (("--json", "{}", "--input", "x=a.npy"), "give either --json BODY or --input NAME=FILE.npy"),
        (("--json", "{"), "JSON Parse error"),
        (("--json", "@/nope.json"), "/nope.json"),
        (("--json", '{"instances":["a"]}'), "is not of expected type: float"),
        (("--json", '{"instances":[1]}', "--signature", "nope"), "nope"),
        (("--json", '{"instances":[1]}', "--output", "/nope/y.npy"), "/nope/y.npy"),
        (("--json", '{"instances":[1]}', "--output", "y.txt"), "y.txt"),
        (("--input", "x"), "expected NAME=FILE.npy"),
        (("--input", "x=/nope.npy"), "/nope.npy"),
        (("--input", "z={x}"), "z"),
    ],
)
def test_what_is_wrong_is_one_line(models: Path, tmp_path: Path, arguments: tuple[str, ...], fragment: str) -> None:
    np.save(tmp_path / "x.npy", np.array([1], np.float32))
    done = run_penstock(
        "predict", models / "half_plus_two", *[one.format(x=tmp_path / "x.npy") if "{x}" in one else one for one in arguments]
    )
    assert done.returncode > 0
    assert done.stdout == ""
    (line,) = done.stderr.splitlines()
    assert line.startswith("penstock: error: ")
    assert fragment in line
