"""The tokens of JSON as RapidJSON reads them: their patterns, their values, and what is wrong with a broken one.

Guarantees: every fault is an InvalidArgument with RapidJSON's text and its offset in bytes. Text that is not UTF-8
becomes lone surrogates (`surrogateescape`), so that a string keeps its bytes; escaped lone surrogates are faults.
"""

from __future__ import annotations

import re
from typing import Any

from penstock.errors import InvalidArgument

_DIGITS = rb"[0-9]+(?![0-9])"
_EXPONENT = rb"[eE][+-]?" + _DIGITS
_NUMBER = rb"-?(?:0|[1-9][0-9]*(?![0-9]))(?:\." + _DIGITS + rb"(?:" + _EXPONENT + rb"|(?![eE]))|" + _EXPONENT + rb"|(?![.eE]))"
_STRING = rb'"[^"\\\x00-\x1f]*(?:\\.[^"\\\x00-\x1f]*)*"'
_WORD = rb"true|false|null|-?NaN|-?Inf(?:inity|(?!i))"
TOKEN = re.compile(rb"[ \t\n\r]*(?:(" + _NUMBER + rb")|(" + _STRING + rb")|(" + _WORD + rb")|([\[\]{},:]))", re.DOTALL)
NUMBER_RUN = re.compile(rb"(?:[ \t\n\r]*" + _NUMBER + rb"[ \t\n\r]*,){1,1000}")  # ten times as quick as single tokens
NUMBER_TOKEN, STRING_TOKEN, WORD_TOKEN, PUNCTUATION_TOKEN = 1, 2, 3, 4

SPACE = re.compile(rb"[ \t\n\r]*")
_STRING_START = re.compile(rb'"[^"\\\x00-\x1f]*(?:\\.[^"\\\x00-\x1f]*)*', re.DOTALL)
_NUMBER_START = re.compile(rb"-?(?:(0|[1-9][0-9]*)(?:\.([0-9]*))?(?:([eE])[+-]?)?)?")
_ESCAPE = re.compile(
    rb'\\(?:(["\\/bfnrt])|u([dD][89abAB][0-9a-fA-F]{2})\\u([dD][c-fC-F][0-9a-fA-F]{2})|u(?![dD][89a-fA-F])([0-9a-fA-F]{4}))'
)
_HEX_ESCAPE = re.compile(rb"\\u[0-9a-fA-F]{4}")

_PLAIN_ESCAPES = {b"b": "\b", b"f": "\f", b"n": "\n", b"r": "\r", b"t": "\t"}
_WORDS = (b"true", b"false", b"null", b"NaN", b"Infinity", b"-NaN", b"-Infinity")
_WORD_VALUES: dict[bytes, Any] = {b"true": True, b"false": False, b"null": None}


def parse_error(text: str, offset: int) -> InvalidArgument:
    """The error of a body that is no JSON."""
    return InvalidArgument(f"JSON Parse error: {text} at offset: {offset}")


def integer(token: str) -> int | float:
    """The number of an integer token: an int if it fits 64 bits, signed or not, and else a float."""
    if len(token) <= 20:  # int() of a million digits would take minutes
        value = int(token)
        if -(2**63) <= value < 2**64:
            return value
    return float(token)


def number(token: bytes) -> int | float:
    return integer(token.decode()) if token.isdigit() or token[1:].isdigit() else float(token)


def word(token: bytes) -> Any:
    return _WORD_VALUES[token] if token in _WORD_VALUES else float(token)


def text(body: bytes, start: int, end: int) -> str:
    """The string whose text between the quotes is `body[start:end]`."""
    slash = body.find(b"\\", start, end)
    if slash < 0:
        return body[start:end].decode("utf-8", "surrogateescape")
    pieces: list[bytes] = []
    while slash >= 0:
        pieces.append(body[start:slash])
        escape = _ESCAPE.match(body, slash, end)
        if escape is None:
            raise _escape_fault(body, slash)
        pieces.append(_unescaped(escape).encode())
        start = escape.end()
        slash = body.find(b"\\", start, end)
    pieces.append(body[start:end])
    return b"".join(pieces).decode("utf-8", "surrogateescape")


def _unescaped(escape: re.Match[bytes]) -> str:
    plain, high, low, code = escape.groups()
    if plain:
        return _PLAIN_ESCAPES.get(plain) or plain.decode()
    if code:
        return chr(int(code, 16))
    return chr(0x10000 + ((int(high, 16) - 0xD800) << 10) + int(low, 16) - 0xDC00)


def _escape_fault(body: bytes, at: int) -> InvalidArgument:
    if body[at + 1 : at + 2] != b"u":
        return parse_error("Invalid escape character in string.", at)
    if _HEX_ESCAPE.match(body, at):
        return parse_error("The surrogate pair in string is invalid.", at)
    return parse_error("Incorrect hex digit after \\u escape in string.", at)


def value_fault(body: bytes, at: int) -> InvalidArgument:
    """What is wrong with the value that starts at `at`, where no token does."""
    char = body[at : at + 1]
    if char == b'"':
        return string_fault(body, at)
    if char in b"-0123456789" and body[at + 1 : at + 2] not in (b"N", b"I"):
        return _number_fault(body, at)
    matched = max(_common_length(body, at, each) for each in _WORDS)
    return parse_error("Invalid value.", at + matched)


def string_fault(body: bytes, at: int) -> InvalidArgument:
    start = _STRING_START.match(body, at)
    end = start.end() if start else at
    text(body, at + 1, end)  # an escape before the end is the first fault
    if body[end : end + 1] == b"\\":
        return _escape_fault(body, end)
    if body[end : end + 1] in (b"", b"\0"):
        return parse_error("Missing a closing quotation mark in string.", end)
    return parse_error("Invalid encoding in string.", end)


def _number_fault(body: bytes, at: int) -> InvalidArgument:
    start = _NUMBER_START.match(body, at)
    if start is None or start[1] is None:
        return parse_error("Invalid value.", at + 1)
    if start[2] == b"":
        return parse_error("Miss fraction part in number.", start.end(2))
    return parse_error("Miss exponent in number.", start.end())


def _common_length(body: bytes, at: int, word: bytes) -> int:
    """How many bytes of `word` stand at `at`."""
    length = 0
    while length < len(word) and body[at + length : at + length + 1] == word[length : length + 1]:
        length += 1
    return length
