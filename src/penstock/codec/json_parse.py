"""A request's body as JSON: quickly where it is strict JSON, and otherwise by what TensorFlow Serving accepts.

TensorFlow Serving takes more than the standard: NaN and infinities, bytes after the first value, numbers of any size,
strings that are not UTF-8, nesting of any depth (contract §1.3). simdjson refuses all of it, which costs these bodies
a second look and no others.
"""

from __future__ import annotations

import json
import re
from typing import Any

import simdjson

from penstock.codec import json_scan, json_tokens
from penstock.errors import InvalidArgument

#: simdjson keeps about 14 bytes per byte of the largest body it has read. Larger bodies get a parser of their own, and
#: their memory goes back with it (11 MB: 19 ms instead of 10).
SHARED_PARSER_BYTES = 4 << 20

#: Above this, a fault is reported as the standard library sees it.
EXACT_FAULT_BYTES = 2 << 20

_SURROGATE_ESCAPE = re.compile(rb"\\u[dD][89a-fA-F]")
_SPACE = re.compile(r"\ufeff?[ \t\n\r]*")

_parser = simdjson.Parser()


def parse_strict(body: bytes) -> Any:
    """The simdjson.Object of a strictly valid body; None if `body` is anything else. Raises nothing.

    A document that is still referenced when the next body comes, say by the traceback of an error, keeps its parser,
    and the next body gets a new one.
    """
    global _parser
    parser = _parser if len(body) <= SHARED_PARSER_BYTES else simdjson.Parser()
    try:
        document = parser.parse(body)
    except ValueError:
        return None
    except RuntimeError:  # nested too deep, or the parser is in use
        parser = simdjson.Parser()
        if len(body) <= SHARED_PARSER_BYTES:
            _parser = parser
        try:
            document = parser.parse(body)
        except (ValueError, RuntimeError):
            return None
    return document if type(document) is simdjson.Object else None


def parse_lenient(body: bytes) -> Any:
    """The first JSON value of `body`, built of Python objects. Raises InvalidArgument with RapidJSON's words.

    Of members with the same name the first counts. Bytes that are not UTF-8 become lone surrogates (`surrogateescape`).
    """
    if not body:
        raise InvalidArgument("JSON Parse error: The document is empty")
    # Python would take escaped halves of surrogate pairs, and they would be mistaken for bytes that are not UTF-8.
    if _SURROGATE_ESCAPE.search(body):
        return _scan(body, 0)
    text = body.decode("utf-8", "surrogateescape")
    space = _SPACE.match(text)
    try:
        return _DECODER.raw_decode(text, space.end() if space else 0)[0]
    except json.JSONDecodeError as error:
        offset = error.pos
    except RecursionError:
        offset = 0
    return _scan(body, offset)


def tree_of(document: Any, body: bytes) -> Any:
    """The Python objects of a document that parse_strict made of `body`."""
    if _repeats_names(document):
        return parse_lenient(body)  # simdjson would take the last of them
    return document.as_dict()


def parse_tree(body: bytes) -> Any:
    """The Python objects of a body, by the quickest way that can read it. Raises InvalidArgument."""
    document = parse_strict(body)
    return parse_lenient(body) if document is None else tree_of(document, body)


def _repeats_names(document: Any) -> bool:
    names = list(document)
    if len(set(names)) != len(names):
        return True
    return any(map(_holds_repeated, (document[name] for name in names)))


def _holds_repeated(member: Any) -> bool:
    """Of an object, or of the objects of a list: rows."""
    if type(member) is simdjson.Object:
        return len(set(member)) != len(member)
    if type(member) is not simdjson.Array or not len(member):
        return False
    first: Any = member[0]
    if type(first) is not simdjson.Object:
        return False
    return any(len(set(row)) != len(row) for row in member if type(row) is simdjson.Object)


def _scan(body: bytes, offset: int) -> Any:
    if len(body) > EXACT_FAULT_BYTES:
        raise json_tokens.parse_error(json_scan.TOO_MUCH, offset)
    return json_scan.scan(body)


def _first_of_each(members: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(members)
    return found if len(found) == len(members) else dict(reversed(members))


_DECODER = json.JSONDecoder(parse_int=json_tokens.integer, object_pairs_hook=_first_of_each)
