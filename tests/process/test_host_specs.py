"""What hosts are told, instance by instance."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from penstock.config import ServeOptions
from penstock.models.engine_choice import Choice
from penstock.models.version import Version
from penstock.process.host_specs import HostSpecs, code_folders, grpc_place, rest_url
from penstock.sagemaker_settings import SageMakerSettings

_FOLDER = Path("/opt/ml/model/export/Servo/3")
_VERSION = Version("m", 3, _FOLDER, Path("/opt/ml/model"), choice=Choice("tensorflow", _FOLDER))


def _specs(options: ServeOptions) -> HostSpecs:
    return HostSpecs(options, b"", 8080, 1 << 30)


def test_gpus_are_taken_in_turn() -> None:
    specs = _specs(ServeOptions(instances=3, gpus="0, 1", gpu_memory_fraction=0.4))
    told = [specs.spec(number, _VERSION, number, None) for number in range(3)]
    assert [spec.gpu for spec in told] == ["0", "1", "0"]
    assert {spec.gpu_memory_fraction for spec in told} == {0.4}


def test_the_containers_margin_divides_a_gpu() -> None:
    environ = {"SAGEMAKER_TFS_INSTANCE_COUNT": "2", "SAGEMAKER_TFS_FRACTIONAL_GPU_MEM_MARGIN": "0.2"}
    assert SageMakerSettings.from_environ(environ, cpus=2).gpu_memory_fraction == 0.4


@pytest.mark.skipif(not hasattr(os, "sched_getaffinity"), reason="processes cannot be pinned on this system")
def test_each_process_gets_the_core_that_fewest_have() -> None:
    cores = sorted(os.sched_getaffinity(0))
    specs = _specs(ServeOptions(pin_cores=True))
    taken: list[int | None] = []
    for _ in range(len(cores) + 1):
        taken.append(specs.free_core(taken))
    assert taken == [*cores, cores[0]]
    assert specs.free_core([core for core in cores if core != cores[-1]]) == cores[-1]
    assert _specs(ServeOptions()).free_core(cores) is None


def test_a_script_is_looked_for_from_the_version_up_to_the_models_root() -> None:
    assert code_folders(_VERSION) == [
        Path("/opt/ml/model/export/Servo/3/code"),
        Path("/opt/ml/model/export/Servo/code"),
        Path("/opt/ml/model/export/code"),
        Path("/opt/ml/model/code"),
    ]
    assert code_folders(Version("m", 1, Path("/models/m/1"))) == [Path("/models/m/1/code"), Path("/models/m/code")]


_TLS = {"tls_cert": "c.pem", "tls_key": "c.key"}


@pytest.mark.parametrize(
    ("options", "url"),
    [
        ({}, "http://127.0.0.1:8080"),
        ({"host": "0.0.0.0"}, "http://127.0.0.1:8080"),
        ({"host": "::"}, "http://127.0.0.1:8080"),
        ({"host": "::1"}, "http://[::1]:8080"),
        ({"host": "10.1.2.3"}, "http://10.1.2.3:8080"),
        (_TLS, "https://127.0.0.1:8080"),
        ({**_TLS, "grpc_port": 9000, "tls_grpc_only": True}, "http://127.0.0.1:8080"),
    ],
)
def test_a_script_is_told_where_the_rest_api_is(options: dict[str, Any], url: str) -> None:
    assert rest_url(ServeOptions(**options), 8080) == url


@pytest.mark.parametrize(
    ("options", "with_http2", "without"),
    [
        ({}, (8080, "127.0.0.1:8080"), (0, "")),
        ({"host": "::1"}, (8080, "[::1]:8080"), (0, "")),
        ({"grpc_port": 9000}, (8080, "127.0.0.1:8080"), (9000, "127.0.0.1:9000")),
        ({"unix_socket": "/run/p.sock"}, (8080, "unix:/run/p.sock"), (0, "")),
        (_TLS, (8080, ""), (0, "")),
        ({**_TLS, "grpc_port": 9000}, (8080, ""), (9000, "")),
        ({**_TLS, "grpc_port": 9000, "tls_grpc_only": True}, (8080, "127.0.0.1:8080"), (9000, "")),
        ({**_TLS, "unix_socket": "/run/p.sock"}, (8080, "unix:/run/p.sock"), (0, "")),
    ],
)
def test_a_script_is_told_where_grpc_is_spoken_in_the_clear(
    options: dict[str, Any], with_http2: tuple[int, str], without: tuple[int, str]
) -> None:
    assert grpc_place(ServeOptions(**options), 8080, has_http2=True) == with_http2
    assert grpc_place(ServeOptions(**options), 8080, has_http2=False) == without
