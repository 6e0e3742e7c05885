"""CSV bodies as AWS's container reads them (contract §1, generation C), and answers written as CSV.

Guarantees: time and memory linear in the body, whatever it holds; a body that is not UTF-8 is the only one refused.
Assumes: a header line is data like any other, because that is what it is to the container.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import orjson
import simdjson

from penstock.errors import InvalidArgument
from penstock.tensors import Array, dtype_of_array

_BOM = b"\xef\xbb\xbf"
#: What JavaScript calls white space: the rule was written in it, and Python's strip() takes more.
_SPACE = (
    "\t\n\v\f\r \xa0\u1680\u2000\u2001\u2002\u2003\u2004\u2005\u2006\u2007\u2008\u2009\u200a\u2028\u2029\u202f\u205f\u3000\ufeff"
)
_NUMBER = re.compile(rf"[{_SPACE}]*(-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?)[{_SPACE}]*")
_OUTSIDE_QUOTES = re.compile(r'[",]')
_INSIDE_QUOTES = re.compile(r'""?')
_NUMERIC_BYTES = b"0123456789+-.eE \t"
#: Above it float64 leaves out integers.
_EXACT = 2.0**53
_MUST_BE_QUOTED = re.compile(rb'[",\r\n]|^\s|\s$')


def csv_to_json(body: bytes) -> bytes:
    """`{"instances": [...]}` with one instance per row: a list of its fields, or the field itself where there is one.

    A field in JSON's form of a number is that number, even in quotes; any other is a string. Blank lines are dropped.
    Quotes work as in RFC 4180, line breaks between them included. Raises InvalidArgument where the body is not UTF-8.
    """
    numeric = _numeric(body)
    if numeric is not None:
        text, columns, _ = numeric
        if columns == 1:
            return b'{"instances":[' + text.replace(b"\n", b",") + b"]}"
        return b'{"instances":[[' + text.replace(b"\n", b"],[") + b"]]}"
    try:
        table = body.removeprefix(_BOM).decode()
    except UnicodeDecodeError as error:
        raise InvalidArgument(f"The CSV body is not UTF-8: byte {error.start} is {body[error.start]:#04x}") from None
    return b'{"instances":[' + b",".join(orjson.dumps(_instance(record)) for record in _records(table)) + b"]}"


def csv_to_array(body: bytes) -> Array | None:
    """The same instances as float64 of shape [rows], or [rows, columns] where there are several columns.

    None where float64 cannot say the same as the JSON: a field that is not a number, rows of different length, integers
    past 2**53, nothing at all. Integers and fractions look alike afterwards (1 and 1.0).
    """
    numeric = _numeric(body)
    if numeric is None:
        return None
    _, columns, values = numeric
    if values.max() >= _EXACT or values.min() <= -_EXACT:
        return None
    return values if columns == 1 else values.reshape(-1, columns)


def array_to_csv(outputs: Mapping[str, Array]) -> bytes:
    """One line per row, the columns of several outputs side by side in the order of their names.

    Rank 0 is one row, rank 1 one column, higher ranks are flattened per row. Numbers have the fewest digits that read
    back as the same value of their dtype, and are NaN, Infinity and -Infinity otherwise; strings are quoted where RFC
    4180 asks for it. Raises InvalidArgument for complex outputs, and for several whose rows do not match.
    """
    columns = [_lines(name, array) for name, array in sorted(outputs.items())]
    if len({len(lines) for lines in columns}) > 1:
        counts = ", ".join(f"{name} has {len(lines)}" for name, lines in zip(sorted(outputs), columns, strict=True))
        raise InvalidArgument(f"text/csv needs outputs with equally many rows: {counts}; ask for application/json")
    lines = columns[0] if len(columns) == 1 else list(map(b",".join, zip(*columns, strict=True)))
    return b"\n".join([*lines, b""])


def _numeric(body: bytes) -> tuple[bytes, int, Array] | None:
    """The rows with `\\n` between them, the number of columns, and all values in order, if all are numbers.

    JSON's numbers are the rule's numbers, so its parser decides: 3.7 ms for 150,528 of them (2.9 MB), where loadtxt
    takes 20, and fromstring 21 and reads NaN, `+1` and `1.` too. What is left without the numbers shows the shape.
    """
    text = body.removeprefix(_BOM).strip().replace(b"\r\n", b"\n")
    separators = text.translate(None, _NUMERIC_BYTES) + b"\n"
    columns = separators.index(b"\n") + 1
    if separators != (b"," * (columns - 1) + b"\n") * (len(separators) // columns):
        return None
    try:
        document: Any = simdjson.Parser().parse(b"[" + text.replace(b"\n", b",") + b"]")
    except (ValueError, RuntimeError):  # the latter for integers past 64 bits
        return None
    array = np.frombuffer(document.as_buffer(of_type="d"), np.float64)
    return (text, columns, array) if len(array) else None


def _records(table: str) -> Iterator[str]:
    """The rows that are not blank, trimmed. A field that begins with a quote may go on in the next lines.

    A quote that nothing closes ends with its line, as every quote does in AWS's container.
    """
    opened: list[str] = []
    for line in table.strip(_SPACE).replace("\r\n", "\n").split("\n"):
        unbalanced = line.count('"') % 2 == 1
        if opened:
            opened.append(line)
            if not unbalanced:
                continue
            record, opened = "\n".join(opened), []
        elif unbalanced and _fields(line)[1]:
            opened = [line]
            continue
        else:
            record = line
        if trimmed := record.strip(_SPACE):
            yield trimmed
    yield from filter(None, (line.strip(_SPACE) for line in opened))


def _fields(record: str) -> tuple[list[str], bool]:
    """The fields without their quotes, and whether the last one began with a quote that is still open."""
    fields: list[str] = []
    parts: list[str] = []
    quoted = whole = False
    # Whether there is nothing but white space in the field so far.
    blank = True
    at = 0
    while mark := (_INSIDE_QUOTES if quoted else _OUTSIDE_QUOTES).search(record, at):
        piece = record[at : mark.start()]
        parts.append(piece)
        blank = blank and not piece.strip(_SPACE)
        at = mark.end()
        if mark[0] == ",":
            fields.append("".join(parts))
            parts, blank = [], True
        elif mark[0] == '""':
            parts.append('"')
            blank = False
        else:
            quoted = not quoted
            whole = quoted and blank
    fields.append("".join(parts) + record[at:])
    return fields, quoted and whole


def _instance(record: str) -> Any:
    """The record's values for orjson: numbers with the digits they came with, and text."""
    fields = _fields(record)[0] if '"' in record else record.split(",")
    numbers = map(_NUMBER.fullmatch, fields)
    values = [orjson.Fragment(number[1]) if number else field for field, number in zip(fields, numbers, strict=True)]
    return values[0] if len(values) == 1 else values


def _lines(name: str, array: Array) -> list[bytes]:
    """The rows of one output, each with commas between its columns."""
    rows = array.shape[0] if array.ndim else 1
    table = array.reshape(rows, int(np.prod(array.shape[1:])))
    kind = dtype_of_array(array)
    if kind.is_string:
        return [b",".join(map(_quoted, row)) for row in table.tolist()]
    if array.dtype.kind == "c":
        raise InvalidArgument(f"Output '{name}' is {kind.name}, which text/csv cannot carry")
    if kind.numpy.isbuiltin != 1 or array.dtype == np.float16 or not np.isfinite(array).all():
        # orjson writes NaN as null, knows no ml_dtypes, and half with the digits of float.
        return [",".join(map(_number_text, row)).encode() for row in table]
    if rows == 0:
        return []
    return orjson.dumps(np.ascontiguousarray(table), option=orjson.OPT_SERIALIZE_NUMPY)[2:-2].split(b"],[")


def _number_text(value: object) -> str:
    text = str(value)
    return {"nan": "NaN", "inf": "Infinity", "-inf": "-Infinity"}.get(text, text)


def _quoted(value: bytes | str) -> bytes:
    data = value.encode() if isinstance(value, str) else value
    return b'"' + data.replace(b'"', b'""') + b'"' if _MUST_BE_QUOTED.search(data) else data
