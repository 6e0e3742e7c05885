"""What a race is run with: rows that TensorFlow answers."""

from __future__ import annotations

from pathlib import Path
from types import TracebackType
from typing import Any, cast

import numpy as np
import pytest

from penstock.errors import FailedPrecondition
from penstock.optimize.proof import Case
from penstock.optimize.racing import _batches
from penstock.optimize.subject import Subject
from penstock.tensors import Signature, TensorSpec, dtype_of_name

INT32 = dtype_of_name("int32")
SIGNATURE = Signature("s", {"day": TensorSpec("day", INT32, (None,))}, {"hours": TensorSpec("hours", INT32, (None,))})


class Runner:
    """Answers to whatever it is asked, in a millisecond."""

    def __enter__(self) -> Runner:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        pass

    def call(self, method: str, *_arguments: Any, timeout_s: float) -> Any:
        return ([0.001], 1000.0) if method == "time" else None


class FakeSubject:
    raced = SIGNATURE
    version = Path("m/1")

    def runner(self, *_: Any) -> Runner:
        return Runner()


SUBJECT = cast(Subject, FakeSubject())


def test_where_all_usual_inputs_were_refused_the_others_are_raced() -> None:
    """A table of seven days refuses most numbers that are made up."""
    zeros = Case("s", {"day": np.zeros(2, np.int32)}, "zeros", is_edge=True)
    batches, slices_s = _batches(SUBJECT, [zeros])
    assert {rows: batch["day"].tolist() for rows, batch in batches.items()} == {rows: [0] * rows for rows in (1, 4, 16, 64)}
    assert slices_s.keys() == batches.keys()


def test_where_nothing_was_answered_samples_are_asked_for() -> None:
    with pytest.raises(FailedPrecondition, match="m/1: no input of signature s that can be raced; give --samples"):
        _batches(SUBJECT, [])
