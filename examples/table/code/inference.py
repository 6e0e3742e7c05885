"""A table of customers in, a table of predictions out; both are CSV with a header line.

The columns age, income, visits, city and plan may come in any order, others are passed over. A cell may be empty: a
number that is missing is replaced by a usual one, and the network is told so; a city or plan that is not known is one
of its own kind.
"""

from __future__ import annotations

import csv
import io
import math
from typing import Any

import numpy as np

from penstock.errors import InvalidArgument

#: Each number: its usual value, and by how much it usually differs from that.
_NUMBERS = {"age": (42.0, 15.0), "income": (35_000.0, 20_000.0), "visits": (12.0, 10.0)}
_FARTHEST = 10.0
_CITIES = ("berlin", "lagos", "lima", "osaka", "turin")
_PLANS = ("free", "basic", "family")
_COLUMNS = (*_NUMBERS, "city", "plan")


def input_handler(data: Any, context: Any) -> dict[str, np.ndarray[Any, Any]]:
    """The rows as arrays: numbers and known [n, 3], city and plan [n]. Raises InvalidArgument, which names the line."""
    lines = _lines(data.read())
    numbers = [[_number(row, name, line) for name in _NUMBERS] for line, row in lines]
    values = np.array(numbers, np.float64)
    usual, spread = np.array(list(_NUMBERS.values())).T
    return {
        "numbers": np.nan_to_num(np.clip((values - usual) / spread, -_FARTHEST, _FARTHEST)).astype(np.float32),
        "known": (~np.isnan(values)).astype(np.float32),
        "city": np.array([_kind(row["city"], _CITIES) for _, row in lines], np.int32),
        "plan": np.array([_kind(row["plan"], _PLANS) for _, row in lines], np.int32),
    }


def output_handler(response: Any, context: Any) -> tuple[str, str]:
    """A line for each customer, in their order: the chance that they leave, and what they will spend."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(("leaves", "spends"))
    leaves, spends = response.arrays["leaves"][:, 0], response.arrays["spends"][:, 0]
    writer.writerows((f"{chance:.4f}", f"{amount:.2f}") for chance, amount in zip(leaves, spends, strict=True))
    return text.getvalue(), "text/csv"


def _lines(body: bytes) -> list[tuple[int, dict[str, str]]]:
    """Each row with the number of its line. A row may be short, but not long."""
    try:
        reader = csv.DictReader(io.StringIO(body.decode("utf-8-sig"), newline=""), restval="", strict=True)
        missing = [name for name in _COLUMNS if name not in (reader.fieldnames or ())]
        if missing:
            raise InvalidArgument(f"the header line lacks {', '.join(missing)}")
        lines = [(reader.line_num, row) for row in reader]
    except (UnicodeDecodeError, csv.Error) as error:
        raise InvalidArgument(f"the body is not CSV in UTF-8: {error}") from error
    if not lines:
        raise InvalidArgument("there is no row below the header line")
    for line, row in lines:
        if None in row:
            raise InvalidArgument(f"line {line} has more cells than the header line")
    return lines


def _number(row: dict[str, str], name: str, line: int) -> float:
    """The number in a cell, NaN for an empty one."""
    text = row[name].strip()
    if not text:
        return math.nan
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise InvalidArgument(f"line {line}, column {name}: expected a number, not {text!r}")
    return value


def _kind(text: str, known: tuple[str, ...]) -> int:
    """Its place among those known, from 1; 0 for others and for none."""
    name = text.strip().lower()
    return known.index(name) + 1 if name in known else 0
