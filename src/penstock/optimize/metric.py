"""A user's own measure of answers: `--metric module:function`, a function of [(inputs, outputs), …]; more is better."""

from __future__ import annotations

import importlib
import math
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from penstock.errors import UsageError
from penstock.optimize.proof import Case
from penstock.tensors import Array

Pairs = Sequence[tuple[Mapping[str, Array], Mapping[str, Array]]]
Metric = Callable[[Pairs], float]
Answers = Sequence[Mapping[str, Array] | str]


def drop(measure: Metric, samples: Sequence[Case], references: Answers, answers: Answers) -> float:
    """How much less `measure` gives for `answers` than for `references`. NaN: it cannot say.

    Raises UsageError where there is nothing to measure.
    """
    pairs = []
    seen: set[int] = set()
    for case, reference, answer in zip(samples, references, answers, strict=True):
        # A sample counts once, however many signatures it was asked of.
        if id(case.inputs) not in seen and not isinstance(reference, str) and not isinstance(answer, str):
            seen.add(id(case.inputs))
            pairs.append((dict(case.inputs), dict(reference), dict(answer)))
    if not pairs:
        raise UsageError("--metric measures over --samples: give some")
    theirs = float(measure([(inputs, reference) for inputs, reference, _ in pairs]))
    if math.isnan(theirs):
        raise UsageError("--metric is NaN for TensorFlow's own answers to --samples")
    return theirs - float(measure([(inputs, answer) for inputs, _, answer in pairs]))


def metric_file(name: str) -> Path:
    """Where the function of `--metric` is. Raises UsageError."""
    return Path(metric(name).__code__.co_filename)


def metric(name: str) -> Metric:
    """The function that `module:function` names; the working directory is looked in first. Raises UsageError."""
    module, separator, function = name.partition(":")
    sys.path.insert(0, os.getcwd())
    try:
        found: Metric = getattr(importlib.import_module(module), function)
    except (ImportError, AttributeError) as error:
        raise UsageError(f"--metric {name}: {error}") from None
    finally:
        sys.path.pop(0)
    if not separator or not callable(found):
        raise UsageError(f"--metric {name}: expected module:function")
    return found
