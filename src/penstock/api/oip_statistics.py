"""Statistics of models in the Open Inference Protocol's terms, from the figures of all gateways and all APIs.

A request counts as one inference and one execution, whatever its rows and whoever ran with it: what is known of batches is in
/metrics. Times of requests that failed in the model are among those of the others. When the last request came is not told.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from penstock.observe.metrics import STAGES, Collected, Series, merge
from penstock.serving.routes import Servable

_PARTS = {"queue": "queue", "compute_input": "decode", "compute_infer": "infer", "compute_output": "encode"}


def statistics(collected: Collected, servables: Iterable[Servable]) -> list[dict[str, Any]]:
    """ModelStatistics of each version."""
    totals: dict[tuple[str, int], Series] = {}
    for series in merge(collected.snapshots):
        key = (series.model, series.version)
        if key in totals:
            totals[key].add(series)
        else:
            totals[key] = series
    return [_of_version(one, totals.get((one.model, one.version))) for one in servables]


def _of_version(servable: Servable, series: Series | None) -> dict[str, Any]:
    good = series.codes.get("OK", 0) if series is not None else 0
    bad = sum(series.codes.values()) - good if series is not None else 0
    parts = {name: _duration(series, stage) for name, stage in _PARTS.items()}
    return {
        "name": servable.model,
        "version": str(servable.version),
        "inference_count": good,
        "execution_count": good,
        "inference_stats": {
            "success": {"count": good, "ns": sum(part["ns"] for part in parts.values())},
            "fail": {"count": bad, "ns": 0},
            **parts,
            "cache_hit": {"count": 0, "ns": 0},
            "cache_miss": {"count": 0, "ns": 0},
        },
        "batch_stats": [],
    }


def _duration(series: Series | None, stage: str) -> dict[str, int]:
    if series is None:
        return {"count": 0, "ns": 0}
    place = STAGES.index(stage)
    return {"count": sum(series.stages[place]), "ns": series.sums_ns[place]}
