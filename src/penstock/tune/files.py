"""The settings that were found, as files for those who serve: ours, SageMaker's variables, TensorFlow Serving's flags."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from penstock.config import environment_name
from penstock.report.figures import three_digits
from penstock.tune.result import TuneResult
from penstock.tune.setting import NAMES, Setting

CONFIG, VARIABLES, FLAGS, BATCHING = "penstock.toml", "sagemaker.env", "tensorflow_model_server.sh", "batching.pbtxt"
#: While tuning, a thousand requests might wait; both containers count them as batches.
_ENQUEUED_BATCHES = 1000
#: Options for which SageMaker's container has no variable, and TensorFlow Serving no flag: ours are read beside them.
_NO_VARIABLE = ("gateways", "engine")
_NO_FLAG = ("gateways", "engine", "instances", "script_threads", "omp_threads")


def write_files(folder: Path, result: TuneResult, common: Mapping[str, Any]) -> list[str]:
    """The files' names. `common` are options that all settings had. Raises OSError."""
    texts = {
        CONFIG: config_text(result, common),
        VARIABLES: variables_text(result),
        FLAGS: flags_text(result),
    }
    if _shapes_batches(result):
        texts[BATCHING] = batching_text(result.winner, result.rows)
    for name, text in texts.items():
        (folder / name).write_text(text, "utf-8")
    return list(texts)


def config_text(result: TuneResult, common: Mapping[str, Any]) -> str:
    """For `penstock serve --config`."""
    chosen = result.chosen
    own = {name: value for name, value in common.items() if name not in NAMES}
    lines = [f"# {line}" for line in _about(result)]
    if not chosen:
        lines.append("# No setting was beyond doubt better than what the server decides by itself: there is nothing to set.")
    return "\n".join([*lines, *(f"{name} = {_toml(value)}" for name, value in {**own, **chosen}.items())]) + "\n"


def variables_text(result: TuneResult) -> str:
    """For `docker run --env-file`, or an endpoint's Environment; read by `penstock sagemaker serve`."""
    chosen, setting = result.chosen, result.winner
    known: dict[str, Any] = {}
    if "instances" in chosen:
        known["SAGEMAKER_TFS_INSTANCE_COUNT"] = setting.instances
    if "intra_op" in chosen:
        known["SAGEMAKER_TFS_INTRA_OP_PARALLELISM"] = setting.intra_op
    if "inter_op" in chosen:
        known["SAGEMAKER_TFS_INTER_OP_PARALLELISM"] = setting.inter_op
    if _shapes_batches(result):
        known |= {
            "SAGEMAKER_TFS_ENABLE_BATCHING": "true",
            "SAGEMAKER_TFS_MAX_BATCH_SIZE": setting.max_batch_size,
            "SAGEMAKER_TFS_BATCH_TIMEOUT_MICROS": setting.batch_timeout_us,
            "SAGEMAKER_TFS_MAX_ENQUEUED_BATCHES": _ENQUEUED_BATCHES,
        }
    if "script_threads" in chosen:
        known |= {"SAGEMAKER_GUNICORN_WORKERS": 1, "SAGEMAKER_GUNICORN_THREADS": setting.script_threads}
    if "omp_threads" in chosen:
        known["OMP_NUM_THREADS"] = setting.omp_threads
    known |= {environment_name(name): chosen[name] for name in _NO_VARIABLE if name in chosen}
    return "\n".join([*(f"# {line}" for line in _about(result)), *(f"{name}={value}" for name, value in known.items())]) + "\n"


def flags_text(result: TuneResult) -> str:
    """A script that starts `tensorflow_model_server` so; what it has no flag for are variables of ours in front of it."""
    chosen, setting = result.chosen, result.winner
    variables = [f"{environment_name(name)}={chosen[name]}" for name in _NO_FLAG if name in chosen]
    flags = [f"--model_name={result.model}", '--model_base_path="$MODEL_BASE_PATH"']
    if "intra_op" in chosen:
        flags.append(f"--tensorflow_intra_op_parallelism={setting.intra_op}")
    if "inter_op" in chosen:
        flags.append(f"--tensorflow_inter_op_parallelism={setting.inter_op}")
    if _shapes_batches(result):
        flags += ["--enable_batching", f'--batching_parameters_file="$(dirname "$0")/{BATCHING}"']
    program = " ".join(["exec", *(["env", *variables] if variables else []), "tensorflow_model_server"])
    command = " \\\n  ".join([program, *flags, '"$@"'])
    return "\n".join(["#!/bin/sh", *(f"# {line}" for line in _about(result)), command]) + "\n"


def batching_text(setting: Setting, rows: int) -> str:
    """TensorFlow Serving's BatchingParameters in text format. There, a batch is as large as a request of `rows` rows at least."""
    return (
        f"max_batch_size {{ value: {max(setting.max_batch_size, rows)} }}\n"
        f"batch_timeout_micros {{ value: {setting.batch_timeout_us} }}\n"
        f"num_batch_threads {{ value: {max(1, setting.instances)} }}\n"
        f"max_enqueued_batches {{ value: {_ENQUEUED_BATCHES} }}\n"
    )


def _shapes_batches(result: TuneResult) -> bool:
    return bool({"max_batch_size", "batch_timeout_us"} & result.chosen.keys())


def _about(result: TuneResult) -> list[str]:
    best = result.best
    return [
        f"penstock tune {result.penstock}, {result.made}: model {result.model} on {result.machine.processor}, "
        f"{result.machine.cores} cores",
        f"{three_digits(best.rate)} requests/s at {best.connections} connections, p99 {three_digits(best.latency.p99)} ms; "
        f"{three_digits(result.auto.rate)} with the defaults",
    ]


def _toml(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, (list, tuple)):
        return f"[{', '.join(map(_toml, value))}]"
    if isinstance(value, str):
        escaped = value.replace("\\", "\\\\").replace('"', '\\"')
        return f'"{escaped}"'
    return str(value)
