"""What the server is asked: the user's bodies as they are, the user's samples as rows, or what the signature says."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from penstock.bench.target import TFS, Target
from penstock.errors import UsageError
from penstock.tensors import Signature, TensorSpec, dtype_of_name
from penstock.tune.workload import Workload

SPEC = TensorSpec("x", dtype_of_name("float"), (None, 2))
SIGNATURES = {"serving_default": Signature("serving_default", {"x": SPEC}, {"y": SPEC})}
TARGET = Target("http://127.0.0.1:1", "/v1/models/m:predict", TFS, "m", (SPEC,))


def rows_of(workload: Workload, rows: int = 0) -> list[list[float]]:
    (body,) = workload.bodies(TARGET, SIGNATURES, rows)
    found: list[list[float]] = json.loads(body.content)["instances"]
    return found


def test_made_up_rows_are_as_many_as_are_asked_for() -> None:
    assert len(rows_of(Workload(model="m", rows=3))) == 3
    assert len(rows_of(Workload(model="m", rows=3), rows=8)) == 8


def test_samples_are_repeated_as_rows(tmp_path: Path) -> None:
    samples = np.array([[1.0, 2.0], [3.0, 4.0]], np.float32)
    np.save(tmp_path / "samples.npy", samples)
    workload = Workload(model="m", samples=str(tmp_path / "samples.npy"))
    assert rows_of(workload) == [[1.0, 2.0]]
    assert rows_of(workload, rows=3) == [[1.0, 2.0], [3.0, 4.0], [1.0, 2.0]]


def test_a_body_is_what_it_is(tmp_path: Path) -> None:
    (tmp_path / "body.json").write_text("anything")
    workload = Workload(model="m", body=str(tmp_path / "body.json"))
    (body,) = workload.bodies(TARGET, SIGNATURES)
    assert body.content == b"anything"
    assert workload.bodies(TARGET, SIGNATURES, rows=8) == []
    assert workload.describe(TARGET, [body]) == "/v1/models/m:predict, body.json"


def test_a_format_that_the_api_does_not_take_is_refused() -> None:
    with pytest.raises(UsageError, match="--format npy"):
        Workload(model="m", format="npy").bodies(TARGET, SIGNATURES)
