"""What a run measured, as data: written by the runner, read by the report. The JSON file is exactly these fields."""

from __future__ import annotations

import dataclasses
import datetime
import json
import statistics
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks import environments, machine
from benchmarks.load import Sample
from benchmarks.machine import ROOT
from benchmarks.servers import Name


@dataclass
class Results:
    """samples: work -> contender -> one Sample per round; failures: work -> contender -> why there is no figure.

    start_s: contender -> seconds, one per round. tensor_ms: part -> milliseconds, one per round.
    unique_mb: kind of process -> megabytes of each, ascending by its number.
    figures: work -> name of a figure with its unit at the end (`works.FIGURES` explains them) -> one value per round.
    """

    date: str
    commit: str
    machine: dict[str, str | int | float]
    settings: dict[str, int]
    versions: dict[str, dict[str, str]]
    missing: dict[str, str] = field(default_factory=dict)
    samples: dict[str, dict[str, list[Sample]]] = field(default_factory=dict)
    failures: dict[str, dict[str, str]] = field(default_factory=dict)
    start_s: dict[str, list[float]] = field(default_factory=dict)
    tensor_ms: dict[str, list[float]] = field(default_factory=dict)
    unique_mb: dict[str, list[float]] = field(default_factory=dict)
    figures: dict[str, dict[str, list[float]]] = field(default_factory=dict)

    @classmethod
    def begun(
        cls,
        settings: dict[str, int],
        described: dict[str, str | int | float],
        tools: dict[str, str] | None = None,
        pythons: Mapping[Name, Path] | None = None,
        missing: dict[str, str] | None = None,
    ) -> Results:
        """Those of a run that begins: now, at this commit, on the machine that was `described` before anything was started.

        tools: versions of load generators. pythons: by peer, the interpreter of its environment. missing: peers that are not
        installed, and why.
        """
        versions = {"penstock": environments.versions(Path(sys.executable))}
        versions |= {peer: environments.versions(python) for peer, python in (pythons or {}).items()}
        return cls(
            date=datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
            commit=machine.commit(),
            machine=described,
            settings=settings,
            versions=versions | ({"system": tools} if tools else {}),
            missing=missing or {},
        )

    def add(self, work: str, figures: dict[str, float]) -> None:
        """Says and keeps the figures of one round."""
        print(f"{work}: {', '.join(f'{name} {value:.4g}' for name, value in figures.items())}", flush=True)
        for name, value in figures.items():
            self.figures.setdefault(work, {}).setdefault(name, []).append(value)

    def fail(self, work: str, contender: str, reason: str) -> None:
        """Says so and keeps it, without the paths of this machine."""
        reason = " ".join(reason.replace(f"{ROOT}/", "").split())
        print(f"  {work}: {contender} failed: {reason}", flush=True)
        self.failures.setdefault(work, {})[contender] = reason

    def write(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(dataclasses.asdict(self), indent=1) + "\n")


def read(path: Path) -> Results:
    """The results in a file that `Results.write` wrote."""
    fields: dict[str, Any] = json.loads(path.read_text())
    fields["samples"] = {
        work: {contender: [Sample(**sample) for sample in rounds] for contender, rounds in contenders.items()}
        for work, contenders in fields["samples"].items()
    }
    return Results(**fields)


@dataclass(frozen=True)
class Summary:
    """Medians over the rounds; errors and spread over all of them. spread: (highest - lowest) / median of the rate."""

    rate: float
    p50_ms: float
    p99_ms: float
    cpu_us: float | None
    errors: int
    spread: float


def summarize(rounds: list[Sample]) -> Summary:
    """Needs at least one round."""
    rates = [each.rate for each in rounds]
    cpu = [each.cpu_us for each in rounds if each.cpu_us is not None]
    rate = statistics.median(rates)
    return Summary(
        rate=rate,
        p50_ms=statistics.median(each.p50_ms for each in rounds),
        p99_ms=statistics.median(each.p99_ms for each in rounds),
        cpu_us=statistics.median(cpu) if cpu else None,
        errors=sum(each.errors for each in rounds),
        spread=(max(rates) - min(rates)) / rate if rate else 0.0,
    )
