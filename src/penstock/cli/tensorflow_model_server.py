"""The command `tensorflow_model_server`: TensorFlow Serving's flags, files and words over our server (contract §3 to §6)."""

from __future__ import annotations

import importlib.metadata
import os
import ssl
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn

# One process a gateway and a host: BLAS threads in each would only fight. Before anything imports NumPy.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import click

from penstock.cli.first_engine import first_engine
from penstock.cli.model_server_flags import Arguments, parse, usage
from penstock.cli.options import build_options, serve_options
from penstock.config import ServeOptions, available_cores
from penstock.errors import InvalidArgument, PenstockError, UsageError
from penstock.observe import log
from penstock.process.zygote_process import starting
from penstock.version import __version__

#: What the binary ends with when it cannot start: -1.
_FAILED = 255
_ALL_ADDRESSES = "0.0.0.0"
_A_DAY_S = 86400.0
_TENSORFLOW_PACKAGES = ("tensorflow", "tensorflow-cpu", "tensorflow-intel", "tf-nightly")
_BFLOAT16 = "graph_options { rewrite_options { auto_mixed_precision_onednn_bfloat16: ON } }"
logger = log.get_logger("model_server")


def main() -> NoReturn:
    """The console script."""
    sys.exit(run(sys.argv[0], sys.argv[1:]))


def run(program: str, arguments: Sequence[str]) -> int:
    """Serves as the flags say until it is told to stop; the exit code."""
    parsed = parse(arguments)
    if parsed.want_usage:
        for problem in parsed.problems:
            print(problem, file=sys.stderr)
        print(usage(program), end="")
        return _FAILED
    if parsed.values["version"]:
        print(f"TensorFlow ModelServer: {__version__} (Penstock)\nTensorFlow Library: {_tensorflow_version()}")
        return 0
    if parsed.unknown:
        print("".join(f"unknown argument: {one}\n" for one in parsed.unknown) + usage(program), end="", flush=True)
    try:
        log.configure(os.environ.get("PENSTOCK_LOG_FORMAT", "text"))
        _serve(parsed, model_server_options(parsed.values))
    except UsageError as error:
        return _failed(InvalidArgument(str(error)))
    except PenstockError as error:
        return _failed(error)
    return 0


def _failed(error: PenstockError) -> int:
    """Says why there is no server: on standard output as the binary does, and in the log."""
    logger.error("%s", error.message)
    print(f"Failed to start server. Error: {error.code.name}: {error.message}", flush=True)
    return _FAILED


def model_server_options(values: Mapping[str, Any]) -> ServeOptions:
    """Our options for these flags. What has no flag is taken from PENSTOCK_ variables. Raises UsageError."""
    _check(values)
    addresses = _addresses(values)
    security = _security(values, addresses["port"])
    ours = {**addresses, **security, **_batching(values), **_session(values), **_serving(values)}
    try:
        context = _variables.make_context("tensorflow_model_server", [])
    except click.ClickException as error:
        raise UsageError(error.format_message()) from None
    given = {name: value for name, value in context.params.items() if name not in ours}
    return build_options(given, None, os.environ, under={"host": _ALL_ADDRESSES, **ours})


@click.command(add_help_option=False)
@serve_options()
def _variables(**given: Any) -> None:
    """Never run: it reads the environment as our own commands do."""


def _check(values: Mapping[str, Any]) -> None:
    if not values["port"] and not values["grpc_socket_path"]:
        raise UsageError("At least one of server_options.grpc_port or server_options.grpc_socket_path must be set.")
    if not values["model_base_path"] and not values["model_config_file"]:
        raise UsageError("Both server_options.model_base_path and server_options.model_config_file are empty!")
    if values["use_alts_credentials"]:
        raise UsageError("--use_alts_credentials works on Google's machines alone; use --ssl_config_file for TLS")
    if values["mixed_precision"] not in ("", "bfloat16"):
        raise UsageError(f"--mixed_precision={values['mixed_precision']}: expected bfloat16")
    for name in ("port", "rest_api_port"):
        if not 0 <= values[name] <= 65535:
            raise UsageError(f"--{name}={values[name]}: expected a port from 0 to 65535")


def _addresses(values: Mapping[str, Any]) -> dict[str, Any]:
    """Each port speaks everything: the second one is only there if there are two."""
    grpc, rest = values["port"], values["rest_api_port"]
    if rest and rest == grpc:
        logger.error("--rest_api_port is the same as --port: no port of its own for the REST API; port %s answers it too", grpc)
        rest = 0
    ports = {"port": rest or grpc, "grpc_port": grpc if rest else 0}
    if not rest and not grpc:  # the socket is all that is wanted
        ports["host"] = "127.0.0.1"
    return {**ports, "unix_socket": values["grpc_socket_path"]}


def _serving(values: Mapping[str, Any]) -> dict[str, Any]:
    from penstock.models.model_server_files import read_metrics_path

    timeout_ms, monitoring = values["rest_api_timeout_in_ms"], values["monitoring_config_file"]
    polls = [values[name] for name in ("file_system_poll_wait_seconds", "model_config_file_poll_wait_seconds")]
    return {
        "request_timeout_s": timeout_ms / 1000 if timeout_ms > 0 else _A_DAY_S,
        "cors": values["rest_api_enable_cors_support"],
        "monitoring_path": read_metrics_path(Path(monitoring)) if monitoring else "",
        "poll_s": float(next((seconds for seconds in polls if seconds > 0), 0)),
        "load_retries": max(0, values["max_num_load_retries"]),
        "warm_up": values["enable_model_warmup"],
        "tags": values["saved_model_tags"],
        "reload_requests": True,
        "prefer_tflite": values["prefer_tflite_model"],
        "checks_method_names": values["enable_signature_method_name_check"],
        "grpc_tensor_content": values["enable_serialization_as_tensor_content"],
    }


def _batching(values: Mapping[str, Any]) -> dict[str, Any]:
    """Requests that wait are bounded by the batches that may wait and those that would run, each as large as may be."""
    from penstock.models.model_server_files import BatchingParameters, read_batching

    file = values["batching_parameters_file"]
    if not values["enable_batching"]:
        for name in ("batching_parameters_file", "enable_per_model_batching_parameters"):
            if values[name]:
                raise UsageError(f"server_options.{name} is set without setting server_options.enable_batching to true.")
        return {}
    parameters = read_batching(Path(file)) if file else BatchingParameters()
    batches = parameters.max_enqueued_batches + (parameters.num_batch_threads or available_cores())
    bound = {"max_queue": batches * parameters.max_request_rows}
    if values["enable_per_model_batching_parameters"]:
        return {**bound, "model_batching": True, "max_batch_size": 1}
    return {
        **bound,
        "max_batch_size": parameters.max_rows,
        "max_request_rows": parameters.max_request_rows,
        "batch_timeout_us": parameters.timeout_us,
        "allowed_batch_sizes": ",".join(map(str, parameters.allowed_rows)),
        "pad_variable_lengths": parameters.pads_shapes,
        "split_large": parameters.splits,
    }


def _session(values: Mapping[str, Any]) -> dict[str, Any]:
    both, intra, inter = (values[f"tensorflow_{name}_parallelism"] for name in ("session", "intra_op", "inter_op"))
    if both and (intra or inter):
        raise UsageError("--tensorflow_session_parallelism sets both; give it, or the flags for intra_op and inter_op, not both")
    return {
        "intra_op": both or intra,
        "inter_op": both or inter,
        "gpu_memory_fraction": values["per_process_gpu_memory_fraction"],
        "session_config": values["tensorflow_session_config_file"],
    }


def _security(values: Mapping[str, Any], port: int) -> dict[str, Any]:
    """TLS for the port of gRPC, which may be our only one, `port`. Keys stay in memory: the paths are of our processes alone."""
    from penstock.models.model_server_files import read_ssl

    if not values["ssl_config_file"]:
        return {}
    config = read_ssl(Path(values["ssl_config_file"]))
    paths = {
        "tls_cert": _in_memory(config.certificate),
        "tls_key": _in_memory(config.key),
        "tls_client_ca": _in_memory(config.client_ca) if config.client_ca else "",
    }
    try:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(paths["tls_cert"], paths["tls_key"])
        if config.client_ca:
            context.load_verify_locations(paths["tls_client_ca"])
    except ssl.SSLError as error:
        place = f"{values['ssl_config_file']}: not certificates and their key in PEM"
        raise UsageError(f"{place}: {error.reason or error}") from None
    return {**paths, "tls_grpc_only": port != values["port"]}


def _in_memory(text: str) -> str:
    """A path that this process and those that are forked from it can read `text` at, and nobody else."""
    fd = os.memfd_create("penstock-pem")
    os.write(fd, text.encode())
    return f"/proc/self/fd/{fd}"


def _serve(parsed: Arguments, options: ServeOptions) -> None:
    """Raises UsageError, and PenstockError for a server that cannot start."""
    path = str(parsed.values["model_base_path"])
    with starting(options, first_engine(options, [path])) as engine:
        from penstock.app import serve
        from penstock.cli.serve import read_session_config
        from penstock.errors import Unknown
        from penstock.process.supervisor import StartFailed
        from penstock.savedmodel.protos import parse_config

        if parsed.without_effect:
            names = ", ".join(f"--{name}" for name in parsed.without_effect)
            logger.info("accepted without effect: %s; docs/tensorflow-serving.md says why", names)
        session_config = read_session_config(options.session_config)
        if parsed.values["mixed_precision"]:
            session_config += parse_config(_BFLOAT16)
        source, may_be_empty = _source(parsed.values)
        try:
            serve(
                options,
                source,
                session_config=session_config,
                default_model="" if parsed.values["model_config_file"] else parsed.values["model_name"],
                engine=engine,
                ready=lambda *_: _announce(parsed.values, options),
                may_be_empty=may_be_empty,
            )
        except StartFailed as error:
            raise Unknown(str(error)) from None


def _source(values: Mapping[str, Any]) -> tuple[Any, bool]:
    """What is to be served, and whether a server that serves nothing yet is ready all the same. Raises UsageError."""
    from penstock.models.config_file import ModelServerConfig, configured_models, parse_config_file
    from penstock.models.sources import CombinedSource, ConfigFileSource, FolderSource

    if values["model_config_file"]:
        is_polled = values["model_config_file_poll_wait_seconds"] > 0
        file = Path(values["model_config_file"])
        source = ConfigFileSource(file, is_polled)
        return CombinedSource([source]), is_polled or not parse_config_file(file.read_text(encoding="utf-8"))
    path = values["model_base_path"]
    config = ModelServerConfig()
    config.model_config_list.config.add(
        name=values["model_name"], base_path=path if "://" in path else os.path.abspath(path), model_platform="tensorflow"
    )
    model = (configured_models(config) or [])[0]
    return CombinedSource([FolderSource(model.name, model.base_path, model.policy)]), False


def _announce(values: Mapping[str, Any], options: ServeOptions) -> None:
    """The lines that readiness checks wait for."""
    if values["port"]:
        logger.info("Running gRPC ModelServer at %s:%s ...", options.host, values["port"])
    if options.unix_socket:
        logger.info("Running gRPC ModelServer at UNIX socket %s ...", options.unix_socket)
    if options.grpc_port or (values["rest_api_port"] and not values["port"]):
        logger.info("Exporting HTTP/REST API at:localhost:%s ...", options.port)
        logger.info("NET_LOG: Entering the event loop ...")


def _tensorflow_version() -> str:
    """The version of the TensorFlow that is installed, without loading it."""
    for name in _TENSORFLOW_PACKAGES:
        try:
            return importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return "not installed"
