"""A JSON parser that reports what RapidJSON would, where it would.

It reads what the quick parsers refuse: nesting of any depth, the tokens `Inf` and `-NaN`, and faults. It stops after
the first value and ignores what follows, like TensorFlow Serving (contract §1.3). It does not recurse, and needs one
byte per level of nesting. What lies deeper than `MAX_DEPTH` is checked and dropped: no request has a meaning there.
"""

from __future__ import annotations

import json
import re
from typing import Any

from penstock.codec import json_tokens as tokens
from penstock.errors import InvalidArgument

MAX_DEPTH = 512
#: Tokens that are taken one by one, runs of numbers and of brackets as one: each costs 1.5 µs, and the other requests of this
#: gateway wait meanwhile.
MAX_TOKENS = 200_000
TOO_MUCH = "Invalid value, or nested too deep for a body of this size."

# What may come next, and the fault if something else does. The first four expect a value, the next two a name.
_START, _FIRST_ELEMENT, _ELEMENT, _MEMBER_VALUE, _FIRST_MEMBER, _MEMBER, _AFTER_NAME, _AFTER_ELEMENT, _AFTER_MEMBER = range(9)
_FAULTS = (
    "The document is empty.",
    "Invalid value.",
    "Invalid value.",
    "Invalid value.",
    "Missing a name for object member.",
    "Missing a name for object member.",
    "Missing a colon after a name of object member.",
    "Missing a comma or ] after an array element.",
    "Missing a comma or } after an object member.",
)
_OPEN_LIST = ord("[")
_OPENINGS, _CLOSINGS = re.compile(rb"\[+"), re.compile(rb"\]+")


def scan(body: bytes) -> Any:
    """The first JSON value of `body`: dict, list, str, int, float, bool or None. Raises InvalidArgument."""
    return _Scanner(body).value()


class _Scanner:
    """One pass over a body. `_kinds` has the bracket of each open container, `_open` the containers that are kept."""

    __slots__ = ("_body", "_kinds", "_name", "_open", "_root")

    def __init__(self, body: bytes) -> None:
        self._body = body
        self._kinds = bytearray()
        self._open: list[Any] = []
        self._name = ""
        self._root: Any = None

    def value(self) -> Any:
        body, state = self._body, _START
        at = 3 if body.startswith(b"\xef\xbb\xbf") else 0
        for _ in range(MAX_TOKENS):
            if state in (_FIRST_ELEMENT, _ELEMENT):
                run = tokens.NUMBER_RUN.match(body, at)
                if run is not None:
                    at, state = run.end(), _ELEMENT
                    self._extend(run[0])
            if len(self._kinds) > MAX_DEPTH:
                at, state = self._run_of_brackets(at, state)
            token = tokens.TOKEN.match(body, at)
            if token is None:
                raise _fault(body, at, state)
            at = token.end()
            following = self._take(token, state)
            if following is None:
                raise tokens.parse_error(_FAULTS[state], token.start(token.lastindex or 0))
            if following == _START:
                return self._root
            state = following
        raise tokens.parse_error(TOO_MUCH, at)

    def _run_of_brackets(self, at: int, state: int) -> tuple[int, int]:
        """Takes lists that open or close in lists of which nothing is kept, many at a time: a million are milliseconds."""
        body, kinds = self._body, self._kinds
        if state in (_FIRST_ELEMENT, _ELEMENT, _MEMBER_VALUE) and (run := _OPENINGS.match(body, at)):
            kinds += run[0]
            return run.end(), _FIRST_ELEMENT
        if state in (_FIRST_ELEMENT, _AFTER_ELEMENT) and (run := _CLOSINGS.match(body, at)):
            last = min(run.end(), at + len(kinds) - MAX_DEPTH)
            while at < last and kinds[-1] == _OPEN_LIST:
                kinds.pop()
                at += 1
            return at, self._after_value()
        return at, state

    def _take(self, token: re.Match[bytes], state: int) -> int | None:
        """The state after `token`: START once the value is complete, None if the token does not fit."""
        kind = token.lastindex
        if state <= _MEMBER_VALUE:
            if kind == tokens.NUMBER_TOKEN:
                return self._attach(tokens.number(token[tokens.NUMBER_TOKEN]))
            if kind == tokens.STRING_TOKEN:
                return self._attach(tokens.text(self._body, token.start(tokens.STRING_TOKEN) + 1, token.end() - 1))
            if kind == tokens.WORD_TOKEN:
                return self._attach(tokens.word(token[tokens.WORD_TOKEN]))
        elif state <= _MEMBER and kind == tokens.STRING_TOKEN:
            self._name = tokens.text(self._body, token.start(tokens.STRING_TOKEN) + 1, token.end() - 1)
            return _AFTER_NAME
        return self._punctuation(token[kind], state) if kind == tokens.PUNCTUATION_TOKEN else None

    def _punctuation(self, char: bytes, state: int) -> int | None:
        if state <= _MEMBER_VALUE:
            if char in b"[{":
                return self._enter(char)
            return self._leave() if char == b"]" and state == _FIRST_ELEMENT else None
        if state == _AFTER_ELEMENT:
            return _ELEMENT if char == b"," else self._leave() if char == b"]" else None
        if state == _AFTER_MEMBER:
            return _MEMBER if char == b"," else self._leave() if char == b"}" else None
        if state == _AFTER_NAME:
            return _MEMBER_VALUE if char == b":" else None
        return self._leave() if char == b"}" and state == _FIRST_MEMBER else None

    def _enter(self, bracket: bytes) -> int:
        if len(self._kinds) < MAX_DEPTH:
            container: Any = [] if bracket == b"[" else {}
            self._attach(container)
            self._open.append(container)
        self._kinds += bracket
        return _FIRST_ELEMENT if bracket == b"[" else _FIRST_MEMBER

    def _leave(self) -> int:
        self._kinds.pop()
        if len(self._kinds) < MAX_DEPTH:
            self._open.pop()
        return self._after_value()

    def _attach(self, value: Any) -> int:
        if not self._kinds:
            self._root = value
        elif len(self._kinds) <= MAX_DEPTH:
            container = self._open[-1]
            if type(container) is list:
                container.append(value)
            else:
                container.setdefault(self._name, value)
        return self._after_value()

    def _extend(self, run: bytes) -> None:
        if len(self._kinds) <= MAX_DEPTH:
            self._open[-1].extend(_RUN_DECODER.decode(f"[{run.decode()[:-1]}]"))

    def _after_value(self) -> int:
        if not self._kinds:
            return _START
        return _AFTER_ELEMENT if self._kinds[-1] == _OPEN_LIST else _AFTER_MEMBER


def _fault(body: bytes, at: int, state: int) -> InvalidArgument:
    """Why no token starts at `at`."""
    space = tokens.SPACE.match(body, at)
    at = space.end() if space else at
    char = body[at : at + 1]
    if char not in (b"", b"\0"):
        if state <= _MEMBER_VALUE:
            return tokens.value_fault(body, at)
        if state <= _MEMBER and char == b'"':
            return tokens.string_fault(body, at)
    return tokens.parse_error(_FAULTS[state], at)


_RUN_DECODER = json.JSONDecoder(parse_int=tokens.integer)
