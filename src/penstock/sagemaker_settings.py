"""The SAGEMAKER_* variables of AWS's TensorFlow Serving container (contract §5), each declared once.

Guarantees: every variable that the container knows is accepted; a value that cannot be meant is a UsageError with the
variable's name. Defaults are those of generation C. A variable that is set to nothing counts as not set.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from typing import Any, NamedTuple

from penstock.errors import UsageError

_QUEUE_OF_BATCH_TRANSFORM = 100_000_000

#: Variables that mean nothing here, and why. They are accepted, so that containers start as they did.
WITHOUT_EFFECT: dict[str, str] = {
    "SAGEMAKER_SAFE_PORT_RANGE": "Models listen on no ports of their own.",
    "SAGEMAKER_GUNICORN_WORKER_CLASS": "There is no gunicorn; inference.py runs in a plain loop, unpatched.",
    "SAGEMAKER_GUNICORN_LOGLEVEL": "There is no gunicorn; SAGEMAKER_TFS_NGINX_LOGLEVEL sets the level of the one log.",
    "SAGEMAKER_TFS_VERSION": "The version of TensorFlow is that of the installed package.",
    "TFS_GRPC_PORTS": "It passed ports between the container's own processes; all APIs share one port here.",
    "TFS_REST_PORTS": "It passed ports between the container's own processes; all APIs share one port here.",
    "TFS_DEFAULT_MODEL_NAME": "It was internal to the container; SAGEMAKER_TFS_DEFAULT_MODEL_NAME is the one to set.",
    "SAGEMAKER_PROGRAM": "The SDK sets it; the script is always code/inference.py, as in AWS's container.",
    "SAGEMAKER_SUBMIT_DIRECTORY": "The SDK sets it; the script is looked for in the model's own code folder.",
    "SAGEMAKER_REGION": "The platform sets it; nothing here calls AWS by region.",
    "SAGEMAKER_CONTAINER_LOG_LEVEL": "The SDK sets it; AWS's container reads SAGEMAKER_TFS_NGINX_LOGLEVEL instead.",
}

#: Variables that this version reads and does not use, and why: their values are checked, and setting them changes nothing.
UNUSED: dict[str, str] = {
    "SAGEMAKER_MULTI_MODEL_UNIVERSAL_BUCKET": "Nothing is fetched; --script says where a script that all models share is.",
    "SAGEMAKER_MULTI_MODEL_UNIVERSAL_PREFIX": "Nothing is fetched; --script says where a script that all models share is.",
}

_LOG_LEVELS = {
    "debug": "debug",
    "info": "info",
    "notice": "info",
    "warn": "warning",
    "error": "error",
    "crit": "critical",
    "alert": "critical",
    "emerg": "critical",
}


class Row(NamedTuple):
    """A line of the reference page; `effect` says what the variable does, or why it does nothing."""

    variable: str
    default: str
    effect: str


def _integer(low: int, high: int | None = None) -> tuple[Callable[[str], int], str]:
    def parse(text: str) -> int:
        value = int(text)
        if value < low or (high is not None and value > high):
            raise ValueError
        return value

    return parse, f"an integer from {low} to {high}" if high is not None else f"an integer of at least {low}"


def _fraction() -> tuple[Callable[[str], float], str]:
    def parse(text: str) -> float:
        value = float(text)
        if not 0 <= value < 1:
            raise ValueError
        return value

    return parse, "a number from 0 up to, but not including, 1"


def _choice(values: Mapping[str, Any]) -> tuple[Callable[[str], Any], str]:
    def parse(text: str) -> Any:
        try:
            return values[text.lower()]
        except KeyError:
            raise ValueError from None

    return parse, " or ".join(f"'{value}'" for value in values)


def _first_of_list() -> tuple[Callable[[str], int], str]:
    """OpenMP allows one number per nesting level; the first is that of the outermost."""
    parse_one, _ = _integer(1)

    def parse(text: str) -> int:
        numbers = [parse_one(item) for item in text.split(",")]
        return numbers[0]

    return parse, "integers of at least 1 with commas between them"


def _variable(
    name: str, default: Any, how: tuple[Callable[[str], Any], str] | None, effect: str, shown: str | None = None
) -> Any:
    """A field that is read from the environment. `how`: what parses a value, and what that expects; None: any text."""
    parse, expected = how or (str, "text")
    text = "not set" if default is None else str(default).lower()
    metadata = {"name": name, "parse": parse, "expected": expected, "effect": effect, "default": shown or text}
    return field(default=default, metadata=metadata)


_TRUE_OR_FALSE = _choice({"true": True, "false": False})


@dataclass(frozen=True, slots=True, kw_only=True)
class SageMakerSettings:
    """What the environment of a SageMaker container asks for. Times are in seconds unless the name says otherwise."""

    bind_port: int = _variable("SAGEMAKER_BIND_TO_PORT", 8080, _integer(1, 65535), "The port that all APIs are served on.")
    default_model_name: str | None = _variable(
        "SAGEMAKER_TFS_DEFAULT_MODEL_NAME",
        None,
        None,
        "The model of requests that name none; else the first one found.",
    )
    instance_count: int = _variable("SAGEMAKER_TFS_INSTANCE_COUNT", 1, _integer(1), "How many processes run each model.")
    gpu_margin: float = _variable(
        "SAGEMAKER_TFS_FRACTIONAL_GPU_MEM_MARGIN",
        0.2,
        _fraction(),
        "The part of a GPU's memory that several instances leave free; they share the rest equally.",
    )
    inter_op: int = _variable(
        "SAGEMAKER_TFS_INTER_OP_PARALLELISM",
        0,
        _integer(0),
        "Threads for independent operations; 0: the engine's choice.",
    )
    intra_op: int = _variable(
        "SAGEMAKER_TFS_INTRA_OP_PARALLELISM", 0, _integer(0), "Threads within an operation; 0: the engine's choice."
    )
    omp_threads: int = _variable(
        "OMP_NUM_THREADS", 1, _first_of_list(), "Threads of libraries that scripts use; engines have threads of their own."
    )
    enable_batching: bool = _variable(
        "SAGEMAKER_TFS_ENABLE_BATCHING", False, _TRUE_OR_FALSE, "Whether the four variables that follow shape batches."
    )
    max_batch_size: int = _variable("SAGEMAKER_TFS_MAX_BATCH_SIZE", 8, _integer(1), "Rows of a batch at most.")
    batch_timeout_micros: int = _variable(
        "SAGEMAKER_TFS_BATCH_TIMEOUT_MICROS",
        1000,
        _integer(0),
        "How long a batch waits for more rows, in microseconds.",
    )
    num_batch_threads: int = _variable(
        "SAGEMAKER_TFS_NUM_BATCH_THREADS",
        1,
        _integer(1),
        "With the next one, how many batches may be under way before requests are refused; one runs at a time.",
        "number of CPUs",
    )
    max_enqueued_batches: int = _variable(
        "SAGEMAKER_TFS_MAX_ENQUEUED_BATCHES",
        1,
        _integer(1),
        "Batches that may wait; requests beyond are refused.",
        f"number of CPUs; {_QUEUE_OF_BATCH_TRANSFORM} with SAGEMAKER_BATCH",
    )
    batch_transform: bool = _variable(
        "SAGEMAKER_BATCH", False, (lambda _: True, "anything"), "Set, whatever to: this is a batch transform job."
    )
    wait_time_s: int = _variable("SAGEMAKER_TFS_WAIT_TIME_SECONDS", 60, _integer(1), "How long loading a version may take.")
    gunicorn_workers: int = _variable(
        "SAGEMAKER_GUNICORN_WORKERS", 1, _integer(1), "With the next one, how many requests a script works on at a time."
    )
    gunicorn_threads: int = _variable(
        "SAGEMAKER_GUNICORN_THREADS", 8, _integer(1), "Threads of a script; AWS's container ignores it and takes any number."
    )
    gunicorn_timeout_s: int = _variable(
        "SAGEMAKER_GUNICORN_TIMEOUT_SECONDS", 30, _integer(0), "How long a request may take, if longer than the next."
    )
    nginx_proxy_read_timeout_s: int = _variable(
        "SAGEMAKER_NGINX_PROXY_READ_TIMEOUT_SECONDS", 60, _integer(1), "How long a request may take."
    )
    log_level: str | None = _variable(
        "SAGEMAKER_TFS_NGINX_LOGLEVEL",
        None,
        _choice(_LOG_LEVELS),
        "The level of the log; the SDK's container_log_level.",
    )
    multi_model: bool = _variable(
        "SAGEMAKER_MULTI_MODEL", False, _TRUE_OR_FALSE, "Models come and go through /models (multi-model endpoint)."
    )
    universal_bucket: str | None = _variable(
        "SAGEMAKER_MULTI_MODEL_UNIVERSAL_BUCKET", None, None, "The S3 bucket of the script that all models share."
    )
    universal_prefix: str | None = _variable(
        "SAGEMAKER_MULTI_MODEL_UNIVERSAL_PREFIX", None, None, "The key prefix of that script in its bucket."
    )
    accepted_without_effect: tuple[str, ...] = ()

    @classmethod
    def from_environ(cls, environ: Mapping[str, str], cpus: int) -> SageMakerSettings:
        """Reads the variables; `cpus` is what batching defaults to. Raises UsageError for the first wrong value."""
        values: dict[str, Any] = {"num_batch_threads": cpus, "max_enqueued_batches": cpus}
        if "SAGEMAKER_BATCH" in environ:
            values |= {"batch_transform": True, "max_enqueued_batches": _QUEUE_OF_BATCH_TRANSFORM}
        for option in fields(cls):
            if option.metadata and (text := environ.get(option.metadata["name"], "").strip()):
                values[option.name] = _parsed(option.metadata, text)
        if values.get("default_model_name") == "None":
            del values["default_model_name"]  # the container's way to say that there is none
        return cls(**values, accepted_without_effect=tuple(name for name in (*WITHOUT_EFFECT, *UNUSED) if environ.get(name)))

    @property
    def request_timeout_s(self) -> int:
        """When the container's proxy would give up: its own limit, never below gunicorn's."""
        return max(self.nginx_proxy_read_timeout_s, self.gunicorn_timeout_s)

    @property
    def universal_script(self) -> str | None:
        """Where in S3 the container would fetch the script of all models from; None where it would not."""
        if not self.universal_bucket or not self.universal_prefix:
            return None
        return f"s3://{self.universal_bucket}/{self.universal_prefix}"

    @property
    def gpu_memory_fraction(self) -> float | None:
        """The part of a GPU's memory for each instance; None where one instance may have all of it."""
        return round((1 - self.gpu_margin) / self.instance_count, 4) if self.instance_count > 1 else None


def describe() -> list[Row]:
    """Every variable with its default and effect, those without effect last."""
    known = [
        Row(option.metadata["name"], option.metadata["default"], _effect(option.metadata))
        for option in fields(SageMakerSettings)
        if option.metadata
    ]
    return known + [Row(name, "not set", f"No effect. {why}") for name, why in WITHOUT_EFFECT.items()]


def _effect(metadata: Mapping[str, Any]) -> str:
    why = UNUSED.get(metadata["name"])
    return str(metadata["effect"]) if why is None else f"No effect. {why}"


def _parsed(metadata: Mapping[str, Any], text: str) -> Any:
    try:
        return metadata["parse"](text)
    except ValueError:
        raise UsageError(f"{metadata['name']} is '{text}': expected {metadata['expected']}") from None
