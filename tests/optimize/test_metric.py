"""A user's own measure: what it is given, and what may be wrong with its name."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from penstock.errors import UsageError
from penstock.optimize.metric import Pairs, drop, metric, metric_file
from penstock.optimize.proof import Case

INPUTS = {"x": np.arange(3.0)}


def total(pairs: Pairs) -> float:
    return float(sum(outputs["y"].sum() for _, outputs in pairs))


def test_a_drop_is_what_is_less_than_tensorflow_s() -> None:
    samples = [Case("a", INPUTS, "sample 1")]
    assert drop(total, samples, [{"y": np.array([3.0])}], [{"y": np.array([1.0])}]) == 2.0


def test_a_sample_counts_once_however_many_signatures_take_it() -> None:
    samples = [Case("serve", INPUTS, "sample 1"), Case("serving_default", INPUTS, "sample 1")]
    answers = [{"y": np.array([3.0])}] * 2
    assert drop(lambda pairs: float(len(pairs)) + total(pairs), samples, answers, answers) == 0.0
    assert drop(lambda pairs: -float(len(pairs)), samples, answers, answers) == 0.0
    seen: list[int] = []

    def count(pairs: Pairs) -> float:
        seen.append(len(pairs))
        return 0.0

    drop(count, samples, answers, answers)
    assert seen == [1, 1]


def test_a_measure_that_cannot_say_is_no_drop_that_is_allowed() -> None:
    samples = [Case("a", INPUTS, "sample 1")]
    good, constant = [{"y": np.array([3.0, 4.0])}], [{"y": np.array([3.0, 3.0])}]

    def spread(pairs: Pairs) -> float:
        return float("nan") if not np.ptp(pairs[0][1]["y"]) else 1.0

    assert np.isnan(drop(spread, samples, good, constant))
    with pytest.raises(UsageError, match="NaN for TensorFlow's own answers"):
        drop(spread, samples, constant, good)


def test_samples_that_were_refused_are_left_out_and_some_must_be_left() -> None:
    with pytest.raises(UsageError, match="--metric measures over --samples: give some"):
        drop(total, [Case("a", INPUTS, "sample 1")], ["refused"], ["refused"])


def test_the_function_is_looked_for_in_the_working_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "own_measure.py").write_text("def accuracy(pairs):\n    return 1.0\n")
    monkeypatch.chdir(tmp_path)
    assert metric("own_measure:accuracy")([]) == 1.0
    assert metric_file("own_measure:accuracy") == tmp_path / "own_measure.py"


@pytest.mark.parametrize("name", ["nope:f", "json:nope", "json", "json:__name__"])
def test_a_name_that_is_no_function_is_refused(name: str) -> None:
    with pytest.raises(UsageError, match=f"--metric {name}"):
        metric(name)
