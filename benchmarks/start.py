"""`serve` to first answer: from starting the process to the first 200, the contenders in turn."""

from __future__ import annotations

import compileall
from collections.abc import Sequence
from pathlib import Path

import penstock
from benchmarks import models
from benchmarks.results import Results
from benchmarks.servers import Contender, ServerFailedError, running
from benchmarks.throughput import Launcher, Plan

MODEL = "half_plus_two"


def measure(contenders: Sequence[Contender], launch: Launcher, plan: Plan, results: Results) -> None:
    """Adds seconds per contender and round. Round 0 is not counted: it brings the files into the page cache.

    Our files are compiled before, as pip does with what it installs, the peers' packages among it.
    """
    compileall.compile_dir(Path(penstock.__file__).parent, quiet=1)
    body = models.body_path(plan.directory, MODEL).read_bytes()
    for number in range(plan.rounds + 1):
        for contender in contenders:
            if contender.name in results.failures.get("start", {}):
                continue
            try:
                with running(launch(contender, MODEL)) as server:
                    seconds = server.wait_for_answer(body)
            except ServerFailedError as error:
                results.fail("start", contender.name, str(error))
                continue
            print(f"start, round {number} of {plan.rounds}: {contender.title} {seconds:.2f} s", flush=True)
            if number:
                results.start_s.setdefault(contender.name, []).append(seconds)
