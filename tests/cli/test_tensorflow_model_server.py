"""The flags of tensorflow_model_server: parsed as that binary does, and what they become."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.cli.model_server_flags import FLAGS, parse, reference, usage
from penstock.cli.tensorflow_model_server import model_server_options, run
from penstock.config import ServeOptions, available_cores
from penstock.errors import UsageError
from tests.e2e.model_server import self_signed, ssl_text


def _options(*arguments: str) -> ServeOptions:
    parsed = parse(["--model_base_path=/models/m", *arguments])
    assert not parsed.problems
    assert not parsed.unknown
    return model_server_options(parsed.values)


def _file(folder: Path, text: str) -> str:
    file = folder / "file.txt"
    file.write_text(text)
    return str(file)


@pytest.mark.parametrize(
    ("argument", "name", "value"),
    [
        ("--port=9000", "port", 9000),
        ("--port=+9000", "port", 9000),
        ("--load_retry_interval_micros=-1", "load_retry_interval_micros", -1),
        ("--load_retry_interval_micros=9223372036854775807", "load_retry_interval_micros", 9223372036854775807),
        ("--model_name=a=b", "model_name", "a=b"),
        ("--model_name=", "model_name", ""),
        ("--enable_batching", "enable_batching", True),
        ("--enable_batching=true", "enable_batching", True),
        ("--flush_filesystem_caches=false", "flush_filesystem_caches", False),
        ("--per_process_gpu_memory_fraction=.5", "per_process_gpu_memory_fraction", 0.5),
        ("--per_process_gpu_memory_fraction=1", "per_process_gpu_memory_fraction", 1.0),
    ],
)
def test_values_are_read_by_type(argument: str, name: str, value: Any) -> None:
    parsed = parse([argument])
    assert parsed.values[name] == value
    assert (parsed.problems, parsed.unknown) == ([], [])


@pytest.mark.parametrize(
    "argument",
    [
        *("--port=x", "--port=", "--port=1.0", "--port=80 ", "--port=0x50", "--port=2147483648", "--port=1_0"),
        *(
            "--enable_batching=1",
            "--enable_batching=True",
            "--enable_batching=",
            "--load_retry_interval_micros=9223372036854775808",
        ),
        *("--per_process_gpu_memory_fraction=nan", "--per_process_gpu_memory_fraction=1_0", "--port=" + "9" * 5000),
    ],
)
def test_a_value_of_another_type_is_named(argument: str) -> None:
    (problem,) = parse([argument]).problems
    assert problem.startswith("Couldn't interpret value ")
    assert problem.endswith(f" for flag {argument[2:].partition('=')[0]}.")


@pytest.mark.parametrize(
    "argument", ["--foo", "--foo=1", "-port=1", "port=1", "--port", "--noenable_batching", "--Port=1", "--model-name=x", ""]
)
def test_what_is_no_flag_is_unknown(argument: str) -> None:
    parsed = parse([argument, "--port=1"])
    assert parsed.unknown == [argument]
    assert parsed.values["port"] == 1


def test_after_two_dashes_all_is_unknown() -> None:
    parsed = parse(["--port=1", "--", "--port=2"])
    assert (parsed.values["port"], parsed.unknown) == (1, ["--", "--port=2"])


def test_the_last_of_two_counts() -> None:
    assert parse(["--port=1", "--port=2"]).values["port"] == 2


@given(st.lists(st.text(max_size=30), max_size=5))
def test_no_argument_breaks_the_parser(arguments: list[str]) -> None:
    parsed = parse(arguments)
    assert set(parsed.values) == {flag.name for flag in FLAGS}


def test_flags_without_effect_are_told_only_when_they_ask_for_something() -> None:
    arguments = ["--grpc_max_threads=8", "--num_load_threads=0", "--enable_profiler=false", "--port=1"]
    assert parse(arguments).without_effect == ["grpc_max_threads", "enable_profiler"]


def test_every_flag_has_an_effect_or_a_reason() -> None:
    assert [flag.name for flag in FLAGS if bool(flag.effect) == bool(flag.why_not)] == []
    for flag in FLAGS:
        assert f"--{flag.name}=" in usage("tensorflow_model_server")
        assert f"| `--{flag.name}` |" in reference()


def test_each_port_is_where_it_was() -> None:
    def ports(*arguments: str) -> tuple[str, int, int, str]:
        options = _options(*arguments)
        return options.host, options.port, options.grpc_port, options.unix_socket

    assert ports() == ("0.0.0.0", 8500, 0, "")
    assert ports("--rest_api_port=8501") == ("0.0.0.0", 8501, 8500, "")
    assert ports("--rest_api_port=8500") == ("0.0.0.0", 8500, 0, "")
    assert ports("--port=0", "--rest_api_port=8501", "--grpc_socket_path=/s") == ("0.0.0.0", 8501, 0, "/s")
    assert ports("--port=0", "--grpc_socket_path=/s") == ("127.0.0.1", 0, 0, "/s")


def test_flags_become_options() -> None:
    options = _options(
        "--rest_api_timeout_in_ms=1500",
        "--rest_api_enable_cors_support",
        "--max_num_load_retries=2",
        "--file_system_poll_wait_seconds=7",
        "--tensorflow_intra_op_parallelism=3",
        "--tensorflow_inter_op_parallelism=2",
        "--per_process_gpu_memory_fraction=0.25",
        "--saved_model_tags=serve,gpu",
        "--enable_model_warmup=false",
        "--enable_signature_method_name_check",
        "--enable_serialization_as_tensor_content",
    )
    assert (options.request_timeout_s, options.cors, options.load_retries, options.poll_s) == (1.5, True, 2, 7.0)
    assert (options.intra_op, options.inter_op, options.gpu_memory_fraction) == (3, 2, 0.25)
    assert (options.tags, options.warm_up) == ("serve,gpu", False)
    assert (options.checks_method_names, options.grpc_tensor_content) == (True, True)


def test_one_number_sets_both_kinds_of_threads() -> None:
    options = _options("--tensorflow_session_parallelism=4")
    assert (options.intra_op, options.inter_op) == (4, 4)


def test_folders_are_looked_at_once_where_polling_is_off() -> None:
    assert _options("--file_system_poll_wait_seconds=0").poll_s == 0
    assert _options("--file_system_poll_wait_seconds=-1").poll_s == 0
    assert _options("--file_system_poll_wait_seconds=0", "--model_config_file_poll_wait_seconds=5").poll_s == 5


def test_no_time_limit_is_a_day() -> None:
    assert _options("--rest_api_timeout_in_ms=0").request_timeout_s == 86400


def test_what_has_no_flag_comes_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"INSTANCES": "3", "HOST": "127.0.0.1", "PORT": "1", "TAGS": "gpu"}.items():
        monkeypatch.setenv(f"PENSTOCK_{name}", value)
    options = _options()
    assert (options.instances, options.host, options.port, options.tags) == (3, "127.0.0.1", 8500, "serve")
    monkeypatch.setenv("PENSTOCK_INSTANCES", "many")
    with pytest.raises(UsageError, match="many"):
        _options()


def test_batching_has_the_binarys_defaults() -> None:
    options = _options("--enable_batching")
    assert (options.max_batch_size, options.max_request_rows, options.batch_timeout_us) == (1000, 1000, 0)
    assert options.max_queue == (10 + available_cores()) * 1000


def test_batching_is_as_its_file_says(tmp_path: Path) -> None:
    text = """
        max_batch_size { value: 64 } batch_timeout_micros { value: 500 } max_enqueued_batches { value: 3 }
        num_batch_threads { value: 2 } allowed_batch_sizes: 8 allowed_batch_sizes: 16 pad_variable_length_inputs: true
        enable_large_batch_splitting { value: true } max_execution_batch_size { value: 16 } thread_pool_name { value: "t" }
    """
    options = _options("--enable_batching", f"--batching_parameters_file={_file(tmp_path, text)}")
    assert (options.max_batch_size, options.max_request_rows, options.batch_timeout_us) == (16, 64, 500)
    assert (options.allowed_rows, options.pad_variable_lengths, options.split_large) == ((8, 16), True, True)
    assert options.max_queue == 5 * 64


def test_without_batching_the_defaults_are_ours() -> None:
    ours = ServeOptions()
    options = _options()
    assert (options.max_batch_size, options.max_request_rows) == (ours.max_batch_size, 0)


def test_models_batch_by_their_own_files() -> None:
    options = _options("--enable_batching", "--enable_per_model_batching_parameters")
    assert (options.model_batching, options.max_batch_size, options.max_request_rows) == (True, 1, 0)


def test_the_path_of_metrics_is_that_of_the_file(tmp_path: Path) -> None:
    def path(text: str) -> str:
        return _options(f"--monitoring_config_file={_file(tmp_path, text)}").monitoring_path

    assert path('prometheus_config { enable: true path: "/m" }') == "/m"
    assert path("prometheus_config { enable: true }") == "/monitoring/prometheus/metrics"
    assert path('prometheus_config { path: "/m" }') == ""


def test_tls_is_for_the_port_of_grpc(tmp_path: Path) -> None:
    key, certificate = self_signed(tmp_path)
    ssl_config = f"--ssl_config_file={_file(tmp_path, ssl_text(key, certificate, verifies=True))}"
    options = _options(ssl_config, "--rest_api_port=8501")
    found = [Path(path).read_text() for path in (options.tls_key, options.tls_cert, options.tls_client_ca)]
    assert found == [key, certificate, certificate]
    assert options.tls_grpc_only
    assert not _options(ssl_config).tls_grpc_only
    assert _options(ssl_config, "--port=0", "--rest_api_port=8501", "--grpc_socket_path=/s").tls_grpc_only


def test_certificates_that_are_none_are_refused_by_the_name_of_their_file(tmp_path: Path) -> None:
    key, certificate = self_signed(tmp_path)
    for texts in (("K", "C"), (key, "C"), (key, key)):
        file = _file(tmp_path, ssl_text(*texts))
        with pytest.raises(UsageError, match=f"^{re.escape(file)}: not certificates and their key in PEM"):
            _options(f"--ssl_config_file={file}")
    file = _file(tmp_path, ssl_text(key, certificate, verifies=True).replace('custom_ca: "-----BEGIN', 'custom_ca: "é'))
    with pytest.raises(UsageError, match="not certificates"):
        _options(f"--ssl_config_file={file}")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--port=0",), "At least one of server_options.grpc_port or server_options.grpc_socket_path must be set."),
        (("--model_base_path=",), "Both server_options.model_base_path and server_options.model_config_file are empty!"),
        (("--batching_parameters_file=/f",), "batching_parameters_file is set without setting server_options.enable_batching"),
        (("--use_alts_credentials",), "use --ssl_config_file"),
        (("--mixed_precision=half",), "--mixed_precision=half: expected bfloat16"),
        (("--port=65536",), "--port=65536: expected a port"),
        (("--tensorflow_session_parallelism=1", "--tensorflow_intra_op_parallelism=1"), "sets both"),
        (("--enable_batching", "--batching_parameters_file=/nowhere"), "/nowhere: No such file or directory"),
        (("--ssl_config_file=/nowhere",), "/nowhere: No such file or directory"),
        (("--monitoring_config_file=/nowhere",), "/nowhere: No such file or directory"),
    ],
)
def test_what_cannot_be_is_refused_before_anything_starts(arguments: tuple[str, ...], message: str) -> None:
    with pytest.raises(UsageError, match=re.escape(message)):
        _options(*arguments)


def test_help_and_bad_values_show_the_usage_and_fail(capsys: pytest.CaptureFixture[str]) -> None:
    for argument in ("--help", "--port=x"):
        assert run("tms", [argument]) == 255
        assert capsys.readouterr().out.startswith("usage: tms\nFlags:\n\t--port=8500")


def test_the_version_is_two_lines(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("tms", ["--version", "--unknown"]) == 0
    first, second = capsys.readouterr().out.splitlines()
    assert first.startswith("TensorFlow ModelServer: ")
    assert second.startswith("TensorFlow Library: ")


def test_a_start_that_fails_says_so_in_the_binarys_words(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("tms", []) == 255
    printed = capsys.readouterr()
    text = "Both server_options.model_base_path and server_options.model_config_file are empty!"
    assert printed.out == f"Failed to start server. Error: INVALID_ARGUMENT: {text}\n"
    assert printed.err == f"penstock: error: {text}\n"
