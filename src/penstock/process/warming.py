"""Warm-up: a version runs before it answers, over the requests that were recorded for it, else over made-up ones."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Mapping
from math import inf
from pathlib import Path

import numpy as np

from penstock.codec.tfs_predict import decode_predict
from penstock.engine.base import EngineModel
from penstock.errors import FailedPrecondition, InvalidArgument, PenstockError
from penstock.savedmodel.warmup import WarmupRequest, read_warmup, recorded_request
from penstock.serving.batcher import made_up_row
from penstock.tensors import Array, Signature

#: Runs that are timed, and the time after which there are no more.
_TIMED_RUNS, _TIMED_S = 3, 0.05


def warm_up(model: EngineModel, folder: Path, *, made_up: bool) -> None:
    """Runs the recorded requests of a version folder: `assets.extra/tf_serving_warmup_requests` and `assets.extra/warmup.json`.

    Raises what the first that fails raises: as in TensorFlow Serving, such a version is not served. With `made_up`, signatures
    that the trial of their rows (`serving/batcher.py`) has not run are run over values that their types allow.
    """
    if made_up:
        for name, signature in model.signatures.items():
            row = None if signature.takes_batches else made_up_row(signature, 1)
            if row is not None:
                with contextlib.suppress(PenstockError):  # the graph may want other shapes than the signature says
                    model.run(name, row)
    for request in read_warmup(folder):
        signature = _signature(model, request.signature_name)
        model.run(signature.name, _inputs(signature, request), request.outputs)
    body = recorded_request(folder)
    if body is not None:
        decoded = decode_predict(body, lambda name: _signature(model, name))
        model.run(decoded.signature.name, dict(zip(decoded.signature.inputs, decoded.inputs, strict=True)))


def row_seconds(model: EngineModel) -> float:
    """What one row takes, by the quickest of a few runs of the default signature over made-up values; 0 where that fails."""
    signature = model.signatures.get("serving_default") or next(iter(model.signatures.values()), None)
    row = made_up_row(signature, 1) if signature is not None else None
    if signature is None or row is None:
        return 0.0
    quickest = inf
    begin = time.perf_counter()
    try:
        for _ in range(_TIMED_RUNS):
            before = time.perf_counter()
            model.run(signature.name, row)
            quickest = min(quickest, time.perf_counter() - before)
            if time.perf_counter() - begin > _TIMED_S:
                break
    except PenstockError:
        return 0.0
    return quickest


def _signature(model: EngineModel, name: str) -> Signature:
    found = model.signatures.get(name or "serving_default")
    if found is None:
        raise FailedPrecondition(f"a warm-up request is for signature {name!r}, which the model does not have")
    return found


def _inputs(signature: Signature, request: WarmupRequest) -> Mapping[str, Array]:
    if request.examples is None:
        return request.inputs
    if len(signature.inputs) != 1:
        raise InvalidArgument("Expected one input Tensor.")
    examples = np.empty(len(request.examples), np.object_)
    examples[:] = request.examples
    return {next(iter(signature.inputs)): examples}
