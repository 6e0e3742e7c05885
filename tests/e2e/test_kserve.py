"""KServe's Python client against the server, over HTTP and gRPC.

KServe wants versions of packages that the tests' own environment does not have, so the client runs in another interpreter, which
PENSTOCK_TEST_KSERVE_PYTHON names: `python -m venv /tmp/kserve && /tmp/kserve/bin/pip install kserve`.
"""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest

from penstock.wire import http2
from tests.servers import Server

pytestmark = [
    pytest.mark.xdist_group("shared"),
    pytest.mark.skipif(not http2.is_there(), reason="there is no libnghttp2 here"),
]

_VARIABLE = "PENSTOCK_TEST_KSERVE_PYTHON"
_CLIENT = Path(__file__).with_name("kserve_client.py")
_ANSWER = ["mine", "half_plus_two", "y", "FP32", [2.5, 3.0, 4.5]]
_TEXTS = [["A", "é"]]


@pytest.fixture(scope="module")
def seen(server: Server) -> Any:
    """What the client got: `seen["rest"]["ready"]`."""
    python = os.environ.get(_VARIABLE)
    if not python:
        pytest.skip(f"{_VARIABLE} names no interpreter with kserve")
    done = subprocess.run([python, str(_CLIENT), server.url], capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.parametrize("protocol", ["rest", "grpc"])
def test_the_server_and_a_model_are_ready(seen: Any, protocol: str) -> None:
    assert [seen[protocol][question] for question in ("live", "ready", "model ready")] == [True, True, True]


def test_a_model_that_is_not_there_is_not_ready(seen: Any) -> None:
    assert seen["rest"]["other ready"] is False


@pytest.mark.parametrize(
    ("protocol", "way"), [("rest", "json"), ("rest", "binary"), ("rest", "binary output"), ("grpc", "typed"), ("grpc", "raw")]
)
def test_tensors_are_answered_in_every_form(seen: Any, protocol: str, way: str) -> None:
    assert seen[protocol][way] == _ANSWER


@pytest.mark.parametrize(("protocol", "way"), [("rest", "json"), ("rest", "binary"), ("grpc", "typed"), ("grpc", "raw")])
def test_text_is_answered_in_every_form(seen: Any, protocol: str, way: str) -> None:
    assert seen[protocol][f"{way} strings"] == _TEXTS


def test_an_unknown_model_is_the_clients_error(seen: Any) -> None:
    status, text = seen["rest"]["error"]
    assert status == 404
    assert text.startswith("Request for unknown model 'nobody'")
    assert seen["grpc"]["error"] == "NOT_FOUND"


def test_the_clients_first_protocol_is_tensorflow_servings_rest(seen: Any) -> None:
    assert seen["rest"]["v1"] == {"predictions": [2.5, 3.0, 4.5]}
