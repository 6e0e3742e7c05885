"""`penstock sagemaker serve`: options from the variables of a SageMaker container."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from penstock.cli.options import build_options
from penstock.config import ServeOptions, available_cores
from penstock.errors import UsageError
from penstock.sagemaker_settings import SageMakerSettings


def sagemaker_options(
    config: str | None, given: Mapping[str, Any], environ: Mapping[str, str]
) -> tuple[ServeOptions, SageMakerSettings]:
    """Options for `given` flags over PENSTOCK_ variables over SAGEMAKER_ variables. Raises UsageError."""
    settings = SageMakerSettings.from_environ(environ, available_cores())
    if settings.multi_model:
        raise UsageError("SAGEMAKER_MULTI_MODEL is true, and this version serves single-model endpoints only")
    return build_options(given, config, environ, under=_as_options(settings)), settings


def _as_options(settings: SageMakerSettings) -> dict[str, Any]:
    values: dict[str, Any] = {
        "host": "0.0.0.0",
        "port": settings.bind_port,
        "versions": "all",
        "intra_op": settings.intra_op,
        "inter_op": settings.inter_op,
        "request_timeout_s": float(settings.request_timeout_s),
    }
    if settings.enable_batching:
        values["max_batch_size"] = settings.max_batch_size
        values["batch_timeout_us"] = settings.batch_timeout_micros
        # There, batches that run are not in the queue; here the bound is for all that is under way.
        batches = settings.max_enqueued_batches + settings.num_batch_threads
        values["max_queue"] = batches * settings.max_batch_size
    return values
