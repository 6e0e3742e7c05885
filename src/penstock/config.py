"""Every option of the server, declared once: a field with its type, default and docstring.

Command-line flags, environment names (PENSTOCK_…), the TOML file and docs/options.md derive from these fields.
Flags beat the environment, which beats the file, which beats the default.
"""

from __future__ import annotations

import math
import os
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from penstock.errors import UsageError


def option(
    default: Any,
    text: str,
    *,
    unit: str = "",
    choices: tuple[str, ...] = (),
    repeats: bool = False,
    least: float | None = None,
    most: float | None = None,
) -> Any:
    """A field with what flags and docs need to know of it, and the bounds of a number."""
    metadata = {"text": text, "unit": unit, "choices": choices, "repeats": repeats, "least": least, "most": most}
    return field(default=default, metadata=metadata)


def available_cores() -> int:
    """Cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


@dataclass(frozen=True, slots=True, kw_only=True)
class ServeOptions:
    """Options of `penstock serve`."""

    host: str = option("127.0.0.1", "Address to listen on; 0.0.0.0 for all.")
    port: int = option(8080, "Port for every API; 0 takes a free one.", least=0, most=65535)
    grpc_port: int = option(
        0, "One more port for every API, where clients expect gRPC on its own; 0 is none.", least=0, most=65535
    )
    unix_socket: str = option("", "Unix socket to listen on as well.")
    tls_cert: str = option("", "Certificate chain in PEM: the ports then speak TLS, HTTP/1.1 and HTTP/2.")
    tls_key: str = option("", "Private key of the certificate, in PEM.")
    tls_grpc_only: bool = option(False, "Speak TLS on --grpc-port alone, and leave --port in the clear.")
    tls_client_ca: str = option("", "Certificates in PEM of those who sign clients': only clients that have one get in.")
    gateways: int = option(
        0, "Processes that speak HTTP; 0 is one for every two cores, since the models need the others.", least=0, most=1024
    )
    versions: str = option("latest", "Versions to serve: latest, latest:N, all, or a list such as 1,3.")
    poll_s: float = option(1.0, "How often folders and files are looked at for changes; 0 only at the start.", unit="s", least=0)
    model_store: str = option("", "Folder of models that are loaded when they are first asked for: sub-folders and archives.")
    model_config_file: str = option("", "TensorFlow Serving's ModelServerConfig in text format; read again when it changes.")
    admin_api: bool = option(False, "Let clients load and unload models through /models, as in multi-model endpoints.")
    reload_requests: bool = option(False, "Let clients replace the list of models, with gRPC's HandleReloadConfigRequest.")
    instances: int = option(
        0,
        "Processes that run each version, of which the least busy gets a request; 0 is what its plan says, else one, or several "
        "where rows take milliseconds, or a script keeps its process busy, and cores are free.",
        least=0,
        most=1024,
    )
    engine: str = option(
        "auto",
        "What runs models; auto is what the plan of `penstock optimize` says, else TensorFlow.",
        choices=("auto", "tensorflow", "onnxruntime", "openvino"),
    )
    plan: str = option(
        "auto",
        "When a plan holds: auto for this model on such a machine, trust on any machine, ignore never.",
        choices=("auto", "trust", "ignore"),
    )
    variants: str = option(
        "", "Two proven variants of a plan, separated by a comma: the second runs while deadlines are at risk with the first."
    )
    variant_latency_ms: float = option(
        0.0, "What counts as a deadline for --variants; 0 is that of the request itself.", unit="ms", least=0
    )
    device: str = option(
        "auto",
        "What engines compute on; auto is the CPU, and for TensorFlow the GPUs that it sees.",
        choices=("auto", "cpu", "cuda", "tensorrt"),
    )
    pin_cores: bool = option(False, "Pin each process of a model to the core that fewest are on.")
    gpus: str = option("", "Numbers of the GPUs, separated by commas, that the processes of a model take in turn.")
    gpu_memory_fraction: float = option(0.0, "Part of a GPU's memory that a model's process may take.", least=0, most=1)
    memory_budget: str = option("80%", "What all models may take of memory: a size such as 8GB, or a part of what there is.")
    saves_memory: bool = option(False, "Unload the old version before the new one is loaded, instead of after.")
    load_timeout_s: float = option(600.0, "A version that is not loaded after this time is given up.", unit="s", least=0.1)
    load_retries: int = option(5, "How often a version that could not be loaded is tried again.", least=0)
    warm_up: bool = option(True, "Run a version before it answers: its recorded requests, or made-up ones.")
    script: str = option("", "inference.py, or a folder with it, for models that have none of their own in code/.")
    script_threads: int = option(8, "Requests that a script may work on at a time in each process.", least=1, most=1024)
    reload: bool = option(False, "Read a script again when it changes: for whoever is writing one.")
    python: tuple[str, ...] = option(
        (), "Interpreter that models, or one, run in: [MODEL=]PATH, with Penstock and a TensorFlow of its own.", repeats=True
    )
    async_root: str = option("", "Folder that asynchronous invocations may read and write; without one they are refused.")
    label: tuple[str, ...] = option((), "A name for a version: [MODEL:]LABEL=VERSION.", repeats=True)
    max_batch_size: int = option(128, "Rows that are run together at the most.", least=1)
    batch_timeout_us: int = option(0, "How long a request may wait for others to join its batch.", unit="µs", least=0)
    latency_target_ms: float = option(
        0.0,
        "Batches grow as long as a request that has just missed one is answered within this time; 0: no bound.",
        unit="ms",
        least=0,
    )
    allowed_batch_sizes: str = option("", "Numbers of rows that batches are filled up to, ascending, separated by commas.")
    pad_variable_lengths: bool = option(False, "Pad requests of different shapes, so that they run together.")
    max_request_rows: int = option(0, "A request with more rows is refused; 0 refuses none.", least=0)
    split_large: bool = option(False, "Run a request with more rows than --max-batch-size in parts.")
    model_batching: bool = option(
        False, "Batch each version as its batching_params.pbtxt says; versions without one are not batched."
    )
    max_queue: int = option(1024, "Requests that may wait for a model in each gateway; more get 503.", least=1)
    request_timeout_s: float = option(30.0, "Time from a request's last byte to its answer.", unit="s", least=0.001)
    max_body_bytes: int = option(256 << 20, "Largest body, after decompression.", unit="bytes", least=1)
    max_message_bytes: int = option((2 << 30) - 1, "Largest message of gRPC, after decompression.", unit="bytes", least=1)
    shared_memory: bool = option(
        False, "Let clients register shared memory of this machine (/dev/shm) for tensors: they then read and write there."
    )
    idle_timeout_s: float = option(75.0, "A connection without requests is closed after this time.", unit="s", least=0.1)
    read_timeout_s: float = option(30.0, "A client that sends or takes nothing for this time is cut off.", unit="s", least=0.1)
    busy_poll_us: int = option(
        0,
        "After a client has sent something, look for what comes next for this time instead of sleeping: requests that come one "
        "by one are answered sooner, and each gateway takes a core while they come. 0 sleeps.",
        unit="µs",
        least=0,
    )
    drain_s: float = option(30.0, "Time for requests in flight when the server is told to stop.", unit="s", least=0)
    intra_op: int = option(0, "Threads inside an operation; 0 decides by the plan or the machine.", least=0, most=1024)
    inter_op: int = option(0, "Threads for operations side by side; 0 runs them in the model's own thread.", least=0, most=1024)
    omp_threads: int = option(
        0,
        "OMP_NUM_THREADS of the processes of models, for libraries that scripts use; 0 leaves what the environment says.",
        least=0,
        most=1024,
    )
    op_library: tuple[str, ...] = option((), "Shared library with custom operations.", repeats=True)
    session_config: str = option("", "File with a TensorFlow ConfigProto in text format.")
    tags: str = option("serve", "Tags of the graph to load, separated by commas.")
    prefer_tflite: bool = option(False, "Take a version's model.tflite where there is a saved_model.pb beside it.")
    server_timing: bool = option(False, "Add a Server-Timing header to each answer.")
    monitoring_path: str = option("", "One more path for metrics: with TensorFlow Serving's names, and ours after them.")
    grpc_tensor_content: bool = option(False, "Answer gRPC's Predict with tensor_content instead of typed values.")
    checks_method_names: bool = option(False, "Refuse signatures whose method name is not that of the call.")
    cors: bool = option(False, "Let pages of other origins call the APIs.")
    log_format: str = option("text", "How the log is written.", choices=("text", "json"))

    def __post_init__(self) -> None:
        """Raises UsageError for a number out of bounds or a choice that is none."""
        for item in fields(self):
            value, data = getattr(self, item.name), item.metadata
            if isinstance(value, float) and not math.isfinite(value):
                raise UsageError(f"{flag_name(item.name)} {value}: expected a number")
            if data["least"] is not None and value < data["least"]:
                raise UsageError(f"{flag_name(item.name)} {value}: expected at least {data['least']}")
            if data["most"] is not None and value > data["most"]:
                raise UsageError(f"{flag_name(item.name)} {value}: expected at most {data['most']}")
            if data["choices"] and value not in data["choices"]:
                raise UsageError(f"{flag_name(item.name)} {value}: expected one of {', '.join(data['choices'])}")
        _ = self.variant_names

    @property
    def allowed_rows(self) -> tuple[int, ...]:
        """--allowed-batch-sizes as numbers. Raises UsageError."""
        texts = [text.strip() for text in self.allowed_batch_sizes.split(",") if text.strip()]
        sizes = tuple(int(text) for text in texts if text.isascii() and text.isdigit())
        if len(sizes) < len(texts) or any(after <= before for before, after in zip((0, *sizes), sizes, strict=False)):
            raise UsageError(f"--allowed-batch-sizes {self.allowed_batch_sizes}: expected ascending numbers such as 1,8,32")
        return sizes

    @property
    def tag_names(self) -> tuple[str, ...]:
        """--tags, one by one."""
        return tuple(self.tags.split(","))

    @property
    def variant_names(self) -> tuple[str, ...]:
        """--variants as two names, or none. Raises UsageError."""
        names = tuple(name.strip() for name in self.variants.split(",") if name.strip())
        if names and (len(names) != 2 or names[0] == names[1]):
            raise UsageError(f"--variants {self.variants}: expected two names such as openvino-fp32,openvino-int8")
        return names

    @property
    def default_python(self) -> str:
        """The interpreter of models that have none of their own; empty for the server's."""
        return next((text for text in reversed(self.python) if "=" not in text), "")

    def python_of(self, model: str) -> str:
        """A model's own interpreter, empty where it has none."""
        own = (text.partition("=") for text in reversed(self.python))
        return next((path for name, separator, path in own if separator and name == model), "")

    @property
    def gateway_count(self) -> int:
        """Measured on two cores: one gateway answers 30 % more than two at 16 connections, and as much at 64."""
        return self.gateways or (available_cores() + 1) // 2


ENVIRONMENT_PREFIX = "PENSTOCK_"


def flag_name(name: str) -> str:
    """`max_batch_size` → `--max-batch-size`."""
    return "--" + name.replace("_", "-")


def environment_name(name: str) -> str:
    """`max_batch_size` → `PENSTOCK_MAX_BATCH_SIZE`."""
    return ENVIRONMENT_PREFIX + name.upper()


def cache_folder() -> Path:
    """Where unpacked archives and exported Keras files are kept: $PENSTOCK_CACHE, else penstock in the user's cache."""
    chosen = os.environ.get("PENSTOCK_CACHE")
    if chosen:
        return Path(chosen)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "penstock"


def options_reference() -> str:
    """docs/options.md."""
    lines = [
        "# Options",
        "",
        "Generated by `make docs` from `src/penstock/config.py`. Flags beat the environment, which beats the file given with",
        "`--config` (TOML, the names of the environment in lower case without their prefix), which beats the default.",
        "",
        "| flag | environment | default | meaning |",
        "|---|---|---|---|",
    ]
    for item in fields(ServeOptions):
        data = item.metadata
        default = (
            "–"
            if item.default in ("", ())
            else f"`{str(item.default).lower() if isinstance(item.default, bool) else item.default}`"
        )
        text = data["text"] + (f" One of {', '.join(data['choices'])}." if data["choices"] else "")
        unit = f" {data['unit']}" if data["unit"] else ""
        repeats = " Can be repeated (in the environment: separated by commas)." if data["repeats"] else ""
        lines.append(f"| `{flag_name(item.name)}` | `{environment_name(item.name)}` | {default}{unit} | {text}{repeats} |")
    return "\n".join(lines) + "\n"
