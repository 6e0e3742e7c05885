"""The section of docs/performance.md on tuned settings. Computes nothing that is not in the results but ratios and medians."""

from __future__ import annotations

import statistics
from collections.abc import Sequence

from benchmarks.tuning_results import AUTO, GRID, POOR, TUNED, Tuned, TuningResults, bars
from penstock.tune.report import setting_text

NONE = "–"
TITLES = {TUNED: "found by `penstock tune`", GRID: "the best of the grid", AUTO: "`auto`, the defaults", POOR: "a poor start"}


def section(results: TuningResults) -> list[str]:
    """Blocks of Markdown, from the heading on."""
    found = bars(results)
    met, measured = sum(bar.met is True for bar in found), sum(bar.met is not None for bar in found)
    run = results.run
    marks = {True: "yes", False: "**no**", None: NONE}
    rows = [(bar.work, bar.what, bar.required, bar.measured, marks[bar.met]) for bar in found]
    blocks = [
        "## Tuned settings",
        f"{met} of {measured} requirements are met. `penstock tune` has {run.settings['budget_s']} s for a model. Then every "
        "setting of its space is measured in the same way, by one curve of half the time. The best of them, the tuned one, the "
        "defaults and a poor start (one gateway, one instance, no batches, `OMP_NUM_THREADS=8`) are measured once more in turn, "
        f"{run.settings['rounds']} rounds. Figures are the throughput at the goal for latency; the load generator runs on the "
        "same cores.",
        _table(["model", "figure", "at least / at most", "measured", "met"], rows),
    ]
    for name, one in results.models.items():
        blocks += _model(name, one)
    if results.engine:
        batch = results.engine["batch"][0]
        rates = {way: statistics.median(values) for way, values in results.engine.items() if way != "batch"}
        engine = rates.pop("engine")
        told = ", ".join(f"{way} {rate:.0f}/s ({rate / engine:.0%})" for way, rate in rates.items())
        blocks.append(f"MobileNetV2 by the engine alone, batches of {batch:.0f}: {engine:.0f} images/s. Served: {told}.")
    blocks.append("```sh\nmake bench-tune\npython -m benchmarks.tuning --only perceptron\n```")
    return blocks


def _model(name: str, one: Tuned) -> list[str]:
    result = one.result
    rows = []
    for key, title in TITLES.items():
        value = one.value(key)
        if value is None:
            continue
        ratio = one.ratio(key, TUNED)
        rows.append(
            (title, setting_text(one.settings[key], result.defaults), f"{value:,.0f}", NONE if ratio is None else f"{ratio:.2f}×")
        )
    return [
        f"### {name}, {result.slo}",
        f"Measured on {result.made[:10]} at commit `{one.commit}`. {result.measured} of {result.grid} settings measured and "
        f"{result.probes} probed in {result.seconds / 60:.1f} minutes. "
        f"Reported knee: {result.best.rate:,.0f}/s ({result.best.low:,.0f} to {result.best.high:,.0f}) at "
        f"{result.best.connections} connections.",
        _table(["setting", "what is not the default", "at the goal, /s", "against tuned"], rows),
    ]


def _table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)
