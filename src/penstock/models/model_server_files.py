"""The files that TensorFlow Serving's command line names, beside that of models: batching, monitoring, SSL (contract §5, §6).

Guarantees: what is refused is a UsageError that names the message type, the line where there is one, and what was expected;
where TensorFlow Serving has words for it, they are its words.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from google.protobuf import text_format

from penstock.errors import UsageError
from penstock.savedmodel.protos import POOL, message_class
from penstock.serving.batch_policy import BatchPolicy

_PACKAGE = "penstock.savedmodel.serving"
#: In the folder of a version, for --enable_per_model_batching_parameters.
BATCHING_FILE = "batching_params.pbtxt"
#: Where metrics are when the file names no path.
DEFAULT_METRICS_PATH = "/monitoring/prometheus/metrics"
_DEFAULT_MAX_BATCH_SIZE = 1000
_DEFAULT_ENQUEUED_BATCHES = 10


@dataclass(frozen=True, slots=True)
class BatchingParameters:
    """How requests are put together. `max_rows` is the size of a batch, `max_request_rows` that of a request; sizes are rows."""

    max_rows: int = _DEFAULT_MAX_BATCH_SIZE
    max_request_rows: int = _DEFAULT_MAX_BATCH_SIZE
    timeout_us: int = 0
    max_enqueued_batches: int = _DEFAULT_ENQUEUED_BATCHES
    num_batch_threads: int | None = None
    allowed_rows: tuple[int, ...] = ()
    pads_shapes: bool = False
    splits: bool = False

    def policy(self) -> BatchPolicy:
        """The same for a batcher."""
        return BatchPolicy(
            self.max_rows, self.timeout_us * 1000, self.max_request_rows, self.splits, self.allowed_rows, self.pads_shapes
        )


@dataclass(frozen=True, slots=True)
class SslConfig:
    """PEM texts. `client_ca` is empty where clients need no certificate."""

    key: str
    certificate: str
    client_ca: str


def read_batching(path: Path) -> BatchingParameters:
    """The parameters of a file. Raises UsageError."""
    config = _read(path, "BatchingParameters")
    try:
        return _batching(config)
    except UsageError as error:
        raise UsageError(f"{path}: {error}") from None


def read_metrics_path(path: Path) -> str:
    """Where metrics are to be found; empty where the file does not enable them. Raises UsageError."""
    config = _read(path, "MonitoringConfig").prometheus_config
    if not config.enable:
        return ""
    chosen: str = config.path or DEFAULT_METRICS_PATH
    if not chosen.startswith("/"):
        raise UsageError(f"{path}: the path of prometheus_config must begin with '/', not be '{chosen}'")
    return chosen


def read_ssl(path: Path) -> SslConfig:
    """The certificates of a file. Raises UsageError where one is missing."""
    config = _read(path, "SSLConfig")
    for name in ("server_key", "server_cert"):
        if not getattr(config, name):
            raise UsageError(f"{path}: {name} is missing: expected PEM")
    if config.client_verify and not config.custom_ca:
        raise UsageError(f"{path}: client_verify needs custom_ca: the certificates, in PEM, of those who sign clients'")
    return SslConfig(config.server_key, config.server_cert, config.custom_ca if config.client_verify else "")


def _read(path: Path, name: str) -> Any:
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise UsageError(f"{path}: {error.strerror}") from None
    except UnicodeDecodeError as error:
        raise UsageError(f"{path}: not text in UTF-8 (byte {error.start})") from None
    try:
        return text_format.Parse(text, message_class(f"{_PACKAGE}.{name}")(), descriptor_pool=POOL)
    except (text_format.ParseError, ValueError, RecursionError) as error:
        reason = str(error).replace(f"{_PACKAGE}.", "tensorflow.serving.").replace(" : ", ": ", 1)
        raise UsageError(f"{path}: Error parsing text-format tensorflow.serving.{name}: {reason}") from error


def _batching(config: Any) -> BatchingParameters:
    max_request_rows = _value(config, "max_batch_size", _DEFAULT_MAX_BATCH_SIZE, least=1)
    splits = config.enable_large_batch_splitting.value
    max_rows = max_request_rows
    if splits:
        max_rows = _value(config, "max_execution_batch_size", max_request_rows, least=1)
        if max_rows > max_request_rows:
            raise UsageError(f"max_execution_batch_size is {max_rows}: expected at most max_batch_size, {max_request_rows}")
    allowed = tuple(config.allowed_batch_sizes)
    _check_allowed(allowed, max_rows, "max_execution_batch_size" if splits else "max_batch_size")
    threads = _value(config, "num_batch_threads", 1, least=1) if config.HasField("num_batch_threads") else None
    return BatchingParameters(
        max_rows=max_rows,
        max_request_rows=max_request_rows,
        timeout_us=_value(config, "batch_timeout_micros", 0, least=0),
        max_enqueued_batches=_value(config, "max_enqueued_batches", _DEFAULT_ENQUEUED_BATCHES, least=0),
        num_batch_threads=threads,
        allowed_rows=allowed,
        pads_shapes=config.pad_variable_length_inputs,
        splits=splits,
    )


def _value(config: Any, name: str, default: int, least: int) -> int:
    if not config.HasField(name):
        return default
    value: int = getattr(config, name).value
    if value < least:
        raise UsageError(f"{name} is {value}: expected at least {least}")
    return value


def _check_allowed(sizes: Sequence[int], largest: int, name: str) -> None:
    for before, size in zip((0, *sizes), sizes, strict=False):
        if size <= before:
            raise UsageError(f"allowed_batch_sizes must be above 0 and in increasing order; {size} comes after {before}")
    if sizes and sizes[-1] != largest:
        raise UsageError(f"Last entry in allowed_batch_sizes must match {name}; last entry was {sizes[-1]}; expected {largest}")
