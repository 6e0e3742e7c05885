"""The flags of `tensorflow_model_server` (contract §3), each declared once, and parsed as that binary parses them.

Guarantees: parsing is a function of the arguments. Every flag of the contract is accepted; those that mean nothing here have a
reason, which the page for people who move (docs/tensorflow-serving.md) is made of.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

_INTEGER = re.compile(r"\s*[+-]?[0-9]+")
_FLOAT = re.compile(r"\s*[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?")
_BITS = {"int32": 32, "int64": 64}


@dataclass(frozen=True, slots=True)
class Flag:
    """One flag. `effect` is what it does here; where that is nothing, `why_not` says why. `shown`: a default that depends."""

    name: str
    default: Any
    effect: str = ""
    why_not: str = ""
    kind: str = ""
    shown: str = ""

    @property
    def type_name(self) -> str:
        """The type, by TensorFlow's names."""
        return self.kind or {bool: "bool", int: "int32", float: "float"}.get(type(self.default), "string")

    def parse(self, text: str) -> Any:
        """The value that is written after the equals sign. Raises ValueError for one that does not fit the type."""
        kind = self.type_name
        if kind == "bool":
            return {"true": True, "false": False}[text] if text in ("true", "false") else _refuse()
        if kind in _BITS:
            value = int(text) if _INTEGER.fullmatch(text) else _refuse()
            limit = 1 << (_BITS[kind] - 1)
            return value if -limit <= value < limit else _refuse()
        if kind == "float":
            return float(text) if _FLOAT.fullmatch(text) else _refuse()
        return text


def _refuse() -> Any:
    raise ValueError


_PROCESS_EACH = "Every version is loaded by a process of its own, all side by side."
_LOOP = "Connections have no threads: an event loop serves all of them."
_XLA = "XLA is never switched off: functions that ask for it are compiled."
_LITERT = "A process has one interpreter; PENSTOCK_INSTANCES says how many processes a model has."

FLAGS: tuple[Flag, ...] = (
    Flag("port", 8500, "Port of gRPC, on all addresses; it answers the REST API as well. 0: none."),
    Flag("grpc_socket_path", "", "A Unix socket to listen on as well, without TLS."),
    Flag("rest_api_port", 0, "Port of the REST API, on all addresses; it answers gRPC as well. 0: none."),
    Flag("rest_api_num_threads", 0, why_not=_LOOP, shown="4 × CPUs"),
    Flag("rest_api_timeout_in_ms", 30000, "Time for a request of any API that brings no deadline; 0 or less: a day."),
    Flag("rest_api_enable_cors_support", False, "Lets pages of other origins call the APIs."),
    Flag("enable_batching", False, "Batches as the parameters say. Without it, what has arrived runs together, up to 128 rows."),
    Flag("batching_parameters_file", "", "BatchingParameters in text format; needs --enable_batching."),
    Flag(
        "enable_per_model_batching_parameters",
        False,
        "Takes batching_params.pbtxt in each version's folder; versions without one are not batched. Needs --enable_batching.",
    ),
    Flag("allow_version_labels_for_unavailable_models", False, why_not="A label may always be there before its version is."),
    Flag("model_config_file", "", "ModelServerConfig in text format; beats --model_name and --model_base_path."),
    Flag("model_config_file_poll_wait_seconds", 0, "Above 0: the file is read again when it changes."),
    Flag("model_name", "default", "The model's name."),
    Flag("model_base_path", "", "The folder with the model's version folders; a folder of this machine."),
    Flag("num_load_threads", 0, why_not=_PROCESS_EACH),
    Flag("num_unload_threads", 0, why_not="Unloading a version is ending its process."),
    Flag("max_num_load_retries", 5, "How often a version that could not be loaded is tried again."),
    Flag("load_retry_interval_micros", 60_000_000, why_not="It is tried again after 1, 5, 15, 60, 60 … s.", kind="int64"),
    Flag("file_system_poll_wait_seconds", 1, "How often folders are looked at for versions; 0 or less: once."),
    Flag("flush_filesystem_caches", True, why_not="What the system's cache of files holds is taken back by itself."),
    Flag("tensorflow_session_parallelism", 0, "Threads inside operations and for operations side by side.", kind="int64"),
    Flag("tensorflow_intra_op_parallelism", 0, "Threads inside operations. 0: by the machine.", kind="int64"),
    Flag("tensorflow_inter_op_parallelism", 0, "Threads for operations side by side. 0: none of their own.", kind="int64"),
    Flag("tensorflow_session_config_file", "", "ConfigProto in text format, under the other flags."),
    Flag("use_alts_credentials", False, "Refused: ALTS works on Google's machines alone. Use --ssl_config_file."),
    Flag("ssl_config_file", "", "SSLConfig in text format: TLS for --port."),
    Flag("platform_config_file", "", why_not="There is one platform, with flags for what can be set."),
    Flag("per_process_gpu_memory_fraction", 0.0, "Part of a GPU's memory that a model's process may take; 1 at most."),
    Flag("saved_model_tags", "serve", "Tags of the graph to load, separated by commas."),
    Flag("grpc_channel_arguments", "", why_not="They are for gRPC's C library, which does not run here; limits are options."),
    Flag("grpc_max_threads", 0, why_not=_LOOP, shown="4 × CPUs"),
    Flag("enable_model_warmup", True, "Runs a version before it answers: its recorded requests, or made-up ones."),
    Flag("num_request_iterations_for_warmup", 0, why_not="Each recorded request is run once."),
    Flag("version", False, "Prints two lines and ends."),
    Flag("monitoring_config_file", "", "MonitoringConfig in text format: metrics with TensorFlow Serving's names at its path."),
    Flag("remove_unused_fields_from_bundle_metagraph", True, why_not="The graph is not kept beside the session."),
    Flag("prefer_tflite_model", False, "Takes model.tflite where a version has both; needs `penstock[litert]`."),
    Flag("num_tflite_pools", 0, why_not=_LITERT, shown="CPUs"),
    Flag("num_tflite_interpreters_per_pool", 1, why_not=_LITERT),
    Flag("enable_signature_method_name_check", False, "Refuses signatures whose method name is not that of the call."),
    Flag("xla_cpu_compilation_enabled", False, why_not=_XLA),
    Flag("xla_gpu_compilation_enabled", False, why_not=_XLA),
    Flag("enable_profiler", True, why_not="It switches nothing: no profile is taken unless somebody asks for one."),
    Flag("thread_pool_factory_config_file", "", why_not="A model's process has the thread pools of its session alone."),
    Flag("mixed_precision", "", "bfloat16: lets oneDNN compute in it. Other values are refused."),
    Flag("skip_initialize_tpu", False, why_not="TPUs are not used."),
    Flag("enable_grpc_healthcheck_service", False, why_not="The health service always answers."),
    Flag("enable_serialization_as_tensor_content", False, "Answers Predict with tensor_content instead of typed values."),
)
_BY_NAME = {flag.name: flag for flag in FLAGS}


@dataclass(frozen=True, slots=True)
class Arguments:
    """What was given: a value for every flag, the names of those that were set, what is unknown, and what cannot be read."""

    values: dict[str, Any]
    given: list[str] = field(default_factory=list)
    unknown: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)

    @property
    def want_usage(self) -> bool:
        """Whether the usage is all that is to be shown: something cannot be read, or was asked for."""
        return bool(self.problems) or self.unknown[:1] == ["--help"]

    @property
    def without_effect(self) -> list[str]:
        """The flags that were set to something else than their default, and mean nothing here."""
        return [name for name in self.given if _BY_NAME[name].why_not and self.values[name] != _BY_NAME[name].default]


def parse(arguments: Sequence[str]) -> Arguments:
    """`--flag=value`, for bool flags `--flag` too; the last one counts, and after `--` all is unknown."""
    parsed = Arguments({flag.name: flag.default for flag in FLAGS})
    end = arguments.index("--") if "--" in arguments else len(arguments)
    for argument in arguments[:end]:
        name, equals, text = argument.removeprefix("--").partition("=")
        flag = _BY_NAME.get(name) if argument.startswith("--") else None
        if flag is None or not (equals or flag.type_name == "bool"):
            parsed.unknown.append(argument)
            continue
        try:
            parsed.values[name] = flag.parse(text) if equals else True
        except ValueError:
            parsed.problems.append(f"Couldn't interpret value {equals * (flag.type_name == 'bool')}{text} for flag {name}.")
        if name not in parsed.given:
            parsed.given.append(name)
    parsed.unknown.extend(arguments[end:])
    return parsed


def usage(program: str) -> str:
    """All flags with type, default and effect, a line for each."""
    lines = [f"usage: {program}", "Flags:"]
    for flag in FLAGS:
        text = flag.effect or f"No effect. {flag.why_not}"
        lines.append(f"\t{f'--{flag.name}={_shown(flag)}':<33}\t{flag.type_name}\t{text}")
    return "\n".join(lines) + "\n"


def reference() -> str:
    """The table of flags of docs/tensorflow-serving.md."""
    rows = [f"| `--{flag.name}` | {_in_table(flag)} | {flag.effect or f'No effect. {flag.why_not}'} |" for flag in FLAGS]
    return "\n".join(["| flag | default | here |", "|---|---|---|", *rows]) + "\n"


def _shown(flag: Flag) -> str:
    if flag.type_name == "string":
        return f'"{flag.default}"'
    return flag.shown.replace(" ", "") or str(flag.default).lower()


def _in_table(flag: Flag) -> str:
    if flag.default == "":
        return "–"
    return flag.shown or f"`{str(flag.default).lower()}`"
