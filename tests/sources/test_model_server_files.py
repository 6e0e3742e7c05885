"""TensorFlow Serving's files of batching, monitoring and certificates."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from penstock.errors import UsageError
from penstock.models.model_server_files import (
    BatchingParameters,
    SslConfig,
    read_batching,
    read_metrics_path,
    read_ssl,
)
from penstock.serving.batch_policy import BatchPolicy


def _file(folder: Path, text: str) -> Path:
    file = folder / "file.pbtxt"
    file.write_text(text)
    return file


def test_an_empty_file_has_the_defaults(tmp_path: Path) -> None:
    parameters = read_batching(_file(tmp_path, ""))
    assert parameters == BatchingParameters(1000, 1000, 0, 10)
    assert parameters.policy() == BatchPolicy(max_rows=1000, max_request_rows=1000)


def test_all_of_it_becomes_a_policy(tmp_path: Path) -> None:
    text = """
        max_batch_size { value: 8 } batch_timeout_micros { value: 3 } pad_variable_length_inputs: true
        allowed_batch_sizes: [2, 4] enable_large_batch_splitting { value: true } max_execution_batch_size { value: 4 }
    """
    assert read_batching(_file(tmp_path, text)).policy() == BatchPolicy(4, 3000, 8, True, (2, 4), True)


def test_without_splitting_the_size_to_execute_means_nothing(tmp_path: Path) -> None:
    assert read_batching(_file(tmp_path, "max_execution_batch_size { value: 4 }")).max_rows == 1000


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("max_batch_size: 8", "Error parsing text-format tensorflow.serving.BatchingParameters: 1:"),
        ("max_batch { value: 8 }", 'Message type "tensorflow.serving.BatchingParameters" has no field named "max_batch"'),
        ("max_batch_size { value: 0 }", "max_batch_size is 0: expected at least 1"),
        ("num_batch_threads { value: 0 }", "num_batch_threads is 0: expected at least 1"),
        ("batch_timeout_micros { value: -1 }", "batch_timeout_micros is -1: expected at least 0"),
        (
            "allowed_batch_sizes: 4",
            "Last entry in allowed_batch_sizes must match max_batch_size; last entry was 4; expected 1000",
        ),
        ("allowed_batch_sizes: [4, 4, 1000]", "in increasing order; 4 comes after 4"),
        ("allowed_batch_sizes: [0, 1000]", "in increasing order; 0 comes after 0"),
        (
            "max_batch_size { value: 4 } enable_large_batch_splitting { value: true } max_execution_batch_size { value: 5 }",
            "max_execution_batch_size is 5: expected at most max_batch_size, 4",
        ),
    ],
)
def test_a_mistake_in_batching_is_named(tmp_path: Path, text: str, message: str) -> None:
    file = _file(tmp_path, text)
    with pytest.raises(UsageError, match=f"^{re.escape(str(file))}: .*{re.escape(message)}"):
        read_batching(file)


def test_metrics_are_where_the_file_says_if_it_enables_them(tmp_path: Path) -> None:
    assert read_metrics_path(_file(tmp_path, "")) == ""
    assert read_metrics_path(_file(tmp_path, "prometheus_config { enable: true }")) == "/monitoring/prometheus/metrics"
    with pytest.raises(UsageError, match="must begin with '/', not be 'm'"):
        read_metrics_path(_file(tmp_path, 'prometheus_config { enable: true path: "m" }'))


def test_clients_are_only_verified_where_that_is_said(tmp_path: Path) -> None:
    both = 'server_key: "K" server_cert: "C" custom_ca: "A"'
    assert read_ssl(_file(tmp_path, both)) == SslConfig("K", "C", "")
    assert read_ssl(_file(tmp_path, f"{both} client_verify: true")) == SslConfig("K", "C", "A")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('server_cert: "C"', "server_key is missing"),
        ('server_key: "K"', "server_cert is missing"),
        ('server_key: "K" server_cert: "C" client_verify: true', "client_verify needs custom_ca"),
    ],
)
def test_a_certificate_that_is_missing_is_named(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        read_ssl(_file(tmp_path, text))


def test_a_file_that_is_no_text_is_named(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_bytes(b"a\xff")
    with pytest.raises(UsageError, match="not text in UTF-8 \\(byte 1\\)"):
        read_ssl(file)
