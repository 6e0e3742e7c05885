"""How JSON values are named and quoted in error messages."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

QUOTE_LIMIT = 256


def type_name(value: Any) -> str:
    """The JSON type of a parsed value, as RapidJSON names it."""
    if value is None:
        return "Null"
    if isinstance(value, bool):
        return str(value)
    if isinstance(value, (int, float)):
        return "Number"
    if isinstance(value, str):
        return "String"
    return "Array" if isinstance(value, list) else "Object"


def quote(value: Any) -> str:
    """`value` as TensorFlow Serving prints it, indented by four, and cut to `QUOTE_LIMIT` characters.

    Time and recursion are bounded whatever the value: each level writes its indentation before the next is entered.
    """
    if isinstance(value, float):
        return _decimal(value)
    pieces: list[str] = []
    length = 0
    for piece in _pieces(value, "\n"):
        pieces.append(piece)
        length += len(piece)
        if length > QUOTE_LIMIT:
            return "".join(pieces)[: QUOTE_LIMIT - 3] + "..."
    return "".join(pieces)


def printable(text: str) -> str:
    """`text` with U+FFFD for what came from bytes that are not UTF-8 (lone surrogates)."""
    return text.encode("utf-8", "surrogateescape").decode("utf-8", "replace")


def _pieces(value: Any, newline: str) -> Iterator[str]:
    if isinstance(value, str):
        yield json.dumps(printable(value[: QUOTE_LIMIT + 1]), ensure_ascii=False)
    elif not isinstance(value, (list, dict)):
        yield json.dumps(value)
    elif not value:
        yield "[]" if isinstance(value, list) else "{}"
    elif isinstance(value, list):
        separator = "["
        for element in value:
            yield separator + newline + "    "
            yield from _pieces(element, newline + "    ")
            separator = ","
        yield newline + "]"
    else:
        separator = "{"
        for name, member in value.items():
            yield separator + newline + "    "
            yield from _pieces(name, newline)
            yield ": "
            yield from _pieces(member, newline + "    ")
            separator = ","
        yield newline + "}"


def _decimal(value: float) -> str:
    """Six significant digits if they are enough; a whole number keeps its `.0`."""
    if value != value or value in (float("inf"), float("-inf")):
        return json.dumps(value)
    text = f"{value:.6g}"
    if float(text) != value:
        text = f"{value:.17g}"
    return text if "." in text or "e" in text else text + ".0"
