"""`penstock sagemaker serve`: options from the variables of a SageMaker container."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from penstock.cli.options import build_options
from penstock.config import ServeOptions, available_cores
from penstock.sagemaker_settings import SageMakerSettings

#: Where AWS's container has the script that all models share.
_SHARED_CODE = Path("/opt/ml/code")

#: Where AWS's container has the script of all models of a multi-model endpoint.
_UNIVERSAL_CODE = "/opt/ml/code"


def sagemaker_options(
    config: str | None, given: Mapping[str, Any], environ: Mapping[str, str]
) -> tuple[ServeOptions, SageMakerSettings]:
    """Options for `given` flags over PENSTOCK_ variables over SAGEMAKER_ variables. Raises UsageError."""
    settings = SageMakerSettings.from_environ(environ, available_cores())
    return build_options(given, config, environ, under=_as_options(settings)), settings


def script_to_copy(options: ServeOptions, settings: SageMakerSettings) -> str:
    """What to do about a script of all models that AWS's container would fetch from S3; empty where there is nothing to do."""
    source = settings.universal_script
    place = Path(options.script or _UNIVERSAL_CODE)
    if source is None or place.is_file() or (place / "inference.py").is_file():
        return ""
    return (
        f"the script in {source} is not fetched, and models without one of their own have none: put inference.py and what "
        f"belongs to it into {place} before the start (aws s3 cp --recursive {source} {place}), or into another folder that "
        "--script or PENSTOCK_SCRIPT names"
    )


def _as_options(settings: SageMakerSettings) -> dict[str, Any]:
    values: dict[str, Any] = {
        "host": "0.0.0.0",
        "port": settings.bind_port,
        "versions": "all",
        "instances": settings.instance_count,
        "load_timeout_s": float(settings.wait_time_s),
        "script_threads": settings.gunicorn_workers * settings.gunicorn_threads,
        "intra_op": settings.intra_op,
        "inter_op": settings.inter_op,
        "omp_threads": settings.omp_threads,
        "request_timeout_s": float(settings.request_timeout_s),
    }
    if settings.multi_model:
        values |= {"script": _UNIVERSAL_CODE, "load_retries": 0}
    if (_SHARED_CODE / "inference.py").is_file():
        values["script"] = str(_SHARED_CODE)
    if settings.gpu_memory_fraction is not None:
        values["gpu_memory_fraction"] = settings.gpu_memory_fraction
    if settings.enable_batching:
        values["max_batch_size"] = settings.max_batch_size
        values["batch_timeout_us"] = settings.batch_timeout_micros
        # There, batches that run are not in the queue; here the bound is for all that is under way.
        batches = settings.max_enqueued_batches + settings.num_batch_threads
        values["max_queue"] = batches * settings.max_batch_size
    return values
